"""How good predicted classes are: accuracy, and precision, recall and F1 per class.

These are the numbers of scikit-learn's `classification_report`, here without needing it. Scores of whole entities in text
are another matter: they count spans, not single labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.files import listing, quoted


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class, or an average over classes. All are in [0, 1]; `support` is the number of labels they rest on."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Scores per class (in the order of the class ids), and over all. `print` shows a table."""

    classes: dict[str, ClassScores]
    accuracy: float
    macro: ClassScores
    weighted: ClassScores

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts and numbers, fit for JSON."""

        def plain(scores: ClassScores) -> dict[str, float | int]:
            return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1, "support": scores.support}

        return {
            "classes": {name: plain(scores) for name, scores in self.classes.items()},
            "accuracy": self.accuracy,
            "macro": plain(self.macro),
            "weighted": plain(self.weighted),
        }

    def __str__(self) -> str:
        averages = {"macro average": self.macro, "weighted average": self.weighted}
        width = max(len(name) for name in [*self.classes, *averages])

        def row(name: str, scores: ClassScores) -> str:
            return f"{name:>{width}}  {scores.precision:9.4f}  {scores.recall:9.4f}  {scores.f1:9.4f}  {scores.support:9d}"

        lines = [f"{'':>{width}}  {'precision':>9}  {'recall':>9}  {'f1':>9}  {'support':>9}"]
        lines += [row(name, scores) for name, scores in self.classes.items()]
        lines += ["", f"{'accuracy':>{width}}  {'':>9}  {'':>9}  {self.accuracy:9.4f}  {self.macro.support:9d}"]
        lines += [row(name, scores) for name, scores in averages.items()]
        return "\n".join(lines)


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The share of predictions that equal their label.

    Shapes: labels (n,), predictions (n,), integers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers.
    """
    true, predicted = _class_ids(labels, predictions)
    return float(np.mean(true == predicted))


def classification_report(labels: ArrayLike, predictions: ArrayLike, names: Sequence[str]) -> ClassificationReport:
    """Precision, recall and F1 of every class in `names`, where class i is called `names[i]`.

    With TP, FP, FN the true positives, false positives and false negatives of a class:
    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN). A score whose denominator is zero is
    0.0: the class was never predicted, or never the label. The macro average is the plain mean over all names, the weighted
    average weights each class by its support.

    Shapes: labels (n,), predictions (n,), integers in [0, len(names))

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers, or the
            names are not distinct strings.
        IndexRangeError: a label or prediction has no name.
    """
    true, predicted = _class_ids(labels, predictions)
    if isinstance(names, str) or not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise DTypeError(f"names must be a sequence of strings, one per class, got {quoted(names)}")
    if len(set(names)) != len(names):
        raise ArgumentError(f"class names must differ from each other, got {listing(names)}")
    count = len(names)
    for what, ids in (("label", true), ("prediction", predicted)):
        outside = np.flatnonzero((ids < 0) | (ids >= count))
        if outside.size:
            position = int(outside[0])
            raise IndexRangeError(
                f"{what} {ids[position]} at position {position} has no name: there are {count} names, for 0 to {count - 1}"
            )

    support = np.bincount(true, minlength=count)
    claimed = np.bincount(predicted, minlength=count)
    hits = np.bincount(true[true == predicted], minlength=count)
    precision, recall, f1 = _ratio(hits, claimed), _ratio(hits, support), _ratio(2 * hits, claimed + support)
    table = np.stack([precision, recall, f1])
    macro, weighted = table.mean(axis=1), table @ support / len(true)
    return ClassificationReport(
        classes={name: _scores(table[:, i], support[i]) for i, name in enumerate(names)},
        accuracy=float(np.mean(true == predicted)),
        macro=_scores(macro, len(true)),
        weighted=_scores(weighted, len(true)),
    )


def _class_ids(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = []
    for what, values in (("labels", labels), ("predictions", predictions)):
        try:
            array = np.asarray(values)
        except ValueError:  # rows of different lengths
            raise ShapeError(f"{what} must be a row of class ids, got rows of different lengths") from None
        if array.ndim != 1:
            hint = "; take argmax over the classes of logits first" if array.ndim == 2 else ""
            raise ShapeError(f"{what} must be a row of class ids, got the shape {array.shape}{hint}")
        if array.size == 0:
            raise ArgumentError(f"{what} are empty: no score can be computed")
        if not np.issubdtype(array.dtype, np.integer):
            raise DTypeError(f"{what} must be integer class ids, got {array.dtype}")
        rows.append(array.astype(np.int64))
    true, predicted = rows
    if len(true) != len(predicted):
        raise ShapeError(f"labels and predictions must have equal lengths, got {len(true)} and {len(predicted)}")
    return true, predicted


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _scores(row: NDArray[np.float64], support: int) -> ClassScores:
    precision, recall, f1 = (float(score) for score in row)
    return ClassScores(precision, recall, f1, int(support))
