"""Buckets: batches are padded to one of a few sizes, so that a CUDA graph, whose shapes are fixed, fits many of them.

A batch is padded with sequences that repeat its first token. Packed sequences never see each other, so the results of the real sequences do
not change, except for the order in which a matrix product adds up its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from minigrad.packing import IntArray, PackedTokens, Packing

STEPS = 8
"""Sizes from one power of two to the next: a size is at most an eighth larger than the one below."""


class Bucket(NamedTuple):
    """The size of padded batches: rows of tokens, and sequences."""

    tokens: int
    sequences: int


def size_above(n: int) -> int:
    """The smallest size of at least n: 1, 2, …, 16, 18, 20, …, 32, 36, …"""
    unit = 1 << max(0, (n - 1).bit_length() - STEPS.bit_length())
    return -(-n // unit) * unit


def bucket_for(lengths: IntArray) -> Bucket:
    """The bucket for sequences of these lengths, such that no padding sequence is longer than the longest of them, and none is empty."""
    rows, count, longest = int(lengths.sum()), len(lengths), int(lengths.max())
    tokens = size_above(rows)
    while True:
        sequences = size_above(count + -(-(tokens - rows) // longest))
        if sequences - count <= tokens - rows:
            return Bucket(tokens, sequences)
        tokens = size_above(tokens + 1)  # there would be more padding sequences than padding tokens


class PaddedSequences(NamedTuple):
    """Lengths and numbers of a batch's sequences and of the padding sequences behind them. Shapes: (n,) each."""

    lengths: IntArray
    numbers: IntArray

    @classmethod
    def of(cls, packing: Packing, bucket: Bucket) -> Self:
        """Pad to the bucket, with padding sequences of lengths as equal as possible."""
        count, missing = len(packing), bucket.tokens - packing.rows
        if count == bucket.sequences:
            return cls(packing.lengths, packing.numbers)
        first, added = int(packing.numbers.max()) + 1, bucket.sequences - count
        edges = np.arange(added + 1) * missing // added
        lengths, numbers = np.empty(bucket.sequences, np.int64), np.empty(bucket.sequences, np.int64)
        lengths[:count], lengths[count:] = packing.lengths, edges[1:] - edges[:-1]
        numbers[:count], numbers[count:] = packing.numbers, np.arange(first, first + added)
        return cls(lengths, numbers)


def padded_tokens(tokens: PackedTokens, bucket: Bucket) -> PackedTokens:
    """The tokens, padded at their end to the bucket's size."""
    packing = tokens.packing
    missing, count = bucket.tokens - packing.rows, bucket.sequences - len(packing)
    if count == 0:
        return tokens
    none_masked = None if packing.masked_first is None else [*packing.masked_first, *[False] * count]
    together = Packing(*PaddedSequences.of(packing, bucket), none_masked)
    positions = np.concatenate([tokens.positions, together.positions[packing.rows :]])
    ids, types = (padded_array(given, missing, int(given[0])) for given in (tokens.input_ids, tokens.token_type_ids))
    return PackedTokens(ids, together, types, positions)


def padded_array(given: np.ndarray[Any, Any], count: int, value: float) -> np.ndarray[Any, Any]:
    """An array with `count` copies of a value appended. Shapes: (n, …) → (n + count, …)."""
    out = np.empty((len(given) + count, *given.shape[1:]), given.dtype)
    write_padded_array(given, value, out)
    return out


def write_padded_array(given: np.ndarray[Any, Any], value: Any, out: np.ndarray[Any, Any]) -> None:
    """As `padded_array`, into `out`. value: for all appended elements, or an array of them. Shapes: given (n, …), out (n + count, …)."""
    out[: len(given)], out[len(given) :] = given, value


def write_padded(tokens: PackedTokens, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write everything that a model reads of `padded_tokens` into arrays of `tokens_layout`, whose size is the bucket's.

    The packing must have no masked first rows.
    """
    from minigrad.kernels.cuda.graph_inputs import write_packing

    write_packing(PaddedSequences.of(tokens.packing, Bucket(len(out["input_ids"]), len(out["first_rows"]))), out)
    write_padded_array(tokens.input_ids, tokens.input_ids[0], out["input_ids"])
    write_padded_array(tokens.token_type_ids, tokens.token_type_ids[0], out["token_type_ids"])
    write_padded_array(tokens.positions, out["all_places"][tokens.packing.rows :, 1], out["positions"])
