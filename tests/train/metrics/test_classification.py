"""The classification metrics, by examples worked out by hand; tests/oracle compares with scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.train.metrics import (
    ClassScores,
    accuracy,
    classification_report,
    confusion_matrix,
    f1,
    matthews_correlation,
    precision,
    recall,
)

LABELS = [0, 0, 0, 1, 1, 2]
PREDICTIONS = [0, 0, 1, 1, 0, 0]


def test_accuracy() -> None:
    assert accuracy(LABELS, PREDICTIONS) == 0.5
    assert accuracy(np.array([1, 2], dtype=np.uint8), [1, 2]) == 1.0


def test_report_by_hand() -> None:
    report = classification_report(LABELS, PREDICTIONS, ["a", "b", "c"])
    assert report.classes["a"] == ClassScores(precision=2 / 4, recall=2 / 3, f1=4 / 7, support=3)
    assert report.classes["b"] == ClassScores(precision=1 / 2, recall=1 / 2, f1=1 / 2, support=2)
    assert report.classes["c"] == ClassScores(precision=0.0, recall=0.0, f1=0.0, support=1)  # never predicted
    assert report.accuracy == 0.5
    # Tolerance: the order of the sums is not fixed.
    assert report.macro.f1 == pytest.approx((4 / 7 + 1 / 2) / 3, rel=1e-15)
    assert report.weighted.f1 == pytest.approx((3 * 4 / 7 + 2 / 2) / 6, rel=1e-15)
    assert report.weighted.recall == pytest.approx(report.accuracy, rel=1e-15)
    assert report.macro.support == report.weighted.support == 6


def test_averages_by_hand() -> None:
    assert f1(LABELS, PREDICTIONS, average="micro") == precision(LABELS, PREDICTIONS, average="micro") == 0.5
    # Tolerance: the order of the sums is not fixed.
    assert f1(LABELS, PREDICTIONS) == pytest.approx((4 / 7 + 1 / 2 + 0) / 3, rel=1e-15)
    assert precision(LABELS, PREDICTIONS) == pytest.approx((1 / 2 + 1 / 2 + 0) / 3, rel=1e-15)
    assert recall(LABELS, PREDICTIONS, average="weighted") == pytest.approx(0.5, rel=1e-15)
    # Class 1 occurs nowhere: it counts only if it is among the classes named.
    assert f1([0, 2], [0, 2]) == 1.0
    assert f1([0, 2], [0, 2], classes=3) == pytest.approx(2 / 3, rel=1e-15)
    with pytest.raises(ArgumentError, match="average must be one of 'micro', 'macro', 'weighted', got 'binary'"):
        f1([0], [0], average="binary")
    with pytest.raises(IndexRangeError, match="label 2"):
        f1([0, 2], [0, 1], classes=2)


def test_confusion_matrix_by_hand() -> None:
    np.testing.assert_array_equal(confusion_matrix(LABELS, PREDICTIONS, 4), [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    with pytest.raises(IndexRangeError, match="label 2"):
        confusion_matrix(LABELS, PREDICTIONS, 2)
    with pytest.raises(ArgumentError, match="classes"):
        confusion_matrix(LABELS, PREDICTIONS, 0)


def test_matthews_correlation_by_hand() -> None:
    # TP 2, TN 1, FP 1, FN 1: (2·1 - 1·1) / √(3·3·2·2)
    assert matthews_correlation([1, 1, 1, 0, 0], [1, 1, 0, 1, 0]) == pytest.approx(1 / 6, rel=1e-15)
    assert matthews_correlation([0, 1, 2], [0, 1, 2]) == 1.0
    assert matthews_correlation([0, 1], [1, 0]) == -1.0
    assert matthews_correlation([0, 0], [0, 1]) == matthews_correlation([0, 1], [1, 1]) == matthews_correlation([3], [3]) == 0.0


def test_class_that_occurs_nowhere_counts_as_zero() -> None:
    report = classification_report([0, 0], [0, 0], ["a", "b"])
    assert report.classes["b"] == ClassScores(0.0, 0.0, 0.0, 0)
    assert report.macro.f1 == 0.5
    assert report.weighted.f1 == 1.0


def test_table_and_dict() -> None:
    report = classification_report(LABELS, PREDICTIONS, ["a", "long class name", "c"])
    lines = str(report).splitlines()
    assert lines[0].split() == ["precision", "recall", "f1", "support"]
    assert lines[1].split() == ["a", "0.5000", "0.6667", "0.5714", "3"]
    assert "accuracy" in lines[5]
    assert lines[5].split()[1:] == ["0.5000", "6"]
    assert len({len(line) for line in lines if line}) == 1
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["classes"]["a"] == {"precision": 0.5, "recall": 2 / 3, "f1": 4 / 7, "support": 3}
    assert plain["accuracy"] == 0.5
    assert plain["macro"]["support"] == 6


@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), min_size=1))))
def test_laws(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, rows = case
    labels, predictions = zip(*rows, strict=True)
    names = [str(i) for i in range(count)]
    report = classification_report(labels, predictions, names)
    swapped = classification_report(predictions, labels, names)
    assert report.accuracy == accuracy(labels, predictions) == swapped.accuracy
    assert sum(scores.support for scores in report.classes.values()) == len(rows)
    for name in names:
        one, other = report.classes[name], swapped.classes[name]
        assert (one.precision, one.recall, one.f1) == (other.recall, other.precision, other.f1)
        assert min(one.precision, one.recall) - 1e-15 <= one.f1 <= max(one.precision, one.recall) + 1e-15  # rounding of the quotients


@pytest.mark.parametrize(
    ("labels", "predictions", "error", "words"),
    [
        ([], [], ArgumentError, "labels are empty"),
        ([0, 1], [0], ShapeError, "got 2 and 1"),
        ([0, 1], [[0.1, 0.9], [0.5, 0.5]], ShapeError, "argmax"),
        ([0, 1], [[0, 1], [0]], ShapeError, "different lengths"),
        ([0.0, 1.0], [0, 1], DTypeError, "float64"),
        ([0, 1], ["a", "b"], DTypeError, "predictions must be integer"),
        ([True, False], [0, 1], DTypeError, "bool"),
        (3, 3, ShapeError, "labels"),
    ],
)
def test_refused_rows(labels: object, predictions: object, error: type[MinigradError], words: str) -> None:
    for call in (accuracy, f1, matthews_correlation, lambda a, b: classification_report(a, b, ["a", "b"])):
        with pytest.raises(error, match=words):
            call(labels, predictions)  # type: ignore[operator]


def test_refused_names_and_ids() -> None:
    with pytest.raises(IndexRangeError, match="prediction 2 at position 1 has no name: there are 2 names"):
        classification_report([0, 1], [0, 2], ["a", "b"])
    with pytest.raises(IndexRangeError, match="label -1 at position 0"):
        classification_report([-1, 1], [0, 1], ["a", "b"])
    with pytest.raises(ArgumentError, match="differ"):
        classification_report([0], [0], ["a", "a"])
    for names in ("ab", [0, 1], 5, None, (name for name in "ab")):
        with pytest.raises(DTypeError, match="names"):
            classification_report([0], [0], names)  # type: ignore[arg-type]
