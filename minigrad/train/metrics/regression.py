"""Metrics of predicted numbers: errors in the labels' own units, the share of explained variance, and correlations.

They equal those of scikit-learn and SciPy, except that a correlation with a constant is NaN without a warning.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.train.metrics._rows import average_ranks, require_equal_lengths, row_of_numbers


def mean_squared_error(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The mean of (prediction - label)².

    Shapes: labels (n,), predictions (n,), finite numbers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of finite numbers.
    """
    true, predicted = _numbers(labels, predictions)
    return float(np.mean((predicted - true) ** 2))


def root_mean_squared_error(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The root of the mean squared error, in the labels' own unit. Shapes and errors as `mean_squared_error`."""
    return math.sqrt(mean_squared_error(labels, predictions))


def mean_absolute_error(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The mean of |prediction - label|, in the labels' own unit. Shapes and errors as `mean_squared_error`."""
    true, predicted = _numbers(labels, predictions)
    return float(np.mean(np.abs(predicted - true)))


def r2(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The coefficient of determination, 1 - Σ(prediction - label)² / Σ(label - mean)²: 1 is perfect, 0 is always predicting the mean.

    As in scikit-learn, constant labels give 1.0 if every prediction is exact and otherwise 0.0, and a single record gives NaN.
    Shapes and errors as `mean_squared_error`.
    """
    true, predicted = _numbers(labels, predictions)
    if len(true) < 2:
        return float("nan")
    left, spread = np.sum((predicted - true) ** 2), np.sum((true - true.mean()) ** 2)
    if spread == 0:
        return 1.0 if left == 0 else 0.0
    return float(1 - left / spread)


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Pearson's correlation, in [-1, 1]; NaN if either side is constant. Shapes and errors as `mean_squared_error`."""
    return _correlation(*_numbers(labels, predictions))


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, with ties at their mean rank; NaN if either side is constant.

    Shapes and errors as `mean_squared_error`.
    """
    true, predicted = _numbers(labels, predictions)
    return _correlation(average_ranks(true), average_ranks(predicted))


def _numbers(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, predicted = row_of_numbers("labels", labels), row_of_numbers("predictions", predictions)
    require_equal_lengths("labels", true, "predictions", predicted)
    return true, predicted


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    # Compare elements instead of testing for zero variance: the mean of n equal numbers may differ from them in the last digit.
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(np.clip(_direction(x) @ _direction(y), -1, 1))


def _direction(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The deviations from the mean, with the length 1."""
    # Scaled to about 1 by a power of two, which rounds nothing, so that no sum overflows and no square underflows.
    scaled = np.ldexp(row, -np.frexp(np.abs(row).max())[1])
    deviations = scaled - scaled.mean()
    deviations -= deviations.mean()  # the first mean was rounded, which matters if the deviations are small compared to it
    direction: NDArray[np.float64] = deviations / np.linalg.norm(deviations)
    return direction
