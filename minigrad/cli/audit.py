"""`python -m minigrad audit`: compare a classifier's gradient with the change of its real loss, on some of your records."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.audit import audit
from minigrad.audit_report import AuditError
from minigrad.cli._options import add_format
from minigrad.data import LabelMap, Record, Tokenizer, read_records
from minigrad.errors import ArgumentError
from minigrad.io import find_checkpoint
from minigrad.models.auto import check_length, load
from minigrad.train.tasks import Task, task_of

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
    directory = find_checkpoint(options.model)
    model, task = _classifier(directory, options.layers, records)
    check_length(model, options.max_length)
    chosen = records[: options.records]
    examples = task.examples(Tokenizer.from_pretrained(directory), chosen, options.max_length)
    batch = examples.loader.batch(np.arange(len(chosen)))
    inputs = {"input_ids": batch.tokens, "labels": batch.labels}
    model.train(not options.no_dropout)
    try:
        found, status = audit(model, inputs, seed=options.seed, progress=partial(tqdm, disable=None)), 0
    except AuditError as error:
        found, status = error.audit, 1
    print(found)
    print(f"loss {found.loss:.6f} on {len(chosen)} records of {options.data}: {'FAILED' if status else 'passed'}")
    return status


def _classifier(directory: Path, layers: int | None, records: list[Record]) -> tuple[Any, Task]:
    """The model with its own labels if they cover the file's, else with a new head for the file's labels."""
    kind = "sequence-classification"
    model = load(directory, kind, num_hidden_layers=layers)
    own = LabelMap(tuple(model.config.id2label[i] for i in range(model.config.num_labels)))
    if set(LabelMap.from_records(records).names) <= set(own.names):
        return model, task_of(kind, labels=own)
    task = task_of(kind, records)
    assert task.labels is not None  # of classes
    print(f"the file's labels are not the model's: a new head for {', '.join(task.labels.names)}", file=sys.stderr)
    return load(directory, kind, num_hidden_layers=layers, **task.options()), task
