"""Bootstrap confidence intervals of scores: percentile intervals from resampled records (Efron & Tibshirani 1993, chapters 13 and 16).

A score on a few thousand records is an estimate. Drawing as many records again, with replacement, and scoring those shows how much it
varies; scoring two models on the same draws shows how much their difference varies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError, ShapeError
from minigrad.files import quoted
from minigrad.train.metrics._rows import as_array

Metric = Callable[..., float]
"""A function of arrays whose first axis is the records, such as `accuracy` of labels and predictions."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A score, and the bounds of its confidence interval at the requested level."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scores of two models, that of B minus that of A, and the two-sided p value of no difference."""

    a: Interval
    b: Interval
    difference: Interval
    p_value: float


def bootstrap(metric: Metric, *arrays: Any, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """The metric of the arrays, with its percentile bootstrap interval.

    The same seed gives the same interval. Resamples on which the metric is undefined (NaN, such as an AUC if a class was not drawn) are
    left out; if none remains, the bounds are NaN. For scores of entities the records are sentences: give `entity_f1` the counts of
    `entity_counts`.

    Shapes: each array (n, ...), a row for each record

    Raises:
        ShapeError, ArgumentError: the arrays differ in length or are empty, or an option is out of range.
    """
    rows = _rows(arrays)
    values = np.array([metric(*(array[draw] for array in rows)) for draw in _draws(len(rows[0]), resamples, seed)])
    return _interval(metric(*rows), values, level)


def paired_bootstrap(
    metric: Metric, a: Sequence[Any], b: Sequence[Any], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Comparison:
    """The metric of two models and its difference, metric(*b) - metric(*a), with their intervals, both scored on the same draws.

    a, b: the arguments of the metric for each model, usually (labels, predictions). The p value is twice the smaller of two shares:
    of resamples on which the difference is at most zero, and at least zero; one is added to the counts so that it is never 0
    (Davison & Hinkley 1997, section 4.2). Undefined resamples are left out, as in `bootstrap`.

    Shapes: each array (n, ...), a row for each record

    Raises:
        ShapeError, ArgumentError: the arrays differ in length or are empty, or an option is out of range.
    """
    rows = _rows([*a, *b])

    def scores(draw: Any) -> tuple[float, float]:
        drawn = [array[draw] for array in rows]
        return metric(*drawn[: len(a)]), metric(*drawn[len(a) :])

    value_a, value_b = scores(slice(None))
    values_a, values_b = np.array([scores(draw) for draw in _draws(len(rows[0]), resamples, seed)]).T
    differences = values_b - values_a
    defined = differences[~np.isnan(differences)]
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return Comparison(
        _interval(value_a, values_a, level),
        _interval(value_b, values_b, level),
        _interval(value_b - value_a, differences, level),
        min(1.0, 2 * (smaller + 1) / (len(defined) + 1)) if len(defined) else float("nan"),
    )


def _rows(arrays: Sequence[Any]) -> list[NDArray[Any]]:
    rows = [as_array("the records", array) for array in arrays]
    if not rows or any(array.ndim == 0 for array in rows):
        raise ShapeError("a bootstrap needs one or more arrays with a row for each record")
    lengths = [len(array) for array in rows]
    if len(set(lengths)) > 1:
        raise ShapeError(f"the arrays must have a row for each record, got the lengths {', '.join(map(str, lengths))}")
    if not lengths[0]:
        raise ArgumentError("the arrays are empty: no score can be computed")
    return rows


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(check_count("seed", seed, 0))
    return (generator.integers(0, n, n) for _ in range(check_count("resamples", resamples)))


def _interval(value: float, resampled: NDArray[np.float64], level: float) -> Interval:
    if not isinstance(level, float) or not 0 < level < 1:
        raise ArgumentError(f"level must be a number between 0 and 1, such as 0.95, got {quoted(level)}")
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(value), float(low), float(high))
