"""The tally of a file of predictions, for any task: counts, the worst mistakes, the group of each record."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from math import inf, isnan
from typing import Any, ClassVar

from minigrad.train.reports.prediction_rows import PredictionRow

MAX_MISTAKES = 50
MAX_TEXT = 600
"""The number of characters of a text that are kept."""
NO_GROUP = "(no group)"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong prediction as it is shown. For tags, `gold` and `prediction` name the words that differ; `probability` is their highest."""

    row: int
    text: str
    text_b: str | None
    gold: str | float
    prediction: str | float
    probability: float | None
    loss: float
    group: str | None


@dataclass(frozen=True)
class Summary:
    """A file of predictions in figures (plain values, fit for JSON except for NaN) and charts (SVG text by name)."""

    figures: dict[str, Any]
    charts: dict[str, str]


class Tally(ABC):
    """Counts rows one at a time, and keeps the worst mistakes. split: the name of the data split, for titles."""

    task: ClassVar[str]
    group_metric: ClassVar[str]

    def __init__(self, split: str) -> None:
        self.split = split
        self.records = self.labelled = self.wrong = 0
        self.groups: list[str] = []
        self._worst: list[tuple[float, int, Mistake]] = []

    def add(self, row: PredictionRow) -> None:
        self.records += 1
        if row.gold is None:
            return
        self.labelled += 1
        self.groups.append(NO_GROUP if row.group is None else row.group)
        if (mistake := self.count(row)) is None:
            return
        self.wrong += 1
        badness = inf if isnan(row.loss) else row.loss
        entry = (badness, -self.records, mistake)  # of equal losses the first rows stay
        if len(self._worst) < MAX_MISTAKES:
            heapq.heappush(self._worst, entry)
        elif entry > self._worst[0]:
            heapq.heapreplace(self._worst, entry)

    @abstractmethod
    def count(self, row: PredictionRow) -> Mistake | None:
        """Count a row with a label. Returns its mistake, if it has one."""

    @abstractmethod
    def report(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Figures and charts of all rows with a label; there is at least one."""

    @abstractmethod
    def by_group(self) -> dict[str, object]:
        """Scores by group: `group_metric` of each."""

    def summary(self) -> Summary:
        figures: dict[str, Any] = {"split": self.split, "task": self.task, "records": self.records, "labelled": self.labelled}
        if not self.labelled:
            return Summary(figures, {})
        report, charts = self.report()
        figures |= report | {"wrong": self.wrong}
        if set(self.groups) != {NO_GROUP}:
            figures |= {"group_metric": self.group_metric, "groups": self.by_group()}
        worst = [asdict(mistake) for _, _, mistake in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]
        return Summary(figures | {"mistakes": worst}, charts)


def mistake_of(row: PredictionRow, gold: str | float, prediction: str | float, probability: float | None) -> Mistake:
    """The mistake of a wrong row, with long texts cut."""
    text_b = None if row.text_b is None else _cut(row.text_b)
    gold, prediction = (_cut(value) if isinstance(value, str) else value for value in (gold, prediction))
    return Mistake(row.row, _cut(row.text), text_b, gold, prediction, probability, row.loss, row.group)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
