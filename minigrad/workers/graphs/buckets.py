"""Buckets: batches filled up to one of few sizes, so that what is captured in a CUDA graph has the same shapes.

A batch is filled with sequences of its own first token. Packed sequences never see each other, so those of the batch stay what they were:
exactly, but for the order in which a matrix product adds up its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from minigrad.packing import IntArray, PackedTokens, Packing

STEPS = 8
"""Sizes from one power of two to the next: a size is at most an eighth above the one before it."""


class Bucket(NamedTuple):
    """The size of filled batches: rows of tokens, and sequences."""

    tokens: int
    sequences: int


def size_above(n: int) -> int:
    """The least size that holds n: 1, 2, …, 16, 18, 20, …, 32, 36, …"""
    unit = 1 << max(0, (n - 1).bit_length() - STEPS.bit_length())
    return -(-n // unit) * unit


def bucket_for(lengths: IntArray) -> Bucket:
    """The bucket of sequences of these lengths, such that what is missing is made up by sequences no longer than the longest."""
    rows, count, longest = int(lengths.sum()), len(lengths), int(lengths.max())
    tokens = size_above(rows)
    while True:
        sequences = size_above(count + -(-(tokens - rows) // longest))
        if sequences - count <= tokens - rows:
            return Bucket(tokens, sequences)
        tokens = size_above(tokens + 1)  # more sequences are missing than tokens


class Filled(NamedTuple):
    """The sequences of a batch and those that fill it up. Shapes: (n,) each."""

    lengths: IntArray
    numbers: IntArray

    @classmethod
    def of(cls, packing: Packing, bucket: Bucket) -> Self:
        """Those behind the batch's own are as equal as they can be: none is longer than needed."""
        count, missing = len(packing), bucket.tokens - packing.rows
        if count == bucket.sequences:
            return cls(packing.lengths, packing.numbers)
        first, added = int(packing.numbers.max()) + 1, bucket.sequences - count
        edges = np.arange(added + 1) * missing // added
        lengths, numbers = np.empty(bucket.sequences, np.int64), np.empty(bucket.sequences, np.int64)
        lengths[:count], lengths[count:] = packing.lengths, edges[1:] - edges[:-1]
        numbers[:count], numbers[count:] = packing.numbers, np.arange(first, first + added)
        return cls(lengths, numbers)


def filled_tokens(tokens: PackedTokens, bucket: Bucket) -> PackedTokens:
    """The tokens with sequences behind them that make them the bucket's size."""
    packing = tokens.packing
    missing, count = bucket.tokens - packing.rows, bucket.sequences - len(packing)
    if count == 0:
        return tokens
    none_masked = None if packing.masked_first is None else [*packing.masked_first, *[False] * count]
    together = Packing(*Filled.of(packing, bucket), none_masked)
    positions = np.concatenate([tokens.positions, together.positions[packing.rows :]])
    ids, types = (extended(given, missing, int(given[0])) for given in (tokens.input_ids, tokens.token_type_ids))
    return PackedTokens(ids, together, types, positions)


def extended(given: np.ndarray[Any, Any], count: int, value: float) -> np.ndarray[Any, Any]:
    """An array with a number so many times behind it. Shapes: (n, …) → (n + count, …)."""
    out = np.empty((len(given) + count, *given.shape[1:]), given.dtype)
    write_extended(given, value, out)
    return out


def write_extended(given: np.ndarray[Any, Any], value: Any, out: np.ndarray[Any, Any]) -> None:
    """As `extended`, into an array; value: one, or all that stand behind. Shapes: given (n, …), out (n + count, …)."""
    out[: len(given)], out[len(given) :] = given, value


def write_filled(tokens: PackedTokens, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write all that a model reads of `filled_tokens` into arrays of `tokens_layout`, whose size is that of the bucket.

    No first row is masked.
    """
    from minigrad.kernels.cuda.graph_inputs import write_packing

    write_packing(Filled.of(tokens.packing, Bucket(len(out["input_ids"]), len(out["first_rows"]))), out)
    write_extended(tokens.input_ids, tokens.input_ids[0], out["input_ids"])
    write_extended(tokens.token_type_ids, tokens.token_type_ids[0], out["token_type_ids"])
    write_extended(tokens.positions, out["all_places"][tokens.packing.rows :, 1], out["positions"])
