"""Rows of a table on a GPU: gathered by a kernel, and their gradient summed in an order that does not depend on how threads run."""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import RowSparse
from minigrad.backend.transfers import declared
from minigrad.kernels.cuda.blocks import all_float32
from minigrad.kernels.cuda.launch import launch

NO_ROW = -1
"""The id of a gradient that no row gets."""


MOST_COMPARED = 1 << 16
"""So many ids are ordered by comparing each with each, beyond by CuPy, which takes memory and waits for the GPU."""


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
        touched = flat if padding_idx is None else xp.where(flat == padding_idx, NO_ROW, flat)  # how many are left, only the GPU knows
        values = g.reshape((flat.size, width))
        return SummedRows(touched, values, table.shape)

    return out, (by_table, None)


class SummedRows(RowSparse):
    """`RowSparse` on a GPU: rows of one id are added up in their order, so that two runs agree to the last bit; `NO_ROW` names none."""

    __slots__ = ()

    def into(self, out: Array, accumulate: bool) -> Array:
        """Without asking the GPU how many rows there are."""
        if not accumulate:
            out.fill(0)
        self._add(*self._ranked(), out)
        return out

    def _ranked(self) -> tuple[Array, Array]:
        """The order in which ids ascend, equal ones as they come, and the ids in that order."""
        xp = namespace_of(self.values)
        if len(self.ids) > MOST_COMPARED:
            order = xp.argsort(self.ids, kind="stable")
            return order, self.ids[order]
        order, ascending = xp.empty(self.ids.shape, "int64"), xp.empty(self.ids.shape, "int64")
        launch("rank_ids", self.ids.shape, self.ids, order, ascending, len(self.ids))
        return order, ascending

    def _add(self, order: Array, ascending: Array, out: Array) -> None:
        xp, (rows, width) = namespace_of(self.values), self.values.shape
        launch("sum_rows", (rows, width), xp.ascontiguousarray(self.values), order, ascending, out, rows, *out.shape)

    def _sum_equal_ids(self) -> tuple[Array, Array]:
        xp = namespace_of(self.values)
        order, ranked = self._ranked()
        is_first = ranked != NO_ROW
        is_first[1:] &= ranked[1:] != ranked[:-1]
        with declared():  # how many ids are distinct
            firsts = xp.flatnonzero(is_first)
        out = xp.zeros((len(firsts), self.shape[1]), self.dtype)
        self._add(order, xp.cumsum(is_first) - 1, out)
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
