"""Multi-label metrics, where a record may have several labels or none: tables of 0 and 1, with a column for each label."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.errors import ShapeError
from minigrad.train.metrics._rows import require_average, table_of_flags
from minigrad.train.metrics.report import averaged, pooled, scores_of_counts


def multi_label_f1(labels: ArrayLike, predictions: ArrayLike, *, average: str = "macro") -> float:
    """F1 averaged over the labels: "micro" uses the pooled counts, "macro" is the plain mean, "weighted" the mean weighted by support.

    A label that is neither given nor predicted counts as 0.

    Shapes: labels (n, classes), predictions (n, classes), of 0 and 1 or of booleans

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not as described, or there is no such average.
    """
    true, predicted = _indicators(labels, predictions)
    require_average(average)
    counts = np.stack([table.sum(axis=0) for table in (true & predicted, predicted, true)], axis=-1)
    return pooled(counts).f1 if average == "micro" else averaged(scores_of_counts(*counts.T), average).f1


def subset_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The share of records whose labels are all right. Shapes and errors as `multi_label_f1`."""
    true, predicted = _indicators(labels, predictions)
    return float((true == predicted).all(axis=1).mean())


def _indicators(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    true, predicted = table_of_flags("labels", labels), table_of_flags("predictions", predictions)
    if true.shape != predicted.shape:
        raise ShapeError(f"labels and predictions must have equal shapes, got {true.shape} and {predicted.shape}")
    return true, predicted
