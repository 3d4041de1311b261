"""Gradients that are not plain arrays: they put off work until somebody needs the numbers.

A pullback may return an array or one of these. Each has `shape`, `dtype`, `dense()` (a plain array) and
`into(out, accumulate)` (written straight into a buffer), so that a frozen weight's product is never computed
and a word-embedding table is never filled with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from minigrad.backend.layout import neighbours

FEW = 24
"""Rows that share an id: up to this many are added in vectorised rounds, larger groups are summed one by one."""


class RowSparse:
    """The gradient of a gathered table: `values[i]` belongs to row `ids[i]`; a row named twice receives the sum.

    Shapes: ids (k,) int, values (k, d), shape (rows, d).
    """

    __slots__ = ("coalesced", "ids", "shape", "values")

    def __init__(self, ids: Any, values: Any, shape: tuple[int, int], *, coalesced: bool = False) -> None:
        self.ids, self.values, self.shape, self.coalesced = ids, values, shape, coalesced

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def coalesce(self) -> RowSparse:
        """The same gradient with distinct, ascending-by-group ids (each id once)."""
        if self.coalesced:
            return self
        return type(self)(*self._sum_equal_ids(), self.shape, coalesced=True)

    def _sum_equal_ids(self) -> tuple[Any, Any]:
        """Groups of equal ids are ordered by size, so that round r adds every group's r-th member to a prefix of the output."""
        order = np.argsort(self.ids, kind="stable")
        ranked = self.ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else np.zeros(0, np.int64)
        counts = np.diff(np.append(starts, len(ranked)))
        largest_first = np.argsort(-counts, kind="stable")
        starts, counts = starts[largest_first], counts[largest_first]
        out = self.values[order[starts]]
        large = int((counts > FEW).sum())
        for group in range(large):
            members = order[starts[group] : starts[group] + counts[group]]
            np.add.reduce(self.values[members], axis=0, out=out[group])
        rounds = int(counts[large]) if large < len(counts) else 0
        for r in range(1, rounds):
            stop = int(np.searchsorted(-counts, -r, "left"))  # groups with more than r members
            out[large:stop] += self.values[order[starts[large:stop] + r]]
        return ranked[starts], out

    def astype(self, dtype: Any) -> RowSparse:
        return type(self)(self.ids, self.values.astype(dtype), self.shape, coalesced=self.coalesced)

    def scaled(self, factor: float) -> RowSparse:
        """The gradient times a number."""
        return type(self)(self.ids, self.values * factor, self.shape, coalesced=self.coalesced)

    def joined(self, other: RowSparse) -> RowSparse:
        """The sum of two row gradients of one table, still by rows."""
        return type(self)(np.concatenate([self.ids, other.ids]), np.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Any:
        return self.into(np.zeros(self.shape, self.dtype), accumulate=True)

    def into(self, out: Any, accumulate: bool) -> Any:
        if not accumulate:
            out.fill(0)
        distinct = self.coalesce()
        out[distinct.ids] += distinct.values
        return out


class Product:
    """The matrix product a @ b, not yet computed. matmul: the function of the arrays' namespace that will; dtype: of what it gives, if
    that is not a's. A part of another product knows of which one, and at which of its rows it starts.

    Shapes: a (m, k), b (k, n).
    """

    __slots__ = ("a", "b", "dtype", "matmul", "shape", "start", "whole")

    def __init__(self, a: Any, b: Any, matmul: Callable[..., Any], dtype: Any = None) -> None:
        self.a, self.b, self.matmul, self.shape = a, b, matmul, (a.shape[0], b.shape[1])
        self.dtype = a.dtype if dtype is None else dtype
        self.whole: Product | None = None
        self.start = 0

    def part(self, start: int, stop: int) -> Product:
        """Some rows of it."""
        found = type(self)(self.a[start:stop], self.b, self.matmul, self.dtype)
        found.whole, found.start = self, start
        return found

    def parts(self, *sizes: int) -> list[Product]:
        """Its rows in pieces, one after another; whoever wants several that are neighbours computes them by one product (`joined`)."""
        return [self.part(stop - size, stop) for stop, size in zip(accumulate(sizes), sizes, strict=True)]

    def astype(self, dtype: Any) -> Any:
        return self.dense().astype(dtype)

    def dense(self) -> Any:
        return self.matmul(self.a, self.b)

    def into(self, out: Any, accumulate: bool) -> Any:
        return self.matmul(self.a, self.b, out=out, accumulate=accumulate)


LAZY = (RowSparse, Product)


def joined(gradients: Sequence[Any]) -> Any | None:
    """The gradients stacked along their first axis: arrays as a view, parts of one product as a product. None unless they are
    neighbours, in this order."""
    first = gradients[0]
    if not isinstance(first, Product):
        return neighbours(gradients)
    stop = first.start
    for part in gradients:
        if not isinstance(part, Product) or part.whole is not first.whole or part.start != stop:
            return None
        stop += part.shape[0]
    return None if first.whole is None else first.whole.part(first.start, stop)


def dense(gradient: Any) -> Any:
    """A plain array (or Tensor) for any kind of gradient."""
    return gradient.dense() if isinstance(gradient, LAZY) else gradient


def read_only(gradient: Any) -> Any:
    """What a pullback receives: a plain array (or Tensor) that it cannot write to, because others may hold the same memory."""
    plain = dense(gradient)
    if type(plain) is np.ndarray:
        plain = plain.view()
        plain.setflags(write=False)
    return plain
