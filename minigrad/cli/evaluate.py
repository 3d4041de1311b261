"""`python -m minigrad evaluate`: score a trained model on a file of labelled records."""

from __future__ import annotations

import argparse
import json
import sys

from minigrad.cli._options import add_device, add_reading, add_workers, output_file, reading, writing
from minigrad.data import Tokenizer, read_records
from minigrad.files import write_text
from minigrad.io import find_checkpoint
from minigrad.models.auto import check_length, load, max_tokens
from minigrad.train.not_finite import named
from minigrad.train.predictions import check_column, grouped, write_predictions
from minigrad.train.run import config_of_best
from minigrad.train.tasks import TokenClassification, task_of_model

DESCRIPTION = "Prints the figures of a model with a head for sequence or token classification, and on request writes a row for each record."
STATUS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="DIR", help="a model directory (such as the best/ of a run), or a Hugging Face id")
    parser.add_argument("data", metavar="FILE", help="records with labels or entities")
    add_reading(parser, label_separator=",")
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="cut longer texts, or the size of windows (default: as in the run whose best/ it is, or what the model reads, at most 512)",
    )
    parser.add_argument(
        "--group", metavar="COLUMN", help="write this column into the predictions, so that report and compare can group by it"
    )
    parser.add_argument("--predictions", metavar="FILE.jsonl", help="write a row for each record; the file appears whole or not at all")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    add_device(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> int:
    rows = output_file("--predictions", options.predictions, options.data)
    figures = output_file("--json", options.json, options.data)
    directory = find_checkpoint(options.model)
    model, tokenizer = load(directory).to(options.device), Tokenizer.from_pretrained(directory)
    task = task_of_model(model, options.label_separator)
    task.workers, task.progress = options.workers, True
    records = read_records(options.data, **reading(options) | {"label_separator": task.label_separator})
    check_column(records, options.group)
    max_length = options.max_length
    if max_length is None and (config := config_of_best(directory)) is not None:  # so that the scores are those of the run
        max_length = config.data.max_length
        if isinstance(task, TokenClassification):
            task.stride = config.data.stride
    elif max_length is None:
        max_length = min(512, max_tokens(model.config))
    check_length(model, max_length)
    examples = task.examples(tokenizer, records, max_length)
    if examples.truncated:
        cut = f"{examples.truncated} of {len(records)} texts have more than {max_length} tokens and are cut (--max-length)"
        print(f"minigrad evaluate: note: {cut}", file=sys.stderr)
    evaluation = task.evaluate(model, examples)
    for name, value in evaluation.metrics.items():
        print(f"{name:<20}{value:.4f}")
    if rows is not None:
        with writing(rows):
            write_predictions(rows, grouped(evaluation, examples, options.group))
    if figures is not None:
        with writing(figures):
            write_text(figures, json.dumps(named(evaluation.metrics), indent=2) + "\n")
    return 0
