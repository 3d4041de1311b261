"""Reductions over one axis, several axes, or all.

Conventions: equal maxima (minima) share the gradient evenly; the mean over an empty axis is NaN; the maximum over an empty axis raises;
norm has gradient 0 at the zero vector.
"""

from __future__ import annotations

import math
from math import inf
from numbers import Integral, Real
from typing import Any

from minigrad.backend import Array, namespace_of
from minigrad.errors import ArgumentError
from minigrad.op import composite, op
from minigrad.ops.elementwise import absolute, sqrt, square, where
from minigrad.tensor import Axis, Tensor, TensorLike, as_tensor


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axis {axis} is out of bounds for an array with {ndim} dimensions")
    return tuple(a % ndim for a in axes)


def _kept(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` with the reduced axes of length 1."""
    reduced = _axes(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def _without(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """`shape` without the reduced axes."""
    reduced = _axes(axis, len(shape))
    return tuple(n for i, n in enumerate(shape) if i not in reduced)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    return math.prod([shape[i] for i in _axes(axis, len(shape))])


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
    """The variance over `axis`: squared distances from the mean, divided by n - ddof, or NaN unless n > ddof."""
    kept, n, reduced = _kept(x.shape, axis), _count(x.shape, axis), _axes(axis, x.ndim)
    scale = 1.0 / (n - ddof) if n > ddof else float("nan")
    first = xp.constant(x)[tuple([slice(1) if i in reduced else slice(None) for i in range(x.ndim)])]
    shifted = x - first if n else x  # does not change the variance: equal numbers give exactly 0, and large means cost no digits
    centred = shifted - xp.sum(shifted, axis=axis, keepdims=True) * (1.0 / n if n else float("nan"))
    return xp.sum(centred * centred, axis=axis, keepdims=keepdims) * scale, (lambda g: centred * (g.reshape(kept) * (2.0 * scale)),)


def _exponents(values: Array) -> Array:
    """Integers e such that the product of x · 2⁻ᵉ over any run of neighbours lies within 1/2 … 2; 0 for zeros, infinities and NaN."""
    xp = namespace_of(values)
    regular = xp.isfinite(values) & (values != 0)
    levels = xp.round(xp.cumsum(xp.log2(abs(xp.where(regular, values, 1.0))), axis=-1)).astype("int64")
    return xp.diff(levels, axis=-1, prepend=0)


def _product_of_others(xp: Any, x: Array) -> Array:
    """For each element of the last axis the product of all others, by multiplying neighbours in pairs and recursing on the products.

    There is no division, so the result is exact with zeros, and as a polynomial it can be differentiated at any order.
    """
    n = x.shape[-1]
    if n < 2:
        return x**0
    even, odd, last = x[..., 0 : n - 1 : 2], x[..., 1::2], x[..., n - n % 2 :]
    outside = _product_of_others(xp, xp.concatenate([even * odd, last], axis=-1))
    pairs, rest = outside[..., : n // 2], outside[..., n // 2 :]
    both = xp.concatenate([(pairs * odd)[..., None], (pairs * even)[..., None]], axis=-1)
    return xp.concatenate([both.reshape((*x.shape[:-1], n - n % 2)), rest], axis=-1)


@op("*s -> *t")
def prod(xp: Any, x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The product over `axis` (all axes if None). The gradient is exact with any number of zeros; partial products do not overflow."""
    if x.dtype.kind != "f":
        return xp.prod(x, axis=axis, keepdims=keepdims), None
    ndim, shape, reduced = x.ndim, _without(x.shape, axis), _axes(axis, x.ndim)
    order = (*[i for i in range(ndim) if i not in reduced], *reduced)
    moved = x.transpose(*order)
    rows = moved.reshape((*shape, _count(x.shape, axis)))
    e = _exponents(xp.constant(rows))
    total = e.sum(axis=-1, keepdims=True)
    scaled = xp.ldexp(rows, -e)  # powers of two are factored out exactly, and put back at the end

    def pullback(g: Array) -> Array:
        found = g.reshape((*shape, 1)) * xp.ldexp(_product_of_others(xp, scaled), total - e)
        return found.reshape(moved.shape).transpose(*sorted(range(ndim), key=lambda i: order[i]))

    out = xp.ldexp(xp.constant(scaled).prod(axis=-1), total[..., 0])
    return out.reshape(_kept(x.shape, axis)) if keepdims else out, (pullback,)


@op("*a n *b -> *a n *b")
def cumsum(xp: Any, x: Array, *, axis: int) -> Any:
    """The cumulative sum along an axis.

    Raises: ArgumentError for an axis that is not an integer.
    """
    if not isinstance(axis, Integral):
        raise ArgumentError(f"cumsum: axis is one integer, not {axis!r}")
    backwards = (*[slice(None)] * _axes(axis, x.ndim)[0], slice(None, None, -1))
    return xp.cumsum(x, axis=axis), (lambda g: xp.cumsum(g[backwards], axis=axis)[backwards],)


@composite("*s -> *t")
def norm(x: TensorLike, ord: float = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The norm of the vectors along `axis` (if None, of all of x as one vector): √Σx² for ord 2, Σ|x| for 1, max |x| for inf.

    At the zero vector the gradient is 0. Elements are scaled before they are squared, so that no square overflows.
    Raises: ArgumentError for another `ord`; ShapeError if there is no such axis, or an empty one with ord inf.
    """
    if not isinstance(ord, Real) or ord not in (1, 2, inf):
        raise ArgumentError(f"norm: ord is 1, 2 or inf, not {ord!r}")
    x = as_tensor(x)
    x = x if x.dtype.kind == "f" else x.astype("float32")
    if ord == inf:
        return max(absolute(x), axis=axis, keepdims=keepdims)
    if ord == 1 or x.size == 0:
        return sum(absolute(x), axis=axis, keepdims=keepdims)
    largest = max(absolute(x.detach()), axis=axis, keepdims=True)
    scale = where((largest.array > 0) & (largest.array < inf), largest, 1.0)
    squares = sum(square(x / scale), axis=axis, keepdims=True)
    length = scale * _root(squares)
    return length if keepdims else length.reshape(_without(x.shape, axis))


def _root(squares: Tensor) -> Tensor:
    """The square root of a sum of squares, with gradient 0 where it is 0."""
    zero = squares.array == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, squares)))


@composite("*s -> *t")
def std(x: TensorLike, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`; a constant slice has gradient 0."""
    return _root(var(as_tensor(x), axis=axis, ddof=ddof, keepdims=keepdims))


def _extreme(xp: Any, x: Array, out: Array, axis: Any, keepdims: bool) -> Any:
    """The output of max or min, and a pullback that divides the gradient evenly among equal extremes."""
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
    total = xp.sum(e, axis=axis, keepdims=True)
    safe = xp.where(finite, total, 1.0)
    out = xp.where(finite, xp.log(safe) + shift, top)
    at_top = (xp.constant(x) == top) & (top > 0) & ~finite  # only +inf entries share an infinite sum

    def pullback(g: Array) -> Array:
        weight = xp.where(finite, e / safe, at_top / xp.maximum(at_top.sum(axis=axis, keepdims=True), 1))
        return g.reshape(kept) * weight

    return (out if keepdims else out.reshape(_without(kept, axis))), (pullback,)
