"""Operations that move elements about without changing them."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.op import op


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
