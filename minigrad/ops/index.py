"""Indexing: operations that select elements or rows. Negative row numbers of a table are refused, not counted from the end."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.backend import Array, device_of, namespace_of, to_device, to_number
from minigrad.backend.transfers import declared, is_recording, note_ids
from minigrad.errors import DTypeError, IndexRangeError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.axes import as_integer, normalise_axis
from minigrad.tensor import Tensor, TensorLike, as_tensor, as_tensors


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
    """Refuse ids that are not integers or lie outside 0..rows-1, naming the first of them.

    Values on a GPU are not checked, which would synchronise: callers check ids before they move them there (`placed_rows`), or they are
    noted and checked later (`note_ids`). Raises: DTypeError; IndexRangeError.
    """
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, got {ids.dtype}")
    if device_of(ids) == "cpu":
        refuse_outside(what, ids, rows)
    else:
        note_ids(ids, rows)


def placed_rows(what: str, ids: Array, rows: int, device: str) -> Array:
    """Ids moved to `device`. For a GPU they are checked first, because `check_rows` does not read values there.

    Raises: DTypeError; IndexRangeError.
    """
    if device != "cpu" and ids.dtype.kind in "iu" and not is_recording():
        refuse_outside(what, ids, rows)
    return to_device(ids, device)


def refuse_outside(what: str, ids: Array, rows: int) -> None:
    """Raises: IndexRangeError naming the first id outside 0..rows-1."""
    _refuse_outside(f"{what}: value", ids, 0, rows)


def _refuse_outside(what: str, indices: Array, low: int, stop: int) -> None:
    """Refuse indices outside low..stop-1, naming the first of them."""
    if indices.size and (to_number(indices.min()) < low or to_number(indices.max()) >= stop):
        flat = indices.reshape(-1)
        place = to_number(((flat < low) | (flat >= stop)).argmax())
        allowed = f"{low}..{stop - 1}" if stop else "an empty axis"
        raise IndexRangeError(f"{what} {to_number(flat[place])} at place {place} is outside {allowed}")


@op("v d, *b:int<v -> *b d", gathers=True)
def embedding(xp: Any, table: Array, ids: Array, *, padding_idx: int | None = None) -> Any:
    """Rows of a table: table[ids]. The gradient is sparse, by rows that were read, and never includes row `padding_idx`.

    Raises: ShapeError unless the table is (rows, width); DTypeError for ids that are not integers; IndexRangeError for an id or padding_idx
    outside the table.
    """
    shape = table.shape
    if len(shape) != 2:
        raise ShapeError(f"embedding: a table has shape (rows, width), got {tuple(shape)}")
    check_rows("embedding ids", ids, shape[0])
    if padding_idx is not None and not 0 <= as_integer("embedding: padding_idx", padding_idx) < shape[0]:
        raise IndexRangeError(f"embedding: padding_idx {padding_idx} is outside 0..{shape[0] - 1}")

    def by_table(g: Array) -> Any:
        if padding_idx is None:
            return xp.rows(ids, g, shape)
        real = ids.reshape(-1) != padding_idx
        with declared():  # a mask as index synchronises: its number of True entries is fetched from the device
            return xp.rows(ids.reshape(-1)[real], g.reshape((ids.size, shape[1]))[real], shape)

    return table[ids], (by_table, None)


@op("n d, m:int<n -> m d")
def take_rows(xp: Any, x: Array, rows: Array) -> Any:
    """Distinct rows of x, the [CLS] row of each sequence for example; no row may be taken twice."""
    shape = x.shape
    return x[rows], (lambda g: xp.put_rows(g, rows, shape), None)


@op("m d, m:int<n -> n d")
def put_rows(xp: Any, x: Array, rows: Array, *, count: int) -> Any:
    """Zeros (count, d) with the rows of x written to the distinct rows `rows`: the transpose of take_rows."""
    return xp.put_rows(x, rows, (count, x.shape[1])), (lambda g: g[rows], None)


def _index_array(what: str, indices: TensorLike) -> Array:
    """A copy of the indices as int64."""
    array = as_tensor(indices).array
    if array.dtype.kind not in "iu" and array.size:  # an empty list arrives as floats
        raise DTypeError(f"{what}: indices must be integers, got {array.dtype}")
    return array.astype("int64")


def _flat_indices(shape: tuple[int, ...], indices: Array, axis: int, lengths: tuple[int, ...]) -> Array:
    """The flat positions, in an array of `shape`, of indices along `axis`, at each position within `lengths` on the other axes.

    One flat index instead of one per axis, because NumPy's indexed addition is many times faster with it.
    """
    xp = namespace_of(indices)
    flat = indices * prod(shape[axis + 1 :])
    for other, n in enumerate(lengths):
        if other != axis:
            along = (1,) * other + (n,) + (1,) * (len(shape) - other - 1)
            flat = flat + (xp.arange(n) * prod(shape[other + 1 :])).reshape(along)
    return flat


@composite("*a n *b, *a m *b:int<n -> *a m *b")
def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """The elements of x at `indices` along one axis, for each position on the other axes (which broadcast).

    With axis None x is flattened. Negative indices count from the end. An element taken several times receives the sum of the gradients.
    Raises: IndexRangeError naming the value; ShapeError if the shapes do not fit or there is no such axis; DTypeError.
    """
    x = as_tensor(x)
    index = _index_array("take_along_axis", indices)
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normalise_axis("take_along_axis", axis, x.shape)
    length = x.shape[axis]
    if index.ndim != x.ndim or any(
        m != n and 1 not in (m, n) and d != axis for d, (m, n) in enumerate(zip(index.shape, x.shape, strict=True))
    ):
        raise ShapeError(f"take_along_axis: indices of shape {tuple(index.shape)} do not fit x of shape {x.shape} beside axis {axis}")
    _refuse_outside("take_along_axis: index", index, -length, length)
    index = to_device(_flat_indices(x.shape, index + (index < 0) * length, axis, x.shape), x.device)
    return x.reshape(-1)[index.reshape(-1)].reshape(tuple(index.shape))


def take(x: Tensor, indices: Any, axis: int) -> Tensor:
    """The slices of x at `indices`, which may repeat, along an axis."""
    along = (1,) * axis + (-1,) + (1,) * (x.ndim - axis - 1)
    return take_along_axis(x, as_tensor(indices).reshape(along), axis)


@composite("*a n *b, *c:int<n, *c -> *a n *b")
def scatter_add(x: TensorLike, indices: TensorLike, values: TensorLike, axis: int) -> Tensor:
    """x with values added at `indices` along one axis, for each position on the other axes.

    out[i₀, …, indices[i], …] += values[i] for every i within the shape of `indices`; repeated positions accumulate. As in PyTorch, values
    may be larger than the indices (the rest is not read), and indices may cover only a part of the other axes.
    Raises: IndexRangeError naming a value outside 0..n-1 (negative ones too); ShapeError if the shapes do not fit or there is no such
    axis; DTypeError.
    """
    x, values = as_tensors(x, values)
    index = _index_array("scatter_add", indices)
    axis = normalise_axis("scatter_add", axis, x.shape)
    shape = tuple(index.shape)
    if not (
        len(shape) == x.ndim == values.ndim
        and all(m <= n or d == axis for d, (m, n) in enumerate(zip(shape, x.shape, strict=True)))
        and all(m <= n for m, n in zip(shape, values.shape, strict=True))
    ):
        raise ShapeError(
            f"scatter_add: indices of shape {shape} must have as many axes as x {x.shape} and values {values.shape}, and reach no further"
        )
    _refuse_outside("scatter_add: index", index, 0, x.shape[axis])
    added = values if values.shape == shape else values[tuple(slice(m) for m in shape)]
    flat = to_device(_flat_indices(x.shape, index, axis, shape).reshape(-1), x.device)
    return x + zeros_at(added.reshape(-1), key=flat, shape=(x.size,)).reshape(x.shape)
