"""Batches: encoded texts dealt out in packed form, shuffled the same way on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.errors import ArgumentError
from minigrad.packing import IntArray, PackedTokens


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
    Raises: ArgumentError for an empty data set, a batch size below 1, or another number of labels than sequences.
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
        if batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {batch_size}")
        self.sequences = [np.asarray(s, dtype=np.int64) for s in sequences]
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None and len(self.labels) != len(self.sequences):
            raise ArgumentError(f"{len(self.sequences)} sequences but {len(self.labels)} labels")
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        n = len(self.sequences)
        order = shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)
        for start in range(0, n, self.batch_size):
            rows = order[start : start + self.batch_size]
            tokens = PackedTokens.of([self.sequences[i] for i in rows])
            yield Batch(tokens, None if self.labels is None else self.labels[rows], rows)
