"""Operations that move elements about without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import composite, op
from minigrad.tensor import Tensor, TensorLike, as_tensor


@op("*s -> *t")
def reshape(xp: Any, x: Array, *, shape: Any) -> Any:
    """The same elements, row-major, in another shape (one side may be -1)."""
    old = x.shape
    return x.reshape(shape), (lambda g: g.reshape(old),)


@op("*s -> *t")
def transpose(xp: Any, x: Array, *, axes: tuple[int, ...]) -> Any:
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
    """x repeated along new and length-1 axes; a read-only view, nothing is copied."""
    return xp.broadcast_to(x, shape), (lambda g: g,)


@op("*a n *b, *a m *b, ... -> *a n+m+... *b", promotes="mixed")
def concatenate(xp: Any, *xs: Array, axis: int = 0) -> Any:
    """Arrays one after another along an existing axis."""
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
    """Tensors of equal shape along a new axis."""
    if len(tensors) == 0:
        raise ArgumentError("stack needs at least one tensor")
    return concatenate(*[expand_dims(as_tensor(t), axis) for t in tensors], axis=axis)


@composite("*a n *b -> (*a n/sections *b)*")
def split(x: Tensor, sections: int, axis: int = 0) -> list[Tensor]:
    """x cut into equal parts along an axis.

    Raises: ShapeError if there is no such axis or it does not divide.
    """
    if not -x.ndim <= axis < x.ndim or sections < 1:
        raise ShapeError(f"cannot split axis {axis} of a tensor of shape {x.shape} into {sections} parts")
    length, rest = divmod(x.shape[axis], sections)
    if rest:
        raise ShapeError(f"an axis of length {x.shape[axis]} does not divide into {sections} equal parts")
    lead = (slice(None),) * (axis % x.ndim)
    return [x[(*lead, slice(i * length, (i + 1) * length))] for i in range(sections)]


@composite("*s -> *a 1 *b")
def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """x with a new axis of length 1.

    Raises: ShapeError if the result has no such axis.
    """
    x = as_tensor(x)
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ShapeError(f"axis {axis} is out of bounds for a tensor of shape {x.shape} with one more axis")
    axis %= x.ndim + 1
    return x.reshape((*x.shape[:axis], 1, *x.shape[axis:]))
