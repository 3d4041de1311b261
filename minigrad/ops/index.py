"""Operations that pick elements or rows. Negative row numbers are refused where a table is read, not wrapped."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.errors import DTypeError, IndexRangeError, ShapeError
from minigrad.op import op


@op("*s -> *t")
def getitem(xp: Any, x: Array, *, key: Any) -> Any:
    """x[key], basic or advanced; repeated indices accumulate their gradients."""
    shape = x.shape
    return x[key], (lambda g: xp.zeros_at(g, key, shape),)


@op("*t -> *s")
def zeros_at(xp: Any, g: Array, *, key: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of `shape` with g added at `key`: the transpose of getitem."""
    return xp.zeros_at(g, key, shape), (lambda h: h[key],)


def check_rows(what: str, ids: Array, rows: int) -> None:
    """Refuse ids that are no integers or lie outside 0..rows-1, naming the first of them.

    Raises: DTypeError; IndexRangeError.
    """
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, got {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= rows):
        flat = ids.reshape(-1)
        place = int(((flat < 0) | (flat >= rows)).argmax())
        raise IndexRangeError(f"{what}: value {int(flat[place])} at place {place} is outside 0..{rows - 1}")


@op("v d, *b:int<v -> *b d", gathers=True)
def embedding(xp: Any, table: Array, ids: Array) -> Any:
    """Rows of a table: table[ids]. The gradient is kept by touched rows."""
    shape = table.shape
    if len(shape) != 2:
        raise ShapeError(f"embedding: a table has shape (rows, width), got {tuple(shape)}")
    check_rows("embedding ids", ids, shape[0])
    return table[ids], (lambda g: xp.rows(ids, g, shape), None)


@op("n d, m:int<n -> m d")
def take_rows(xp: Any, x: Array, rows: Array) -> Any:
    """Distinct rows of x (the [CLS] row of each sequence, for example); a row may be taken once only."""
    shape = x.shape
    return x[rows], (lambda g: xp.put_rows(g, rows, shape), None)


@op("m d, m:int<n -> n d")
def put_rows(xp: Any, x: Array, rows: Array, *, count: int) -> Any:
    """Zeros (count, d) with the rows of x written to the distinct places `rows`: the transpose of take_rows."""
    return xp.put_rows(x, rows, (count, x.shape[1])), (lambda g: g[rows], None)
