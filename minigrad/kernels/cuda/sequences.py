"""Operations on whole sequences on a GPU: pooling, and counting tokens other than padding. Their lengths stay on the GPU."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.kernels.coverage import all_float32
from minigrad.kernels.cuda.launch import launch
from minigrad.packing import Packing


def _covers(x: Array, packing: Packing) -> bool:
    return x.ndim == 2 and len(x) == packing.rows and all_float32(x)


@ops.segment_mean.on("cupy")
def _segment_mean(xp: Any, x: Array, *, packing: Packing) -> Any:
    if not _covers(x, packing):
        return NotImplemented
    first_rows, (rows, width), sequences = xp.like(packing.first_rows, x), x.shape, len(packing)
    out = xp.empty((sequences, width), x.dtype)
    launch("segment_mean", out.shape, xp.ascontiguousarray(x), first_rows, out, rows, sequences, width)

    def pullback(g: Array) -> Array:
        dx = xp.empty((rows, width), g.dtype)
        launch("segment_mean_pullback", g.shape, xp.ascontiguousarray(g), first_rows, dx, rows, sequences, width)
        return dx

    return out, (pullback,)


@ops.segment_max.on("cupy")
def _segment_max(xp: Any, x: Array, *, packing: Packing) -> Any:
    if not _covers(x, packing):
        return NotImplemented
    x, first_rows, (rows, width), sequences = xp.ascontiguousarray(x), xp.like(packing.first_rows, x), x.shape, len(packing)
    out = xp.empty((sequences, width), x.dtype)
    launch("segment_max", out.shape, x, first_rows, out, rows, sequences, width)

    def pullback(g: Array) -> Array:
        dx = xp.empty_like(x)
        launch("segment_max_pullback", g.shape, xp.ascontiguousarray(g), x, out, first_rows, dx, rows, sequences, width)
        return dx

    return out, (pullback,)


def count_ids(ids: Array, first_rows: Array, skipped: int, start: int) -> Array:
    """As `Packing.counted`, for ids on the GPU. Shapes: ids (rows,), first_rows (sequences,), both int64 → (rows,)."""
    out = namespace_of(ids).empty(ids.shape, "int64")
    launch("count_ids", (len(first_rows),), ids, first_rows, out, len(ids), len(first_rows), skipped, start)
    return out
