"""Tasks on words: a tag for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data.alignment import Place, encode_words, join_words, tags_of_words, token_labels
from minigrad.data.loader import PackedLoader
from minigrad.data.records import LabelMap, Record
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import DataError
from minigrad.files import listing, quoted
from minigrad.train.metrics import ner_metrics
from minigrad.train.objectives import TokenClasses
from minigrad.train.scores import log_softmax
from minigrad.train.tasks.task import Examples, Task, check_arguments, texts_of


class TokenClassification(Task):
    """A tag for each word, IOB2, predicted at the word's first piece. Long texts are split into windows that share `stride` tokens."""

    head = "token-classification"
    labels: LabelMap
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
        """As `Task.examples`. Raises: DataError for a record with a second text."""
        check_arguments(tokenizer, records)
        for record in records:
            if record.text_b is not None:
                message = "has a second text, but the words of one text are tagged: leave the column of the second out"
                raise DataError(record.path, message, line=record.line, code="second-text")
        windows, places = encode_words(tokenizer, records, max_length, self.stride)
        labels = token_labels(windows, self._ids(records, places)) if any(record.entities is not None for record in records) else None
        sequences, types = [window.ids for window in windows], [window.type_ids for window in windows]
        return Examples(records, PackedLoader(sequences, token_labels=labels, token_types=types, **dealing), 0, windows, places)

    def _ids(self, records: Sequence[Record], places: Sequence[Sequence[Place]]) -> list[NDArray[np.int64]]:
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
        names, rows = self.labels.names, []
        counts = [len(words) for words in examples.places]
        scores = join_words(examples.windows, list(self._scores(model, examples, of_sequences=False)), counts)
        gold = self._ids(examples.records, examples.places) if examples.loader.token_labels is not None else None
        for i, (record, words) in enumerate(zip(examples.records, examples.places, strict=True)):
            logs = log_softmax(scores[i])
            row: dict[str, Any] = texts_of(i, record) | {"words": [list(place) for place in words]}
            if gold is not None:
                row |= {"tags": [names[t] for t in gold[i]], "loss": float(-logs[np.arange(len(words)), gold[i]].sum())}
            predicted = logs.argmax(axis=1)
            confidence = np.exp(logs.max(axis=1, initial=-np.inf))
            rows.append(row | {"predicted": [names[t] for t in predicted], "scores": [float(p) for p in confidence]})
        return rows

    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        words = sum(len(row["tags"]) for row in predictions)
        loss = sum(row["loss"] for row in predictions) / max(words, 1)
        return {"loss": loss} | ner_metrics([row["tags"] for row in predictions], [row["predicted"] for row in predictions])

    def label_counts(self, records: Sequence[Record]) -> Mapping[str, int]:
        """The number of entities of each type."""
        return Counter(entity.type for record in records for entity in record.entities or ())
