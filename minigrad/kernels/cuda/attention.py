"""Packed attention on an NVIDIA GPU: three kernels that never store the matrix of attention weights, see `sources/attention.cuh`.

Saved for the backward pass are the output and one number per query and head. Weights and dropped units are recomputed by the same products
as in the forward pass, so the weights are identical.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minigrad import ops
from minigrad.backend.gemm import SHORT
from minigrad.backend.layout import address, is_contiguous
from minigrad.backend.precision import gpu_precision
from minigrad.backend.random import Draw
from minigrad.kernels.coverage import all_float32, covers_weights
from minigrad.kernels.cuda.draws import recipe
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.table import HEAD_SIZES, PIECE
from minigrad.packing import Packing


@ops.attention.on("cupy")
def _attention(
    xp: Any,
    q: Any,
    kv: Any,
    *,
    packing: Packing,
    queries: Packing | None = None,
    heads: int,
    draw: Draw | None = None,
    causal: bool = False,
) -> Any:
    parts = 3 if q is None else 2
    queries = packing if queries is None else queries
    q_array = kv if q is None else q
    if not all_float32(kv, q_array) or kv.shape[1] % (parts * heads):
        return NotImplemented
    size = kv.shape[1] // (parts * heads)
    if (len(kv), len(q_array), len(packing)) != (packing.rows, queries.rows, len(queries)) or size not in HEAD_SIZES:
        return NotImplemented
    if q is not None and q.shape[1] != heads * size:
        return NotImplemented
    if not covers_weights(draw, queries, packing, heads):
        return NotImplemented
    precision = gpu_precision()

    def run(q: Any, kv: Any) -> Any:
        return attend(xp, q, kv, packing=packing, queries=queries, heads=heads, draw=draw, causal=causal, size=size, precision=precision)

    if precision not in SHORT:
        return run(q, kv)

    def short(x: Any) -> Any:
        return None if x is None else xp.shortened(xp.ascontiguousarray(x), precision)

    short_out, short_pullback = run(short(q), short(kv))

    def pullback(g: Any) -> Any:
        return tuple([None if x is None else xp.widened(x) for x in short_pullback(short(g))])

    return xp.widened(short_out), pullback


def attend(
    xp: Any,
    q: Any,
    kv: Any,
    *,
    packing: Packing,
    queries: Packing,
    heads: int,
    draw: Draw | None,
    causal: bool,
    size: int,
    precision: str,
) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """The output, and a pullback from its gradient to those of q (None without one) and kv. All arrays have the storage of `precision`.

    q: (queries.rows, heads x size) beside K | V, (packing.rows, 2 x heads x size), or None if kv is Q | K | V. size: one of HEAD_SIZES.
    precision: "bf16" for uint16 arrays of bfloat16 bits, "fp16" for float16, "float32" and "tf32" for float32. draw: for pairs of these
    packings. The output has heads x size columns, the gradients those of q and kv.
    """
    parts, suffix = 3 if q is None else 2, f"{precision}_{size}"
    work = _work(xp, packing, queries)
    kv = _aligned(xp, kv)
    q_array = kv if q is None else _aligned(xp, q)
    out, lse = xp.empty((len(q_array), heads * size), kv.dtype), xp.empty((heads, len(q_array)), np.float32)
    settings = (len(q_array), parts, heads, causal, *recipe(draw))
    launch(f"attention_forward_{suffix}", (len(work.by_query), heads), q_array, kv, work.by_query, out, lse, *settings)

    def pullback(g: Any) -> tuple[Any, Any]:
        g = _aligned(xp, g)
        dkv = xp.empty_like(kv) if packing.masked_first is None else xp.zeros_like(kv)  # no piece of keys contains a masked first row
        dq, delta = dkv if q is None else xp.empty_like(q_array), xp.empty_like(lse)
        launch(f"attention_dq_{suffix}", (len(work.by_query), heads), q_array, kv, work.by_query, out, lse, g, dq, delta, *settings)
        launch(f"attention_dkv_{suffix}", (len(work.by_key), heads), q_array, kv, work.by_key, lse, delta, g, dkv, *settings)
        return None if q is None else dq, dkv

    return out, pullback


def _aligned(xp: Any, array: Any) -> Any:
    """The array, or a copy if it is not C-contiguous or not aligned to the 16 bytes that the kernels read at a time."""
    return array if is_contiguous(array) and address(array) % 16 == 0 else xp.array(array, order="C")


# ---------------------------------------------------------------- division of the work
@dataclass(frozen=True)
class Work:
    """The pieces of all sequences, on the device: for blocks that own queries, and for blocks that own keys. Shapes: (pieces, 8) int32."""

    by_query: Any
    by_key: Any


_works: WeakKeyDictionary[Packing, WeakKeyDictionary[Packing, Work]] = WeakKeyDictionary()


def _work(xp: Any, packing: Packing, queries: Packing) -> Work:
    """The work of a pair of packings, computed once for all layers of a model and their backward pass."""
    by_queries = _works.setdefault(packing, WeakKeyDictionary())
    found = by_queries.get(queries)
    if found is None:
        found = by_queries[queries] = Work(*(xp.like(pieces(packing, queries, owner), None) for owner in ("queries", "keys")))
    return found


def register_work(packing: Packing, queries: Packing, work: Work) -> None:
    """Register work that is already on the GPU for a pair of packings."""
    _works.setdefault(packing, WeakKeyDictionary())[queries] = work


def pieces(packing: Packing, queries: Packing, owner: str) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Every sequence cut into pieces of at most 64 rows of the `owner`, "queries" or "keys": `struct Item` of the kernels.

    The most expensive come first, so that none starts when all others have finished. Shapes: (pieces, 8) int32: first key row, number of
    keys, first query row, number of queries, the sequence's number, the piece's first row within the sequence, and two zeros.
    """
    masked = 0 if packing.masked_first is None else np.array(packing.masked_first)
    key_counts, query_counts = packing.lengths - masked, queries.lengths
    owned, other = (query_counts, key_counts) if owner == "queries" else (key_counts, query_counts)
    counts = -(-owned // PIECE)
    sequence = np.repeat(np.arange(len(counts)), counts)
    start = PIECE * (np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts))
    cost = np.minimum(owned[sequence] - start, PIECE) * other[sequence]
    order = np.argsort(-cost, kind="stable")
    table = np.zeros((len(order), 8), np.int32)
    columns = (packing.first_rows + masked, key_counts, queries.first_rows, query_counts, queries.numbers)
    table[:, :5], table[:, 5] = np.stack(columns, axis=1)[sequence[order]], start[order]
    return table
