"""The base class of tasks: encoded records, evaluations, and how a model's scores are computed.

The same task is used for training, evaluation and the file of predictions. A task has label names, the model only label numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minigrad.data.alignment import Place, Window
from minigrad.data.loader import PackedLoader
from minigrad.data.records import LabelMap, Record
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import ArgumentError, DataError
from minigrad.files import quoted
from minigrad.tape import no_grad
from minigrad.train.objectives import Objective
from minigrad.train.scores import Numbers, scores_of
from minigrad.workers import Replicas


@dataclass(frozen=True)
class Examples:
    """Records of one split, encoded. `loader` batches them; `truncated` counts texts that were cut."""

    records: Sequence[Record]
    loader: PackedLoader
    truncated: int = 0
    windows: list[Window] = field(default_factory=list)
    """For token classification: the loader's sequences."""
    places: list[list[Place]] = field(default_factory=list)
    """For token classification: each record's words."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return sum(map(len, self.loader.sequences))


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, and for each record its row in the file of predictions."""

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]


class Task(ABC):
    """A kind of task with its labels."""

    head: ClassVar[str]
    """The head of the model, as `minigrad.models.load` takes it."""

    problem_type: ClassVar[str | None] = None
    """The `problem_type` of the model's configuration, which tells what it was trained for; None for labels of tokens."""

    metric: ClassVar[str]
    """The figure that selects the best model by default."""

    figures: ClassVar[tuple[str, ...]]
    """The names of the figures in `metrics`."""

    objective: Objective
    labels: LabelMap | None

    label_separator: str | None = None
    """The separator between the labels of a record, as `read_records` takes it; None if a record has one label."""

    workers: int | str = 1
    """Processes that compute predictions, as `Replicas` takes it."""

    progress: bool = False
    """Whether predictions show their progress on standard error: a bar, or without a terminal a line now and then."""

    _kept: tuple[Any, Replicas] | None = None
    """The model of `keeping_graphs`, and the Replicas that compute its scores."""

    @abstractmethod
    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        """Encode the records for the model. max_length: in tokens. dealing: options of PackedLoader.

        Raises: ArgumentError for what is no tokenizer, no list of records, or an empty one.
        """

    @abstractmethod
    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        """A row for each record: text, label, prediction, its probability, and its loss. The model keeps its mode (see `evaluate`)."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Figures by name, from the rows of `predict`."""

    def label_counts(self, records: Sequence[Record]) -> Mapping[str, int]:
        """How often each label occurs, for the log and the report; empty if labels are numbers."""
        return {}

    def evaluate(self, model: Any, examples: Examples) -> Evaluation:
        """Evaluate the model on the examples, without dropout.

        Raises: DataError for records without labels; NonFiniteError if the model's scores are not finite.
        """
        require_labels(examples)
        with model.evaluating(), no_grad():
            predictions = self.predict(model, examples)
        return Evaluation(self.metrics(predictions), predictions)

    @contextmanager
    def keeping_graphs(self, model: Any) -> Iterator[None]:
        """On a GPU, let evaluations of this model inside the block share their CUDA graphs; weights may change in between.

        On a CPU the workers still end with each evaluation: they have the weights from when they were forked.
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
        """The model's scores for each sequence, or for the tokens of each: see `scores_of`."""
        kept = self._kept[1] if self._kept is not None and self._kept[0] is model else None
        with self._replicas(model) if kept is None else nullcontext(kept) as replicas:
            yield from scores_of(replicas, examples.loader, of_sequences, self.progress)

    def options(self) -> dict[str, Any]:
        """The options about labels for `minigrad.models.load`."""
        names = {"num_labels": 1} if self.labels is None else {"id2label": dict(enumerate(self.labels.names))}
        return {**names, "problem_type": self.problem_type}


def check_arguments(tokenizer: Any, records: Any) -> None:
    """Raises: ArgumentError for a tokenizer or records that a task cannot make examples from."""
    if not isinstance(tokenizer, Tokenizer):
        raise ArgumentError(f"examples are made by a tokenizer, as `Tokenizer.from_pretrained` gives it; got {quoted(tokenizer)}")
    check_records(records)
    if not records:
        raise ArgumentError("there are no records to make examples of")


def check_records(records: Any) -> None:
    """Raises: ArgumentError for what is no list of records."""
    if not isinstance(records, Sequence):
        raise ArgumentError(f"records must be a list, as `records_from` and `read_records` give it; got {quoted(records)}")
    for record in records:
        if not isinstance(record, Record):
            raise ArgumentError(f"records must be of the class Record: `records_from(rows)` makes them of dicts; got {quoted(record)}")


def require_labels(examples: Examples) -> None:
    """Raises: DataError for examples without labels."""
    if examples.loader.labels is None and examples.loader.token_labels is None:
        first = examples.records[0]
        raise DataError(first.path, f"has no {'entities' if examples.windows else 'labels'} to compare with", code="missing-label")


def texts_of(number: int, record: Record) -> dict[str, Any]:
    """The first fields of a record's row in the file of predictions."""
    return {"row": number, "text": record.text} | ({} if record.text_b is None else {"text_b": record.text_b})
