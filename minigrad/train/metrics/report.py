"""Tables of precision, recall and F1, computed from counts of hits, predictions and labels.

Single labels, token labels and whole entities only differ in what counts as a hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.train.metrics._rows import ratio


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class, or an average over classes. All are in [0, 1]; `support` is the number of labels."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Scores per class (in the order of the class ids) and overall. `print` shows a table."""

    classes: dict[str, ClassScores]
    accuracy: float
    macro: ClassScores
    weighted: ClassScores

    @classmethod
    def of(cls, names: Sequence[str], counts: NDArray[np.int64]) -> ClassificationReport:
        """Every record has one class, so accuracy is the pooled recall. Shapes: counts (classes, 3), of hits, predictions and labels."""
        return cls(accuracy=pooled(counts).recall, **_by_class(names, counts))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return table(self.classes, {"accuracy": (self.accuracy, self.macro.support), **_averages(self)})


@dataclass(frozen=True, slots=True)
class EntityReport:
    """Scores per entity type (sorted by name) and overall. `print` shows a table."""

    classes: dict[str, ClassScores]
    micro: ClassScores
    macro: ClassScores
    weighted: ClassScores

    @classmethod
    def of(cls, names: Sequence[str], counts: NDArray[np.int64]) -> EntityReport:
        """Shapes: counts (classes, 3), of hits, predictions and labels."""
        return cls(micro=pooled(counts), **_by_class(names, counts))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return table(self.classes, {"micro average": self.micro, **_averages(self)})


def scores_of_counts(hits: NDArray[np.int64], claimed: NDArray[np.int64], support: NDArray[np.int64]) -> list[ClassScores]:
    """Scores of each class from its true positives, its predictions and its labels.

    precision = hits / claimed, recall = hits / support, F1 = 2 hits / (claimed + support); 0 where the divisor is 0.

    Shapes: (classes,) each
    """
    scores = zip(ratio(hits, claimed), ratio(hits, support), ratio(2 * hits, claimed + support), support, strict=True)
    return [ClassScores(float(precision), float(recall), float(f1), int(n)) for precision, recall, f1, n in scores]


def pooled(counts: NDArray[np.int64]) -> ClassScores:
    """The micro average: scores of the counts of all rows and classes together.

    Shapes: (..., classes, 3), of hits, predictions and labels
    """
    return scores_of_counts(*counts.reshape(-1, 3).sum(axis=0, keepdims=True).T)[0]


def averaged(classes: Sequence[ClassScores], average: str) -> ClassScores:
    """The plain mean of the classes ("macro"), or the mean weighted by support ("weighted"); 0 without classes or support."""
    supports = np.array([scores.support for scores in classes], dtype=np.int64)
    weights = supports if average == "weighted" else np.ones(len(classes), dtype=np.int64)
    scores = np.array([(c.precision, c.recall, c.f1) for c in classes]).reshape(-1, 3)
    precision, recall, f1 = ratio(weights @ scores, np.full(3, weights.sum()))
    return ClassScores(float(precision), float(recall), float(f1), int(supports.sum()))


def table(classes: Mapping[str, ClassScores], totals: Mapping[str, ClassScores | tuple[float, int]]) -> str:
    """A table with a row for each class and, below an empty line, for each total. A total of a single number is in the column f1."""
    width = max(len(name) for name in [*classes, *totals])
    lines = [f"{'':>{width}}  {'precision':>9}  {'recall':>9}  {'f1':>9}  {'support':>9}"]
    lines += [_row(f"{name:>{width}}", scores) for name, scores in classes.items()]
    lines += [""]
    lines += [_row(f"{name:>{width}}", scores) for name, scores in totals.items()]
    return "\n".join(lines)


def _row(name: str, scores: ClassScores | tuple[float, int]) -> str:
    if isinstance(scores, tuple):
        return f"{name}  {'':>9}  {'':>9}  {scores[0]:9.4f}  {scores[1]:9d}"
    return f"{name}  {scores.precision:9.4f}  {scores.recall:9.4f}  {scores.f1:9.4f}  {scores.support:9d}"


def _by_class(names: Sequence[str], counts: NDArray[np.int64]) -> dict[str, Any]:
    """The fields that both kinds of report have. Shapes: counts (classes, 3), of hits, predictions and labels."""
    scores = scores_of_counts(*counts.T)
    return {"classes": dict(zip(names, scores, strict=True)), "macro": averaged(scores, "macro"), "weighted": averaged(scores, "weighted")}


def _averages(report: ClassificationReport | EntityReport) -> dict[str, ClassScores]:
    return {"macro average": report.macro, "weighted average": report.weighted}
