"""Reads a file of predictions strictly, every field of every row: a report must not be based on rows that were only partly understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigrad.files import quoted
from minigrad.train.not_finite import number
from minigrad.train.predictions import GOLD, PREDICTION, Row, TaskName, read_rows


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One prediction. `gold` is None if the record has no label; `loss` then is 0.

    gold, prediction: a class name, the names of several, a number, or a tag for each of `words` (character ranges). scores: the
    probability of the prediction, or of each predicted tag; empty for a number or several classes. classes: all names, in the model's
    order, if the row has probabilities.
    """

    row: int
    text: str
    text_b: str | None
    gold: Any
    prediction: Any
    scores: Sequence[float]
    loss: float
    group: str | None
    words: Sequence[tuple[int, int]]
    classes: Sequence[str]


def read_predictions(path: Path) -> Iterator[tuple[TaskName, PredictionRow]]:
    """The kind of task and the prediction of each row, in order; the first row determines the kind.

    Raises: DataError naming file and line, code bad-prediction for a row that is not as described in PredictionRow.
    """
    task: TaskName | None = None
    for row in read_rows(path):
        task = task or row.task()
        yield task, _prediction_row(row, task)


def _prediction_row(row: Row, task: TaskName) -> PredictionRow:
    place = row.fields.get("row")
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < 2**53:
        raise row.error(f"row must be a whole number, found {quoted(place)}")
    text, text_b = row.string("text"), None if row.fields.get("text_b") is None else row.string("text_b")
    gold = None if row.fields.get(GOLD[task]) is None else row.answer(GOLD[task], task)
    prediction = row.answer(PREDICTION[task], task)
    words: list[tuple[int, int]] = []
    if task == "token classification":
        words = [
            (start, end)
            for start, end in row.list_of(
                "words", lambda word: _is_place(word, len(text)), "with one [start, end] in the text for each word"
            )
        ]
        scores = [
            number(score) or 0.0 for score in row.list_of("scores", lambda score: number(score) is not None, "one number for each word")
        ]
        if {len(prediction), len(scores), len(prediction if gold is None else gold)} != {len(words)}:
            raise row.error(f"there are {len(words)} words; tags, predicted and scores must have one entry for each")
    else:
        scores = [row.number("score")] if task == "classification" else []
    loss = 0.0 if gold is None else row.number("loss")
    return PredictionRow(place, text, text_b, gold, prediction, scores, loss, row.group(), words, tuple(row.probabilities()))


def _is_place(place: object, length: int) -> bool:
    if not isinstance(place, list) or len(place) != 2 or not all(isinstance(end, int) for end in place):
        return False
    return bool(0 <= place[0] <= place[1] <= length)
