"""Summarises a file of predictions for a report, in one pass; memory holds only what is shown. Each kind of task has its own tally."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad import plots
from minigrad.errors import DataError
from minigrad.plots.charts import MAX_CLASSES
from minigrad.train.metrics import ClassificationReport, EntityReport, NerReport, by_group, regression_metrics
from minigrad.train.metrics.entities import entity_counts, entity_f1, tag_counts
from minigrad.train.reports.prediction_rows import PredictionRow, read_predictions
from minigrad.train.reports.tally import Mistake, Summary, Tally, mistake_of

LARGEST = 1e100
"""Larger numbers are left out of regression scores, like NaN: their squares could overflow."""
_CHUNK = 256
"""The number of sentences whose entities are counted at a time."""


def summarise(path: Path, split: str) -> Summary:
    """Read a file of predictions. Raises: DataError naming file and line."""
    tally: Tally | None = None
    for task, row in read_predictions(path):
        if tally is None:
            tally = _TALLIES[task](split)
        tally.add(row)
    if tally is None:
        raise DataError(path, "the file holds no predictions", code="empty-file")
    return tally.summary()


class _Classes(Tally):
    task = "classification"
    group_metric = "accuracy"

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.confusion: Counter[tuple[str, str]] = Counter()
        self.right = array("b")
        self.names: Sequence[str] = ()

    def count(self, row: PredictionRow) -> Mistake | None:
        self.names = self.names or row.classes
        self.confusion[row.gold, row.prediction] += 1
        self.right.append(row.gold == row.prediction)
        return None if row.gold == row.prediction else mistake_of(row, row.gold, row.prediction, row.scores[0])

    def report(self) -> tuple[dict[str, Any], dict[str, str]]:
        gold, predicted = Counter[str](), Counter[str]()
        for (label, prediction), count in self.confusion.items():
            gold[label] += count
            predicted[prediction] += count
        names = [*dict.fromkeys([*self.names, *sorted({*gold, *predicted})])]
        counts = np.array([(self.confusion[name, name], predicted[name], gold[name]) for name in names], np.int64)
        largest = set(sorted(names, key=lambda name: -gold[name] - predicted[name])[:MAX_CLASSES])
        shown = [name for name in names if name in largest]
        table = [[self.confusion[label, prediction] for prediction in shown] for label in shown]
        most = f", the {len(shown)} largest of {len(names)} classes" if len(shown) < len(names) else ""
        chart = plots.heat_map(f"Confusion matrix, {self.split}{most}", shown, shown, table, "prediction", "gold")
        return {"report": ClassificationReport.of(names, counts).to_dict()}, {"confusion": chart}

    def by_group(self) -> dict[str, object]:
        return by_group(lambda right: float(right.mean()), self.groups, np.array(self.right)).to_dict()


class _Choices(Tally):
    task = "multi-label classification"
    group_metric = "subset_accuracy"

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.counts: Counter[tuple[str, int]] = Counter()
        self.right = array("b")

    def count(self, row: PredictionRow) -> Mistake | None:
        gold, predicted = set(row.gold), set(row.prediction)
        for i, names in enumerate((gold & predicted, predicted, gold)):
            self.counts.update({(name, i): int(name in names) for name in gold | predicted | set(row.classes)})
        self.right.append(gold == predicted)
        return None if gold == predicted else mistake_of(row, ", ".join(row.gold), ", ".join(row.prediction), None)

    def report(self) -> tuple[dict[str, Any], dict[str, str]]:
        names, counts = _table(self.counts)
        report = EntityReport.of(names, counts)
        chart = plots.bars(f"F1 of labels, {self.split}", names, [scores.f1 for scores in report.classes.values()], "F1", "label")
        figures = {"report": report.to_dict(), "scores": {"subset accuracy": float(np.mean(self.right))}}
        return figures, {"labels": chart} if names else {}

    def by_group(self) -> dict[str, object]:
        return by_group(lambda right: float(right.mean()), self.groups, np.array(self.right)).to_dict()


class _Tags(Tally):
    task = "token classification"
    group_metric = "entity_f1"

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.entities: Counter[tuple[str, int]] = Counter()
        self.tags: Counter[tuple[str, int]] = Counter()
        self.by_sentence = array("q")
        self._waiting: list[PredictionRow] = []

    def count(self, row: PredictionRow) -> Mistake | None:
        self._waiting.append(row)
        if len(self._waiting) == _CHUNK:
            self._count_waiting()
        different = [i for i, tag in enumerate(row.gold) if tag != row.prediction[i]]
        if not different:
            return None
        words = [row.text[start:end][:40] for start, end in row.words]
        gold, predicted = (", ".join(f"{words[i]} {tags[i]}" for i in different) for tags in (row.gold, row.prediction))
        return mistake_of(row, gold, predicted, max(row.scores[i] for i in different))

    def _count_waiting(self) -> None:
        """Add the waiting rows to the counts (right, predicted, gold) of each entity type and each tag."""
        waiting, self._waiting = self._waiting, []
        if not any(row.gold for row in waiting):  # no sentence has a word
            self.by_sentence.extend([0, 0, 0] * len(waiting))
            return
        gold, predicted = [row.gold for row in waiting], [row.prediction for row in waiting]
        types, entities = entity_counts(gold, predicted)
        tags, words = tag_counts(gold, predicted)
        for total, names, counts in ((self.entities, types, entities), (self.tags, tags, words)):
            for name, three in zip(names, counts.sum(axis=0), strict=True):
                total.update({(name, i): int(count) for i, count in enumerate(three)})
        self.by_sentence.extend(entities.sum(axis=1).ravel().tolist())

    def report(self) -> tuple[dict[str, Any], dict[str, str]]:
        self._count_waiting()
        types, counts = _table(self.entities)
        report = NerReport(EntityReport.of(types, counts), ClassificationReport.of(*_table(self.tags)))
        chart = plots.bars(f"F1 of entities, {self.split}", types, [scores.f1 for scores in report.entity.classes.values()], "F1", "type")
        return {"report": report.to_dict()}, {"entities": chart} if types else {}

    def by_group(self) -> dict[str, object]:
        counts = np.array(self.by_sentence, np.int64).reshape(-1, 1, 3)
        return by_group(entity_f1, self.groups, counts).to_dict()


class _Numbers(Tally):
    task = "regression"
    group_metric = "mae"

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.gold, self.predicted, self.errors = array("d"), array("d"), array("d")

    def count(self, row: PredictionRow) -> Mistake | None:
        if abs(row.gold) <= LARGEST and abs(row.prediction) <= LARGEST:
            self.gold.append(row.gold)
            self.predicted.append(row.prediction)
            self.errors.append(abs(row.prediction - row.gold))
        else:
            self.errors.append(nan)
        return None if row.gold == row.prediction else mistake_of(row, row.gold, row.prediction, None)

    def report(self) -> tuple[dict[str, Any], dict[str, str]]:
        gold, predicted = np.array(self.gold), np.array(self.predicted)
        figures: dict[str, Any] = {"not_finite": len(self.errors) - len(gold)}
        if not len(gold):
            return figures, {}
        quantiles = {f"|error|, {part:.0%} are below": float(np.quantile(np.abs(predicted - gold), part)) for part in (0.5, 0.9, 0.99)}
        scores = regression_metrics(gold, predicted) | quantiles
        return figures | {"scores": scores}, {"regression": self._chart(gold, predicted)}

    def _chart(self, gold: NDArray[np.float64], predicted: NDArray[np.float64]) -> str:
        """A chart of the predictions in twenty intervals of the label: their mean and the middle 80%."""
        edges = np.linspace(gold.min(), gold.max(), 21)
        stretch = np.clip(np.searchsorted(edges, gold, side="right") - 1, 0, 19)
        curves: dict[str, list[tuple[float, float]]] = {"mean prediction": [], "10%": [], "90%": []}
        for i in np.unique(stretch):
            here = predicted[stretch == i]
            place = float(gold[stretch == i].mean())
            for curve, height in zip(curves.values(), (here.mean(), *np.quantile(here, (0.1, 0.9))), strict=True):
                curve.append((place, float(height)))
        ends = (float(gold.min()), float(gold.max()))
        return plots.lines(f"Predictions by label, {self.split}", curves | {"label": [(end, end) for end in ends]}, "label", "prediction")

    def by_group(self) -> dict[str, object]:
        return by_group(lambda errors: float(errors.mean()), self.groups, np.array(self.errors), higher_is_better=False).to_dict()


_TALLIES: dict[str, type[Tally]] = {kind.task: kind for kind in (_Classes, _Choices, _Tags, _Numbers)}


def _table(total: Counter[tuple[str, int]]) -> tuple[list[str], NDArray[np.int64]]:
    """Names, sorted, and their three counts."""
    names = sorted({name for name, _ in total})
    return names, np.array([[total[name, i] for i in range(3)] for name in names], np.int64).reshape(-1, 3)
