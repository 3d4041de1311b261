"""What all tasks share: encoded records, an evaluation, and how a model's scores are come by.

A task is the same for training, evaluation and the predictions file. It knows names of labels, the model knows numbers.
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

    problem_type: ClassVar[str | None] = None
    """What labels of sequences are, so that a model says what it was trained for; None of tokens."""

    metric: ClassVar[str]
    """The figure that decides what is best, if nobody says otherwise."""

    figures: ClassVar[tuple[str, ...]]
    """The names of what `metrics` gives."""

    objective: Objective
    labels: LabelMap | None

    label_separator: str | None = None
    """What stands between the labels of a record, as `read_records` takes it; None where it has one."""

    workers: int | str = 1
    """Processes that compute predictions, as `Replicas` takes it."""

    progress: bool = False
    """Whether predictions show how far they are on standard error: a bar, without a terminal a line now and then."""

    _kept: tuple[Any, Replicas] | None = None
    """The model of `keeping_graphs`, and what computes its scores."""

    @abstractmethod
    def examples(self, tokenizer: Tokenizer, records: Sequence[Record], max_length: int, **dealing: Any) -> Examples:
        """The records in the form that the model takes. max_length: in tokens; dealing: as PackedLoader takes it.

        Raises: ArgumentError for what is no tokenizer, no list of records, or an empty one.
        """

    @abstractmethod
    def predict(self, model: Any, examples: Examples) -> list[dict[str, Any]]:
        """A row for each record: text, label, prediction, how sure it is, and its loss. The model is called as it is (see `evaluate`)."""

    @abstractmethod
    def metrics(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Figures by name of what `predict` gave."""

    def label_counts(self, records: Sequence[Record]) -> Mapping[str, int]:
        """How often each label occurs, for the log and the report; nothing where labels are numbers."""
        return {}

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
            yield from scores_of(replicas, examples.loader, of_sequences, self.progress)

    def options(self) -> dict[str, Any]:
        """What `minigrad.models.load` is told of the labels."""
        names = {"num_labels": 1} if self.labels is None else {"id2label": dict(enumerate(self.labels.names))}
        return {**names, "problem_type": self.problem_type}


def check_parts(tokenizer: Any, records: Any) -> None:
    """Raises: ArgumentError for what a task cannot make examples of."""
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
    """Raises: DataError for examples that nothing can be learned from, nor compared with."""
    if examples.loader.labels is None and examples.loader.token_labels is None:
        first = examples.records[0]
        raise DataError(first.path, f"has no {'entities' if examples.windows else 'labels'} to compare with", code="missing-label")


def texts_of(number: int, record: Record) -> dict[str, Any]:
    """What the row of a record in the predictions file begins with."""
    return {"row": number, "text": record.text} | ({} if record.text_b is None else {"text_b": record.text_b})
