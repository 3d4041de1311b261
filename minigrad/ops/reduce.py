"""Operations that sum up an axis, several axes, or everything.

Conventions: equal maxima (minima) share the gradient evenly; the mean of nothing is NaN; the maximum over an empty axis raises.
"""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.op import composite, op
from minigrad.ops.elementwise import sqrt, where
from minigrad.tensor import Axis, Tensor, TensorLike, as_tensor


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axis {axis} is out of bounds for an array with {ndim} dimensions")
    return tuple(a % ndim for a in axes)


def _kept(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` with the reduced axes at length 1."""
    reduced = _axes(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def _without(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` without the reduced axes."""
    reduced = _axes(axis, len(shape))
    return tuple(n for i, n in enumerate(shape) if i not in reduced)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    n = 1
    for i in _axes(axis, len(shape)):
        n *= shape[i]
    return n


@op("*s -> *t")
def sum(xp: Any, x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (all axes if None)."""
    shape, kept = tuple(x.shape), _kept(x.shape, axis)
    return xp.sum(x, axis=axis, keepdims=keepdims), (lambda g: xp.broadcast_to(g.reshape(kept), shape),)


@op("*s -> *t", promotes="float")
def mean(xp: Any, x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The arithmetic mean over `axis` (all axes if None)."""
    shape, kept = tuple(x.shape), _kept(x.shape, axis)
    n = _count(shape, axis)
    scale = 1.0 / n if n else float("nan")
    return xp.sum(x, axis=axis, keepdims=keepdims) * scale, (lambda g: xp.broadcast_to(g.reshape(kept) * scale, shape),)


@op("*s -> *t", promotes="float")
def var(xp: Any, x: Array, *, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """The variance over `axis`: squared distances from the mean, divided by n - ddof. NaN when nothing is left to divide by."""
    kept, n = _kept(x.shape, axis), _count(x.shape, axis)
    scale = 1.0 / (n - ddof) if n > ddof else float("nan")
    centred = x - xp.sum(x, axis=axis, keepdims=True) * (1.0 / n if n else float("nan"))
    return xp.sum(centred * centred, axis=axis, keepdims=keepdims) * scale, (lambda g: centred * (g.reshape(kept) * (2.0 * scale)),)


@composite("*s -> *t")
def std(x: TensorLike, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`; a constant slice has gradient 0."""
    variance = var(as_tensor(x), axis=axis, ddof=ddof, keepdims=keepdims)
    constant = variance.array == 0
    return where(constant, 0.0, sqrt(where(constant, 1.0, variance)))


def _extreme(xp: Any, x: Array, out: Array, axis: Any, keepdims: bool) -> Any:
    """The output of max or min, and a pullback that shares the gradient among equal extremes."""
    kept = _kept(x.shape, axis)
    hit = xp.constant(x) == out.reshape(kept)
    share = (hit / hit.sum(axis=axis, keepdims=True)).astype(x.dtype)  # counted in integers: float16 could not count past 2048
    return out if keepdims else out.reshape(_without(kept, axis)), (lambda g: g.reshape(kept) * share,)


@op("*s -> *t")
def max(xp: Any, x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest element over `axis`."""
    return _extreme(xp, x, xp.constant(x).max(axis=axis, keepdims=True), axis, keepdims)


@op("*s -> *t")
def min(xp: Any, x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest element over `axis`."""
    return _extreme(xp, x, xp.constant(x).min(axis=axis, keepdims=True), axis, keepdims)


@op("*b n -> *t", promotes="float")
def logsumexp(xp: Any, x: Array, *, axis: int = -1, keepdims: bool = False) -> Any:
    """log Σ eˣ over one axis, shifted so that nothing overflows. All -inf gives -inf with gradient 0; +inf gives +inf."""
    kept = _kept(x.shape, axis)
    top = xp.constant(x).max(axis=axis, keepdims=True)
    finite = xp.isfinite(top)
    shift = xp.where(finite, top, 0.0).astype(x.dtype)
    e = xp.exp(xp.where(finite, x - shift, 0.0)) * finite
    total = e.sum(axis=axis, keepdims=True)
    safe = xp.where(finite, total, 1.0)
    out = xp.where(finite, xp.log(safe) + shift, top)
    at_top = (xp.constant(x) == top) & (top > 0) & ~finite  # only +inf entries share an infinite sum

    def pullback(g: Array) -> Array:
        weight = xp.where(finite, e / safe, at_top / xp.maximum(at_top.sum(axis=axis, keepdims=True), 1))
        return g.reshape(kept) * weight

    return (out if keepdims else out.reshape(_without(kept, axis))), (pullback,)
