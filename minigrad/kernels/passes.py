"""The passes over memory that are not matrix products, in NumPy: blocked so that temporaries stay in cache, in place, as few as possible.

`cpu.py` makes operations of them. Arrays are float32 and C-contiguous, (rows, width) unless a function says otherwise; what is written to
is said in the first line of each function. Sums over rows are made block by block (about 40 to 500 rows), which keeps float32 sums
accurate as well as fast.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import Any, TypeAlias

import numpy as np

F32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Survives: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]] | None
"""Which units a dropout leaves, or None where there is no dropout."""

BLOCK = 16384
"""Elements per block: a block and its temporaries fit into the second-level cache of every current processor."""

LONGEST = 512
"""Rows per block at most, however narrow: NumPy adds rows one after another, and sums of more rows lose float32 digits."""

_float = np.float32
_workspace = threading.local()


def scratch(number: int, shape: tuple[int, ...]) -> F32:
    """A reused buffer of this thread; its contents last until the next call with the same number."""
    buffers: dict[int, F32] = _workspace.__dict__.setdefault("buffers", {})
    size = prod(shape)
    buffer = buffers.get(number)
    if buffer is None or buffer.size < size:
        buffer = buffers[number] = np.empty(max(size, BLOCK), _float)
    return buffer[:size].reshape(shape)


def blocks(rows: int, width: int) -> Iterator[slice]:
    step = min(max(1, BLOCK // max(width, 1)), LONGEST)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


# ---------------------------------------------------------------- bias, dropout
def add_bias(y: F32, bias: F32) -> None:
    """y ← y + bias."""
    for block in blocks(*y.shape):
        y[block] += bias


def add_column_sums(g: F32, total: F32) -> None:
    """total ← total + the sum of g's rows."""
    for block in blocks(*g.shape):
        total += g[block].sum(axis=0)


def drop(x: F32, survives: np.ndarray[Any, np.dtype[np.bool_]], scale: np.float32, out: F32) -> None:
    """out ← x · scale where a unit survives, 0 elsewhere; out may be x."""
    for block in blocks(*x.shape):
        part = x[block]
        np.multiply(part, np.multiply(survives[block], scale, out=scratch(3, part.shape), dtype=_float), out=out[block])


# ---------------------------------------------------------------- gelu
_ERFC = [_float(0.5 * c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)]
_ERFC_T = _float(0.3275911 / np.sqrt(2.0))
"""Abramowitz & Stegun 7.1.26, halved and with √½ folded in: Φ(-|x|) = polynomial(t) · e^(-x²/2),
t = 1/(1 + p|x|); error below 7.5e-8."""
_GAUSS = _float(1.0 / np.sqrt(2.0 * np.pi))


def bias_gelu(h: F32, bias: F32, out: F32, slope: bool) -> None:
    """out ← gelu(h + bias), which may be h; with `slope`, h ← gelu'(h + bias)."""
    for block in blocks(*h.shape):
        h[block] += bias
        _gelu(h[block], out[block], slope)


def _gelu(h: F32, out: F32, slope: bool) -> None:
    a, t, tail, gauss = (scratch(i, h.shape) for i in range(4))
    np.abs(h, out=a)
    np.multiply(a, _ERFC_T, out=t)
    t += _float(1)
    np.reciprocal(t, out=t)
    np.multiply(t, _ERFC[0], out=tail)
    for c in _ERFC[1:]:
        tail += c
        tail *= t
    np.multiply(h, h, out=gauss)
    gauss *= _float(-0.5)
    np.exp(gauss, out=gauss)
    tail *= gauss  # Φ(-|x|)
    a *= tail
    np.maximum(h, _float(0), out=out)
    out -= a  # x Φ(x) = max(x, 0) - |x| Φ(-|x|): no cancellation on the left
    if slope:
        np.subtract(_float(0.5), tail, out=tail)
        np.copysign(tail, h, out=tail)
        tail += _float(0.5)  # Φ(x)
        gauss *= _GAUSS
        gauss *= h
        np.add(tail, gauss, out=h)


def bias_gelu_pullback(g: F32, slope: F32, dh: F32, dbias: F32) -> None:
    """dh ← g · slope; dbias ← dbias + the sum of dh's rows."""
    for block in blocks(*g.shape):
        np.multiply(g[block], slope[block], out=dh[block])
        dbias += dh[block].sum(axis=0)


# ---------------------------------------------------------------- layer normalisation
def norm(x: F32, gamma: F32, beta: F32, eps: float, out: F32, xhat: F32, rstd: F32) -> None:
    """out ← x̂ · gamma + beta; xhat ← x̂, the normalised rows of x; rstd (rows,) ← 1/σ of each row."""
    for block in blocks(*x.shape):
        v = scratch(1, x[block].shape)
        v[...] = x[block]
        _norm(v, gamma, beta, eps, out[block], xhat[block], rstd[block])


def add_norm(
    y: F32, bias: F32, survives: Survives, scale: np.float32, residual: F32, gamma: F32, beta: F32, eps: float, out: F32, rstd: F32
) -> None:
    """out ← x̂ · gamma + beta; y ← x̂, the normalised rows of dropout(y + bias) + residual; rstd (rows,) ← 1/σ of each row."""
    for block in blocks(*y.shape):
        part = y[block]
        part += bias
        if survives is not None:
            np.multiply(part, np.multiply(survives[block], scale, out=scratch(3, part.shape), dtype=_float), out=part)
        part += residual[block]
        _norm(part, gamma, beta, eps, out[block], part, rstd[block])


def _norm(v: F32, gamma: F32, beta: F32, eps: float, out: F32, xhat: F32, rstd: F32) -> None:
    """One block of `norm`; v is overwritten."""
    for _ in range(2):  # the mean of the remainder: rows with a large mean keep their digits
        v -= v.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", v, v)
    variance *= _float(1.0 / v.shape[1])
    variance += _float(eps)
    np.sqrt(variance, out=variance)
    np.reciprocal(variance, out=rstd)
    np.multiply(v, rstd[:, None], out=xhat)
    np.multiply(xhat, gamma, out=out)
    out += beta


def norm_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, gx: F32, dgamma: F32, dbeta: F32) -> None:
    """gx ← the gradient of the rows before normalisation; dgamma and dbeta are added to."""
    for block in blocks(*g.shape):
        _norm_pullback(g[block], gamma, xhat[block], rstd[block], gx[block], dgamma, dbeta)


def add_norm_pullback(
    g: F32, gamma: F32, xhat: F32, rstd: F32, survives: Survives, scale: np.float32, gx: F32, dy: F32, dgamma: F32, dbeta: F32, dbias: F32
) -> None:
    """gx ← the gradient of the residual; dy ← that of y, which is gx itself without dropout; dgamma, dbeta and dbias are added to."""
    for block in blocks(*g.shape):
        part = gx[block]
        _norm_pullback(g[block], gamma, xhat[block], rstd[block], part, dgamma, dbeta)
        if survives is not None:
            np.multiply(part, np.multiply(survives[block], scale, out=scratch(3, part.shape), dtype=_float), out=dy[block])
        dbias += dy[block].sum(axis=0)


def _norm_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, gx: F32, dgamma: F32, dbeta: F32) -> None:
    """One block of `norm_pullback`."""
    t = scratch(0, g.shape)
    np.multiply(g, xhat, out=t)
    dgamma += t.sum(axis=0)
    dbeta += g.sum(axis=0)
    np.multiply(g, gamma, out=gx)
    inverse = _float(1.0 / g.shape[1])
    mean = gx.sum(axis=1, keepdims=True)
    mean *= inverse
    along = np.einsum("ij,ij->i", gx, xhat)
    along *= inverse
    np.multiply(xhat, along[:, None], out=t)
    gx -= t
    gx -= mean
    gx *= rstd[:, None]


# ---------------------------------------------------------------- softmax, inside attention
def softmax_drop(p: F32, survives: Survives, scale: np.float32, dropped: F32) -> None:
    """p ← softmax of its last axis, which has at least one finite entry in each row; dropped ← dropout(p), p itself without dropout.

    Shapes: p, dropped (n, queries, keys); survives likewise, of any strides.
    """
    p -= p.max(axis=2, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=2, keepdims=True)
    if survives is not None:
        np.multiply(survives, scale, out=dropped, dtype=_float)
        dropped *= p


def softmax_drop_pullback(ds: F32, p: F32, dropped: F32, delta: F32, scale: np.float32) -> None:
    """ds ← scale · (ds · dropped - delta · p): from the gradient of dropped weights to that of the products of queries and keys.

    Shapes: ds, p, dropped (n, queries, keys); delta (n, queries), of any strides: Σ over keys of the gradient times the weights.
    """
    ds *= dropped
    ds -= np.multiply(p, delta[:, :, None], out=scratch(0, p.shape))
    ds *= scale
