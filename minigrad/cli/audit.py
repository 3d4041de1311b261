"""`python -m minigrad audit`: a classifier's gradient against the change of its real loss, on some of your records."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from minigrad.audit import audit
from minigrad.audit_report import Audit, AuditError
from minigrad.cli._options import add_format
from minigrad.data import LabelMap, PackedTokens, Record, Tokenizer, read_records
from minigrad.errors import ArgumentError
from minigrad.io import find_checkpoint
from minigrad.models import BertForSequenceClassification
from minigrad.models.auto import check_length

DESCRIPTION = (
    "Compares the gradient of each parameter of a classifier, in float64, with the change of the real loss on the first "
    "records of a file; prints a table."
)
STATUS = "A parameter that fails is something wrong."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory, a Hugging Face id, or a named checkpoint")
    parser.add_argument("--data", required=True, metavar="FILE", help=".tsv, .csv or .jsonl with columns text and label")
    add_format(parser)
    parser.add_argument("--records", type=int, default=8, metavar="N", help="how many records make the batch (default 8)")
    parser.add_argument("--max-length", type=int, default=64, metavar="TOKENS", help="longer texts are cut (default 64)")
    parser.add_argument("--layers", type=int, metavar="N", help="keep only the first N encoder layers")
    parser.add_argument("--no-dropout", action="store_true", help="audit in evaluation mode (dropout is on otherwise)")
    parser.add_argument("--seed", type=int, default=0, help="of the directions and the dropout (default 0)")


def run(options: argparse.Namespace) -> int:
    if options.records < 1:
        raise ArgumentError(f"--records must be at least 1, got {options.records}")
    from tqdm import tqdm

    records = read_records(options.data, format=options.format, encoding=options.encoding)
    model, labels = _classifier(options, records)
    check_length(model, options.max_length)
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
