"""What all pipelines share: loading, options, checked encodings, and batches by length whose results come back in order."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from minigrad.autograd import no_grad
from minigrad.data import Encoding, PackedTokens, Tokenizer, batches_by_length
from minigrad.data.by_length import BATCH_TOKENS
from minigrad.errors import ArgumentError, WeightFileError
from minigrad.files import listing, quoted
from minigrad.io import find_checkpoint
from minigrad.models.auto import forecast, load, max_tokens
from minigrad.tensor import Tensor

T = TypeVar("T")
Rows = NDArray[np.floating[Any]]


class Pipeline(ABC):
    """A model, its tokenizer and the options of a task: called with texts, it gives what `run` returns."""

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
        **options: Any,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        if max_length is not None:
            check_count("max_length", max_length)
        self.max_length, self.batch_tokens, self.progress = max_length, batch_tokens, progress
        self.options = options
        self._check_options(options)

    @classmethod
    def from_pretrained(cls, directory_or_name: str | os.PathLike[str], **options: Any) -> Self:
        """Raises: as `pipeline`."""
        directory = find_checkpoint(directory_or_name)
        report = forecast(directory, cls.head).report
        if cls.head != "base" and report.newly_initialised:
            message = f"has no trained head for {cls.head}: {listing(report.newly_initialised)} would be random; train it first"
            raise WeightFileError(report.path, message, code="no-head")
        return cls(load(directory, cls.head), Tokenizer.from_pretrained(directory), **options)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """`run`, with the options given when the pipeline was made unless others are given now. Raises: ArgumentError; as `run`."""
        self._check_options(options)
        return self.run(*inputs, **{**self.options, **options})

    @abstractmethod
    def run(self, *inputs: Any, **options: Any) -> Any:
        """What the task makes of texts."""

    def _check_options(self, options: Iterable[str]) -> None:
        known = inspect.signature(self.run).parameters
        if unknown := [name for name in options if name not in known]:
            raise ArgumentError(f"{type(self).__name__} does not take {listing(unknown)}; it takes {listing(known)}")

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Encodings that the model can read. Raises: ArgumentError naming a text that is too long; as `Tokenizer.encode`."""
        encodings = self.tokenizer.encode(texts, pairs=pairs, max_length=self.max_length)
        longest = self._longest()
        for i, encoding in enumerate(encodings):
            if len(encoding) > longest:
                raise ArgumentError(
                    f"text {i} has {len(encoding)} tokens, this model reads {longest}: split it, or cut it by max_length={longest}",
                    code="too-long",
                )
        return encodings

    def _longest(self) -> int:
        """The most tokens that model and tokenizer take."""
        positions = max_tokens(self.model.config)
        return positions if self.tokenizer.model_max_length is None else min(positions, self.tokenizer.model_max_length)

    def _compute(self, encodings: Sequence[Encoding], compute: Callable[[PackedTokens], Sequence[T]]) -> list[T]:
        """What `compute` gives for each sequence of a batch, in the order of `encodings`."""
        found: dict[int, T] = {}
        with self.model.evaluating():
            for numbers, tokens in batches_by_length(encodings, self.batch_tokens, self.progress):
                with no_grad():
                    found.update(zip(numbers.tolist(), compute(tokens), strict=True))
        return [found[i] for i in range(len(encodings))]


def split_rows(rows: Tensor, tokens: PackedTokens) -> list[Rows]:
    """The rows of each sequence. Shapes: (rows, d) → per sequence (n, d)."""
    array = rows.numpy()
    return [array[first:last] for first, last in tokens.packing.spans]


def as_list(inputs: Any) -> tuple[list[Any], bool]:
    """Several inputs from one or several, and whether it was one. Raises: ArgumentError."""
    if isinstance(inputs, str | dict):
        return [inputs], True
    if not isinstance(inputs, Iterable):
        raise ArgumentError(f"pass a text or a list of texts, got {type(inputs).__name__}")
    return list(inputs), False


def softmax(logits: Rows) -> Rows:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def check_count(name: str, value: Any) -> int:
    """Raises: ArgumentError for anything but an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise ArgumentError(f"{name} must be an integer of at least 1, got {quoted(value)}")
    return value
