"""`python -m minigrad predict`: a pipeline over texts of the command line or of a file, one JSON object for each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from minigrad.data import read_records
from minigrad.errors import ArgumentError, DataError
from minigrad.files import quoted, replacing
from minigrad.pipeline import TASKS, pipeline
from minigrad.pipeline.entities import STRATEGIES

HELP = "run a model on texts"
DESCRIPTION = (
    'Prints one line of JSON for each text: {"text": …, "prediction": …}, the prediction as minigrad.pipeline gives it. Question answering '
    "takes the context as text and the question from --question or a column of that name; sentence similarity compares with --source."
)
STATUS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="DIR", help="a model directory, a Hugging Face id, or a named checkpoint")
    parser.add_argument("--task", required=True, choices=list(TASKS), metavar="TASK", help=f"one of {', '.join(TASKS)}")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", nargs="+", metavar="TEXT", help="one or more texts")
    texts.add_argument("--data", metavar="FILE", help=".tsv, .csv or .jsonl with a column text; - reads standard input, a text a line")
    parser.add_argument("--output", metavar="FILE.jsonl", help="write there instead of printing; the file appears whole or not at all")
    parser.add_argument("--top-k", type=int, metavar="N", help="how many results for each text, where the task has several")
    parser.add_argument("--aggregation", choices=STRATEGIES, help="of token classification (default simple)")
    parser.add_argument("--question", metavar="TEXT", help="of question answering, for every text")
    parser.add_argument("--source", metavar="TEXT", help="of sentence similarity: what the texts are compared with")
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="cut longer texts (they are refused otherwise), or the size of windows where the task reads in windows",
    )


def run(options: argparse.Namespace) -> int:
    texts, questions = _inputs(options)
    output = None if options.output is None else Path(options.output)
    if output is not None and not output.parent.is_dir():
        raise ArgumentError(f"--output: {output.parent} is no directory")
    predict = pipeline(options.task, options.model, max_length=options.max_length, **_options(options))
    match options.task:
        case "question-answering":
            predictions = predict(questions, texts)
        case "sentence-similarity":
            predictions = predict(options.source, texts)
        case _:
            predictions = predict(texts)
    # Escaped where standard output could not take a letter: half of a JSON text is none.
    escaped = output is None and "utf" not in (sys.stdout.encoding or "").lower()
    lines = (_line(text, prediction, escaped) for text, prediction in zip(texts, predictions, strict=True))
    if output is None:
        sys.stdout.writelines(lines)
        return 0
    try:
        with replacing(output) as file:
            file.writelines(line.encode("utf-8") for line in lines)
    except OSError as error:
        raise DataError(output, f"cannot be written: {error.strerror or error}", code="write-failed") from error
    print(f"{len(texts)} predictions in {output}", file=sys.stderr)
    return 0


def _inputs(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Texts, and the question of each where the task has questions."""
    for name, task in (("question", "question-answering"), ("source", "sentence-similarity")):
        if getattr(options, name) is not None and options.task != task:
            raise ArgumentError(f"--{name} belongs to --task {task}")
    if options.task == "sentence-similarity" and options.source is None:
        raise ArgumentError("--task sentence-similarity needs --source, the text to compare with")
    if options.data == "-":
        records, texts = [], _lines(sys.stdin.buffer)
    else:
        records = [] if options.data is None else read_records(options.data)
        texts = [record.text for record in records] or options.text
    if options.task != "question-answering":
        return texts, []
    if options.question is not None:
        return texts, [options.question] * len(texts)
    questions = [question for record in records if isinstance(question := record.fields.get("question"), str)]
    if len(questions) < len(texts):
        raise ArgumentError("--task question-answering needs --question, or --data with a column question")
    return texts, questions


def _lines(stream: IO[bytes]) -> list[str]:
    """A text for each line of standard input. Raises: DataError."""
    texts = []
    for number, raw in enumerate(stream, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError("<stdin>", f"not UTF-8 (byte {error.start} of the line)", line=number, code="not-utf8") from None
        if not text:
            raise DataError("<stdin>", "the text is empty; remove the line", line=number, code="empty-text")
        texts.append(text)
    if not texts:
        raise DataError("<stdin>", "holds no texts", code="empty-file")
    return texts


def _options(options: argparse.Namespace) -> dict[str, Any]:
    """The task's own options."""
    chosen: dict[str, Any] = {}
    if options.top_k is not None:
        if options.task not in ("text-classification", "fill-mask", "question-answering"):
            raise ArgumentError(f"--top-k does not belong to --task {options.task}")
        chosen["top_k"] = options.top_k
    if options.task == "token-classification":
        chosen["aggregation_strategy"] = options.aggregation or "simple"
    elif options.aggregation is not None:
        raise ArgumentError("--aggregation belongs to --task token-classification")
    return chosen


def _line(text: str, prediction: Any, escaped: bool) -> str:
    if isinstance(prediction, np.ndarray):
        prediction = prediction.tolist()
    try:
        return json.dumps({"text": text, "prediction": prediction}, ensure_ascii=escaped, allow_nan=False) + "\n"
    except ValueError:
        message = f"the model's answer to {quoted(text)} is not finite, which JSON cannot say: its weights are broken"
        raise ArgumentError(message, code="non-finite") from None
