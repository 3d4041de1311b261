"""Two files of predictions for the same records, read side by side.

A comparison is only worth something if both models were asked the same questions. So the files are walked together, and the first record
that is not the same in both ends the reading, with both places named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minigrad.data.tables import json_objects
from minigrad.data.tagging import parse_tag
from minigrad.errors import ArgumentError, DataError
from minigrad.files import listing, quoted, surrogate_at
from minigrad.train.metrics.probabilities import SUM_TOLERANCE

Task = Literal["classification", "regression", "token classification"]

SAME = ("text", "text_b", "label", "tags")
"""The fields of a record that must be equal in both files."""


@dataclass
class Side:
    """What one model said: class names, numbers or rows of tags; and the probabilities of the classes, where the file has them."""

    path: Path
    predictions: list[Any] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    probabilities: list[list[float]] = field(default_factory=list)

    def table(self, names: list[str]) -> NDArray[np.float64]:
        """The probabilities (records, names); 0 for a class that this model does not know."""
        table = np.zeros((len(self.probabilities), len(names)))
        table[:, [names.index(name) for name in self.classes]] = self.probabilities
        return table


@dataclass
class Pair:
    """The same records with the predictions of two models. `gold` are the labels; `groups` those of the column asked for, or empty."""

    task: Task
    a: Side
    b: Side
    gold: list[Any] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Line:
    path: Path
    line: int
    fields: Mapping[str, Any]

    def error(self, message: str) -> DataError:
        return DataError(self.path, message, line=self.line, code="bad-prediction")


def read_pair(a: Path, b: Path, group: str | None) -> Pair:
    """Two prediction files, of classification, regression or token classification, which the fields of the first line tell.

    group: a column to keep as the group of each record.

    Raises:
        DataError: a file cannot be read, a line is no prediction, or the records are not the same; names file and line.
    """
    pair: Pair | None = None
    for one, other in zip_longest(_lines(a), _lines(b)):
        if one is None or other is None:
            longer, shorter = (other, a) if one is None else (one, b)
            message = f"{shorter} ends before this record; both files must hold the same records"
            raise DataError(longer.path, message, line=longer.line, code="mismatch")
        for name in SAME:
            if one.fields.get(name) != other.fields.get(name):
                raise DataError(
                    one.path,
                    f"{name} is {quoted(one.fields.get(name))}, in {b}:{other.line} it is {quoted(other.fields.get(name))}; "
                    "both files must hold the same records in the same order",
                    line=one.line,
                    code="mismatch",
                )
        if pair is None:
            pair = Pair(_task(one), Side(a), Side(b))
        pair.gold.append(_value(one, _GOLD[pair.task], pair.task))
        for side, line in ((pair.a, one), (pair.b, other)):
            _add(side, line, pair)
        if group is not None:
            pair.groups.append(_group(one, group))
    if pair is None:
        raise DataError(a, "the file holds no predictions", code="empty-file")
    return pair


def _lines(path: Path) -> Iterator[_Line]:
    for line, fields in json_objects(path, "utf-8"):
        if isinstance(fields, DataError):
            raise fields
        yield _Line(path, line, fields)


_GOLD = {"classification": "label", "regression": "label", "token classification": "tags"}
_PREDICTION = {"classification": "prediction", "regression": "prediction", "token classification": "predicted"}


def _task(line: _Line) -> Task:
    if "tags" in line.fields:
        return "token classification"
    label = line.fields.get("label")
    if isinstance(label, str):
        return "classification"
    if _number(label) is not None:
        return "regression"
    message = f"a line of predictions has the gold label (a string or a number) or tags beside the prediction; found {listing(line.fields)}"
    raise line.error(message)


def _value(line: _Line, name: str, task: Task) -> Any:
    """A class name, a number or a row of tags. Raises: DataError for anything else."""
    value = line.fields.get(name)
    match task:
        case "classification":
            kind = "a string"
            if isinstance(value, str):
                return value
        case "regression":
            kind = "a finite number"
            if (number := _number(value)) is not None:
                return number
        case _:
            kind = "an array of strings"
            if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
                return value
    found = quoted(value) if name in line.fields else "no such field"
    raise line.error(f"{name} must be {kind} ({task}), found {found}")


def _add(side: Side, line: _Line, pair: Pair) -> None:
    """One more prediction, and its probabilities if the file has them."""
    prediction = _value(line, _PREDICTION[pair.task], pair.task)
    match pair.task:
        case "token classification":
            _require_tags(line, pair.gold[-1], prediction)
        case "classification":
            _add_probabilities(side, line)
    side.predictions.append(prediction)


def _require_tags(line: _Line, gold: list[str], predicted: list[str]) -> None:
    if len(predicted) != len(gold):
        raise line.error(f"there are {len(gold)} tags and {len(predicted)} predicted ones; each word has one of both")
    for tag in {*gold, *predicted}:
        try:
            parse_tag(tag)
        except ArgumentError as error:
            raise line.error(str(error)) from None


def _add_probabilities(side: Side, line: _Line) -> None:
    given = line.fields.get("probabilities")
    if given is not None and not (isinstance(given, dict) and given):
        raise line.error(f"probabilities must be an object of class names and numbers, found {quoted(given)}")
    classes = tuple(given or ())
    if not side.predictions:
        side.classes = classes
    if set(classes) != set(side.classes):
        raise line.error(f"there are probabilities of {listing(classes) or 'nothing'}, on line 1 of {listing(side.classes) or 'nothing'}")
    if given is None:
        return
    values = [number for name in side.classes if (number := _number(given[name])) is not None and number >= 0]
    if len(values) < len(given) or abs(sum(values) - 1) > SUM_TOLERANCE:
        raise line.error(f"probabilities must be numbers from 0 to 1 with the sum 1, found {quoted(given)}")
    side.probabilities.append(values)


def _group(line: _Line, column: str) -> str:
    value = line.fields.get(column)
    if isinstance(value, str) and surrogate_at(value) is None:
        return value
    if isinstance(value, int):  # a bool is an int, and json writes it as true or false
        return json.dumps(value)
    found = quoted(value) if column in line.fields else f"no such field; there are {listing(line.fields)}"
    raise line.error(f"the group {quoted(column)} must be a string, an integer or a boolean, found {found}")


def _number(value: object) -> float | None:
    """A finite JSON number; None for anything else, also for one that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
