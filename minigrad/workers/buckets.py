"""Buckets: batches filled up to one of few sizes, so that what is captured in a CUDA graph has the same shapes.

A batch is filled with sequences of its own first token. Packed sequences never see each other, so those of the batch stay what they were:
exactly, but for the order in which a matrix product adds up its rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


def bucket_for(lengths: IntArray) -> Bucket | None:
    """The bucket of sequences of these lengths, such that what is missing is made up by sequences no longer than the longest.

    None where no bucket near them can be filled, as with sequences of one token.
    """
    rows, count, longest = int(lengths.sum()), len(lengths), int(lengths.max())
    tokens = size_above(rows)
    while tokens <= 2 * rows:
        sequences = size_above(count + -(-(tokens - rows) // longest))
        if sequences - count <= tokens - rows:
            return Bucket(tokens, sequences)
        tokens = size_above(tokens + 1)  # more sequences are missing than tokens
    return None


def filled_tokens(tokens: PackedTokens, bucket: Bucket) -> PackedTokens:
    """The tokens with sequences behind them that make them the bucket's size."""
    packing = tokens.packing
    missing, count = bucket.tokens - packing.rows, bucket.sequences - len(packing)
    if count == 0:
        return tokens
    edges = np.arange(count + 1) * missing // count  # as equal as they can be: none is longer than needed
    numbers = int(packing.numbers.max()) + 1 + np.arange(count)
    lengths = np.concatenate([packing.lengths, np.diff(edges)])
    none_masked = None if packing.masked_first is None else [*packing.masked_first, *[False] * count]
    together = Packing(lengths, np.concatenate([packing.numbers, numbers]), none_masked)
    positions = np.concatenate([tokens.positions, together.positions[packing.rows :]])
    ids, types = (extended(given, missing, int(given[0])) for given in (tokens.input_ids, tokens.token_type_ids))
    return PackedTokens(ids, together, types, positions)


def extended(given: np.ndarray[Any, Any], count: int, value: int) -> np.ndarray[Any, Any]:
    """An array with a number so many times behind it. Shapes: (n,) → (n + count,)."""
    return np.concatenate([given, np.full(count, value, given.dtype)])
