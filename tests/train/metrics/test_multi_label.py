"""The metrics of several labels per record, by examples worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad.errors import ArgumentError, MinigradError, ShapeError
from minigrad.train.metrics import multi_label_f1, subset_accuracy

LABELS = [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
PREDICTIONS = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_by_hand() -> None:
    # By label: 1 of 2 found and 1 predicted, 1 of 1 found and 2 predicted, nothing at all.
    per_label = [2 / 3, 2 / 3, 0]
    # Tolerance: the order of the sums is not fixed.
    assert multi_label_f1(LABELS, PREDICTIONS) == pytest.approx(sum(per_label) / 3, rel=1e-15)
    assert multi_label_f1(LABELS, PREDICTIONS, average="micro") == 4 / 6
    assert multi_label_f1(LABELS, PREDICTIONS, average="weighted") == pytest.approx(2 / 3, rel=1e-15)
    assert subset_accuracy(LABELS, PREDICTIONS) == pytest.approx(1 / 3, rel=1e-15)
    assert subset_accuracy(np.array(LABELS) == 1, LABELS) == 1.0


def test_nothing_given_and_nothing_predicted_is_zero() -> None:
    for average in ("micro", "macro", "weighted"):
        assert multi_label_f1([[0, 0]], [[0, 0]], average=average) == 0.0
    assert subset_accuracy([[0, 0]], [[0, 0]]) == 1.0


@pytest.mark.parametrize(
    ("labels", "predictions", "error", "words"),
    [
        ([[0, 1]], [[0.2, 0.9]], ArgumentError, "threshold"),
        ([[0, 1]], [[0, 1], [1, 1]], ShapeError, r"\(1, 2\) and \(2, 2\)"),
        ([0, 1], [0, 1], ShapeError, "table"),
        ([[0, 1], [1]], [[0, 1], [1]], ShapeError, "different lengths"),
        ([], [], ShapeError, "table"),
    ],
)
def test_refused(labels: object, predictions: object, error: type[MinigradError], words: str) -> None:
    for call in (multi_label_f1, subset_accuracy):
        with pytest.raises(error, match=words):
            call(labels, predictions)  # type: ignore[operator]
