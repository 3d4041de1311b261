"""Metrics of the probabilities of a classification: how well they rank (ROC-AUC), and their log-loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.errors import ArgumentError, ShapeError
from minigrad.train.metrics._rows import (
    as_array,
    average_ranks,
    require_average,
    require_equal_lengths,
    require_ids_below,
    row_of_ids,
    row_of_numbers,
    table_of_numbers,
)

SUM_TOLERANCE = 1e-2
"""How far a record's probabilities may be from summing to 1: enough for 200 classes with four decimals, not for a forgotten softmax."""


def roc_auc(labels: ArrayLike, scores: ArrayLike, *, average: str = "macro") -> float:
    """The area under the ROC curve: how often a record of the class scores higher than another record, ties counting half.

    With one score per record the labels are 0 and 1, and 1 should score high. With a score per class it is the one-vs-rest area, averaged
    over the classes: "macro" is the plain mean, "weighted" the mean weighted by support. NaN if a class has no record, or all of them:
    there is nothing to compare. Computed from ranks (Hanley & McNeil 1982).

    Shapes: labels (n,), integers; scores (n,) or (n, classes), finite numbers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not as described, or there is no such average.
        IndexRangeError: a label has no column of scores.
    """
    true = row_of_ids("labels", labels)
    require_average(average, ("macro", "weighted"))
    if as_array("scores", scores).ndim == 1:
        given = row_of_numbers("scores", scores)
        require_equal_lengths("labels", true, "scores", given)
        if not np.isin(true, (0, 1)).all():
            raise ArgumentError("with one score per record the labels must be 0 and 1; give a table (records, classes) for more classes")
        return _binary_auc(true == 1, given)
    table = table_of_numbers("scores", scores)
    require_equal_lengths("labels", true, "scores", table)
    classes = table.shape[1]
    require_ids_below("label", true, classes)
    areas = np.array([_binary_auc(true == i, table[:, i]) for i in range(classes)])
    weights = np.bincount(true, minlength=classes) if average == "weighted" else np.ones(classes)
    return float(areas @ weights / weights.sum())


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The mean of -log p(label), in nats: the cross entropy of the probabilities.

    Probabilities below eps = 2.2e-16 count as eps, so that one confident mistake does not make the mean infinite.

    Shapes: labels (n,), integers in [0, classes); probabilities (n, classes), each row with the sum 1

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not as described.
        IndexRangeError: a label has no column of probabilities.
    """
    true = row_of_ids("labels", labels)
    table = _probabilities(probabilities)
    require_equal_lengths("labels", true, "probabilities", table)
    require_ids_below("label", true, table.shape[1])
    return float(-np.log(np.maximum(table[np.arange(len(true)), true], np.finfo(np.float64).eps)).mean())


def _probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Rows of probabilities that sum to 1. Raises: DTypeError, ShapeError, ArgumentError."""
    if as_array("probabilities", probabilities).ndim == 1:
        raise ShapeError("probabilities must be a table (records, classes); for two classes stack 1 - p and p")
    table = table_of_numbers("probabilities", probabilities)
    sums = table.sum(axis=1)
    wrong = np.flatnonzero((np.abs(sums - 1) > SUM_TOLERANCE) | (table < 0).any(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise ArgumentError(f"the probabilities of record {row} are no distribution: their sum is {sums[row]:g}; apply softmax to logits")
    return table


def _binary_auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(average_ranks(scores)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
