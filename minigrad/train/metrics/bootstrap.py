"""How far a score could be off by chance: percentile intervals from resampled records (Efron & Tibshirani 1993, chapters 13 and 16).

A score on a few thousand records is an estimate. Drawing as many records again, with replacement, and scoring those shows how much it
moves; scoring two models on the same draws shows how much their difference does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, ShapeError
from minigrad.files import quoted

Metric = Callable[..., float]
"""A function of arrays that share their first axis, the records: `accuracy`, say, of labels and predictions."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A score, and the bounds between which it lies at the level asked for."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """A score of B minus that of A, its bounds, and the two-sided probability of so much difference by chance."""

    value: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p = {self.p_value:.4g}"


def bootstrap(metric: Metric, *arrays: Any, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """The metric of the arrays, with its percentile bootstrap interval.

    The same seed gives the same interval. Resamples on which the metric is not defined (NaN: an AUC, where a class was not drawn) are
    left out; without any the bounds are NaN. For scores of entities the records are sentences: give `entity_f1` the counts of
    `entity_counts`.

    Shapes: each array (n, ...), a row for each record

    Raises:
        ShapeError, ArgumentError: the arrays differ in length or are empty, or an option is out of range.
    """
    rows = _rows(arrays)
    _require_options(resamples, level)
    values = np.array([metric(*(array[draw] for array in rows)) for draw in _draws(len(rows[0]), resamples, seed)])
    return Interval(float(metric(*rows)), *_bounds(values, level))


def paired_bootstrap(
    metric: Metric, a: Sequence[Any], b: Sequence[Any], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Difference:
    """metric(*b) - metric(*a), with its percentile bootstrap interval: both are scored on the same draws of records.

    a, b: the arguments of the metric for each model, usually (labels, predictions). The p value is twice the smaller share of
    resamples on which the difference is not above, or not below, zero, where one more is counted so that it is never 0
    (Davison & Hinkley 1997, section 4.2).

    Shapes: each array (n, ...), a row for each record

    Raises:
        ShapeError, ArgumentError: the arrays differ in length or are empty, or an option is out of range.
    """
    rows = _rows([*a, *b])
    _require_options(resamples, level)
    rows_a, rows_b = rows[: len(a)], rows[len(a) :]

    def difference(draw: Any) -> float:
        return metric(*(array[draw] for array in rows_b)) - metric(*(array[draw] for array in rows_a))

    values = np.array([difference(draw) for draw in _draws(len(rows[0]), resamples, seed)])
    defined = values[~np.isnan(values)]
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (len(defined) + 1)) if len(defined) else float("nan")
    return Difference(float(difference(slice(None))), *_bounds(values, level), p_value)


def _rows(arrays: Sequence[Any]) -> list[NDArray[Any]]:
    rows = [np.asarray(array) for array in arrays]
    if not rows or any(array.ndim == 0 for array in rows):
        raise ShapeError("a bootstrap needs one or more arrays with a row for each record")
    lengths = [len(array) for array in rows]
    if len(set(lengths)) > 1:
        raise ShapeError(f"the arrays must have a row for each record, got the lengths {', '.join(map(str, lengths))}")
    if not lengths[0]:
        raise ArgumentError("the arrays are empty: no score can be computed")
    return rows


def _require_options(resamples: int, level: float) -> None:
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ArgumentError(f"resamples must be a whole number of at least 1, got {quoted(resamples)}")
    if not 0 < level < 1:
        raise ArgumentError(f"level must lie between 0 and 1, such as 0.95, got {quoted(level)}")


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return (generator.integers(0, n, n) for _ in range(resamples))


def _bounds(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
