"""The common part of all pipelines: loading, options, checked encodings, and batches by length whose results come back in order.

A list is encoded whole before anything is computed, so that an unusable text is found at once. An iterator may be endless: inputs and
results are streamed a chunk at a time.
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from minigrad.data import Encoding, PackedTokens, Tokenizer, batches_by_length
from minigrad.data.by_length import BATCH_TOKENS
from minigrad.data.checks import check_count
from minigrad.data.progress import progress_bar
from minigrad.data.tokenization import checked_texts
from minigrad.data.windows import Rows as Rows
from minigrad.errors import ArgumentError, InputError, NonFiniteError, WeightFileError
from minigrad.files import listing, quoted
from minigrad.io import find_checkpoint
from minigrad.models.auto import LOOK_ALIKES, forecast, head_of_model, load, max_tokens, named_head
from minigrad.nn import Module
from minigrad.packing import IntArray
from minigrad.parameter import Parameter
from minigrad.tape import no_grad
from minigrad.tensor import Tensor
from minigrad.workers import Replicas

T = TypeVar("T")

CHUNK_TEXTS = 1024
"""Texts of an iterator that are computed together: enough for batches of similar lengths."""


@dataclass(frozen=True)
class Chunk:
    """Inputs that are computed together: a whole list, or the next ones of an iterator."""

    inputs: list[Any]
    bar: Any
    """The progress bar, from `progress_bar`; it counts inputs."""
    first: int = 0
    """The number of the first input, for messages."""


class Pipeline(ABC):
    """A model, its tokenizer and the options of a task; calling it with texts returns the result of `run`.

    Raises: ArgumentError for a model with another head, for objects that are not a model or a tokenizer, and for options that `run` does
    not take.
    """

    head: ClassVar[str]
    """The head of the model, as `minigrad.models.load` takes it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: bool = True,
        workers: int | str = 1,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self._check_parts(model, tokenizer)
        self.model, self.tokenizer = model if device is None else model.to(device), tokenizer
        self.max_length = None if max_length is None else check_count("max_length", max_length)
        self.batch_tokens, self.progress = batch_tokens, progress
        self._replicas = Replicas(self._rows_of, workers)
        self._replicated: list[tuple[Parameter, int]] = []  # the parameters that the replicas have, and their versions
        self.options = options
        self._check_options(options)

    @classmethod
    def _check_parts(cls, model: Any, tokenizer: Any) -> None:
        """Raises: ArgumentError if `model` is not a model or has another head than the task's, or `tokenizer` is not a tokenizer."""
        if not isinstance(model, Module) or head_of_model(model) not in (cls.head, None):
            wanted = f"takes a model with the head {quoted(cls.head)}, as `mg.models.load(directory, {quoted(cls.head)})` gives it"
            raise ArgumentError(f"{cls.__name__} {wanted}; got {type(model).__name__}")
        if not isinstance(tokenizer, Tokenizer):
            wanted = "takes a tokenizer beside the model, as `mg.data.Tokenizer.from_pretrained(directory)` gives it"
            raise ArgumentError(f"{cls.__name__} {wanted}; got {type(tokenizer).__name__}")

    @classmethod
    def from_pretrained(cls, directory_or_name: str | os.PathLike[str], **options: Any) -> Self:
        """Raises: as `pipeline`."""
        directory = find_checkpoint(directory_or_name)
        report = forecast(directory, cls.head).report
        if cls.head != "base" and report.newly_initialised:
            message = f"has no trained head for {cls.head}: {listing(report.newly_initialised)} would be random; train it first"
            raise WeightFileError(report.path, message, code="no-head")
        if cls.head in LOOK_ALIKES and (named := named_head(directory)) in LOOK_ALIKES - {cls.head}:
            raise WeightFileError(report.path, f"its classifier was trained for {named}, not for {cls.head}", code="no-head")
        return cls(load(directory, cls.head), Tokenizer.from_pretrained(directory), **options)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call `run` with the pipeline's options, overridden by those given here. Raises: ArgumentError; as `run`."""
        self._check_options(options, inputs=True)
        return self.run(*inputs, **{**self.options, **options})

    @abstractmethod
    def run(self, *inputs: Any, **options: Any) -> Any:
        """The results for one text, a list of texts, or an iterator of texts, which gives an iterator of results."""

    def _check_options(self, options: Iterable[str], inputs: bool = False) -> None:
        """Raises: ArgumentError for options that `run` does not take by keyword. inputs: its inputs are allowed too, as in a call."""
        kinds = {name: parameter.kind for name, parameter in inspect.signature(self.run).parameters.items()}
        known = [name for name, kind in kinds.items() if inputs or kind == inspect.Parameter.KEYWORD_ONLY]
        if unknown := [name for name in options if name not in known]:
            takes = f"it takes {listing(known)}" if known else "it takes no options"
            raise ArgumentError(f"{type(self).__name__} does not take {listing(unknown)}; {takes}")

    def _answers(self, inputs: Any, answer: Callable[[Chunk], list[Any]]) -> Any:
        """The results of `answer` for one input or a list, or a stream of them for an iterator. Raises: ArgumentError; as `answer`."""
        if isinstance(inputs, Iterator):
            return self._stream(inputs, answer)
        given, single = as_list(inputs)
        with progress_bar(len(given), self.progress) as bar:
            results = answer(Chunk(given, bar))
        return results[0] if single else results

    def _stream(self, inputs: Iterator[Any], answer: Callable[[Chunk], list[Any]]) -> Iterator[Any]:
        with progress_bar(length_hint(inputs) or None, self.progress) as bar:
            first = 0
            while given := list(islice(inputs, CHUNK_TEXTS)):
                yield from answer(Chunk(given, bar, first))
                first += len(given)

    def _encode(self, chunk: Chunk, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Encodings that the model can read. Raises: InputError for a text that is too long; as `Tokenizer.encode`."""
        checked_texts("texts", texts, chunk.first)
        encodings = self.tokenizer.encode(texts, pairs=pairs, max_length=self.max_length)
        longest = self._longest()
        for i, encoding in enumerate(encodings, chunk.first):
            if len(encoding) > longest:
                ways = f"mg.pipeline(..., max_length={longest}), on the command line --max-length {longest}"
                reason = f"has {len(encoding)} tokens, this model reads {longest}: split it, or cut it by {ways}"
                raise InputError("text", i, reason, code="too-long")
        return encodings

    def _rows_of(self, tokens: PackedTokens) -> Tensor:
        """The model's output that the task uses: a row for each sequence or each token."""
        return self.model(tokens).logits  # type: ignore[no-any-return]

    def _rows(self, tokens: PackedTokens, rows: IntArray | None = None) -> Rows:
        """`_rows_of`, by all workers. rows: the chosen rows, for tasks whose `_rows_of` takes them; one process then computes.

        Raises: NonFiniteError.
        """
        now = [(p, p.leaf.version) for p in self.model.parameters()]
        if now != self._replicated:  # parameters compare by identity, not by value
            self._replicas.close()
            self._replicated = now
        return finite(self._replicas(tokens, rows))

    def _longest(self) -> int:
        """The maximum number of tokens that both model and tokenizer accept."""
        positions = max_tokens(self.model.config)
        return positions if self.tokenizer.model_max_length is None else min(positions, self.tokenizer.model_max_length)

    def _compute(
        self, chunk: Chunk, encodings: Sequence[Encoding], compute: Callable[[Sequence[int], PackedTokens], Sequence[T]]
    ) -> list[T]:
        """Call `compute` for each batch (the numbers of its encodings, their tokens); returns the results in the order of `encodings`.

        encodings: one or several (windows) for each input of the chunk.
        """
        found: dict[int, T] = {}
        with self.model.evaluating():
            for numbers, tokens in batches_by_length(encodings, self.batch_tokens, progress=False):
                chosen: list[int] = numbers.tolist()
                with no_grad():
                    found.update(zip(chosen, compute(chosen, tokens), strict=True))
                done = chunk.first + len(chunk.inputs) * len(found) // len(encodings)
                chunk.bar.update(done - chunk.bar.n)
        return [found[i] for i in range(len(encodings))]


def split_rows(rows: Rows, tokens: PackedTokens) -> list[Rows]:
    """The rows of each sequence. Shapes: (rows, d) → per sequence (n, d)."""
    return [rows[first:last] for first, last in tokens.packing.spans]


def finite(array: Rows) -> Rows:
    """`array` itself. Raises: NonFiniteError if it holds NaN or infinities, from which no answer can be read."""
    if not np.isfinite(array).all():
        raise NonFiniteError("the model's answer holds NaN or infinities: its weights are broken")
    return array


def as_list(inputs: Any) -> tuple[list[Any], bool]:
    """The inputs as a list, and whether it was a single one. Raises: ArgumentError."""
    if isinstance(inputs, str | dict):
        return [inputs], True
    try:
        if isinstance(inputs, bytes | bytearray):  # Python would take them for a list of numbers
            raise TypeError
        return list(inputs), False
    except TypeError:
        raise ArgumentError(f"pass a text or a list of texts, got {type(inputs).__name__}") from None


def softmax(logits: Rows) -> Rows:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: Rows) -> Rows:
    """1 / (1 + exp(-x)), computed with the exponential that cannot overflow."""
    power = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, power) / (1 + power))
