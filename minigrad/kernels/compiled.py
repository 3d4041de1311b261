"""The passes of `passes.py` compiled by Numba (the `fast` extra), so that every array is read once and written once; and Adam's step.

Names, parameters and outputs are those of `passes.py`; a test compares the two. An argument that the caller gives as None has size 0 in
compiled code.

How the loops are vectorised and the results stay exact:

- The innermost loop runs along one row, which stays in the first-level cache, and uses few arrays: the compiler must check at run time that
  they do not overlap, else it runs the scalar loop. It takes small arrays that lie close together for overlapping; so a loop that sums
  writes to no second array: otherwise its order of additions would depend on the arrays' addresses.
- "contract" (a·b + c with one rounding) is the one freedom granted everywhere. NaN and infinities propagate as in NumPy, and a value
  subtracted in two steps, as a mean is, stays in two steps. Sums along a row may be reordered, as vectors of partial sums need; that
  freedom ("reassoc") is limited to the one addition in `plus`.
- Sums over rows are float64: the conversion is hidden behind the memory traffic.
- Constants are float32: a Python float would promote everything it meets to float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.kernels.jit import (
    D_OUT,
    DELTA,
    DOUBLE,
    HQK,
    HQK_OUT,
    N_OUT,
    ND,
    ND_OUT,
    NUMBER,
    SURVIVES,
    SURVIVES_PAIRS,
    D,
    N,
    at_first_call,
    inner,
    optional,
    plus,
)
from minigrad.kernels.passes import F32, Survives
from minigrad.kernels.scalar import exp, gelu, ordered

_float, _int = np.float32, np.int32
_ZERO, _ONE = _float(0), _float(1)


@inner
def _add_to(total: F32, sums: Any, k: int) -> None:
    for j in range(len(total)):
        total[j] += _float(sums[k, j])


# ---------------------------------------------------------------- bias, dropout
@at_first_call(ND_OUT, D)
def add_bias(y: F32, bias: F32) -> None:
    """y ← y + bias."""
    rows, width = y.shape
    for i in range(rows):
        for j in range(width):
            y[i, j] += bias[j]


@at_first_call(ND, D_OUT)
def add_column_sums(g: F32, total: F32) -> None:
    """total ← total + the sum of g's rows."""
    rows, width = g.shape
    sums = np.zeros((1, width), np.float64)
    for i in range(rows):
        for j in range(width):
            sums[0, j] += g[i, j]
    _add_to(total, sums, 0)


@at_first_call(ND, SURVIVES, NUMBER, ND_OUT)
def drop(x: F32, survives: Any, scale: np.float32, out: F32) -> None:
    """out ← x · scale where a unit survives, 0 elsewhere; out may be x."""
    rows, width = x.shape
    for i in range(rows):
        for j in range(width):
            out[i, j] = x[i, j] * (scale if survives[i, j] else _ZERO)


# ---------------------------------------------------------------- gelu
def bias_gelu(h: F32, bias: F32, out: F32, slope: bool) -> None:
    """out ← gelu(h + bias), which may be h; with `slope`, h ← gelu'(h + bias)."""
    if slope:
        _bias_gelu_and_slope(h, bias, out)
        return
    if out is not h:
        np.copyto(out, h)
    _bias_gelu(out, bias)


@at_first_call(ND_OUT, D, ND_OUT)
def _bias_gelu_and_slope(h: F32, bias: F32, out: F32) -> None:
    rows, width = h.shape
    for i in range(rows):
        for j in range(width):
            out[i, j], h[i, j] = gelu(h[i, j] + bias[j])


@at_first_call(ND_OUT, D)
def _bias_gelu(h: F32, bias: F32) -> None:
    rows, width = h.shape
    for i in range(rows):
        for j in range(width):
            h[i, j], _ = gelu(h[i, j] + bias[j])


@at_first_call(ND, ND, ND_OUT, D_OUT)
def bias_gelu_pullback(g: F32, slope: F32, dh: F32, dbias: F32) -> None:
    """dh ← g · slope; dbias ← dbias + the sum of dh's rows."""
    rows, width = g.shape
    sums = np.zeros((1, width), np.float64)
    for i in range(rows):
        for j in range(width):
            dh[i, j] = g[i, j] * slope[i, j]
            sums[0, j] += dh[i, j]
    _add_to(dbias, sums, 0)


# ---------------------------------------------------------------- layer normalisation
def norm(x: F32, gamma: F32, beta: F32, eps: float, out: F32, xhat: F32, rstd: F32) -> None:
    """out ← x̂ · gamma + beta; xhat ← x̂, the normalised rows of x; rstd (rows,) ← 1/σ of each row."""
    _norm(x, None, None, _ONE, None, gamma, beta, eps, out, xhat, rstd)


def add_norm(
    y: F32, bias: F32, survives: Survives, scale: np.float32, residual: F32, gamma: F32, beta: F32, eps: float, out: F32, rstd: F32
) -> None:
    """out ← x̂ · gamma + beta; y ← x̂, the normalised rows of dropout(y + bias) + residual; rstd (rows,) ← 1/σ of each row."""
    _norm(y, bias, survives, scale, residual, gamma, beta, eps, out, y, rstd)


@at_first_call(ND, optional(D), optional(SURVIVES), NUMBER, optional(ND), D, D, DOUBLE, ND_OUT, ND_OUT, N_OUT)
def _norm(
    x: F32, bias: Any, survives: Any, scale: np.float32, residual: Any, gamma: F32, beta: F32, eps: float, out: F32, xhat: F32, rstd: F32
) -> None:
    rows, width = x.shape
    inverse = _ONE / _float(width)
    v = np.empty(width, _float)
    for i in range(rows):
        if survives.size:
            for j in range(width):
                v[j] = (x[i, j] + bias[j]) * (scale if survives[i, j] else _ZERO) + residual[i, j]
        elif residual.size:
            for j in range(width):
                v[j] = x[i, j] + bias[j] + residual[i, j]
        else:
            for j in range(width):
                v[j] = x[i, j]
        total = _ZERO
        for j in range(width):
            total = plus(total, v[j])
        mean, rest = total * inverse, _ZERO
        for j in range(width):
            v[j] -= mean
            rest = plus(rest, v[j])
        mean, squares = rest * inverse, _ZERO  # subtract the mean of the remainder, too: rows with a large mean keep their digits
        for j in range(width):
            v[j] -= mean
            squares = plus(squares, v[j] * v[j])
        rstd[i] = _ONE / math.sqrt(squares * inverse + _float(eps))
        for j in range(width):
            normal = v[j] * rstd[i]
            xhat[i, j] = normal
            out[i, j] = normal * gamma[j] + beta[j]


def norm_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, gx: F32, dgamma: F32, dbeta: F32) -> None:
    """gx ← the gradient of the rows before normalisation; dgamma and dbeta are accumulated."""
    add_norm_pullback(g, gamma, xhat, rstd, None, _ONE, gx, gx, dgamma, dbeta, np.empty_like(dbeta))


@at_first_call(ND, D, ND, N, optional(SURVIVES), NUMBER, ND_OUT, ND_OUT, D_OUT, D_OUT, D_OUT)
def add_norm_pullback(
    g: F32, gamma: F32, xhat: F32, rstd: F32, survives: Any, scale: np.float32, gx: F32, dy: F32, dgamma: F32, dbeta: F32, dbias: F32
) -> None:
    """gx ← the gradient of the residual; dy ← that of y (gx itself without dropout); dgamma, dbeta and dbias are accumulated."""
    rows, width = g.shape
    inverse = _ONE / _float(width)
    sums = np.zeros((3, width), np.float64)
    for i in range(rows):
        mean, along = _ZERO, _ZERO
        for j in range(width):
            t = g[i, j] * gamma[j]
            mean = plus(mean, t)
            along = plus(along, t * xhat[i, j])
        mean, along = mean * inverse, along * inverse
        for j in range(width):
            gx[i, j] = (g[i, j] * gamma[j] - xhat[i, j] * along - mean) * rstd[i]
        if survives.size:
            for j in range(width):
                dy[i, j] = gx[i, j] * (scale if survives[i, j] else _ZERO)
        for j in range(width):
            sums[0, j] += g[i, j] * xhat[i, j]
            sums[1, j] += g[i, j]
        for j in range(width):
            sums[2, j] += dy[i, j]
    _add_to(dgamma, sums, 0)
    _add_to(dbeta, sums, 1)
    _add_to(dbias, sums, 2)


# ---------------------------------------------------------------- softmax, inside attention
def softmax_drop(p: F32, survives: Survives, scale: np.float32, dropped: F32) -> None:
    """p ← softmax along its last axis, which has a finite entry in each row; dropped ← dropout(p), which is p itself without dropout.

    Shapes: p, dropped (n, queries, keys); survives likewise, of any strides.
    """
    if p.flags.c_contiguous:
        _softmax_drop(p, survives, scale, dropped)
    else:  # the later queries of causal attention, contiguous within one head only
        for a in range(len(p)):
            _softmax_drop(p[a : a + 1], None if survives is None else survives[a : a + 1], scale, dropped[a : a + 1])


@at_first_call(HQK_OUT, optional(SURVIVES_PAIRS), NUMBER, HQK_OUT)
def _softmax_drop(p: F32, survives: Any, scale: np.float32, dropped: F32) -> None:
    n, queries, keys = p.shape
    for a in range(n):
        for b in range(queries):
            order = _int(-(2**31))
            for j in range(keys):
                order = max(order, ordered(_float(p[a, b, j]).view(_int)))
            largest = _int(ordered(order)).view(_float)
            total = _ZERO
            for j in range(keys):
                p[a, b, j] = exp(p[a, b, j] - largest)
                total = plus(total, p[a, b, j])
            inverse = _ONE / total
            for j in range(keys):
                p[a, b, j] *= inverse
            if survives.size:
                for j in range(keys):
                    dropped[a, b, j] = p[a, b, j] * (scale if survives[a, b, j] else _ZERO)


@at_first_call(HQK_OUT, HQK, HQK, DELTA, NUMBER)
def softmax_drop_pullback(ds: F32, p: F32, dropped: F32, delta: F32, scale: np.float32) -> None:
    """ds ← scale · (ds · dropped - delta · p): from the gradient of the dropped weights to that of the query-key products.

    Shapes: ds, p, dropped (n, queries, keys); delta (n, queries), of any strides: Σ over keys of gradient times weight.
    """
    n, queries, keys = ds.shape
    for a in range(n):
        for b in range(queries):
            d = delta[a, b]
            for j in range(keys):
                ds[a, b, j] = (ds[a, b, j] * dropped[a, b, j] - d * p[a, b, j]) * scale


# ---------------------------------------------------------------- Adam
@at_first_call(N_OUT, N, N_OUT, N_OUT, *[DOUBLE] * 6, exact=True)
def adam(p: F32, g: F32, m: F32, v: F32, beta1: float, beta2: float, size: float, eps: float, l2: float, decay: float) -> None:
    """One step of `optim.adam.adam` without AMSGrad, with the same roundings in the same order, so the results are identical."""
    keep1, keep2, new1, new2 = _float(beta1), _float(beta2), _float(1 - beta1), _float(1 - beta2)
    step, least, pull, shrink = _float(size), _float(eps), _float(l2), _float(decay)
    for i in range(len(p)):
        gradient = p[i] * pull + g[i] if l2 else g[i]
        m[i] = m[i] * keep1 + gradient * new1
        v[i] = v[i] * keep2 + gradient * gradient * new2
        p[i] = p[i] * shrink - m[i] / (math.sqrt(v[i]) + least) * step


# ---------------------------------------------------------------- compiling ahead
_FORWARD: tuple[Any, ...] = (add_bias, _bias_gelu, _norm, _softmax_drop)
_TRAINING: tuple[Any, ...] = (
    add_column_sums,
    drop,
    _bias_gelu_and_slope,
    bias_gelu_pullback,
    add_norm_pullback,
    softmax_drop_pullback,
    adam,
)


def prepare(training: bool) -> None:
    """Compile the functions for inference, and with `training` the rest too."""
    for function in _FORWARD + (_TRAINING if training else ()):
        function.compile_now()
