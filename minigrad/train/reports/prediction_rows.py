"""Reads a file of predictions row by row, strictly: what a report says of a model must not rest on a row that was half understood.

The first row tells the kind of task; all others must be of the same. Files may be larger than the memory, so rows come one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigrad.data.tables import json_objects
from minigrad.data.tagging import parse_tag
from minigrad.errors import ArgumentError, DataError
from minigrad.files import listing, quoted
from minigrad.train.reports.log_reader import figure

TASKS = ("classification", "regression", "token classification")


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One prediction. `gold` is None where the record has no label; `loss` then is 0.

    gold, prediction: a class name, a number, or a tag for each of `words` (character places). scores: the probability of the prediction,
    or of each predicted tag; none for a number. classes: all names, in the model's order, if the row has probabilities.
    """

    row: int
    text: str
    text_b: str | None
    gold: Any
    prediction: Any
    scores: Sequence[float]
    loss: float
    group: str | None
    words: Sequence[tuple[int, int]] = ()
    classes: Sequence[str] = ()


def read_predictions(path: Path) -> Iterator[tuple[str, PredictionRow]]:
    """The kind of task (one of `TASKS`) and the prediction of each row, in order.

    Raises: DataError naming file and line, code bad-prediction for a row that is not as written above.
    """
    task, known_tags = "", {"O"}
    for line, fields in json_objects(path, "utf-8"):
        if isinstance(fields, DataError):
            raise fields
        row = _Fields(path, line, fields)
        task = task or row.task()
        if task == "token classification":
            yield task, row.tagging(known_tags)
        else:
            yield task, row.sequence(str if task == "classification" else float)


@dataclass(frozen=True, slots=True)
class _Fields:
    path: Path
    line: int
    fields: Mapping[str, Any]

    def error(self, message: str) -> DataError:
        return DataError(self.path, message, line=self.line, code="bad-prediction")

    def task(self) -> str:
        if "predicted" in self.fields:
            return "token classification"
        if "prediction" not in self.fields:
            raise self.error(f"a row of predictions has prediction, or predicted with tags; there are {listing(self.fields)}")
        # The string "nan" is a number, unless there is a class of that name: a class comes with its probability.
        is_name = isinstance(self.fields["prediction"], str) and ("score" in self.fields or figure(self.fields["prediction"]) is None)
        return "classification" if is_name else "regression"

    def sequence(self, kind: type) -> PredictionRow:
        """A class name (`kind` str) or a number (float) for the whole text."""
        gold = self._answer("label", kind) if self.fields.get("label") is not None else None
        probabilities = self.fields.get("probabilities", {})
        if not isinstance(probabilities, dict):
            raise self.error(f"probabilities must be an object, found {quoted(probabilities)}")
        scores = [self._number("score")] if kind is str else []
        return PredictionRow(*self._head(), gold, self._answer("prediction", kind), scores, *self._tail(gold), classes=tuple(probabilities))

    def tagging(self, known_tags: set[str]) -> PredictionRow:
        """A tag for each word."""
        text = self._string("text")
        places = self._list("words", lambda place: _is_place(place, len(text)), "[start, end] of a word in the text")
        gold = self._list("tags", lambda tag: isinstance(tag, str), "tag") if self.fields.get("tags") is not None else None
        predicted = self._list("predicted", lambda tag: isinstance(tag, str), "tag")
        scores = self._list("scores", lambda score: figure(score) is not None, "number")
        if {len(predicted), len(scores), len(predicted if gold is None else gold)} != {len(places)}:
            raise self.error(f"there are {len(places)} words; tags, predicted and scores must have one entry for each")
        for tag in {*(gold or ()), *predicted} - known_tags:
            try:
                parse_tag(tag)
            except ArgumentError as error:
                raise self.error(str(error)) from None
            known_tags.add(tag)
        words = [(start, end) for start, end in places]
        return PredictionRow(*self._head(), gold, predicted, [figure(s) or 0.0 for s in scores], *self._tail(gold), words=words)

    def _head(self) -> tuple[int, str, str | None]:
        row = self.fields.get("row")
        if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < 2**53:
            raise self.error(f"row must be a whole number, found {quoted(row)}")
        return row, self._string("text"), None if self.fields.get("text_b") is None else self._string("text_b")

    def _tail(self, gold: Any) -> tuple[float, str | None]:
        group = self.fields.get("group")
        if group is not None and not isinstance(group, str | int):
            raise self.error(f"group must be a string, a whole number or a boolean, found {quoted(group)}")
        named = group if group is None or isinstance(group, str) else json.dumps(group)
        return 0.0 if gold is None else self._number("loss"), named

    def _answer(self, name: str, kind: type) -> str | float:
        return self._string(name) if kind is str else self._number(name)

    def _string(self, name: str) -> str:
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self.error(f"{name} must be a string, found {quoted(value)}")
        return value

    def _number(self, name: str) -> float:
        number = figure(self.fields.get(name))
        if number is None:
            raise self.error(f"{name} must be a number, found {quoted(self.fields.get(name))}")
        return number

    def _list(self, name: str, fits: Any, what: str) -> list[Any]:
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(map(fits, value)):
            raise self.error(f"{name} must be an array with one {what} for each word, found {quoted(value)}")
        return value


def _is_place(place: object, length: int) -> bool:
    if not isinstance(place, list) or len(place) != 2 or not all(isinstance(end, int) for end in place):
        return False
    return bool(0 <= place[0] <= place[1] <= length)
