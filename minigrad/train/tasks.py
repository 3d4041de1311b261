"""What is learned, from records to figures: how a kind of task encodes its records, what it minimises, and how its results are judged.

A task is the same for training, evaluation and the predictions file. It knows names of labels, the model knows numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minigrad.data.alignment import Place, Window, encode_words, join_words, tags_of_words, token_labels
from minigrad.data.loader import PackedLoader
from minigrad.data.records import LabelMap, Record, numbers
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import ArgumentError, DataError
from minigrad.files import listing, quoted
from minigrad.tape import no_grad
from minigrad.train.metrics import classification_metrics, ner_metrics, regression_metrics
from minigrad.train.objectives import Objective, SequenceClasses, SequenceNumbers, TokenClasses
from minigrad.train.scores import Numbers, log_softmax, scores_of
from minigrad.workers import Replicas


@dataclass(frozen=True)
class Examples:
    """Records of one split, encoded. `loader` deals them out; `truncated` counts texts that were cut."""

    records: Sequence[Record]
    loader: PackedLoader
    truncated: int = 0
    windows: list[Window] = field(default_factory=list)
    """Of token classification: the loader's sequences."""
    places: list[list[Place]] = field(default_factory=list)
    """Of token classification: each record's words."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return sum(map(len, self.loader.sequences))


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, and a row for each record as the predictions file has them."""

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]


class Task(ABC):
    """A kind of task with its labels."""

    head: ClassVar[str]
    """The head of the model, as `minigrad.models.load` takes it."""

    metric: ClassVar[str]
    """The figure that decides what is best, if nobody says otherwise."""

    figures: ClassVar[tuple[str, ...]]
    """The names of what `metrics` gives."""

    objective: Objective
    labels: LabelMap | None

    workers: int | str = 1
    """Processes that compute predictions, as `Replicas` takes it."""

    _kept: tuple[Any, Replicas] | None = None
    """The model of `keeping_graphs`, and what computes its scores."""

    @abstractmethod
    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        """The records in the form that the model takes. max_length: in tokens; dealing: as PackedLoader takes it."""

    @abstractmethod
    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        """A row for each record: text, label, prediction, how sure it is, and its loss. The model is called as it is (see `evaluate`)."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Figures by name of what `predict` gave."""

    def evaluate(self, model: Any, examples: Examples) -> Evaluation:
        """What the model makes of the examples, without dropout.

        Raises: DataError for records without labels; NonFiniteError if the model's scores are no numbers.
        """
        require_labels(examples)
        with model.evaluating(), no_grad():
            predictions = self.predict(model, examples)
        return Evaluation(self.metrics(predictions), predictions)

    @contextmanager
    def keeping_graphs(self, model: Any) -> Iterator[None]:
        """Inside: on a GPU, evaluations of this model replay the CUDA graphs of those before, and weights may change in between.

        On a CPU the workers end with each evaluation, as ever: they know the weights of the moment when they were forked.
        """
        if all(p.device == "cpu" for p in model.parameters()):
            yield
            return
        before = self._kept
        with self._replicas(model) as replicas:
            self._kept = model, replicas
            try:
                yield
            finally:
                self._kept = before

    def _replicas(self, model: Any) -> Replicas:
        return Replicas(lambda tokens: model(tokens).logits, self.workers)

    def _scores(self, model: Any, examples: Examples, of_sequences: bool = True) -> Iterator[Numbers]:
        """What the model gives for each sequence, or for the tokens of each: see `scores_of`."""
        kept = self._kept[1] if self._kept is not None and self._kept[0] is model else None
        with self._replicas(model) if kept is None else nullcontext(kept) as replicas:
            yield from scores_of(replicas, examples.loader, of_sequences)

    def options(self) -> dict[str, Any]:
        """What `minigrad.models.load` is told of the labels."""
        return {"num_labels": 1} if self.labels is None else {"id2label": dict(enumerate(self.labels.names))}


def require_labels(examples: Examples) -> None:
    """Raises: DataError for examples that nothing can be learned from, nor compared with."""
    if examples.loader.labels is None and examples.loader.token_labels is None:
        first = examples.records[0]
        raise DataError(first.path, f"has no {'entities' if examples.windows else 'labels'} to compare with", code="missing-label")


class SequenceClassification(Task):
    """One class for each text or pair of texts.

    class_weights: "balanced" (n / (classes · n of the class), as scikit-learn has it), or one number for each label in the order of the
    names; label_smoothing: see SequenceClasses.
    """

    head = "sequence-classification"
    metric = "accuracy"
    figures = ("loss", "accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "mcc", "log_loss", "roc_auc")

    def __init__(self, labels: LabelMap, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        self.labels = labels
        self.objective = SequenceClasses(class_weights, label_smoothing)

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        assert self.labels is not None
        ids = self.labels.ids(records) if _labelled(records) else None
        return _texts(tokenizer, records, max_length, ids, dealing)

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        assert self.labels is not None
        names, rows = self.labels.names, []
        gold = examples.loader.labels
        for i, (record, scores) in enumerate(zip(examples.records, self._scores(model, examples), strict=True)):
            logs = log_softmax(scores)
            best = int(logs.argmax())
            row = _texts_of(i, record)
            if gold is not None:
                row |= {"label": record.label, "loss": float(-logs[gold[i]])}
            probabilities = {name: float(p) for name, p in zip(names, np.exp(logs), strict=True)}
            rows.append(row | {"prediction": names[best], "score": probabilities[names[best]], "probabilities": probabilities})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        assert self.labels is not None
        number = {name: i for i, name in enumerate(self.labels.names)}
        true, said = ([number[row[key]] for row in predictions] for key in ("label", "prediction"))
        probabilities = [list(row["probabilities"].values()) for row in predictions]
        return {"loss": _mean_loss(predictions)} | classification_metrics(true, said, probabilities, names=self.labels.names)


class Regression(Task):
    """One number for each text or pair of texts."""

    head = "sequence-classification"
    metric = "mse"
    figures = ("loss", "mse", "rmse", "mae", "r2", "pearson", "spearman")
    labels = None

    def __init__(self) -> None:
        self.objective = SequenceNumbers()

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        return _texts(tokenizer, records, max_length, numbers(records) if _labelled(records) else None, dealing)

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        rows, gold = [], examples.loader.labels
        for i, (record, scores) in enumerate(zip(examples.records, self._scores(model, examples), strict=True)):
            row = _texts_of(i, record)
            if gold is not None:
                row |= {"label": float(gold[i]), "loss": float((scores[0] - gold[i]) ** 2)}
            rows.append(row | {"prediction": float(scores[0])})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        true, said = ([row[key] for row in predictions] for key in ("label", "prediction"))
        return {"loss": _mean_loss(predictions)} | regression_metrics(true, said)


class TokenClassification(Task):
    """A tag for each word, IOB2: the first piece of a word speaks for it. Long texts are read in windows that share `stride` tokens."""

    head = "token-classification"
    metric = "entity_f1"
    figures = ("loss", "entity_f1", "entity_precision", "entity_recall", "token_accuracy", "token_f1_macro")

    def __init__(
        self,
        labels: LabelMap,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        stride: int | None = None,
    ) -> None:
        self.labels, self.stride = labels, stride
        self.objective = TokenClasses(class_weights, label_smoothing)

    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        """As in every task. Raises: DataError for a record with a second text, which has no place here."""
        for record in records:
            if record.text_b is not None:
                message = "has a second text, but the words of one text are tagged: leave the column of the second out"
                raise DataError(record.path, message, line=record.line, code="second-text")
        windows, places = encode_words(tokenizer, records, max_length, self.stride)
        labels = token_labels(windows, self._ids(records, places)) if _annotated(records) else None
        sequences, types = [window.ids for window in windows], [window.type_ids for window in windows]
        return Examples(records, PackedLoader(sequences, token_labels=labels, token_types=types, **dealing), 0, windows, places)

    def _ids(self, records: Sequence[Record], places: Sequence[Sequence[Place]]) -> list[NDArray[np.int64]]:
        assert self.labels is not None
        number = {name: i for i, name in enumerate(self.labels.names)}
        found = []
        for record, words in zip(records, places, strict=True):
            tags = tags_of_words(record, words)
            if unknown := [tag for tag in tags if tag not in number]:
                message = f"the tag {quoted(unknown[0])} does not occur in training; known are: {listing(number)}"
                raise DataError(record.path, message, line=record.line, code="bad-label")
            found.append(np.array([number[tag] for tag in tags], np.int64))
        return found

    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        assert self.labels is not None
        names, rows = self.labels.names, []
        counts = [len(words) for words in examples.places]
        scores = join_words(examples.windows, list(self._scores(model, examples, of_sequences=False)), counts)
        gold = self._ids(examples.records, examples.places) if examples.loader.token_labels is not None else None
        for i, (record, words) in enumerate(zip(examples.records, examples.places, strict=True)):
            logs = log_softmax(scores[i])
            row: dict[str, Any] = _texts_of(i, record) | {"words": [list(place) for place in words]}
            if gold is not None:
                row |= {"tags": [names[t] for t in gold[i]], "loss": float(-logs[np.arange(len(words)), gold[i]].sum())}
            said = logs.argmax(axis=1)
            sure = np.exp(logs.max(axis=1, initial=-np.inf))
            rows.append(row | {"predicted": [names[t] for t in said], "scores": [float(p) for p in sure]})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        words = sum(len(row["tags"]) for row in predictions)
        loss = sum(row["loss"] for row in predictions) / max(words, 1)
        return {"loss": loss} | ner_metrics([row["tags"] for row in predictions], [row["predicted"] for row in predictions])


KINDS: Mapping[str, type[Task]] = {
    "sequence-classification": SequenceClassification,
    "regression": Regression,
    "token-classification": TokenClassification,
}


def task_of(
    kind: str,
    records: Sequence[Record] | None = None,
    *,
    labels: LabelMap | None = None,
    class_weights: str | Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    stride: int | None = None,
) -> Task:
    """The task of a kind of `KINDS`, its labels numbered from training records, or as given (those of a trained model).

    Raises: ArgumentError; DataError for records that have no labels, or all the same one.
    """
    if kind not in KINDS:
        raise ArgumentError(f"the kind of task must be one of {listing(KINDS)}, got {quoted(kind)}")
    if kind == "regression":
        return Regression()
    tagging = kind == "token-classification"
    if labels is None:
        if not records:
            raise ArgumentError("labels are numbered from records: pass some, or the labels")
        labels = LabelMap.of_tags(records) if tagging else LabelMap.from_records(records)
        if len(labels) < 2:
            message = f"every record has the label {quoted(labels.names[0])}: there is nothing to learn"
            raise DataError(records[0].path, message, code="one-label")
    weights = _weights(class_weights, labels, records or (), tagging)
    if tagging:
        return TokenClassification(labels, weights, label_smoothing, stride)
    return SequenceClassification(labels, weights, label_smoothing)


def _weights(asked: str | Sequence[float] | None, labels: LabelMap, records: Sequence[Record], tagging: bool) -> list[float] | None:
    if asked is None:
        return None
    if asked == "balanced":
        if tagging:
            raise ArgumentError('class_weights = "balanced" counts labels of texts; for tags give a list of numbers')
        counts = np.bincount(labels.ids(records), minlength=len(labels))
        return [float(w) for w in len(records) / (len(labels) * np.maximum(counts, 1))]
    if isinstance(asked, str) or len(asked) != len(labels):
        raise ArgumentError(f'class_weights must be "balanced" or a number for each of {listing(labels.names)}, got {quoted(asked)}')
    return [float(weight) for weight in asked]


def _labelled(records: Sequence[Record]) -> bool:
    return any(record.label is not None for record in records)


def _annotated(records: Sequence[Record]) -> bool:
    return any(record.entities is not None for record in records)


def _texts(tokenizer: Tokenizer, records: Sequence[Record], max_length: int, labels: Any, dealing: Mapping[str, Any]) -> Examples:
    """Texts or pairs, cut at max_length."""
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


def _texts_of(number: int, record: Record) -> dict[str, Any]:
    return {"row": number, "text": record.text} | ({} if record.text_b is None else {"text_b": record.text_b})


def _mean_loss(predictions: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([row["loss"] for row in predictions]))
