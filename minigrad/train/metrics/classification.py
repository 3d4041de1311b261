"""Metrics of predicted classes, one class per record.

They equal scikit-learn's functions of the same names, without needing it. Metrics of probabilities are in `probabilities`, of several
labels per record in `multi_label`, and of whole entities in text, which are spans, in `entities`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.data.checks import check_count
from minigrad.train.metrics._rows import class_ids, require_average, require_ids_below, require_names
from minigrad.train.metrics.report import ClassificationReport, ClassScores, averaged, pooled, scores_of_counts


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The share of predictions that equal their label.

    Shapes: labels (n,), predictions (n,), integers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers.
    """
    true, predicted = class_ids(labels, predictions)
    return float(np.mean(true == predicted))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often label i was predicted as j: entry (i, j).

    Shapes: labels (n,), predictions (n,), integers in [0, classes); result (classes, classes)

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers.
        IndexRangeError: a label or prediction is not below `classes`.
    """
    true, predicted = class_ids(labels, predictions)
    check_count("classes", classes)
    require_ids_below("label", true, classes)
    require_ids_below("prediction", predicted, classes)
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def precision(labels: ArrayLike, predictions: ArrayLike, *, average: str = "macro", classes: int | None = None) -> float:
    """The share of the predictions of a class that are right, averaged over the classes; the arguments are those of `f1`."""
    return _average(labels, predictions, average, classes).precision


def recall(labels: ArrayLike, predictions: ArrayLike, *, average: str = "macro", classes: int | None = None) -> float:
    """The share of the labels of a class that were found, averaged over the classes; the arguments are those of `f1`."""
    return _average(labels, predictions, average, classes).recall


def f1(labels: ArrayLike, predictions: ArrayLike, *, average: str = "macro", classes: int | None = None) -> float:
    """The harmonic mean of precision and recall, averaged over the classes.

    average: "macro" is the plain mean over the classes, "weighted" the mean weighted by support, "micro" uses the pooled counts of
    all classes, which for one label per record is the accuracy. classes: how many to average over, ids 0 to classes - 1; None: those
    that occur as a label or a prediction.

    Shapes: labels (n,), predictions (n,), integers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers, or there is
            no such average.
        IndexRangeError: a label or prediction is not below `classes`.
    """
    return _average(labels, predictions, average, classes).f1


def matthews_correlation(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The Matthews correlation of labels and predictions, in [-1, 1], for any number of classes (Gorodkin 2004, R_K).

    0.0 if the labels or the predictions are all of one class, where it is undefined.

    Shapes: labels (n,), predictions (n,), integers

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers.
    """
    true, predicted = class_ids(labels, predictions)
    hits, claimed, support = _counts(true, predicted, None)
    n = len(true)
    # Integers up to the quotient: in floats the differences would cancel.
    covariance = n * int(hits.sum()) - int(claimed @ support)
    spread = (n * n - int(claimed @ claimed)) * (n * n - int(support @ support))
    return covariance / spread**0.5 if spread else 0.0


def classification_report(labels: ArrayLike, predictions: ArrayLike, names: Sequence[str]) -> ClassificationReport:
    """Precision, recall and F1 of every class in `names`, where class i is called `names[i]`.

    With TP, FP, FN the true positives, false positives and false negatives of a class:
    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN). A score whose denominator is zero is
    0.0: the class was never predicted, or never the label. The macro average is the plain mean over all names, the weighted
    average weights each class by its support.

    Shapes: labels (n,), predictions (n,), integers in [0, len(names))

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of integers, or the
            names are not distinct strings.
        IndexRangeError: a label or prediction has no name.
    """
    true, predicted = class_ids(labels, predictions)
    require_names(names)
    return ClassificationReport.of(names, np.stack(_counts(true, predicted, len(names)), axis=-1))


def _counts(
    true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of true positives, predictions and labels of each class. classes: None for those that occur."""
    if classes is None:
        occurring, ids = np.unique(np.concatenate([true, predicted]), return_inverse=True)
        classes, true, predicted = len(occurring), ids[: len(true)], ids[len(true) :]
    require_ids_below("label", true, classes)
    require_ids_below("prediction", predicted, classes)
    hits, claimed, support = (np.bincount(ids, minlength=classes) for ids in (true[true == predicted], predicted, true))
    return hits, claimed, support


def _average(labels: ArrayLike, predictions: ArrayLike, average: str, classes: int | None) -> ClassScores:
    true, predicted = class_ids(labels, predictions)
    require_average(average)
    counts = _counts(true, predicted, classes)
    if average == "micro":
        return pooled(np.stack(counts, axis=-1))
    return averaged(scores_of_counts(*counts), average)
