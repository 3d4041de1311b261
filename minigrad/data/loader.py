"""Batches: encoded texts dealt out in packed form, shuffled the same way on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.packing import IntArray, PackedTokens, host_array, token_rows


@dataclass(frozen=True)
class Batch:
    """Some of the data set's sequences. Shapes: labels (sequences,) or None; rows = their places in the data set (sequences,)."""

    tokens: PackedTokens
    labels: np.ndarray[Any, Any] | None
    rows: IntArray


class PackedLoader:
    """Deals sequences out in batches of `batch_size`, the last one smaller.

    sequences: token ids of each text. labels: one per sequence, or None. token_types: the segment of each token (`Encoding.type_ids`), as
    sentence pairs need them; None: all 0. With `shuffle` the order is a fair shuffle that follows from (seed, epoch) alone.
    Raises: ArgumentError for an empty data set, a batch size below 1, a negative seed, or another number of labels than sequences;
    ShapeError for an empty or nested sequence, and for token types of another number or length, naming the sequence; DTypeError for ids
    that are no integers, labels that are no numbers, and a generator in place of a sequence.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int] | IntArray],
        labels: Any = None,
        *,
        token_types: Sequence[Sequence[int] | IntArray] | None = None,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if _length("sequences", sequences) == 0:
            raise ArgumentError("a loader needs at least one sequence")
        _check_number("batch_size", batch_size, 1)
        _check_number("seed", seed, 0)
        self.sequences = token_rows("sequence", sequences)
        for i, sequence in enumerate(self.sequences):
            if len(sequence) == 0:
                raise ShapeError(f"sequence {i} is empty: leave it out, or encode it with its special tokens")
        self.token_types = None if token_types is None else self._checked_types(token_types)
        self.labels = None if labels is None else host_array("labels", labels, "biuf")
        if self.labels is not None and self.labels.shape[:1] != (len(self.sequences),):
            raise ArgumentError(f"labels must have one entry per sequence: {len(self.sequences)} sequences, labels {self.labels.shape}")
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed

    def _checked_types(self, token_types: Sequence[Sequence[int] | IntArray]) -> list[IntArray]:
        if _length("token_types", token_types) != len(self.sequences):
            raise ShapeError(f"{len(self.sequences)} sequences but token types of {len(token_types)}")
        types = token_rows("token types of sequence", token_types)
        for i, (sequence, kinds) in enumerate(zip(self.sequences, types, strict=True)):
            if len(sequence) != len(kinds):
                raise ShapeError(f"sequence {i} has {len(sequence)} token ids but {len(kinds)} token type ids")
        return types

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; numbered from 0."""
        _check_number("epoch", epoch, 0)
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        n = len(self.sequences)
        order = shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)
        for start in range(0, n, self.batch_size):
            rows = order[start : start + self.batch_size]
            types = None if self.token_types is None else [self.token_types[i] for i in rows]
            tokens = PackedTokens.of([self.sequences[i] for i in rows], types)
            yield Batch(tokens, None if self.labels is None else self.labels[rows], rows)


def _length(name: str, given: Sequence[Any]) -> int:
    try:
        return len(given)
    except TypeError:  # a generator, which could be read only once, or no collection at all
        raise DTypeError(f"{name} must be a list or another sequence, got {type(given).__name__}; make a list of a generator") from None


def _check_number(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or not least <= value < 2**63:
        raise ArgumentError(f"{name} must be an integer from {least} to 2**63 - 1, got {value!r}")
