"""Rows of a table on a GPU: gathered by a kernel, and their gradient summed in an order that does not depend on how threads run."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import RowSparse
from minigrad.backend.transfers import declared
from minigrad.kernels.cuda.blocks import all_float32
from minigrad.kernels.cuda.launch import launch


@ops.embedding.on("cupy")
def _embedding(xp: Any, table: Array, ids: Array, *, padding_idx: int | None = None) -> Any:
    if table.ndim != 2 or not all_float32(table) or ids.dtype != "int64" or not table.flags.c_contiguous:
        return NotImplemented
    if padding_idx is not None and not 0 <= padding_idx < len(table):
        return NotImplemented
    ops.check_rows("embedding ids", ids, len(table))
    flat, width = xp.ascontiguousarray(ids).reshape(-1), table.shape[1]
    out = xp.empty((*ids.shape, width), table.dtype)
    launch("gather_rows", (flat.size,), table, flat, out, flat.size, *table.shape)

    def by_table(g: Array) -> RowSparse:
        values, touched = g.reshape((flat.size, width)), flat
        if padding_idx is not None:
            with declared():  # how many are left
                real = xp.flatnonzero(flat != padding_idx)
            values, touched = values[real], flat[real]
        return SummedRows(touched, values, table.shape)

    return out, (by_table, None)


class SummedRows(RowSparse):
    """`RowSparse` on a GPU: rows of one id are added up in their order, so that two runs agree to the last bit."""

    __slots__ = ()

    def _sum_equal_ids(self) -> tuple[Array, Array]:
        xp = namespace_of(self.values)
        order = xp.argsort(self.ids, kind="stable")
        ranked = self.ids[order]
        is_first = xp.ones(len(ranked), bool)
        is_first[1:] = ranked[1:] != ranked[:-1]
        with declared():  # how many ids are distinct
            firsts = xp.flatnonzero(is_first)
        starts = xp.concatenate([firsts, xp.full(1, len(ranked), firsts.dtype)])
        segments, width = len(firsts), self.shape[1]
        out = xp.empty((segments, width), self.dtype)
        launch("sum_segments", (segments, width), xp.ascontiguousarray(self.values), order, starts, out, segments, width)
        return ranked[firsts], out

    def astype(self, dtype: Any) -> RowSparse:
        """As the backend has it: the kernel knows float32 only."""
        rows: RowSparse = namespace_of(self.values).rows(self.ids, self.values.astype(dtype), self.shape)
        return rows

    def joined(self, other: RowSparse) -> RowSparse:
        xp = namespace_of(self.values)
        return SummedRows(xp.concatenate([self.ids, other.ids]), xp.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Array:
        return self.into(namespace_of(self.values).zeros(self.shape, self.dtype), accumulate=True)
