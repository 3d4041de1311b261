"""Rows of tables on a GPU: gathered by a kernel, and their gradient summed in an order that does not depend on how threads run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.backend.gemm import DTYPES, SHORT
from minigrad.backend.gradients import RowSparse
from minigrad.backend.precision import gpu_precision
from minigrad.backend.random import Draw
from minigrad.backend.transfers import declared
from minigrad.kernels.coverage import all_float32, covers_rows
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.layers import norm_sums
from minigrad.kernels.cuda.shortening import note_short
from minigrad.kernels.cuda.table import BUNDLE, MERGED, RUN, TABLES, WIDEST

NO_ROW = -1
"""The id of a gradient that no row gets."""

MOST_ROWS = 1 << 31
"""Of a table: an id is half of a key by which it is sorted."""


def readable(table: Array, ids: Array, untrained: int | None) -> bool:
    """Whether kernels can read rows of the table by these ids."""
    if table.ndim != 2 or not all_float32(table) or ids.dtype != "int64" or not table.flags.c_contiguous or len(table) > MOST_ROWS:
        return False
    return untrained is None or 0 <= untrained < len(table)


@ops.embedding.on("cupy")
def _embedding(xp: Any, table: Array, ids: Array, *, padding_idx: int | None = None, keep: bool) -> Any:
    if not readable(table, ids, padding_idx):
        return NotImplemented
    ops.check_rows("embedding ids", ids, len(table))
    flat, width = xp.ascontiguousarray(ids).reshape(-1), table.shape[1]
    out = xp.empty((*ids.shape, width), table.dtype)
    untrained = NO_ROW if padding_idx is None else padding_idx
    trained = xp.empty(flat.shape, flat.dtype) if keep and padding_idx is not None else None
    launch("gather_rows", (flat.size,), table, flat, out, trained, flat.size, *table.shape, untrained)

    def by_table(g: Array) -> RowSparse:
        return SummedRows(flat if trained is None else trained, g.reshape((flat.size, width)), table.shape)

    return out, (by_table, None)


@ops.embed_norm.on("cupy")
def _embed_norm(
    xp: Any,
    gamma: Array,
    beta: Array,
    *parts: Array,
    untrained: Sequence[int | None],
    draw: Draw | None = None,
    eps: float = 1e-12,
    keep: bool,
) -> Any:
    """The output is also written short, where products read it so."""
    count, precision = len(untrained), gpu_precision()
    tables, ids = parts[:count], [*parts[count:]]
    if not 0 < count <= TABLES or len(ids) != count or not all(map(readable, tables, ids, untrained)) or not all_float32(gamma, beta):
        return NotImplemented
    shape = *ids[0].shape, *gamma.shape
    if len(shape) != 2 or not 0 < shape[1] <= WIDEST or beta.shape != gamma.shape or not covers_rows(draw, shape):
        return NotImplemented
    if any(places.shape != shape[:1] for places in ids) or any(table.shape[1:] != shape[1:] for table in tables):
        return NotImplemented
    for table, places in zip(tables, ids, strict=True):
        ops.check_rows("embedding ids", places, len(table))
    ids, gamma, beta = [xp.ascontiguousarray(places) for places in ids], xp.ascontiguousarray(gamma), xp.ascontiguousarray(beta)
    out, xhat, rstd = xp.empty(shape, gamma.dtype), None, None
    trained: Any = None
    if keep:
        xhat, rstd, trained = xp.empty_like(out), xp.empty(shape[:1], out.dtype), xp.empty((count, shape[0]), "int64")
    rounded = {name: xp.empty(shape, DTYPES[name]) if name == precision else None for name in SHORT}
    missing, drawing = TABLES - count, row_draw(xp, draw)
    launch(
        "embed_norm",
        shape[:1],
        *[*tables, *[None] * missing],
        *[*ids, *[None] * missing],
        *[*map(len, tables), *[0] * missing],
        *[*[NO_ROW if row is None else row for row in untrained], *[NO_ROW] * missing],
        *(gamma, beta, out, rounded["bf16"], rounded["fp16"], trained, xhat, rstd, *shape, eps, *drawing),
    )
    if precision in SHORT:
        note_short(out, rounded[precision])

    def pullback(g: Array) -> Any:
        gx, dropped = xp.empty_like(xhat), None if draw is None else xp.empty_like(xhat)
        g = xp.ascontiguousarray(g)
        launch("embed_norm_pullback", shape[:1], g, gamma, xhat, rstd, gx, dropped, *shape, *drawing)
        order = Order(trained, gx)
        rows = [SummedRows(trained[i], gx, table.shape, order=order, table=i) for i, table in enumerate(tables)]
        return *norm_sums(xp, g if dropped is None else dropped, xhat, None), *rows, *[None] * count

    return out, pullback


class Order:
    """In which order rows of an array are added to rows of tables. What it takes is made when the first table's gradient is asked for, by
    as many launches as for one table. Shapes: ids (tables, n) int64, values (n, width).
    """

    def __init__(self, ids: Array, values: Array) -> None:
        self.ids, self.values = ids, namespace_of(values).ascontiguousarray(values)

    @cached_property
    def keys(self) -> Array:
        """Every id · 2³² + its place, in ascending order. Shapes: (tables, n)."""
        (tables, n), run = self.ids.shape, RUN
        keys = self._empty(self.ids.shape, "int64")
        launch("sort_ids", (n, tables), self.ids, keys, n)
        while run < n:
            merged = self._empty(self.ids.shape, "int64")
            launch("merge_runs", (n, tables), keys, merged, run, n)
            keys, run = merged, run * MERGED
        return keys

    @cached_property
    def bundles(self) -> Array:
        """The sum of each `BUNDLE` neighbours that have one id, in the order of the keys. Shapes: (tables, n // BUNDLE, width)."""
        (tables, n), width = self.ids.shape, self.values.shape[1]
        bundles = self._empty((tables, n // BUNDLE, width), self.values.dtype)
        launch("sum_bundles", bundles.shape, self.values, self.keys, bundles, n, width)
        return bundles

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return namespace_of(self.values).empty(shape, dtype)


class SummedRows(RowSparse):
    """`RowSparse` on a GPU: rows of one id are added up in an order that their places alone decide, so that two runs agree to the last bit.

    `NO_ROW` names none. order: that of several tables, of which this one is number `table`; by default that of these ids alone.
    """

    __slots__ = ("_order", "_table")

    def __init__(
        self, ids: Array, values: Array, shape: tuple[int, int], *, coalesced: bool = False, order: Order | None = None, table: int = 0
    ) -> None:
        super().__init__(ids, values, shape, coalesced=coalesced)
        self._order, self._table = Order(ids.reshape((1, len(ids))), values) if order is None else order, table

    @property
    def keys(self) -> Array:
        """As `Order.keys`, of this table. Shapes: (n,)."""
        return self._order.keys[self._table]

    def into(self, out: Array, accumulate: bool) -> Array:
        """Without asking the GPU how many rows there are."""
        self._sum(self.keys, out, accumulate)
        return out

    def _sum(self, keys: Array, out: Array, accumulate: bool) -> None:
        """The sum of the values whose keys have its number, in place of each row of `out`, or added to it."""
        bundles = self._order.bundles[self._table]
        launch("sum_rows", out.shape, self._order.values, keys, bundles, out, len(keys), *out.shape, int(accumulate))

    def _sum_equal_ids(self) -> tuple[Array, Array]:
        xp, keys = namespace_of(self.values), self.keys
        ids = keys >> 32
        is_first = ids != NO_ROW
        is_first[1:] &= ids[1:] != ids[:-1]
        with declared():  # how many ids are distinct
            firsts = xp.flatnonzero(is_first)
        out = xp.empty((len(firsts), self.shape[1]), self.dtype)
        self._sum((xp.cumsum(is_first) - 1 << 32) + (keys & 0xFFFFFFFF), out, accumulate=False)
        return ids[firsts], out

    def astype(self, dtype: Any) -> RowSparse:
        """As the backend has it: the kernel knows float32 only."""
        rows: RowSparse = namespace_of(self.values).rows(self.ids, self.values.astype(dtype), self.shape)
        return rows

    def joined(self, other: RowSparse) -> RowSparse:
        xp = namespace_of(self.values)
        return SummedRows(xp.concatenate([self.ids, other.ids]), xp.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Array:
        return self.into(namespace_of(self.values).empty(self.shape, self.dtype), accumulate=False)
