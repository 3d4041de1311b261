"""Files of predictions, one JSON object per line for each record: a run and `evaluate` write them, the report and `compare` read them.

A row has the model's prediction for a record, and the gold label if it is known. The first row determines the kind of task.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from minigrad.data.records import Record
from minigrad.data.tables import json_objects
from minigrad.data.tagging import parse_tag
from minigrad.errors import ArgumentError, DataError
from minigrad.files import listing, quoted, replacing
from minigrad.train.not_finite import named, number
from minigrad.train.tasks import Evaluation, Examples

TaskName: TypeAlias = Literal["classification", "multi-label classification", "regression", "token classification"]

GOLD: Mapping[TaskName, str] = {
    "classification": "label", "multi-label classification": "labels", "regression": "label", "token classification": "tags",
}  # fmt: skip
PREDICTION: Mapping[TaskName, str] = {
    "classification": "prediction", "multi-label classification": "predictions", "regression": "prediction",
    "token classification": "predicted",
}  # fmt: skip
"""The fields with the gold label and with the prediction."""


# ---------------------------------------------------------------- writing
def check_column(records: Sequence[Record], column: str | None) -> None:
    """Raises: DataError for a record without this column to group by."""
    for record in records:
        if column is not None and column not in record.fields:
            raise DataError(record.path, f"no column {quoted(column)} to group by", line=record.line, code="unknown-column")


def grouped(evaluation: Evaluation, examples: Examples, column: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a file, each with its group: the value of a column of the data (see `check_column`)."""
    for row, record in zip(evaluation.predictions, examples.records, strict=True):
        yield row if column is None else row | {"group": str(record.fields[column])}


def write_predictions(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one row per line; the file is written atomically."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(named(row), ensure_ascii=False).encode("utf-8") + b"\n")


# ---------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file, whose fields are checked when they are read. Raises: DataError (code bad-prediction), naming file and line."""

    path: Path
    line: int
    fields: Mapping[str, Any]
    known_tags: set[str]
    """The valid tags of the file so far: tags repeat, and each is checked once."""

    def error(self, message: str) -> DataError:
        return DataError(self.path, message, line=self.line, code="bad-prediction")

    def task(self) -> TaskName:
        """The kind of task, by the prediction."""
        if "predicted" in self.fields:
            return "token classification"
        if "predictions" in self.fields:
            return "multi-label classification"
        if "prediction" not in self.fields:
            raise self.error(f"a row of predictions has prediction, predictions or predicted; there are {listing(self.fields)}")
        # The string "nan" is a number, unless a class has that name: a class comes with its probability.
        prediction = self.fields["prediction"]
        return "classification" if isinstance(prediction, str) and ("score" in self.fields or number(prediction) is None) else "regression"

    def answer(self, name: str, task: TaskName) -> Any:
        """A gold label or prediction: a class name, the sorted names of several, a number or a list of tags."""
        match task:
            case "classification":
                return self.string(name)
            case "multi-label classification":
                return sorted(set(self.list_of(name, lambda label: isinstance(label, str), "names of labels")))
            case "regression":
                return self.number(name)
            case "token classification":
                return self._tags(name)

    def _tags(self, name: str) -> list[str]:
        tags = self.list_of(name, lambda tag: isinstance(tag, str), "one tag for each word")
        for tag in set(tags) - self.known_tags:
            try:
                parse_tag(tag)
            except ArgumentError as error:
                raise self.error(str(error)) from None
            self.known_tags.add(tag)
        return tags

    def probabilities(self) -> dict[str, Any]:
        """The probabilities by class name, in the model's order, unchecked; empty if there are none."""
        found = self.fields.get("probabilities")
        if not isinstance(found, dict | None):
            raise self.error(f"probabilities must be an object of class names and numbers, found {quoted(found)}")
        return found or {}

    def group(self, column: str = "group") -> str | None:
        """The record's group by a column, or None."""
        value = self.fields.get(column)
        if not isinstance(value, str | int | None):
            raise self.error(f"{column} must be a string, a whole number or a boolean to group by, found {quoted(value)}")
        return value if isinstance(value, str | None) else json.dumps(value)

    def string(self, name: str) -> str:
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def number(self, name: str) -> float:
        found = number(self.fields.get(name))
        if found is None:
            raise self._wrong(name, "a number")
        return found

    def list_of(self, name: str, fits: Callable[[Any], bool], what: str) -> list[Any]:
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(map(fits, value)):
            raise self._wrong(name, f"an array with {what}")
        return value

    def _wrong(self, name: str, due: str) -> DataError:
        found = quoted(self.fields[name]) if name in self.fields else "no such field"
        return self.error(f"{name} must be {due}, found {found}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time, since it may not fit in memory. Raises: DataError for a line that is no JSON object."""
    known_tags = {"O"}
    for line, fields in json_objects(path, "utf-8"):
        if isinstance(fields, DataError):
            raise fields
        yield Row(path, line, fields, known_tags)
