"""Gradients that are not plain arrays: they defer work until somebody needs the numbers.

A pullback may return an array or one of these. Each has `shape`, `dtype`, `dense()` (a plain array) and `into(out, accumulate)` (written
straight into a buffer), so that a frozen weight's product is never computed and a word-embedding table is never filled with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Self

import numpy as np

from minigrad.backend.layout import neighbours

FEW = 24
"""Groups of up to this many rows with one id are added in vectorised rounds; larger groups are summed one group at a time."""


class RowSparse:
    """The gradient of a gathered table: `values[i]` belongs to row `ids[i]`; a row named twice receives the sum.

    Shapes: ids (k,) int, values (k, d), shape (rows, d).
    """

    __slots__ = ("coalesced", "ids", "shape", "values")

    whole: LazyGradient | None = None
    """The `LazyGradient` that this gradient is a part of, beginning at its row `start`."""
    start = 0

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
        """Sum the values of equal ids. Groups are ordered by size, so that round r adds their r-th members to a prefix of the output."""
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


class LazyGradient:
    """A gradient not yet computed. It may be a part of a larger one, `whole`, beginning at `start` along the first axis.

    Not an ABC, because every gradient is tested for being one of these, and `isinstance` takes twice as long with an ABC.
    """

    __slots__ = ("dtype", "shape", "start", "whole")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype
        self.whole: Self | None = None
        self.start = 0

    def _cut(self, start: int, stop: int) -> Self:
        raise NotImplementedError  # each kind has its own

    def part(self, start: int, stop: int) -> Self:
        found = self._cut(start, stop)
        found.whole, found.start = self, start
        return found

    def parts(self, *sizes: int) -> list[Self]:
        """Split along the first axis into consecutive parts of these sizes. `joined` recognises neighbours, to compute several at once."""
        return [self.part(stop - size, stop) for stop, size in zip(accumulate(sizes), sizes, strict=True)]

    def astype(self, dtype: Any) -> Any:
        return self.dense().astype(dtype)

    def operands(self) -> Sequence[Any] | None:
        """The arrays it is computed from, which nobody may change before then; None if it is computed together with other parts."""
        raise NotImplementedError  # each kind has its own

    def dense(self) -> Any:
        raise NotImplementedError  # each kind has its own

    def into(self, out: Any, accumulate: bool) -> Any:
        raise NotImplementedError  # each kind has its own


class Product(LazyGradient):
    """The matrix product a @ b. matmul: the namespace's function that will compute it. dtype: that of the result, if it is not a's.

    Shapes: a (m, k), b (k, n).
    """

    __slots__ = ("a", "b", "matmul")

    def __init__(self, a: Any, b: Any, matmul: Callable[..., Any], dtype: Any = None) -> None:
        super().__init__((a.shape[0], b.shape[1]), a.dtype if dtype is None else dtype)
        self.a, self.b, self.matmul = a, b, matmul

    def _cut(self, start: int, stop: int) -> Self:
        return type(self)(self.a[start:stop], self.b, self.matmul, self.dtype)

    def operands(self) -> Sequence[Any]:
        return self.a, self.b

    def dense(self) -> Any:
        return self.matmul(self.a, self.b)

    def into(self, out: Any, accumulate: bool) -> Any:
        return self.matmul(self.a, self.b, out=out, accumulate=accumulate)


class RowSum(LazyGradient):
    """The sum of the rows of x. total(x, out): writes the sum to `out`, or returns a new vector if `out` is None. others: further arrays
    that `total` reads, because x is computed from them.

    Shapes: x (rows, n).
    """

    __slots__ = ("_total", "others", "total", "x")

    def __init__(self, x: Any, total: Callable[[Any, Any], Any], others: Sequence[Any] = ()) -> None:
        super().__init__(x.shape[1:], x.dtype)
        self.x, self.total, self.others = x, total, others
        self._total: Any = None

    def _cut(self, start: int, stop: int) -> Self:
        found = type(self)(self.x, self.total, self.others)
        found.shape = (stop - start,)
        return found

    def operands(self) -> Sequence[Any] | None:
        return (self.x, *self.others) if self._is_whole() else None

    def _is_whole(self) -> bool:
        return bool(self.shape == self.x.shape[1:])

    def dense(self) -> Any:
        """The sum as an array. Parts are views of the whole, which is computed once."""
        whole = self if self.whole is None else self.whole
        if whole._total is None:
            whole._total = whole.total(whole.x, None)
        return whole._total[self.start : self.start + self.shape[0]]

    def into(self, out: Any, accumulate: bool) -> Any:
        if accumulate:
            out += self.dense()
        elif self._is_whole():
            self.total(self.x, out)
        else:
            out[...] = self.dense()
        return out


LAZY = (RowSparse, LazyGradient)


def joined(gradients: Sequence[Any]) -> Any | None:
    """The gradients stacked along their first axis: arrays as a view, parts of one uncomputed gradient as a larger part of it. None unless
    they are neighbours, in this order."""
    first = gradients[0]
    if not isinstance(first, LAZY):
        return neighbours(gradients)
    stop = first.start
    for part in gradients:
        if not isinstance(part, LAZY) or part.whole is not first.whole or part.start != stop:
            return None
        stop += part.shape[0]
    return None if first.whole is None else first.whole.part(first.start, stop)


def dense(gradient: Any) -> Any:
    """A plain array (or Tensor) for any kind of gradient."""
    return gradient.dense() if isinstance(gradient, LAZY) else gradient


def read_only(gradient: Any) -> Any:
    """The gradient as a pullback receives it: a plain array (or Tensor), not writable, because others may share its memory."""
    plain = dense(gradient)
    if type(plain) is np.ndarray:
        plain = plain.view()
        plain.setflags(write=False)
    return plain
