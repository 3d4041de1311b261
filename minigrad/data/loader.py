"""Batches of encoded texts in packed form, shuffled the same way on every machine.

The batches of an epoch depend only on the data, the settings and the epoch's number. So interrupted training can continue at any batch
without reading those before it, and `PackedLoader.digest` tells whether data and settings are still the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.data.by_length import cut_by_count, cut_by_tokens, shuffled_by_length
from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.packing import IntArray, PackedTokens, host_array, token_rows


@dataclass(frozen=True)
class Batch:
    """Some of the data set's sequences: their tokens, their labels, and `rows`, their places in the data set.

    Shapes: labels (sequences, …) or None; token_labels (rows of tokens,) int64, -100 where a token has none, or None; rows (sequences,).
    """

    tokens: PackedTokens
    labels: np.ndarray[Any, Any] | None
    token_labels: IntArray | None
    rows: IntArray

    def split(self, parts: int) -> list[Batch]:
        """Divide the sequences into at most `parts` batches of about equal cost, none empty, as `PackedTokens.dealt` does.

        Deterministic. Sequences keep their numbers (`Packing.numbers`), so that dropout drops the same units, and their order within a
        part.
        Raises: ArgumentError for a number of parts below 1.
        """
        parts = min(check_count("parts", parts), len(self.tokens.packing))
        return [self] if parts == 1 else [self._part(chosen) for chosen in self.tokens.dealt(parts)]

    def _part(self, chosen: IntArray) -> Batch:
        labels = None if self.labels is None else self.labels[chosen]
        token_labels = None if self.token_labels is None else self.token_labels[self.tokens.rows_of(chosen)]
        return Batch(self.tokens.part(chosen), labels, token_labels, self.rows[chosen])


class PackedLoader:
    """Yields sequences in batches of `batch_size`, the last one smaller, or of at most `batch_tokens` tokens.

    sequences: token ids of each text. labels: one (or a row of them) per sequence, or None. token_labels: one per token of each sequence,
    or None. token_types: the segment of each token (`Encoding.type_ids`), as sentence pairs need them; None: all 0. batch_tokens: replaces
    batch_size; a longer sequence gets a batch of its own. With `shuffle` the order is a fair shuffle that depends only on (seed, epoch).
    With `by_length` too, batches hold sequences of similar length, and the shuffle is as fair as `shuffled_by_length` says.
    Raises: ArgumentError for an empty data set, a batch size below 1, a negative seed, or labels that differ in number from the sequences;
    ShapeError for an empty or nested sequence, and for token types or labels that differ in number or length, naming the sequence;
    DTypeError for ids that are not integers, labels that are not numbers, and a generator in place of a sequence.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int] | IntArray],
        labels: Any = None,
        *,
        token_labels: Sequence[Sequence[int] | IntArray] | None = None,
        token_types: Sequence[Sequence[int] | IntArray] | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
        shuffle: bool = False,
        by_length: bool = False,
        seed: int = 0,
    ) -> None:
        if _length("sequences", sequences) == 0:
            raise ArgumentError("a loader needs at least one sequence")
        self.batch_size, self.seed = check_count("batch_size", batch_size), check_count("seed", seed, 0)
        self.batch_tokens = None if batch_tokens is None else check_count("batch_tokens", batch_tokens)
        self.shuffle, self.by_length = bool(shuffle), bool(by_length)
        if by_length and not shuffle:
            raise ArgumentError("by_length says how to shuffle: it needs shuffle=True")
        self.sequences = token_rows("sequence", sequences)
        for i, sequence in enumerate(self.sequences):
            if len(sequence) == 0:
                raise ShapeError(f"sequence {i} is empty: leave it out, or encode it with its special tokens")
        self.token_types = None if token_types is None else self._per_token("token types", "token type ids", token_types)
        self.token_labels = None if token_labels is None else self._per_token("token labels", "token labels", token_labels)
        self.labels = None if labels is None else host_array("labels", labels, "biuf")
        if self.labels is not None and self.labels.shape[:1] != (len(self.sequences),):
            raise ArgumentError(f"labels must have one entry per sequence: {len(self.sequences)} sequences, labels {self.labels.shape}")
        self._lengths = np.array([len(sequence) for sequence in self.sequences], np.int64)

    def _per_token(self, what: str, words: str, given: Sequence[Sequence[int] | IntArray]) -> list[IntArray]:
        if _length(what.replace(" ", "_"), given) != len(self.sequences):
            raise ShapeError(f"{len(self.sequences)} sequences but {what} of {len(given)}")
        rows = token_rows(f"{what} of sequence", given)
        for i, (sequence, row) in enumerate(zip(self.sequences, rows, strict=True)):
            if len(sequence) != len(row):
                raise ShapeError(f"sequence {i} has {len(sequence)} token ids but {len(row)} {words}")
        return rows

    def __len__(self) -> int:
        """Batches in an epoch; in epoch 0, if epochs differ (see `batches_in`)."""
        return self.batches_in(0)

    def batches_in(self, epoch: int) -> int:
        """Batches in the epoch of this number, which varies a little with batch_tokens and shuffle."""
        if self.batch_tokens is None:
            return -(-len(self.sequences) // self.batch_size)
        return len(self._batches(epoch))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch number `start` on; both are numbered from 0. Earlier batches are never built.

        Raises: ArgumentError for a negative number, or a `start` past the end of the epoch.
        """
        batches = self._batches(check_count("epoch", epoch, 0))
        if check_count("start", start, 0) > len(batches):
            raise ArgumentError(f"epoch {epoch} has {len(batches)} batches and cannot start at number {start}")
        return (self.batch(rows) for rows in batches[start:])

    def batch(self, rows: IntArray) -> Batch:
        """The sequences at these places in the data set, with their labels. Raises: IndexRangeError for a place outside it."""
        rows = host_array("rows", rows)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self.sequences)):
            raise IndexRangeError(f"rows must lie between 0 and {len(self.sequences) - 1}, got {rows.min()} to {rows.max()}")
        types = None if self.token_types is None else [self.token_types[i] for i in rows]
        return Batch(
            PackedTokens.of([self.sequences[i] for i in rows], types),
            None if self.labels is None else self.labels[rows],
            None if self.token_labels is None else np.concatenate([self.token_labels[i] for i in rows]),
            rows,
        )

    def _batches(self, epoch: int) -> list[IntArray]:
        """The sequences of each batch of an epoch."""
        if self.by_length:
            return shuffled_by_length(self._lengths, self._cut, self.seed, epoch)
        n = len(self.sequences)
        order = shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)
        return [order[first:past] for first, past in self._cut(self._lengths[order])]

    def _cut(self, lengths: IntArray) -> list[tuple[int, int]]:
        """(first, past the last) of the runs that form batches, from the lengths of the sequences in order."""
        return cut_by_count(len(lengths), self.batch_size) if self.batch_tokens is None else cut_by_tokens(lengths, self.batch_tokens)

    def digest(self) -> str:
        """The SHA-256, in hexadecimal digits, of everything that determines the batches: sequences, types, labels and settings.

        It is the same on every machine, and for lists and arrays of the same numbers.
        """
        size = f"batch_size={self.batch_size}" if self.batch_tokens is None else f"batch_tokens={self.batch_tokens}"
        found = sha256(f"{size} shuffle={self.shuffle} by_length={self.by_length} seed={self.seed}\n".encode())
        rows = {"sequences": self.sequences, "token_types": self.token_types, "token_labels": self.token_labels}
        arrays = {"lengths": self._lengths, "labels": self.labels}
        arrays |= {name: None if given is None else np.concatenate(given) for name, given in rows.items()}
        for name, array in arrays.items():
            if array is not None:
                stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                found.update(f"{name} {stored.dtype.str} {array.shape}\n".encode())  # shapes too: no two data sets give the same
                found.update(stored.tobytes())
        return found.hexdigest()


def _length(name: str, given: Sequence[Any]) -> int:
    try:
        return len(given)
    except TypeError:  # a generator, which could be read only once, or not a collection
        raise DTypeError(f"{name} must be a list or another sequence, got {type(given).__name__}; make a list of a generator") from None
