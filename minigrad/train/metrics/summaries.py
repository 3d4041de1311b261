"""All the scores of a task as one flat dict of numbers, as a training run logs them after each evaluation.

The keys are stable: a configuration names one of them to select the best model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from minigrad.errors import ShapeError
from minigrad.train.metrics.classification import classification_report, matthews_correlation
from minigrad.train.metrics.entities import Tags, ner_report
from minigrad.train.metrics.multi_label import multi_label_f1, subset_accuracy
from minigrad.train.metrics.probabilities import log_loss, roc_auc
from minigrad.train.metrics.regression import (
    mean_absolute_error,
    mean_squared_error,
    pearson,
    r2,
    root_mean_squared_error,
    spearman,
)

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        "loss": False,
        "accuracy": True,
        "f1_macro": True,
        "f1_micro": True,
        "f1_weighted": True,
        "precision_macro": True,
        "recall_macro": True,
        "mcc": True,
        "log_loss": False,
        "roc_auc": True,
        "subset_accuracy": True,
        "mse": False,
        "rmse": False,
        "mae": False,
        "r2": True,
        "pearson": True,
        "spearman": True,
        "entity_f1": True,
        "entity_precision": True,
        "entity_recall": True,
        "token_accuracy": True,
        "token_f1_macro": True,
    }
)
"""For every key of the functions below, and for "loss": whether higher is better."""


def classification_metrics(
    labels: ArrayLike, predictions: ArrayLike, probabilities: ArrayLike | None = None, *, names: Sequence[str]
) -> dict[str, float]:
    """accuracy, f1_macro, f1_micro, f1_weighted, precision_macro, recall_macro and mcc; with probabilities log_loss and roc_auc.

    Averages are over all names, as in `classification_report`. roc_auc is that of class 1 for two classes, else the plain mean of one
    class against the rest; NaN if a class has no record.

    Shapes: labels (n,), predictions (n,), integers in [0, len(names)); probabilities (n, len(names))

    Raises:
        DTypeError, ShapeError, ArgumentError, IndexRangeError: the arguments are not as described.
    """
    report = classification_report(labels, predictions, names)
    found = {
        "accuracy": report.accuracy,
        "f1_macro": report.macro.f1,
        "f1_micro": report.accuracy,  # one label per record: a false positive of one class is a false negative of another
        "f1_weighted": report.weighted.f1,
        "precision_macro": report.macro.precision,
        "recall_macro": report.macro.recall,
        "mcc": matthews_correlation(labels, predictions),
    }
    if probabilities is not None:
        found["log_loss"] = log_loss(labels, probabilities)
        table = np.asarray(probabilities)
        if table.shape[1] != len(names):
            raise ShapeError(f"probabilities must have a column for each of the {len(names)} names, got the shape {table.shape}")
        found["roc_auc"] = roc_auc(labels, table[:, 1] if len(names) == 2 else table)
    return found


def multi_label_metrics(labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """f1_micro, f1_macro, f1_weighted and subset_accuracy.

    Shapes: labels (n, classes), predictions (n, classes), of 0 and 1 or of booleans

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not as described.
    """
    found = {f"f1_{average}": multi_label_f1(labels, predictions, average=average) for average in ("micro", "macro", "weighted")}
    return found | {"subset_accuracy": subset_accuracy(labels, predictions)}


def regression_metrics(labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """mse, rmse, mae, r2, pearson and spearman.

    Shapes: labels (n,), predictions (n,), finite numbers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not as described.
    """
    return {
        "mse": mean_squared_error(labels, predictions),
        "rmse": root_mean_squared_error(labels, predictions),
        "mae": mean_absolute_error(labels, predictions),
        "r2": r2(labels, predictions),
        "pearson": pearson(labels, predictions),
        "spearman": spearman(labels, predictions),
    }


def ner_metrics(gold: Tags, predicted: Tags) -> dict[str, float]:
    """entity_f1, entity_precision, entity_recall (micro, seqeval's default mode), token_accuracy and token_f1_macro.

    gold, predicted: the tags of the words of each sentence.

    Raises: as `ner_report`.
    """
    report = ner_report(gold, predicted)
    return {
        "entity_f1": report.entity.micro.f1,
        "entity_precision": report.entity.micro.precision,
        "entity_recall": report.entity.micro.recall,
        "token_accuracy": report.token.accuracy,
        "token_f1_macro": report.token.macro.f1,
    }
