"""Tasks on whole texts or pairs of them: one class for each, several at once, or one number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.data.loader import PackedLoader
from minigrad.data.records import LabelMap, Record, labels_of, numbers
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import DataError
from minigrad.train.metrics import classification_metrics, multi_label_metrics, regression_metrics
from minigrad.train.objectives import SequenceChoices, SequenceClasses, SequenceNumbers
from minigrad.train.scores import log_softmax
from minigrad.train.tasks.task import Examples, Task, check_arguments, texts_of


class SequenceClassification(Task):
    """One class for each text or pair of texts.

    class_weights: "balanced" (n / (classes · n of the class), as in scikit-learn), or one number for each label in the order of the
    names. label_smoothing: see SequenceClasses.
    """

    head = "sequence-classification"
    problem_type = "single_label_classification"
    labels: LabelMap
    metric = "accuracy"
    figures = ("loss", "accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "mcc", "log_loss", "roc_auc")

    def __init__(self, labels: LabelMap, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        self.labels = labels
        self.objective = SequenceClasses(class_weights, label_smoothing)

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        check_arguments(tokenizer, records)
        ids = self.labels.ids(records) if _labelled(records) else None
        return _texts(tokenizer, records, max_length, ids, dealing)

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        names, rows = self.labels.names, []
        gold = examples.loader.labels
        for i, (record, scores) in enumerate(zip(examples.records, self._scores(model, examples), strict=True)):
            logs = log_softmax(scores)
            best = int(logs.argmax())
            row = texts_of(i, record)
            if gold is not None:
                row |= {"label": record.label, "loss": float(-logs[gold[i]])}
            probabilities = {name: float(p) for name, p in zip(names, np.exp(logs), strict=True)}
            rows.append(row | {"prediction": names[best], "score": probabilities[names[best]], "probabilities": probabilities})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        number = {name: i for i, name in enumerate(self.labels.names)}
        true, predicted = ([number[row[key]] for row in predictions] for key in ("label", "prediction"))
        probabilities = [list(row["probabilities"].values()) for row in predictions]
        return {"loss": _mean_loss(predictions)} | classification_metrics(true, predicted, probabilities, names=self.labels.names)

    def label_counts(self, records: Sequence[Record]) -> Mapping[str, int]:
        return Counter(str(record.label) for record in records)


class MultiLabelClassification(Task):
    """Any number of classes for each text or pair of texts: those whose probability is above one half."""

    head = "sequence-classification"
    problem_type = "multi_label_classification"
    labels: LabelMap
    label_separator: str
    metric = "f1_micro"
    figures = ("loss", "f1_micro", "f1_macro", "f1_weighted", "subset_accuracy")

    def __init__(self, labels: LabelMap, label_separator: str = ",") -> None:
        self.labels, self.label_separator = labels, label_separator
        self.objective = SequenceChoices()

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        check_arguments(tokenizer, records)
        flags = self.labels.flags(records, self.label_separator) if _labelled(records) else None
        return _texts(tokenizer, records, max_length, flags, dealing)

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        """As `Task.predict`. A row's loss is the mean over its classes."""
        names, rows, gold = self.labels.names, [], examples.loader.labels
        for i, (record, scores) in enumerate(zip(examples.records, self._scores(model, examples), strict=True)):
            row = texts_of(i, record)
            if gold is not None:
                row |= {"labels": [name for name, flag in zip(names, gold[i], strict=True) if flag]}
                row |= {"loss": float((np.logaddexp(0, scores) - gold[i] * scores).mean())}  # binary cross-entropy
            probabilities = {name: float(p) for name, p in zip(names, np.exp(-np.logaddexp(0, -scores)), strict=True)}
            predicted = [name for name, score in zip(names, scores, strict=True) if score > 0]
            rows.append(row | {"predictions": predicted, "probabilities": probabilities})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        true, predicted = ([[name in row[key] for name in self.labels.names] for row in predictions] for key in ("labels", "predictions"))
        return {"loss": _mean_loss(predictions)} | multi_label_metrics(true, predicted)

    def label_counts(self, records: Sequence[Record]) -> Mapping[str, int]:
        return Counter(label for record in records for label in labels_of(record, self.label_separator))


class Regression(Task):
    """One number for each text or pair of texts."""

    head = "sequence-classification"
    problem_type = "regression"
    metric = "mse"
    figures = ("loss", "mse", "rmse", "mae", "r2", "pearson", "spearman")
    labels = None

    def __init__(self) -> None:
        self.objective = SequenceNumbers()

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        check_arguments(tokenizer, records)
        return _texts(tokenizer, records, max_length, numbers(records) if _labelled(records) else None, dealing)

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        rows, gold = [], examples.loader.labels
        for i, (record, scores) in enumerate(zip(examples.records, self._scores(model, examples), strict=True)):
            row = texts_of(i, record)
            if gold is not None:
                row |= {"label": float(gold[i]), "loss": float((scores[0] - gold[i]) ** 2)}
            rows.append(row | {"prediction": float(scores[0])})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        true, predicted = ([row[key] for row in predictions] for key in ("label", "prediction"))
        return {"loss": _mean_loss(predictions)} | regression_metrics(true, predicted)


def _labelled(records: Sequence[Record]) -> bool:
    return any(record.label is not None for record in records)


def _texts(tokenizer: Tokenizer, records: Sequence[Record], max_length: int, labels: Any, dealing: Mapping[str, Any]) -> Examples:
    """Encode texts or pairs, cut at max_length."""
    pairs = [record.text_b for record in records]
    for record in records:
        if (record.text_b is None) != (pairs[0] is None):
            raise DataError(
                record.path, "some records have a second text and this one has not, or the reverse", line=record.line, code="bad-pair"
            )
    encodings = tokenizer.encode(
        [r.text for r in records], pairs=None if pairs[0] is None else [p or "" for p in pairs], max_length=max_length
    )
    ids, types = [e.ids for e in encodings], [e.type_ids for e in encodings]
    return Examples(records, PackedLoader(ids, labels, token_types=types, **dealing), sum(e.truncated for e in encodings))


def _mean_loss(predictions: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([row["loss"] for row in predictions]))
