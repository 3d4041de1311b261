"""The kinds of task by their names in configurations; makes a task from records, or the task that a model was trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.data.records import LabelMap, Record
from minigrad.errors import ArgumentError, DataError
from minigrad.files import listing, quoted
from minigrad.train.tasks.task import Task, check_records
from minigrad.train.tasks.texts import MultiLabelClassification, Regression, SequenceClassification
from minigrad.train.tasks.words import TokenClassification

KINDS: Mapping[str, type[Task]] = {
    "sequence-classification": SequenceClassification,
    "multi-label-classification": MultiLabelClassification,
    "regression": Regression,
    "token-classification": TokenClassification,
}


def task_of(
    kind: str,
    records: Sequence[Record] | None = None,
    *,
    labels: LabelMap | None = None,
    label_separator: str = ",",
    class_weights: str | Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    stride: int | None = None,
) -> Task:
    """A task of a kind of `KINDS`, with labels numbered from training records, or as given (those of a trained model).

    label_separator: for multi-label-classification. class_weights, label_smoothing: for one class per text or word. stride: for
    token-classification.

    Raises: ArgumentError; DataError for records without labels, or all with the same one.
    """
    if kind not in KINDS:
        raise ArgumentError(f"the kind of task must be one of {listing(KINDS)}, got {quoted(kind)}")
    if records is not None:
        check_records(records)
    if kind == "regression":
        return Regression()
    if labels is None and not records:
        raise ArgumentError("labels are numbered from records: pass some, or the labels")
    if kind == "multi-label-classification":
        return MultiLabelClassification(labels or LabelMap.of_several(records or (), label_separator), label_separator)
    tagging = kind == "token-classification"
    if labels is None:
        assert records  # with neither, the error above was raised
        labels = LabelMap.of_tags(records) if tagging else LabelMap.from_records(records)
        if len(labels) < 2:
            message = f"every record has the label {quoted(labels.names[0])}: there is nothing to learn"
            raise DataError(records[0].path, message, code="one-label")
    weights = _weights(class_weights, labels, records or (), tagging)
    if tagging:
        return TokenClassification(labels, weights, label_smoothing, stride)
    return SequenceClassification(labels, weights, label_smoothing)


def task_of_model(model: Any, label_separator: str = ",") -> Task:
    """The task that a model was trained for, by its head. Raises: ArgumentError for a head that no task has."""
    names = model.config.id2label
    return task_of(_kind_of(model), labels=LabelMap(tuple(names[i] for i in range(len(names)))), label_separator=label_separator)


def _kind_of(model: Any) -> str:
    name = type(model).__name__
    if name.endswith("ForTokenClassification"):
        return "token-classification"
    if name.endswith("ForSequenceClassification"):
        if model.config.problem_type == "multi_label_classification":
            return "multi-label-classification"
        return "regression" if model.config.num_labels == 1 else "sequence-classification"
    raise ArgumentError(f"there is no evaluation for this {name}: it takes heads for labels of each text, or of each token")


def _weights(chosen: str | Sequence[float] | None, labels: LabelMap, records: Sequence[Record], tagging: bool) -> list[float] | None:
    if chosen is None:
        return None
    if chosen == "balanced":
        if tagging:
            raise ArgumentError('class_weights = "balanced" counts labels of texts; for tags give a list of numbers')
        counts = np.bincount(labels.ids(records), minlength=len(labels))
        return [float(w) for w in len(records) / (len(labels) * np.maximum(counts, 1))]
    if isinstance(chosen, str) or len(chosen) != len(labels):
        raise ArgumentError(f'class_weights must be "balanced" or a number for each of {listing(labels.names)}, got {quoted(chosen)}')
    return [float(weight) for weight in chosen]
