"""The metrics of predicted numbers, by examples worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.train.metrics import mean_absolute_error, mean_squared_error, pearson, r2, root_mean_squared_error, spearman

LABELS, PREDICTIONS = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 8.0]


def test_by_hand() -> None:
    assert mean_squared_error(LABELS, PREDICTIONS) == 4.0
    assert root_mean_squared_error(LABELS, PREDICTIONS) == 2.0
    assert mean_absolute_error(LABELS, PREDICTIONS) == 1.0
    assert r2(LABELS, PREDICTIONS) == pytest.approx(1 - 16 / 5, rel=1e-15)
    # Deviations -1.5, -0.5, 0.5, 1.5 and -2.5, -1.5, -0.5, 4.5. Tolerance: roundings of the roots.
    assert pearson(LABELS, PREDICTIONS) == pytest.approx(11 / math.sqrt(5 * 29), rel=1e-14)
    assert spearman(LABELS, PREDICTIONS) == pytest.approx(1.0, rel=1e-15)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0, rel=1e-15)


def test_ties_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / √(4.5 · 5)
    assert spearman([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5), rel=1e-14)


def test_constant_sides() -> None:
    for correlation in (pearson, spearman):
        assert math.isnan(correlation([0.1] * 3, [1, 2, 3])) and math.isnan(correlation([1, 2, 3], [0.1] * 3))
        assert math.isnan(correlation([1], [2]))
    assert r2([2, 2], [2, 2]) == 1.0 and r2([2, 2], [2, 3]) == 0.0 and math.isnan(r2([1], [1]))


numbers = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(numbers, numbers), min_size=1))
def test_laws(records: list[tuple[float, float]]) -> None:
    labels, predictions = zip(*records, strict=True)
    for correlation in (pearson, spearman):
        found = correlation(labels, predictions)
        assert math.isnan(found) or -1 <= found <= 1
        # Exchanged sides: the same products, in the same order.
        assert correlation(predictions, labels) == pytest.approx(found, rel=1e-15, nan_ok=True)
    assert mean_absolute_error(labels, predictions) <= root_mean_squared_error(labels, predictions) * (1 + 1e-14) + 1e-160  # 1e-160² = 0


def test_extreme_sizes_do_not_overflow() -> None:
    for size in (5e-324, 1e-200, 5e307):
        assert pearson([-size, size, 3 * size], [1, 2, 3]) == pytest.approx(1.0, rel=1e-14)
    assert pearson([1, np.nextafter(1, 2)], [1, 2]) == pytest.approx(1.0, rel=1e-14)
    assert spearman([-1e308, 0, 1e308], [1, 2, 3]) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize(
    ("labels", "predictions", "error", "words"),
    [
        ([], [], ArgumentError, "labels are empty"),
        ([1.0, 2.0], [1.0], ShapeError, "got 2 and 1"),
        ([1.0], [[1.0]], ShapeError, r"row of numbers, got the shape \(1, 1\)"),
        ([1.0, 2.0], [1.0, math.inf], ArgumentError, "predictions must be finite, got inf at position 1"),
        (["1"], [1.0], DTypeError, "labels must be numbers"),
        ([True], [1.0], DTypeError, "bool"),
    ],
)
def test_refused(labels: object, predictions: object, error: type[MinigradError], words: str) -> None:
    for call in (mean_squared_error, mean_absolute_error, root_mean_squared_error, r2, pearson, spearman):
        with pytest.raises(error, match=words):
            call(labels, predictions)  # type: ignore[operator]
