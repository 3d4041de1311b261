"""Embedding tables on a GPU: rows are gathered by a kernel, and their gradients summed in a deterministic order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import LazyGradient, RowSparse
from minigrad.backend.random import Draw
from minigrad.backend.side_stream import SideStream, current_side_stream
from minigrad.backend.transfers import declared
from minigrad.kernels.coverage import all_float32, covers_rows
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.layers import norm_sums
from minigrad.kernels.cuda.shortening import short_outputs
from minigrad.kernels.cuda.table import BUNDLE, MAX_WIDTH, MERGED, RUN, TABLES

NO_ROW = -1
"""The id of a gradient that belongs to no row."""

MAX_ROWS = 1 << 31
"""The most rows of a table: an id is half of a sort key."""


def is_readable(table: Array, ids: Array, untrained: int | None) -> bool:
    """Whether kernels can read the table's rows by these ids."""
    if table.ndim != 2 or not all_float32(table) or ids.dtype != "int64" or not table.flags.c_contiguous or len(table) > MAX_ROWS:
        return False
    return untrained is None or 0 <= untrained < len(table)


@ops.embedding.on("cupy")
def _embedding(xp: Any, table: Array, ids: Array, *, padding_idx: int | None = None, keep: bool) -> Any:
    if not is_readable(table, ids, padding_idx):
        return NotImplemented
    ops.check_rows("embedding ids", ids, len(table))
    flat, width = xp.ascontiguousarray(ids).reshape(-1), table.shape[1]
    out = xp.empty((*ids.shape, width), table.dtype)
    untrained = NO_ROW if padding_idx is None else padding_idx
    trained = xp.empty(flat.shape, flat.dtype) if keep and padding_idx is not None else None
    launch("gather_rows", (flat.size,), table, flat, out, None, None, trained, flat.size, *table.shape, untrained)

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
    """The output is also written in bf16 or fp16 if products read it so."""
    count = len(untrained)
    tables, ids = parts[:count], [*parts[count:]]
    if not 0 < count <= TABLES or len(ids) != count or not all(map(is_readable, tables, ids, untrained)) or not all_float32(gamma, beta):
        return NotImplemented
    shape = *ids[0].shape, *gamma.shape
    if len(shape) != 2 or not 0 < shape[1] <= MAX_WIDTH or beta.shape != gamma.shape or not covers_rows(draw, shape):
        return NotImplemented
    if any(places.shape != shape[:1] for places in ids) or any(table.shape[1:] != shape[1:] for table in tables):
        return NotImplemented
    for table, places in zip(tables, ids, strict=True):
        ops.check_rows("embedding ids", places, len(table))
    ids, gamma, beta = [xp.ascontiguousarray(places) for places in ids], xp.ascontiguousarray(gamma), xp.ascontiguousarray(beta)
    out, xhat, rstd = xp.empty(shape, gamma.dtype), None, None
    trained: Any = None
    heights = [*map(len, tables)]
    if keep:
        xhat, rstd, trained = xp.empty_like(out), xp.empty(shape[:1], out.dtype), xp.empty((count, shape[0]), "int64")
    missing, drawing = TABLES - count, row_draw(xp, draw)
    launch(
        "embed_norm",
        shape[:1],
        *[*tables, *[None] * missing],
        *[*ids, *[None] * missing],
        *[*heights, *[0] * missing],
        *[*[NO_ROW if row is None else row for row in untrained], *[NO_ROW] * missing],
        *(gamma, beta, out, *short_outputs(xp, out), trained, xhat, rstd, *shape, eps, *drawing),
    )
    order, side = SortedIds(trained), current_side_stream.get()
    if keep and side is not None:
        order.sort_on(side)

    def pullback(g: Array) -> Any:
        gx, dropped = xp.empty_like(xhat), None if draw is None else xp.empty_like(xhat)
        g = xp.ascontiguousarray(g)
        launch("embed_norm_pullback", shape[:1], g, gamma, xhat, rstd, gx, dropped, *shape, *drawing)
        whole, starts = TableRows(order, gx, heights), accumulate([0, *heights])
        rows = [SummedRows(ids, gx, table.shape, whole=whole, start=at) for table, ids, at in zip(tables, trained, starts, strict=False)]
        return *norm_sums(xp, g if dropped is None else dropped, xhat, None), *rows, *[None] * count

    return out, pullback


class SortedIds:
    """Ids of tables, sorted: the order in which gradients are added to the tables' rows. The sort runs at first use, with as many launches
    for several tables as for one.

    Shapes: ids (tables, n) int64.
    """

    def __init__(self, ids: Array) -> None:
        self.ids = ids
        self._side: SideStream | None = None

    def sort_on(self, side: SideStream) -> None:
        """Start the sort now, on a side stream. Earlier work there is joined first, so that waiting for it does not include the sort."""
        side.join()
        self._side = side
        side.run(lambda: self._sorted, self, self.ids.nbytes)

    @property
    def keys(self) -> Array:
        """id · 2³² + position for every id, ascending. Shapes: (tables, n)."""
        if self._side is not None:
            self._side.finish(self)
        return self._sorted

    @cached_property
    def _sorted(self) -> Array:
        (tables, n), run, empty = self.ids.shape, RUN, namespace_of(self.ids).empty
        keys = empty(self.ids.shape, "int64")
        launch("sort_ids", (n, tables), self.ids, keys, n)
        while run < n:
            merged = empty(self.ids.shape, "int64")
            launch("merge_runs", (n, tables), keys, merged, run, n)
            keys, run = merged, run * MERGED
        return keys


class TableRows(LazyGradient):
    """The gradients of tables that were read together, one table below another: `values[i]` belongs to one row of each.

    first: the index in `order` of the first table. Shapes: values (n, width), heights (tables,).
    """

    __slots__ = ("_bundles", "first", "heights", "order", "values")

    def __init__(self, order: SortedIds, values: Array, heights: Sequence[int], first: int = 0) -> None:
        super().__init__((sum(heights), values.shape[1]), values.dtype)
        self.order, self.values, self.heights, self.first = order, values, heights, first
        self._bundles: Array | None = None

    def _cut(self, start: int, stop: int) -> Self:
        """start, stop: the row at which one table begins, and the row at which one ends."""
        ends = [*accumulate(self.heights)]
        first, last = [0, *ends].index(start), ends.index(stop) + 1
        return type(self)(self.order, self.values, self.heights[first:last], self.first + first)

    @property
    def keys(self) -> Array:
        """As `SortedIds.keys`, for these tables."""
        return self.order.keys[self.first : self.first + len(self.heights)]

    @property
    def bundles(self) -> Array:
        """The sum of each group of `BUNDLE` neighbours with one id, in the order of the keys. Shapes: (tables, n // BUNDLE, width).

        Computed at first use, for all tables of the whole at once.
        """
        whole = self if self.whole is None else self.whole
        if whole._bundles is None:
            keys, (n, width) = whole.keys, whole.values.shape
            whole._bundles = self._empty((len(keys), n // BUNDLE, width))
            launch("sum_bundles", whole._bundles.shape, whole.values, keys, whole._bundles, n, width)
        return whole._bundles[self.first :]

    def operands(self) -> None:
        """None: they are summed on the main stream, at the end of the backward pass."""

    def dense(self) -> Array:
        return self.into(self._empty(self.shape), accumulate=False)

    def into(self, out: Array, accumulate: bool) -> Array:
        """Needs no fetch of the number of distinct ids from the GPU."""
        return self.summed(self.keys, self.heights, out, accumulate)

    def summed(self, keys: Array, heights: Sequence[int], out: Array, accumulate: bool) -> Array:
        """Set each row of `out` to the sum of the values whose keys have its number, or add that sum to it."""
        sizes = *heights, *[0] * (TABLES - len(heights)), out.shape[1]
        launch("sum_rows", sizes, self.values, keys, self.bundles, out, len(self.values), *sizes, int(accumulate))
        return out

    def _empty(self, shape: tuple[int, ...]) -> Array:
        return namespace_of(self.values).empty(shape, self.dtype)


class SummedRows(RowSparse):
    """`RowSparse` on a GPU. Rows with one id are added in an order that depends only on their positions, so that two runs agree to the last
    bit.

    `NO_ROW` is an id without a row. whole: the gradients of several tables, of which this one begins at row `start`; by default those of
    this table alone.
    """

    __slots__ = ("_rows", "start", "whole")

    def __init__(
        self,
        ids: Array,
        values: Array,
        shape: tuple[int, int],
        *,
        coalesced: bool = False,
        whole: TableRows | None = None,
        start: int = 0,
    ) -> None:
        super().__init__(ids, values, shape, coalesced=coalesced)
        if whole is None:
            whole = TableRows(SortedIds(ids.reshape((1, len(ids)))), namespace_of(values).ascontiguousarray(values), shape[:1])
        self.whole, self.start = whole, start
        self._rows = whole.part(start, start + shape[0])

    @property
    def keys(self) -> Array:
        """As `SortedIds.keys`, for this table. Shapes: (n,)."""
        return self._rows.keys[0]

    def into(self, out: Array, accumulate: bool) -> Array:
        return self._rows.into(out, accumulate)

    def _sum_equal_ids(self) -> tuple[Array, Array]:
        xp, keys = namespace_of(self.values), self.keys
        ids = keys >> 32
        is_first = ids != NO_ROW
        is_first[1:] &= ids[1:] != ids[:-1]
        with declared():  # fetches the number of distinct ids
            firsts = xp.flatnonzero(is_first)
        out = xp.empty((len(firsts), self.shape[1]), self.dtype)
        return ids[firsts], self._rows.summed((xp.cumsum(is_first) - 1 << 32) + (keys & 0xFFFFFFFF), out.shape[:1], out, accumulate=False)

    def astype(self, dtype: Any) -> RowSparse:
        """The backend's `RowSparse`, since the kernel takes float32 only."""
        rows: RowSparse = namespace_of(self.values).rows(self.ids, self.values.astype(dtype), self.shape)
        return rows

    def joined(self, other: RowSparse) -> RowSparse:
        xp = namespace_of(self.values)
        return SummedRows(xp.concatenate([self.ids, other.ids]), xp.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Array:
        return self.into(namespace_of(self.values).empty(self.shape, self.dtype), accumulate=False)
