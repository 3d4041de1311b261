"""Bootstrap intervals: against distributions known exactly, and by their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigrad.errors import ArgumentError, MinigradError, ShapeError
from minigrad.train.metrics import Interval, accuracy, bootstrap, entity_f1, paired_bootstrap, roc_auc


def flips(n: int, right: int) -> tuple[list[int], list[int]]:
    return [1] * n, [1] * right + [0] * (n - right)


def test_interval_of_an_accuracy_is_binomial() -> None:
    found = bootstrap(accuracy, *flips(400, 300), resamples=4000)
    assert found.value == 0.75
    # The resampled accuracy is binomial with the standard deviation √(0.75·0.25/400) = 0.02165, so its 95 percent are ±0.0424.
    # Tolerance: one record is 0.0025, and the quantile of 4000 draws moves by about 0.0008.
    assert found.low == pytest.approx(0.75 - 0.0424, abs=0.004) and found.high == pytest.approx(0.75 + 0.0424, abs=0.004)
    narrower = bootstrap(accuracy, *flips(400, 300), resamples=4000, level=0.5)
    assert found.low < narrower.low < 0.75 < narrower.high < found.high


def test_same_seed_same_interval() -> None:
    one, same, other = (bootstrap(accuracy, *flips(50, 30), resamples=50, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_records_are_drawn_whole() -> None:
    labels = np.arange(20)
    assert bootstrap(accuracy, labels, labels, resamples=20) == Interval(1.0, 1.0, 1.0)
    counts = np.array([[[1, 1, 1]], [[0, 0, 0]]])  # a sentence with a right entity, one without any
    found = bootstrap(entity_f1, counts, resamples=100)
    assert found.value == 1.0 and found.low in (0.0, 1.0) and found.high == 1.0


def test_undefined_resamples_are_left_out() -> None:
    found = bootstrap(roc_auc, [0, 1, 1], [0.1, 0.5, 0.9], resamples=200)  # a third of the draws lack a class
    assert found == Interval(1.0, 1.0, 1.0)
    never = bootstrap(roc_auc, [1, 1], [0.5, 0.6], resamples=10)
    assert math.isnan(never.value) and math.isnan(never.low) and math.isnan(never.high)
    p = paired_bootstrap(roc_auc, ([1, 1], [0.5, 0.6]), ([1, 1], [0.5, 0.6]), resamples=10).p_value
    assert math.isnan(p)


def test_paired_difference() -> None:
    labels, worse = flips(200, 150)
    better = worse[:150] + [1] * 20 + [0] * 30
    found = paired_bootstrap(accuracy, (labels, worse), (labels, better), resamples=500)
    assert (found.a.value, found.b.value) == (0.75, 0.85)
    assert found.difference.value == pytest.approx(0.1, rel=1e-14)  # a difference of two rounded numbers
    # Only 20 records differ, always for the better: far narrower than the two intervals, which overlap, would say.
    assert 0.05 < found.difference.low < found.difference.high < 0.15
    assert found.p_value == 2 / 501
    assert found.a == bootstrap(accuracy, labels, worse, resamples=500)


def test_models_that_say_the_same_do_not_differ() -> None:
    side = flips(30, 20)
    found = paired_bootstrap(accuracy, side, side, resamples=100)
    assert found.difference == Interval(0.0, 0.0, 0.0) and found.p_value == 1.0


def test_exchanged_models_have_the_opposite_difference() -> None:
    a, b = flips(40, 20), ([1] * 40, [0] * 12 + [1] * 28)
    one, other = paired_bootstrap(accuracy, a, b, resamples=99), paired_bootstrap(accuracy, b, a, resamples=99)
    assert one.p_value == other.p_value and one.difference.value == -other.difference.value
    # Tolerance: the quantile is interpolated from the other side.
    assert one.difference.low == pytest.approx(-other.difference.high, abs=1e-15)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "words"),
    [
        (([1, 2], [1]), {}, ShapeError, "got the lengths 2, 1"),
        (([], []), {}, ArgumentError, "empty"),
        ((), {}, ShapeError, "one or more arrays"),
        ((3, 3), {}, ShapeError, "a row for each record"),
        (([1], [1]), {"resamples": 0}, ArgumentError, "resamples"),
        (([1], [1]), {"resamples": 2.5}, ArgumentError, "resamples"),
        (([1], [1]), {"seed": -1}, ArgumentError, "seed"),
        (([1], [1]), {"level": 95}, ArgumentError, "level must be a number between 0 and 1"),
        (([1], [1]), {"level": 1.0}, ArgumentError, "level"),
    ],
)
def test_refused(arrays: tuple[object, ...], options: dict[str, object], error: type[MinigradError], words: str) -> None:
    with pytest.raises(error, match=words):
        bootstrap(accuracy, *arrays, **options)  # type: ignore[arg-type]
