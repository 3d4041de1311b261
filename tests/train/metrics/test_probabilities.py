"""ROC-AUC and log-loss, by examples worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.train.metrics import log_loss, roc_auc


def test_auc_by_hand() -> None:
    assert roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 3 / 4  # of four pairs one is in the wrong order
    assert roc_auc([0, 1, 1], [0.5, 0.5, 0.9]) == (1 / 2 + 1) / 2  # a tie counts half
    assert roc_auc([0, 1, 0, 1], [7, 7, 7, 7]) == 0.5


def test_auc_of_several_classes_by_hand() -> None:
    labels, scores = [0, 1, 2, 2], [[0.8, 0.1, 0.1], [0.3, 0.2, 0.5], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]]
    areas = [1.0, 2 / 3, 3 / 4]
    # Tolerance: the order of the sums is not fixed.
    assert roc_auc(labels, scores) == pytest.approx(sum(areas) / 3, rel=1e-15)
    assert roc_auc(labels, scores, average="weighted") == pytest.approx((areas[0] + areas[1] + 2 * areas[2]) / 4, rel=1e-15)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2))
def test_auc_counts_pairs(records: list[tuple[int, int]]) -> None:
    labels, scores = zip(*records, strict=True)
    pairs = [(p > n) + (p == n) / 2 for y, p in records if y for z, n in records if not z]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert roc_auc(labels, scores) == pytest.approx(expected, rel=1e-14, nan_ok=True)  # one rounding of each quotient


def test_auc_without_a_class_is_nan() -> None:
    assert math.isnan(roc_auc([1, 1], [0.5, 0.6])) and math.isnan(roc_auc([0], [0.5]))
    for average in ("macro", "weighted"):
        assert math.isnan(roc_auc([0, 1], [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], average=average))


def test_log_loss_by_hand() -> None:
    assert log_loss([0, 1], [[0.5, 0.5], [0.75, 0.25]]) == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-15)  # order of the sum
    assert log_loss([1], [[1.0, 0.0]]) == -math.log(np.finfo(np.float64).eps)
    assert log_loss([0], np.array([[1.0, 0.0]], dtype=np.float32)) == 0.0


@pytest.mark.parametrize(
    ("labels", "scores", "error", "words"),
    [
        ([0, 2], [0.1, 0.2], ArgumentError, "labels must be 0 and 1"),
        ([0, 1], [0.1], ShapeError, "got 2 and 1"),
        ([0, 1], [[0.1, 0.9]], ShapeError, "got 2 and 1"),
        ([0, 1], [0.1, math.nan], ArgumentError, "finite, got nan at position 1"),
        ([0, 2], [[0.1, 0.9], [0.2, 0.8]], IndexRangeError, "label 2 at position 1"),
        ([0, 1], [[0.1], [0.2, 0.3]], ShapeError, "different lengths"),
        ([0, 1], ["a", "b"], DTypeError, "numbers"),
        ([0.5, 1], [0.1, 0.2], DTypeError, "integer"),
        ([], [], ArgumentError, "empty"),
        ([0], [[]], ArgumentError, "empty"),
        ([0], [[[1.0]]], ShapeError, "table"),
    ],
)
def test_refused_scores(labels: object, scores: object, error: type[MinigradError], words: str) -> None:
    with pytest.raises(error, match=words):
        roc_auc(labels, scores)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "error", "words"),
    [
        ([0.5, 0.5], ShapeError, "stack 1 - p and p"),
        ([[0.5, 0.5], [2.0, 3.0]], ArgumentError, "record 1 are no distribution: their sum is 5; apply softmax"),
        ([[0.5, 0.5], [-0.5, 1.5]], ArgumentError, "record 1"),
        ([[1.0], [1.0]], IndexRangeError, "label 1"),
        ([[0.5, 0.5]], ShapeError, "got 2 and 1"),
    ],
)
def test_refused_probabilities(probabilities: object, error: type[MinigradError], words: str) -> None:
    with pytest.raises(error, match=words):
        log_loss([0, 1], probabilities)  # type: ignore[arg-type]


def test_auc_has_no_micro_average() -> None:
    with pytest.raises(ArgumentError, match="'macro', 'weighted'"):
        roc_auc([0, 1], [[0.5, 0.5], [0.5, 0.5]], average="micro")
