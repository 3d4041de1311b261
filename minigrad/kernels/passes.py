"""The passes over memory between matrix products, in NumPy: blocked so that temporaries stay in cache, in place, and as few as possible.

`cpu.py` builds operations from them. Arrays are float32 and C-contiguous, (rows, width) unless a function says otherwise; the first line of
each docstring says what is written. Sums over rows are computed block by block (about 40 to 500 rows), which keeps float32 sums accurate as
well as fast.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, TypeAlias

import numpy as np

F32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Survives: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]] | None
"""Which units survive a dropout, or None without dropout."""

BLOCK = 16384
"""Elements per block: a block and its temporaries fit into the second-level cache of every current CPU."""

LONGEST = 512
"""At most this many rows per block, however narrow: NumPy adds rows one after another, and longer sums lose float32 digits."""

_float = np.float32
_workspace = threading.local()


def scratch(number: int, shape: tuple[int, ...]) -> F32:
    """A reused buffer of this thread, valid until the next call with the same number."""
    buffers: dict[int, F32] = _workspace.__dict__.setdefault("buffers", {})
    size = prod(shape)
    buffer = buffers.get(number)
    if buffer is None or buffer.size < size:
        buffer = buffers[number] = np.empty(max(size, BLOCK), _float)
    return buffer[:size].reshape(shape)


@lru_cache(maxsize=256)
def repeated(value: float, count: int) -> F32:
    """A read-only vector: products with it sum rows or columns several times as fast as `sum`, and as accurately within a block."""
    vector = np.full(count, value, _float)
    vector.flags.writeable = False
    return vector


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
        total += _column_sums(g[block])


def _column_sums(block: F32) -> F32:
    return repeated(1.0, len(block)) @ block


def drop(x: F32, survives: np.ndarray[Any, np.dtype[np.bool_]], scale: np.float32, out: F32) -> None:
    """out ← x · scale where a unit survives, 0 elsewhere; out may be x."""
    for block in blocks(*x.shape):
        part = x[block]
        np.multiply(part, np.multiply(survives[block], scale, out=scratch(3, part.shape), dtype=_float), out=out[block])


# ---------------------------------------------------------------- gelu
NUMERATOR = [_float(c / 0.0427369478) for c in (0.0170475795, 0.119530847, 0.361969498, 0.499999809)]
DENOMINATOR = [_float(c / 0.0427369478) for c in (0.299416723, 0.95343545, 1.5218047, 1.0)]
"""Φ(-a) · e^(a²/2) for a >= 0 as a cubic over a quartic in a, highest powers first (the quartic's leading coefficient is 1): a rational fit
that minimises the largest relative error, 3.8e-7, so that gelu's left tail keeps its digits. All are positive: nothing cancels."""
FAR = _float(100)
"""Φ(-100) is 0 in float32, and powers of larger numbers might overflow."""
GAUSS = _float(1.0 / np.sqrt(2.0 * np.pi))
_SIGN = np.uint32(1 << 31)


def bias_gelu(h: F32, bias: F32, out: F32, slope: bool) -> None:
    """out ← gelu(h + bias), which may be h; with `slope`, h ← gelu'(h + bias)."""
    for block in blocks(*h.shape):
        h[block] += bias
        _gelu(h[block], out[block], slope)


def _gelu(x: F32, out: F32, slope: bool) -> None:
    """One block: out ← x · Φ(x); with `slope`, x ← Φ(x) + x · φ(x)."""
    a, cdf, quartic, density = (scratch(i, x.shape) for i in range(4))
    np.abs(x, out=a)
    if not a.max(initial=0) < FAR:  # also true for NaN, which propagates
        np.minimum(a, FAR, out=a)
    np.multiply(a, _float(-0.5), out=density)
    density *= a
    np.exp(density, out=density)
    np.multiply(a, NUMERATOR[0], out=cdf)
    for c in NUMERATOR[1:-1]:
        cdf += c
        cdf *= a
    cdf += NUMERATOR[-1]
    np.add(a, DENOMINATOR[0], out=quartic)
    for c in DENOMINATOR[1:]:
        quartic *= a
        quartic += c
    cdf /= quartic
    cdf *= density  # Φ(-|x|)
    sign = np.bitwise_and(x.view(np.uint32), _SIGN, out=a.view(np.uint32))
    np.bitwise_xor(cdf.view(np.uint32), sign, out=cdf.view(np.uint32))
    np.subtract(sign == 0, cdf, out=cdf, dtype=_float)  # Φ(x) = 1 - Φ(-|x|) on the right, Φ(-|x|) on the left
    np.multiply(x, cdf, out=out)
    if slope:
        density *= GAUSS
        density *= x
        np.add(cdf, density, out=x)


def bias_gelu_pullback(g: F32, slope: F32, dh: F32, dbias: F32) -> None:
    """dh ← g · slope; dbias ← dbias + the sum of dh's rows."""
    for block in blocks(*g.shape):
        np.multiply(g[block], slope[block], out=dh[block])
        dbias += _column_sums(dh[block])


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
    averaging = repeated(1.0 / v.shape[1], v.shape[1])
    for _ in range(2):  # subtract the mean of the remainder, too: rows with a large mean keep their digits
        v -= (v @ averaging)[:, None]
    variance = np.vecdot(v, v)
    variance *= averaging[0]
    variance += _float(eps)
    np.sqrt(variance, out=variance)
    np.reciprocal(variance, out=rstd)
    np.multiply(v, rstd[:, None], out=xhat)
    np.multiply(xhat, gamma, out=out)
    out += beta


def norm_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, gx: F32, dgamma: F32, dbeta: F32) -> None:
    """gx ← the gradient of the rows before normalisation; dgamma and dbeta are accumulated."""
    for block in blocks(*g.shape):
        _norm_pullback(g[block], gamma, xhat[block], rstd[block], gx[block], dgamma, dbeta)


def add_norm_pullback(
    g: F32, gamma: F32, xhat: F32, rstd: F32, survives: Survives, scale: np.float32, gx: F32, dy: F32, dgamma: F32, dbeta: F32, dbias: F32
) -> None:
    """gx ← the gradient of the residual; dy ← that of y (gx itself without dropout); dgamma, dbeta and dbias are accumulated."""
    for block in blocks(*g.shape):
        part = gx[block]
        _norm_pullback(g[block], gamma, xhat[block], rstd[block], part, dgamma, dbeta)
        if survives is not None:
            np.multiply(part, np.multiply(survives[block], scale, out=scratch(3, part.shape), dtype=_float), out=dy[block])
        dbias += _column_sums(dy[block])


def _norm_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, gx: F32, dgamma: F32, dbeta: F32) -> None:
    """One block of `norm_pullback`."""
    t = scratch(0, g.shape)
    np.multiply(g, xhat, out=t)
    dgamma += _column_sums(t)
    dbeta += _column_sums(g)
    weights = gamma * _float(1.0 / g.shape[1])
    mean, along = g @ weights, t @ weights  # of g · gamma, and of g · gamma · x̂
    np.multiply(g, gamma, out=gx)
    np.multiply(xhat, along[:, None], out=t)
    t += mean[:, None]
    gx -= t
    gx *= rstd[:, None]


# ---------------------------------------------------------------- softmax, inside attention
_SAFE = 80.0
"""e^±80 and sums of many such values are normal float32 numbers, so up to here the row maximum need not be found and subtracted."""


def softmax_drop(p: F32, survives: Survives, scale: np.float32, dropped: F32) -> None:
    """p ← softmax along its last axis, which has a finite entry in each row; dropped ← dropout(p), which is p itself without dropout.

    Shapes: p, dropped (n, queries, keys); survives likewise, of any strides.
    """
    if not (p.max(initial=0) < _SAFE and p.min(initial=0) > -_SAFE):  # also true for NaN
        p -= p.max(axis=2, keepdims=True)
    np.exp(p, out=p)
    p /= (p @ repeated(1.0, p.shape[2]))[:, :, None]
    if survives is not None:
        np.multiply(survives, scale, out=dropped, dtype=_float)
        dropped *= p


def softmax_drop_pullback(ds: F32, p: F32, dropped: F32, delta: F32, scale: np.float32) -> None:
    """ds ← scale · (ds · dropped - delta · p): from the gradient of the dropped weights to that of the query-key products.

    Shapes: ds, p, dropped (n, queries, keys); delta (n, queries), of any strides: Σ over keys of gradient times weight.
    """
    ds *= dropped
    ds -= np.multiply(p, delta[:, :, None], out=scratch(0, p.shape))
    ds *= scale
