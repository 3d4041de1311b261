"""Reads two files of predictions for the same records side by side.

A comparison is only meaningful if both models got the same records. So the files are read in step, and the first record that differs ends
the reading with an error that names both places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import DataError
from minigrad.files import listing, quoted, surrogate_at
from minigrad.train.metrics.probabilities import SUM_TOLERANCE
from minigrad.train.not_finite import number
from minigrad.train.predictions import GOLD, PREDICTION, Row, TaskName, read_rows

COMPARED_FIELDS = ("text", "text_b", "label", "labels", "tags")
"""The fields of a record that must be equal in both files."""


@dataclass
class Side:
    """One model's predictions: class names, lists of them, numbers or lists of tags; and each record's class probabilities, if given."""

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
    """The same records with the predictions of two models. `gold`: the labels; `groups`: the values of the --group column, or empty."""

    task: TaskName
    a: Side
    b: Side
    gold: list[Any] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def read_pair(a: Path, b: Path, group: str | None) -> Pair:
    """Read two files of predictions for labelled records. group: the column that gives the group of each record.

    Raises:
        DataError: a file cannot be read, a line is not a prediction, or the records are not the same; names file and line.
    """
    pair: Pair | None = None
    for one, other in zip_longest(read_rows(a), read_rows(b)):
        if one is None or other is None:
            longer, shorter = (other, a) if one is None else (one, b)
            message = f"{shorter} ends before this record; both files must hold the same records"
            raise DataError(longer.path, message, line=longer.line, code="mismatch")
        for name in COMPARED_FIELDS:
            if one.fields.get(name) != other.fields.get(name):
                raise DataError(
                    one.path,
                    f"{name} is {quoted(one.fields.get(name))}, in {b}:{other.line} it is {quoted(other.fields.get(name))}; "
                    "both files must hold the same records in the same order",
                    line=one.line,
                    code="mismatch",
                )
        if pair is None:
            pair = Pair(one.task(), Side(a), Side(b))
        pair.gold.append(_answer(one, GOLD[pair.task], pair.task))
        for side, row in ((pair.a, one), (pair.b, other)):
            _add(side, row, pair)
        if group is not None:
            pair.groups.append(_group(one, group))
    if pair is None:
        raise DataError(a, "the file holds no predictions", code="empty-file")
    return pair


def _answer(row: Row, name: str, task: TaskName) -> Any:
    found = row.answer(name, task)
    if isinstance(found, float) and not isfinite(found):
        raise row.error(f"{name} must be a finite number, found {quoted(row.fields[name])}")
    return found


def _add(side: Side, row: Row, pair: Pair) -> None:
    """Add a prediction, and its probabilities if the file has them."""
    prediction = _answer(row, PREDICTION[pair.task], pair.task)
    if pair.task == "token classification" and len(prediction) != len(pair.gold[-1]):
        raise row.error(f"there are {len(pair.gold[-1])} tags and {len(prediction)} predicted ones; each word has one of both")
    if pair.task == "classification":
        _add_probabilities(side, row)
    side.predictions.append(prediction)


def _add_probabilities(side: Side, row: Row) -> None:
    given = row.probabilities()
    if not side.predictions:
        side.classes = tuple(given)
    if given.keys() != set(side.classes):
        raise row.error(f"there are probabilities of {listing(given) or 'nothing'}, on line 1 of {listing(side.classes) or 'nothing'}")
    if not given:
        return
    values = [found for name in side.classes if (found := number(given[name])) is not None and found >= 0]
    if len(values) < len(given) or not abs(sum(values) - 1) <= SUM_TOLERANCE:
        raise row.error(f"probabilities must be numbers from 0 to 1 with the sum 1, found {quoted(given)}")
    side.probabilities.append(values)


def _group(row: Row, column: str) -> str:
    found = row.group(column)
    if found is None or surrogate_at(found) is not None:
        lacks = quoted(found) if column in row.fields else f"no such field; there are {listing(row.fields)}"
        raise row.error(f"the group {quoted(column)} must be a string, a whole number or a boolean, found {lacks}")
    return found
