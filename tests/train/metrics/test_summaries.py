"""The flat dicts of scores: their keys, and that each is the score of that name."""

from __future__ import annotations

import math

import pytest

from minigrad.errors import ShapeError
from minigrad.train import metrics
from minigrad.train.metrics import HIGHER_IS_BETTER, classification_metrics, multi_label_metrics, ner_metrics, regression_metrics

LABELS, PREDICTIONS, NAMES = [0, 0, 1, 1, 1], [0, 1, 1, 1, 0], ["no", "yes"]
PROBABILITIES = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]


def test_classification() -> None:
    found = classification_metrics(LABELS, PREDICTIONS, PROBABILITIES, names=NAMES)
    assert list(found) == [
        "accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "mcc", "log_loss", "roc_auc"
    ]  # fmt: skip
    for average in ("macro", "micro", "weighted"):
        assert found[f"f1_{average}"] == metrics.f1(LABELS, PREDICTIONS, average=average)
    assert found["precision_macro"] == metrics.precision(LABELS, PREDICTIONS)
    assert found["recall_macro"] == metrics.recall(LABELS, PREDICTIONS)
    assert found["mcc"] == metrics.matthews_correlation(LABELS, PREDICTIONS)
    assert found["log_loss"] == metrics.log_loss(LABELS, PROBABILITIES)
    assert found["roc_auc"] == metrics.roc_auc(LABELS, [row[1] for row in PROBABILITIES])
    assert set(found) - set(classification_metrics(LABELS, PREDICTIONS, names=NAMES)) == {"log_loss", "roc_auc"}


def test_classification_with_an_absent_class() -> None:
    found = classification_metrics([0, 1], [0, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], names=["a", "b", "c"])
    assert math.isnan(found["roc_auc"]) and found["f1_macro"] == pytest.approx(2 / 3, rel=1e-15)
    with pytest.raises(ShapeError, match="a column for each of the 3 names"):
        classification_metrics([0, 1], [0, 1], PROBABILITIES[:2], names=["a", "b", "c"])


def test_regression() -> None:
    labels, predictions = [1.0, 2.0, 4.0], [1.0, 3.0, 3.0]
    found = regression_metrics(labels, predictions)
    assert list(found) == ["mse", "rmse", "mae", "r2", "pearson", "spearman"]
    assert found["mse"] == metrics.mean_squared_error(labels, predictions)
    assert found["rmse"] == metrics.root_mean_squared_error(labels, predictions)
    assert found["mae"] == metrics.mean_absolute_error(labels, predictions)
    for name in ("r2", "pearson", "spearman"):
        assert found[name] == getattr(metrics, name)(labels, predictions)


def test_several_classes_at_once() -> None:
    labels, predictions = [[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 0]]
    found = multi_label_metrics(labels, predictions)
    assert list(found) == ["f1_micro", "f1_macro", "f1_weighted", "subset_accuracy"]
    assert (
        found["f1_micro"] == 4 / 5
        and found["f1_macro"] == 1 / 2
        and found["subset_accuracy"] == metrics.subset_accuracy(labels, predictions)
    )


def test_ner() -> None:
    gold, predicted = [["B-PER", "O", "B-LOC"]], [["B-PER", "B-PER", "O"]]
    found, report = ner_metrics(gold, predicted), metrics.ner_report(gold, predicted)
    assert list(found) == ["entity_f1", "entity_precision", "entity_recall", "token_accuracy", "token_f1_macro"]
    micro = report.entity.micro
    assert [found["entity_f1"], found["entity_precision"], found["entity_recall"]] == [micro.f1, micro.precision, micro.recall]
    assert [found["token_accuracy"], found["token_f1_macro"]] == [report.token.accuracy, report.token.macro.f1]


def test_every_key_has_a_direction() -> None:
    keys = {
        *classification_metrics(LABELS, PREDICTIONS, PROBABILITIES, names=NAMES),
        *regression_metrics([1.0, 2.0], [1.0, 2.0]),
        *ner_metrics([["O"]], [["O"]]),
        *multi_label_metrics([[1]], [[1]]),
        "loss",
    }
    assert keys == set(HIGHER_IS_BETTER)
    assert {key for key in keys if not HIGHER_IS_BETTER[key]} == {"loss", "log_loss", "mse", "rmse", "mae"}
