"""Shape operations: they move or repeat elements without computing with them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from minigrad.backend import Array, namespace_of
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.axes import as_integer, as_integers, is_sequence, normalise_axes, normalise_axis
from minigrad.ops.elementwise import where
from minigrad.ops.index import take
from minigrad.ops.softmax import allowed
from minigrad.tensor import Axis, Tensor, TensorLike, as_tensor, as_tensors


@op("*s -> *t")
def reshape(xp: Any, x: Array, *, shape: Any) -> Any:
    """The same elements, in row-major order, in another shape (one dimension may be -1)."""
    old = x.shape
    return x.reshape(shape), (lambda g: g.reshape(old),)


@op("*s -> *t")
def transpose(xp: Any, x: Array, *, axes: Sequence[int]) -> Any:
    """Axes permuted: axis i of the output is axis axes[i] of x."""
    n = len(axes)
    back = tuple(sorted(range(n), key=lambda i: axes[i] % n))
    return x.transpose(*axes), (lambda g: g.transpose(*back),)


@op("*s -> *t")
def swapaxes(xp: Any, x: Array, *, a: int, b: int) -> Any:
    """Two axes exchanged."""
    return x.swapaxes(a, b), (lambda g: g.swapaxes(a, b),)


@op("*s -> *t")
def broadcast_to(xp: Any, x: Array, *, shape: Any) -> Any:
    """x repeated along new axes and axes of length 1; a read-only view, nothing is copied."""
    return xp.broadcast_to(x, shape), (lambda g: g,)


@op("*a n *b, *a m *b, ... -> *a n+m+... *b", promotes="mixed")
def concatenate(xp: Any, *xs: Array, axis: int = 0) -> Any:
    """Arrays joined along an existing axis."""
    if not -xs[0].ndim <= axis < xs[0].ndim:
        raise ValueError(f"axis {axis} is out of bounds for arrays with {xs[0].ndim} dimensions")
    lead = (slice(None),) * (axis % xs[0].ndim)
    cuts, start = [], 0
    for x in xs:
        stop = start + x.shape[axis]
        cuts.append((*lead, slice(start, stop)))
        start = stop
    return xp.concatenate(xs, axis=axis), lambda g: tuple([g[cut] for cut in cuts])


@composite("*s, *s, ... -> n *s")
def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of equal shape joined along a new axis.

    Raises: ArgumentError for no tensors; ShapeError if the shapes differ or the result has no such axis.
    """
    if not hasattr(tensors, "__len__") or len(tensors) == 0:
        raise ArgumentError("stack needs a list of at least one tensor")
    return concatenate(*[expand_dims(t, axis) for t in as_tensors(*tensors)], axis=axis)


@composite("*a n *b -> (*a m *b)*")
def split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """x split along an axis: into a number of equal parts, or before each of several indices (read as in a slice).

    Raises: ShapeError if there is no such axis or the number does not divide its length; DTypeError.
    """
    x = as_tensor(x)
    axis = normalise_axis("split", axis, x.shape)
    lead, length = (slice(None),) * axis, x.shape[axis]
    places = as_integers("split: sections", sections)
    if is_sequence(sections):
        bounds = [0, *places, length]
    else:
        count = places[0]
        if count < 1:
            raise ShapeError(f"split: cannot cut an axis of length {length} into {count} parts")
        if length % count:
            raise ShapeError(f"split: an axis of length {length} does not divide into {count} equal parts")
        bounds = [i * (length // count) for i in range(count + 1)]
    return [x[(*lead, slice(a, b))] for a, b in pairwise(bounds)]


@composite("*s -> *a 1 *b")
def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """x with a new axis of length 1.

    Raises: ShapeError if the result has no such axis; DTypeError.
    """
    x = as_tensor(x)
    place = normalise_axis("expand_dims", axis, x.shape, more=1)
    return x.reshape((*x.shape[:place], 1, *x.shape[place:]))


@composite("*s -> *t")
def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """x without its axes of length 1 (all of them, or those named).

    Raises: ShapeError if there is no such axis or its length is not 1; DTypeError.
    """
    x = as_tensor(x)
    gone = [a for a, side in enumerate(x.shape) if side == 1] if axis is None else normalise_axes("squeeze", axis, x.shape)
    if longer := [a for a in gone if x.shape[a] != 1]:
        raise ShapeError(f"squeeze: axis {longer[0]} of shape {x.shape} is longer than 1")
    return reshape(x, shape=tuple(side for a, side in enumerate(x.shape) if a not in gone))


@composite("*s -> *t")
def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """x with the axes `source` moved to the positions `destination`; the others keep their order.

    Raises: ShapeError if there is no such axis, one is named twice, or the numbers of axes differ; DTypeError.
    """
    x = as_tensor(x)
    sources, places = normalise_axes("moveaxis", source, x.shape), normalise_axes("moveaxis", destination, x.shape)
    if len(sources) != len(places):
        raise ShapeError(f"moveaxis: {len(sources)} axes cannot go to {len(places)} places")
    order = [a for a in range(x.ndim) if a not in sources]
    for place, a in sorted(zip(places, sources, strict=True)):
        order.insert(place, a)
    return transpose(x, axes=tuple(order))


@composite("*s -> *s")
def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """x in reverse order along `axis` (all axes if None).

    Raises: ShapeError if there is no such axis or one is named twice; DTypeError.
    """
    x = as_tensor(x)
    turned = normalise_axes("flip", axis, x.shape)
    return x[tuple(slice(None, None, -1 if a in turned else None) for a in range(x.ndim))]


@composite("*a n *b -> *a m *b")
def repeat(x: TensorLike, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element (or slice) of x repeated: all by one number, or each by its own; x is flattened if axis is None.

    Raises: ArgumentError for negative numbers; ShapeError if there is no such axis, or there is neither one number nor one per element;
    DTypeError.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normalise_axis("repeat", axis, x.shape)
    counts, before, n, after = as_integers("repeat: repeats", repeats), x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    if any(count < 0 for count in counts):
        raise ArgumentError(f"repeat: repeats must not be negative, got {repeats}")
    if len(counts) == 1:
        times = counts[0]
        return broadcast_to(x.reshape((*before, n, 1, *after)), shape=(*before, n, times, *after)).reshape((*before, n * times, *after))
    if len(counts) != n:
        raise ShapeError(f"repeat: {len(counts)} repeats for an axis of length {n}; give one number, or one for each place")
    places = [place for place, count in enumerate(counts) for _ in range(count)]
    return take(x, places, axis)


@composite("*s -> *t")
def tile(x: TensorLike, reps: int | Sequence[int]) -> Tensor:
    """x repeated as a whole `reps` times along each axis; missing leading axes of x or of `reps` count as 1.

    Raises: ArgumentError for negative numbers; DTypeError.
    """
    x, times = as_tensor(x), as_integers("tile: reps", reps)
    if any(count < 0 for count in times):
        raise ArgumentError(f"tile: reps must not be negative, got {reps}")
    ndim = max(x.ndim, len(times))
    sides = [*(1,) * (ndim - x.ndim), *x.shape]
    times = (*(1,) * (ndim - len(times)), *times)
    apart = x.reshape(tuple(side for n in sides for side in (1, n)))
    laid = broadcast_to(apart, shape=tuple(side for pair in zip(times, sides, strict=True) for side in pair))
    return laid.reshape(tuple(t * n for t, n in zip(times, sides, strict=True)))


def _triangle(what: str, x: Tensor, k: Any) -> Array:
    """True on and below diagonal `k` of the last two axes."""
    if x.ndim < 2:
        raise ShapeError(f"{what}: a triangle needs at least two axes, got shape {x.shape}")
    return namespace_of(x.array).tri(*x.shape[-2:], as_integer(f"{what}: k", k), dtype=bool)


# tril and triu fill with False: it is 0 in every dtype, and a Python bool promotes to all of them.
@composite("*b m n -> *b m n")
def tril(x: TensorLike, k: int = 0) -> Tensor:
    """The lower triangles of the last two axes: zero above diagonal k (0 is the main diagonal, 1 the next above).

    Raises: ShapeError for fewer than two axes (NumPy makes a matrix of a vector); DTypeError.
    """
    x = as_tensor(x)
    return where(_triangle("tril", x, k), x, False)


@composite("*b m n -> *b m n")
def triu(x: TensorLike, k: int = 0) -> Tensor:
    """The upper triangles of the last two axes: zero below diagonal k (0 is the main diagonal, 1 the next above).

    Raises: ShapeError for fewer than two axes (NumPy makes a matrix of a vector); DTypeError.
    """
    x = as_tensor(x)
    return where(_triangle("triu", x, as_integer("triu: k", k) - 1), False, x)


@composite("*s, *s:bool, *s -> *s")
def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x with `value` where the mask is True, in x's dtype; mask and value broadcast to x, whose masked elements receive gradient 0.

    The mask holds booleans, or the integers 0 and 1.
    Raises: ShapeError if mask or value do not broadcast to x; DTypeError for a floating value in a tensor of integers; ArgumentError for a
    mask of floats, or of other integers (on the CPU only).
    """
    x = as_tensor(x)
    fill = value.astype(x.dtype) if isinstance(value, Tensor) else Tensor(value, dtype=x.dtype, device=x.device)
    if x.dtype.kind != "f" and as_tensor(value).dtype.kind == "f":
        raise DTypeError(f"masked_fill: a tensor of {x.dtype} cannot hold the value {value!r:.60}; convert it with .astype first")
    filled = where(allowed(mask, x), fill, x)
    if filled.shape != x.shape:
        raise ShapeError(f"masked_fill: a value of shape {fill.shape} does not broadcast to {x.shape}")
    return filled
