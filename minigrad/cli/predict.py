"""`python -m minigrad predict`: run a pipeline on texts from the command line or a file; prints a JSON object for each."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any

import numpy as np

from minigrad.cli._options import add_device, add_format, add_workers, output_file, writing
from minigrad.data.readers import iter_records
from minigrad.data.records import Record
from minigrad.errors import ArgumentError, DataError, InputError
from minigrad.files import parse_json, quoted, replacing, surrogate_at
from minigrad.models.auto import check_length
from minigrad.pipeline import TASKS, pipeline
from minigrad.pipeline.entities import STRATEGIES

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
    texts.add_argument(
        "--data",
        metavar="FILE",
        help="records with a text; - reads standard input: a text a line, or with --format jsonl an object with a text a line",
    )
    parser.add_argument("--text-column", metavar="COLUMN", help="of the data: the column or key of the text (text)")
    parser.add_argument("--text-b-column", metavar="COLUMN", help="of the data: the column or key of the second text of pairs (text_b)")
    add_format(parser)
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
    add_device(parser)
    add_workers(parser)


def run(options: argparse.Namespace) -> int:
    for name, task in (("question", "question-answering"), ("source", "sentence-similarity"), ("text_b_column", "text-classification")):
        if getattr(options, name) is not None and options.task != task:
            raise ArgumentError(f"{_option(name)} belongs to --task {task}")
    if options.task == "sentence-similarity" and options.source is None:
        raise ArgumentError("--task sentence-similarity needs --source, the text to compare with")
    for name in ("text", "question", "source"):
        _check_characters(name, getattr(options, name) or ())
    _check_source(options)
    output = output_file("--output", options.output, *_inputs(options))
    if output is not None and output.suffix.lower() != ".jsonl":
        raise ArgumentError(f"--output must end in .jsonl, as JSON lines are what is written, got {quoted(output.name)}")
    # Counted before a model is loaded: an unreadable file is refused at once, and progress can say how long the rest will take.
    total = 0 if options.data == "-" else sum(1 for _ in _records(options))
    records = _records(options)
    first = next(records, None)
    if first is None:
        raise DataError("<stdin>", "holds no texts", code="empty-file")
    if options.task == "question-answering":
        _questions(options.question, [first])
    own = _options(options)
    predict = pipeline(options.task, options.model, max_length=options.max_length, workers=options.workers, device=options.device, **own)
    if options.max_length is not None:
        check_length(predict.model, options.max_length)
    # Escape letters that standard output cannot encode: it would replace them and change the text.
    escaped = output is None and "utf" not in (sys.stdout.encoding or "").lower()
    inputs = _Inputs(chain([first], records), total, options.task == "text-classification")
    lines = (_line(text, prediction, escaped) for text, prediction in _predictions(options, predict, inputs))
    if output is None:
        sys.stdout.writelines(lines)
        return 0
    count = 0
    with writing(output), replacing(output) as file:
        for count, line in enumerate(lines, start=1):  # noqa: B007 (the number of the last one is printed)
            file.write(line.encode("utf-8"))
    print(f"{count} predictions in {output}", file=sys.stderr)
    return 0


def _inputs(options: argparse.Namespace) -> list[str]:
    """The files that are read, which may include standard input."""
    return [] if options.data is None else ["/dev/stdin" if options.data == "-" else options.data]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_source(options: argparse.Namespace) -> None:
    """Raises: ArgumentError for options on how to read a file, if none is read."""
    if options.data == "-" and options.format not in (None, "jsonl"):
        message = "--data - reads a text a line, or with --format jsonl an object a line"
        raise ArgumentError(f"{message}: for {options.format} save it as a file, and name that")
    if options.data in (None, "-"):
        for name in ("text_column", "text_b_column", "encoding", *(["format"] if options.data is None else [])):
            if getattr(options, name) not in (None, "utf-8"):  # the defaults
                raise ArgumentError(f"{_option(name)} belongs to --data FILE")


def _check_characters(name: str, given: str | Sequence[str]) -> None:
    """Raises: ArgumentError for bytes that are not UTF-8, each of which Python represents as a lone surrogate."""
    for text in [given] if isinstance(given, str) else given:
        if (at := surrogate_at(text)) is not None:
            raise ArgumentError(f"--{name}: {quoted(text)} is not UTF-8 from character {at} on")


def _records(options: argparse.Namespace) -> Iterator[Record]:
    """The records to predict, streamed, as a file may be larger than memory. Raises: DataError."""
    if options.text is not None:
        return (Record(text, None, "--text", number, {}) for number, text in enumerate(options.text, start=1))
    if options.data == "-":
        return _lines(sys.stdin.buffer, options.format == "jsonl")
    return iter_records(
        options.data,
        format=options.format,
        encoding=options.encoding,
        text_column=options.text_column,
        text_b_column=options.text_b_column,
        label_separator="\0",  # labels are not looked at, be they one or several
    )


class _Inputs(Iterator[Any]):
    """The inputs of a pipeline from records, one after another. total: their number, 0 if unknown; pairs: include second texts."""

    def __init__(self, records: Iterator[Record], total: int, pairs: bool) -> None:
        self.records, self._total, self._pairs = records, total, pairs
        self.waiting: deque[Record] = deque()
        """The records that were read but have no answer yet."""
        self._answered = 0

    def __next__(self) -> Any:
        record = next(self.records)
        self.waiting.append(record)
        return {"text": record.text, "text_pair": record.text_b} if self._pairs and record.text_b is not None else record.text

    def __length_hint__(self) -> int:
        return self._total

    def answered(self) -> Record:
        """Remove and return the first record without an answer, which has one now."""
        self._answered += 1
        return self.waiting.popleft()

    def number(self, number: int) -> Record:
        """The record that has this number in the pipeline."""
        return self.waiting[number - self._answered]


def _predictions(options: argparse.Namespace, predict: Any, inputs: _Inputs) -> Iterator[tuple[str, Any]]:
    """Each text with its prediction. Tasks that take one text at a time are streamed; the others need all texts at once.

    Raises: DataError naming the place of a text that cannot be used; whatever else the pipeline raises.
    """
    try:
        if options.task == "question-answering":
            inputs.waiting.extend(inputs.records)
            texts = [record.text for record in inputs.waiting]
            yield from zip(texts, predict(_questions(options.question, inputs.waiting), texts), strict=True)
        elif options.task == "sentence-similarity":
            texts = [record.text for record in inputs.records]
            yield from zip(texts, predict(options.source, texts), strict=True)
        else:
            yield from ((inputs.answered().text, prediction) for prediction in predict(inputs))
    except InputError as error:
        record = inputs.number(error.number)
        raise DataError(record.path, f"the {error.name} {error.reason}", line=record.line, code=error.code) from error


def _questions(question: str | None, records: Sequence[Record]) -> list[str]:
    """The question of each record: `question` if given, else that of its column."""
    if question is not None:
        return [question] * len(records)
    questions = [own for record in records if isinstance(own := record.fields.get("question"), str)]
    if len(questions) < len(records):
        raise ArgumentError("--task question-answering needs --question, or --data with a column question")
    return questions


def _lines(stream: IO[bytes], as_json: bool) -> Iterator[Record]:
    """A text for each line of standard input, or the `text` of each line's JSON object. Raises: DataError."""
    for number, raw in enumerate(stream, start=1):
        try:
            text: object = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError("<stdin>", f"not UTF-8 (byte {error.start} of the line)", line=number, code="not-utf8") from None
        fields: dict[str, object] = {"text": text}
        if as_json:
            try:
                fields = parse_json(str(text))
            except ValueError as error:
                raise DataError("<stdin>", f"not valid JSON: {error}", line=number, code="bad-json") from None
            if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
                raise DataError("<stdin>", 'each line must be an object with a string "text"', line=number, code="bad-json")
        text = fields["text"]
        if not isinstance(text, str) or not text.strip():
            raise DataError("<stdin>", "the text is empty; remove the line", line=number, code="empty-text")
        yield Record(text, None, "<stdin>", number, fields)


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
    return json.dumps({"text": text, "prediction": prediction}, ensure_ascii=escaped, allow_nan=False) + "\n"
