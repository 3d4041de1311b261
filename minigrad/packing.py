"""Packed batches: the tokens of all sequences one after another, with the offset of each sequence, and no padding.

`Packing` is the layout alone (operations take it as a constant); `PackedTokens` is a model's input. `pack` converts padded arrays where
they enter, and results are padded again for callers who passed padded arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, DTypeError, ShapeError

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_INT64 = np.dtype(np.int64)  # arrays made here share this object, so `is` is a fast check; arrays read from a file may not


def host_array(what: str, values: Any, kinds: str = "iu") -> np.ndarray[Any, Any]:
    """`values` as a NumPy array with a dtype kind in `kinds`; integers become int64. `what`: its name in messages.

    Raises: ShapeError for rows of different lengths; DTypeError for another dtype.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{what}: rows of different lengths make no array") from error
    if array.dtype.kind not in kinds and array.size:  # the dtype of an empty array means nothing; its shape is what is wrong
        words = "integers" if kinds == "iu" else "numbers or booleans"
        raise DTypeError(f"{what} must be {words}, got {type(values).__name__ if array.dtype == object else array.dtype}")
    return array.astype(np.int64, copy=False) if kinds == "iu" else array


MAX_NUMBER = 1 << 20
"""Sequence numbers count the sequences of one training step; a larger one is a mistake."""


ATTENTION_COST = 2048
"""The sequence length at which a layer's attention costs as much as the products with its weight matrices.

A layer of hidden size h takes 24 h² operations per token for its matrices and 4 h n for attention to n tokens: equal at n = 6 h. This is
the length for a hidden size of about 340.
"""


class Packing:
    """The layout of a packed batch: where each sequence lies. All numbers are on the host, so no operation asks a GPU for a length.

    Sequence i owns rows offsets[i] : offsets[i + 1]. `numbers[i]` is its number within the whole training step, from which its dropout
    masks are drawn: they stay the same when a batch is reordered, split or computed in parts. `masked_first[i]` says that row 0 of sequence
    i is padding that no row attends to, kept because pooled heads read it.

    Shapes: lengths (n,), offsets (n + 1,), numbers (n,).
    Raises: ShapeError if a length is below 1, there is no sequence, or an argument has a different number of entries; ArgumentError for a
    sequence number that is negative, repeated or not below MAX_NUMBER.
    """

    def __init__(
        self,
        lengths: Sequence[int] | IntArray,
        numbers: Sequence[int] | IntArray | None = None,
        masked_first: Sequence[bool] | None = None,
    ) -> None:
        self.lengths: IntArray = host_array("lengths", lengths)
        if self.lengths.ndim != 1 or len(self.lengths) == 0 or int(self.lengths.min()) < 1:
            raise ShapeError(f"a packing needs at least one sequence and lengths of 1 or more, got {np.asarray(lengths).tolist()!r:.120}")
        self.offsets: IntArray = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])
        self.numbers: IntArray = np.arange(len(self.lengths)) if numbers is None else host_array("numbers", numbers)
        if numbers is not None or len(self.lengths) > MAX_NUMBER:
            self._check_numbers()
        if masked_first is not None and len(masked_first) != len(self.lengths):
            raise ShapeError(f"{len(self.lengths)} lengths but {len(masked_first)} flags of masked first tokens")
        self.masked_first = tuple(masked_first) if masked_first is not None and any(masked_first) else None

    def _check_numbers(self) -> None:
        numbers = self.numbers
        if numbers.shape != self.lengths.shape:
            raise ShapeError(f"{len(self.lengths)} lengths but {numbers.size} sequence numbers")
        if int(numbers.min()) < 0 or int(numbers.max()) >= MAX_NUMBER or len(np.unique(numbers)) < len(numbers):
            raise ArgumentError(f"sequence numbers must be distinct and lie in 0..{MAX_NUMBER - 1}, got {numbers.tolist()!r:.120}")

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Packing({len(self)} sequences, {self.rows} rows, longest {int(self.lengths.max())})"

    @property
    def rows(self) -> int:
        """Number of rows of all sequences together."""
        return int(self.offsets[-1])

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """(first row, one past the last row) of each sequence."""
        return list(pairwise(self.offsets.tolist()))

    @cached_property
    def key_spans(self) -> list[tuple[int, int]]:
        """The rows of each sequence that may be attended to."""
        if self.masked_first is None:
            return self.spans
        return [(a + masked, b) for (a, b), masked in zip(self.spans, self.masked_first, strict=True)]

    @cached_property
    def positions(self) -> IntArray:
        """Each row's position in its sequence. Shapes: (rows,)."""
        return np.arange(self.rows) - np.repeat(self.offsets[:-1], self.lengths)

    @cached_property
    def first(self) -> Packing:
        """The packing of every sequence's row 0 alone ([CLS]): length-1 sequences with the same numbers."""
        return Packing(np.ones(len(self), np.int64), self.numbers)

    @property
    def first_rows(self) -> IntArray:
        """The row at which each sequence begins. Shapes: (n,)."""
        return self.offsets[:-1]

    def counted(self, ids: IntArray, skipped: int, start: int) -> IntArray:
        """Per id: start plus the number of ids up to and including it in its sequence that are not `skipped`; start for a skipped id.

        Shapes: ids (rows,) → (rows,).
        """
        counts = ids != skipped
        count, firsts = counts.cumsum(), self.first_rows
        before = (count[firsts] - counts[firsts]).repeat(self.lengths)
        return (count - before) * counts + start  # type: ignore[no-any-return]


@dataclass(frozen=True)
class PackedTokens:
    """Token ids of several sequences without padding: the input of a model.

    Shapes: input_ids, token_type_ids, positions (rows,) int64.
    """

    input_ids: IntArray
    packing: Packing
    token_type_ids: IntArray
    positions: IntArray
    padded_shape: tuple[int, int] | None = None
    """(batch, longest) of the padded arrays these tokens came from; None if they were packed from the start."""

    @classmethod
    def of(
        cls,
        sequences: Iterable[Sequence[int] | IntArray],
        token_types: Iterable[Sequence[int] | IntArray] | None = None,
        numbers: Sequence[int] | IntArray | None = None,
    ) -> PackedTokens:
        """Pack a list of id sequences.

        Raises: ShapeError for an empty list, an empty or nested sequence, or token types that do not match; DTypeError for ids that are not
        integers.
        """
        parts = token_rows("sequence", sequences)
        packing = Packing([len(p) for p in parts], numbers)
        ids = np.concatenate(parts)
        if token_types is None:
            return cls(ids, packing, np.zeros_like(ids), packing.positions)
        types = token_rows("token types of sequence", token_types)
        if len(types) != len(parts):
            raise ShapeError(f"{len(parts)} sequences but token types of {len(types)}")
        for i, (part, kinds) in enumerate(zip(parts, types, strict=True)):
            if len(part) != len(kinds):
                raise ShapeError(f"sequence {i} has {len(part)} token ids but {len(kinds)} token type ids")
        return cls(ids, packing, np.concatenate(types), packing.positions)

    def arrays(self) -> dict[str, IntArray]:
        """The per-token inputs of a model, by name. Shapes: (rows,) each."""
        return {"input_ids": self.input_ids, "token_type_ids": self.token_type_ids, "positions": self.positions}

    def dealt(self, parts: int) -> list[IntArray]:
        """Divide the sequences into at most `parts` parts of about equal cost, none empty; returns the places of each part's sequences.

        Deterministic; within a part, sequences keep their order. A sequence of n tokens costs n + n² / 2048. Sequences are assigned in
        order of falling cost, each to the part with the lowest cost so far (Graham, "Bounds on multiprocessing timing anomalies", 1969).
        """
        lengths = self.packing.lengths
        parts = min(parts, len(lengths))
        if parts == 1:
            return [np.arange(len(lengths))]
        costs = lengths * (ATTENTION_COST + lengths)
        sums, dealt = np.zeros(parts, np.int64), np.zeros(len(lengths), np.int64)
        for i in np.argsort(-costs, kind="stable"):
            dealt[i] = sums.argmin()
            sums[dealt[i]] += costs[i]
        return [np.flatnonzero(dealt == part) for part in range(parts)]

    def rows_of(self, chosen: IntArray) -> IntArray:
        """The rows of the sequences `chosen`, one sequence after another."""
        return np.concatenate([np.arange(*self.packing.spans[i]) for i in chosen])

    def part(self, chosen: IntArray) -> PackedTokens:
        """The tokens of the sequences `chosen`, which keep their numbers within the step."""
        rows, packing = self.rows_of(chosen), self.packing
        masked = None if packing.masked_first is None else [packing.masked_first[i] for i in chosen]
        return PackedTokens(
            self.input_ids[rows],
            Packing(packing.lengths[chosen], packing.numbers[chosen], masked),
            self.token_type_ids[rows],
            self.positions[rows],
            None if self.padded_shape is None else (len(chosen), self.padded_shape[1]),
        )

    def padded_rows(self) -> tuple[IntArray, IntArray]:
        """The rows that hold real tokens, and the flat index (row-major) of each in the padded array.

        Raises: ArgumentError if the tokens were never padded.
        """
        places, real = self.places(), np.ones(len(self.input_ids), bool)
        if self.packing.masked_first is not None:
            real[self.packing.first_rows[np.asarray(self.packing.masked_first)]] = False
        return np.flatnonzero(real), places[real]

    def places(self) -> IntArray:
        """The flat index (row-major) of every row in the padded array. Shapes: (rows,).

        Raises: ArgumentError if the tokens were never padded.
        """
        if self.padded_shape is None:
            raise ArgumentError("these tokens were packed from the start and have no padded shape")
        return np.repeat(np.arange(len(self.packing)), self.packing.lengths) * self.padded_shape[1] + self.positions


def token_rows(what: str, sequences: Iterable[Any]) -> list[IntArray]:
    """Each sequence as a one-dimensional int64 array.

    Raises: ShapeError for a nested sequence and DTypeError for other numbers, naming the sequence.
    """
    given = list(sequences)
    if all(type(row) is np.ndarray and row.dtype is _INT64 and row.ndim == 1 for row in given):  # the usual case: batches of a loader
        return given
    parts = [host_array(f"{what} {i}", sequence) for i, sequence in enumerate(given)]
    for i, part in enumerate(parts):
        if part.ndim != 1:
            raise ShapeError(f"{what} {i} must be a row of integers, got shape {part.shape}")
    return parts


def pack(input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, numbers: Any = None) -> PackedTokens:
    """Drop the padding of padded arrays; real tokens keep their original positions, whatever the mask's pattern.

    Column 0 of every row is kept even where it is masked, because pooled heads read it (as in Hugging Face); no token then attends to it.
    `numbers`: the numbers of the sequences within the training step (see `Packing`).

    Shapes: input_ids, attention_mask (1 or True = real), token_type_ids all (batch, longest).
    Raises: ShapeError for other shapes; DTypeError for ids that are not integers; ArgumentError for a row without real tokens, naming it,
    and for a mask with values other than 0 and 1: an additive mask (0 and -inf) would mean the opposite.
    """
    ids = host_array("input_ids", input_ids)
    if ids.ndim != 2 or ids.size == 0:
        raise ShapeError(f"padded input_ids must have shape (batch, longest) and hold something, got {ids.shape}")
    mask = np.ones(ids.shape, bool) if attention_mask is None else _booleans(host_array("attention_mask", attention_mask, "biuf"))
    types = np.zeros(ids.shape, np.int64) if token_type_ids is None else host_array("token_type_ids", token_type_ids)
    for name, array in (("attention_mask", mask), ("token_type_ids", types)):
        if array.shape != ids.shape:
            raise ShapeError(f"{name} has shape {array.shape}, input_ids {ids.shape}: they must be equal")
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty):
        raise ArgumentError(f"row {int(empty[0])} of attention_mask has no real token: drop such rows before the model", code="empty-row")
    masked_first = ~mask[:, 0]
    kept = mask.copy()
    kept[:, 0] = True
    packing = Packing(kept.sum(axis=1), numbers, masked_first.tolist())
    positions = np.nonzero(kept)[1]
    return PackedTokens(ids[kept], packing, types[kept], positions, (ids.shape[0], ids.shape[1]))


def _booleans(mask: Any) -> Any:
    others = mask[(mask != 0) & (mask != 1)]
    if others.size:
        raise ArgumentError(
            f"attention_mask says which tokens are real, by 1 and 0 or booleans; it holds {others.flat[0]}. "
            "A mask that is added to scores means the opposite: pass mask == 0"
        )
    return mask != 0


def pack_mask(shape: tuple[int, ...], attention_mask: Any = None, token_type_ids: Any = None) -> PackedTokens:
    """`pack` for padded rows of vectors instead of token ids; the ids are zeros.

    Shapes: shape = (batch, longest), the others likewise.
    """
    return pack(np.zeros(shape, np.int64), attention_mask, token_type_ids)
