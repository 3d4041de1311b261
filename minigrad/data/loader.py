"""Batches: encoded texts dealt out in packed form, shuffled the same way on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.errors import ArgumentError, ShapeError
from minigrad.packing import IntArray, PackedTokens, host_array, token_rows


@dataclass(frozen=True)
class Batch:
    """Some of the data set's sequences. Shapes: labels (sequences,) or None; rows = their places in the data set (sequences,)."""

    tokens: PackedTokens
    labels: np.ndarray[Any, Any] | None
    rows: IntArray


class PackedLoader:
    """Deals sequences out in batches of `batch_size`, the last one smaller.

    sequences: token ids of each text. labels: one per sequence, or None. With `shuffle` the order is a fair shuffle that follows from
    (seed, epoch) alone.
    Raises: ArgumentError for an empty data set, a batch size below 1, a negative seed, or another number of labels than sequences;
    ShapeError for an empty or nested sequence and DTypeError for ids that are no integers, naming the sequence; DTypeError for labels
    that are no numbers.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int] | IntArray],
        labels: Any = None,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if len(sequences) == 0:
            raise ArgumentError("a loader needs at least one sequence")
        _check_number("batch_size", batch_size, 1)
        _check_number("seed", seed, 0)
        self.sequences = token_rows("sequence", sequences)
        for i, sequence in enumerate(self.sequences):
            if len(sequence) == 0:
                raise ShapeError(f"sequence {i} is empty: leave it out, or encode it with its special tokens")
        self.labels = None if labels is None else host_array("labels", labels, "biuf")
        if self.labels is not None and self.labels.shape[:1] != (len(self.sequences),):
            raise ArgumentError(f"labels must have one entry per sequence: {len(self.sequences)} sequences, labels {self.labels.shape}")
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed

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
            tokens = PackedTokens.of([self.sequences[i] for i in rows])
            yield Batch(tokens, None if self.labels is None else self.labels[rows], rows)


def _check_number(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or not least <= value < 2**63:
        raise ArgumentError(f"{name} must be an integer from {least} to 2**63 - 1, got {value!r}")
