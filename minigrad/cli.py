"""The command line: `python -m minigrad COMMAND`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial

from minigrad.audit import audit
from minigrad.audit_report import Audit, AuditError
from minigrad.data import LabelMap, PackedTokens, Record, Tokenizer, read_records
from minigrad.errors import ArgumentError, MinigradError
from minigrad.io import find_checkpoint
from minigrad.models import BertForSequenceClassification

EXIT_STATUS = "Exit status: 0 done, 1 found something wrong, 2 could not be run."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `arguments`: as in sys.argv[1:], which is the default."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # labels and tables hold letters that a terminal may not know
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except MinigradError as error:
        print(f"minigrad {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (`head`) has seen enough; what is left must not be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minigrad", description="minigrad's command line.", epilog=EXIT_STATUS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audited = commands.add_parser(
        "audit",
        help="prove a model's gradient on some of your records",
        description="Compares the gradient of each parameter of a classifier, in float64, with the change of the real loss on the first "
        "records of a file; prints a table.",
        epilog=EXIT_STATUS + " A parameter that fails is something wrong.",
    )
    audited.add_argument("model", metavar="MODEL_DIR", help="a model directory, a Hugging Face id, or a named checkpoint")
    audited.add_argument("--data", required=True, metavar="FILE", help=".tsv, .csv or .jsonl with columns text and label")
    audited.add_argument("--records", type=int, default=8, metavar="N", help="how many records make the batch (default 8)")
    audited.add_argument("--max-length", type=int, default=64, metavar="TOKENS", help="longer texts are cut (default 64)")
    audited.add_argument("--layers", type=int, metavar="N", help="keep only the first N encoder layers")
    audited.add_argument("--no-dropout", action="store_true", help="audit in evaluation mode (dropout is on otherwise)")
    audited.add_argument("--seed", type=int, default=0, help="of the directions and the dropout (default 0)")
    audited.set_defaults(run=_audit)
    return parser


def _audit(options: argparse.Namespace) -> int:
    if options.records < 1:
        raise ArgumentError(f"--records must be at least 1, got {options.records}")
    from tqdm import tqdm

    records = read_records(options.data)
    model, labels = _classifier(options, records)
    batch = records[: options.records]
    encodings = Tokenizer.from_pretrained(find_checkpoint(options.model)).encode(
        [record.text for record in batch], max_length=options.max_length
    )
    inputs = {"input_ids": PackedTokens.of([encoding.ids for encoding in encodings]), "labels": labels.ids(batch)}
    model.train(not options.no_dropout)
    found: Audit
    try:
        found = audit(model, inputs, seed=options.seed, progress=partial(tqdm, disable=None))
        status = 0
    except AuditError as error:
        found, status = error.audit, 1
    print(found)
    print(f"loss {found.loss:.6f} on {len(batch)} records of {options.data}: {'FAILED' if status else 'passed'}")
    return status


def _classifier(options: argparse.Namespace, records: list[Record]) -> tuple[BertForSequenceClassification, LabelMap]:
    """The model with its own labels if the file uses them, else with a new head for the file's labels."""
    model = BertForSequenceClassification.from_pretrained(options.model, num_hidden_layers=options.layers)
    own = LabelMap(tuple(model.config.id2label[i] for i in range(model.config.num_labels)))
    labels = LabelMap.from_records(records)
    if set(labels.names) <= set(own.names):
        return model, own
    print(f"the file's labels are not the model's: a new head for {', '.join(labels.names)}", file=sys.stderr)
    names = dict(enumerate(labels.names))
    return BertForSequenceClassification.from_pretrained(options.model, num_hidden_layers=options.layers, id2label=names), labels
