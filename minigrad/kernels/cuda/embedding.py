"""Rows of a table on a GPU: gathered by a kernel, and their gradient summed in an order that does not depend on how threads run."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import RowSparse
from minigrad.backend.transfers import declared
from minigrad.kernels.cuda.blocks import all_float32
from minigrad.kernels.cuda.launch import BUNDLE, MERGED, RUN, launch

NO_ROW = -1
"""The id of a gradient that no row gets."""

MOST_ROWS = 1 << 31
"""Of a table: an id is half of a key by which it is sorted."""


@ops.embedding.on("cupy")
def _embedding(xp: Any, table: Array, ids: Array, *, padding_idx: int | None = None, keep: bool) -> Any:
    if table.ndim != 2 or not all_float32(table) or ids.dtype != "int64" or not table.flags.c_contiguous:
        return NotImplemented
    if len(table) > MOST_ROWS:
        return NotImplemented
    if padding_idx is not None and not 0 <= padding_idx < len(table):
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


class SummedRows(RowSparse):
    """`RowSparse` on a GPU: rows of one id are added up in an order that their places alone decide, so that two runs agree to the last bit.

    `NO_ROW` names none.
    """

    __slots__ = ()

    def into(self, out: Array, accumulate: bool) -> Array:
        """Without asking the GPU how many rows there are."""
        if not accumulate:
            out.fill(0)
        self._add(self._keys(), out, accumulate)
        return out

    def _keys(self) -> Array:
        """Every id · 2³² + its place, in ascending order."""
        xp, n, run = namespace_of(self.values), len(self.ids), RUN
        keys = xp.empty(n, "int64")
        launch("sort_ids", (n,), self.ids, keys, n)
        while run < n:
            merged = xp.empty(n, "int64")
            launch("merge_runs", (n,), keys, merged, run, n)
            keys, run = merged, run * MERGED
        return keys

    def _add(self, keys: Array, out: Array, accumulate: bool) -> None:
        """Sums of rows in place of, or added to, those of `out` whose number some key has."""
        xp, (n, width) = namespace_of(self.values), self.values.shape
        values, bundles = xp.ascontiguousarray(self.values), xp.empty((n // BUNDLE, width), self.dtype)
        sizes = (n, *out.shape, int(accumulate))
        launch("sum_rows", (n, width), values, keys, out, bundles, *sizes)
        launch("sum_bundles", bundles.shape, values, keys, bundles, out, *sizes)

    def _sum_equal_ids(self) -> tuple[Array, Array]:
        xp, keys = namespace_of(self.values), self._keys()
        ids = keys >> 32
        is_first = ids != NO_ROW
        is_first[1:] &= ids[1:] != ids[:-1]
        with declared():  # how many ids are distinct
            firsts = xp.flatnonzero(is_first)
        out = xp.empty((len(firsts), self.shape[1]), self.dtype)
        self._add((xp.cumsum(is_first) - 1 << 32) + (keys & 0xFFFFFFFF), out, accumulate=False)
        return ids[firsts], out

    def astype(self, dtype: Any) -> RowSparse:
        """As the backend has it: the kernel knows float32 only."""
        rows: RowSparse = namespace_of(self.values).rows(self.ids, self.values.astype(dtype), self.shape)
        return rows

    def joined(self, other: RowSparse) -> RowSparse:
        xp = namespace_of(self.values)
        return SummedRows(xp.concatenate([self.ids, other.ids]), xp.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Array:
        return self.into(namespace_of(self.values).zeros(self.shape, self.dtype), accumulate=True)
