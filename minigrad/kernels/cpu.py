"""BERT's blocks on NumPy in float32: blocked so that temporaries stay in cache, in place, few passes over memory.

Each function replaces the whole (output, pullback) pair of an operation and declines what it does not cover, shapes that do not fit
among them: the bodies in `ops/` say what is computed and what is wrong, and a generated test compares both. Bias and norm gradients are
summed per block (about 40 to 500 rows), which keeps float32 sums accurate as well as fast.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import Any, TypeAlias

import numpy as np

from minigrad import ops
from minigrad.backend.gradients import Product
from minigrad.backend.layout import neighbours
from minigrad.backend.random import Draw
from minigrad.packing import Packing

F32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

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


def _all_float32(*arrays: Any) -> bool:
    return all(a.dtype == _float for a in arrays)


def _covers(draw: Draw | None, x: F32) -> bool:
    """Whether a draw is for rows like those of x."""
    return draw is None or x.shape == (draw.packing.rows, draw.width)


def _keep(x: F32, survives: np.ndarray[Any, np.dtype[np.bool_]], scale: np.float32) -> None:
    """x · scale where a unit survives, 0 elsewhere; in place."""
    np.multiply(x, np.multiply(survives, scale, out=scratch(3, x.shape), dtype=_float), out=x)


def beside(arrays: tuple[F32, ...]) -> F32:
    """Arrays stacked along axis 0: a view if they are neighbours in one arena, else a copy."""
    joined: F32 | None = neighbours(arrays)
    return np.concatenate(arrays) if joined is None else joined


# ---------------------------------------------------------------- gelu
_ERFC = [_float(0.5 * c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)]
_ERFC_T = _float(0.3275911 / np.sqrt(2.0))
"""Abramowitz & Stegun 7.1.26, halved and with √½ folded in: Φ(-|x|) = polynomial(t) · e^(-x²/2),
t = 1/(1 + p|x|); error below 7.5e-8."""
_GAUSS = _float(1.0 / np.sqrt(2.0 * np.pi))


def _gelu(h: F32, out: F32, slope: bool) -> None:
    """out ← gelu(h); with `slope`, h ← gelu'(h). One block."""
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


@ops.dense_gelu.on("numpy")
def _dense_gelu(xp: Any, x: F32, weight: F32, bias: F32, *, approximate: str = "none", keep: bool) -> Any:
    if approximate != "none" or x.ndim != 2 or not _all_float32(x, weight, bias) or bias.shape != weight.shape[:1]:
        return NotImplemented
    h = x @ weight.T
    y = np.empty_like(h) if keep else h
    for block in blocks(*h.shape):
        part = h[block]
        part += bias
        _gelu(part, y[block], slope=keep)

    def pullback(g: F32) -> Any:  # h now holds the slope
        dh, dbias = np.empty_like(h), np.zeros_like(bias)
        for block in blocks(*h.shape):
            np.multiply(g[block], h[block], out=dh[block])
            dbias += dh[block].sum(axis=0)
        return dh @ weight, Product(dh.T, x), dbias

    return y, pullback


# ---------------------------------------------------------------- layer normalisation
def _normalise(v: F32, gamma: F32, beta: F32, eps: float, out: F32, xhat: F32, rstd: F32) -> None:
    """out ← normalised v · gamma + beta, xhat ← normalised v, rstd ← 1/σ; v is overwritten. One block."""
    width = v.shape[1]
    for _ in range(2):  # the mean of the remainder: rows with a large mean keep their digits
        v -= v.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", v, v)
    variance *= _float(1.0 / width)
    variance += _float(eps)
    np.sqrt(variance, out=variance)
    np.reciprocal(variance, out=rstd)
    np.multiply(v, rstd[:, None], out=xhat)
    np.multiply(xhat, gamma, out=out)
    out += beta


def _normalise_pullback(g: F32, gamma: F32, xhat: F32, rstd: F32, dgamma: F32, dbeta: F32, out: F32) -> None:
    """out ← gradient of the row before normalisation; dgamma and dbeta are added to. One block."""
    t = scratch(0, g.shape)
    np.multiply(g, xhat, out=t)
    dgamma += t.sum(axis=0)
    dbeta += g.sum(axis=0)
    np.multiply(g, gamma, out=out)
    inverse = _float(1.0 / g.shape[1])
    mean = out.sum(axis=1, keepdims=True)
    mean *= inverse
    along = np.einsum("ij,ij->i", out, xhat)
    along *= inverse
    np.multiply(xhat, along[:, None], out=t)
    out -= t
    out -= mean
    out *= rstd[:, None]


@ops.layer_norm.on("numpy")
def _layer_norm(xp: Any, x: F32, weight: F32, bias: F32, *, eps: float = 1e-12) -> Any:
    if x.ndim != 2 or x.shape[1] == 0 or not _all_float32(x, weight, bias) or not weight.shape == bias.shape == x.shape[1:]:
        return NotImplemented
    xhat, out, rstd = np.empty_like(x), np.empty_like(x), np.empty(len(x), _float)
    for block in blocks(*x.shape):
        v = scratch(1, x[block].shape)
        v[...] = x[block]
        _normalise(v, weight, bias, eps, out[block], xhat[block], rstd[block])

    def pullback(g: F32) -> Any:
        gx, dgamma, dbeta = np.empty_like(g), np.zeros_like(weight), np.zeros_like(bias)
        for block in blocks(*g.shape):
            _normalise_pullback(g[block], weight, xhat[block], rstd[block], dgamma, dbeta, gx[block])
        return gx, dgamma, dbeta

    return out, pullback


@ops.dense_add_norm.on("numpy")
def _dense_add_norm(
    xp: Any, x: F32, weight: F32, bias: F32, residual: F32, gamma: F32, beta: F32, *, draw: Draw | None = None, eps: float = 1e-12
) -> Any:
    if x.ndim != 2 or not _all_float32(x, weight, bias, residual, gamma, beta) or residual.shape != (len(x), len(weight)):
        return NotImplemented
    if not bias.shape == gamma.shape == beta.shape == weight.shape[:1] or not _covers(draw, residual):
        return NotImplemented
    y = x @ weight.T
    survives, scale = (None, _float(1)) if draw is None else (draw.mask(), _float(draw.scale))
    out, rstd = np.empty_like(y), np.empty(len(y), _float)
    for block in blocks(*y.shape):
        part = y[block]
        part += bias
        if survives is not None:
            _keep(part, survives[block], scale)
        part += residual[block]
        _normalise(part, gamma, beta, eps, out[block], part, rstd[block])

    def pullback(g: F32) -> Any:  # y now holds x̂
        gx = np.empty_like(g)
        dy = gx if survives is None else np.empty_like(g)
        dgamma, dbeta, dbias = np.zeros_like(gamma), np.zeros_like(beta), np.zeros_like(bias)
        for block in blocks(*g.shape):
            _normalise_pullback(g[block], gamma, y[block], rstd[block], dgamma, dbeta, gx[block])
            if survives is not None:
                dy[block] = gx[block]
                _keep(dy[block], survives[block], scale)
            dbias += dy[block].sum(axis=0)
        return dy @ weight, Product(dy.T, x), dbias, gx, dgamma, dbeta

    return out, pullback


# ---------------------------------------------------------------- linear layers side by side, dropout
@ops.linears.on("numpy")
def _linears(xp: Any, x: F32, *parameters: F32) -> Any:
    count = len(parameters) // 2
    heights = [weight.shape[:1] for weight in parameters[:count]]
    if x.ndim != 2 or not _all_float32(x, *parameters) or [bias.shape for bias in parameters[count:]] != heights:
        return NotImplemented
    weight, bias = beside(parameters[:count]), beside(parameters[count:])
    y = x @ weight.T
    for block in blocks(*y.shape):
        y[block] += bias
    cuts, start = [], 0
    for w in parameters[:count]:
        cuts.append(slice(start, start + len(w)))
        start += len(w)

    def pullback(g: F32) -> Any:
        dbias = np.zeros(g.shape[1], _float)
        for block in blocks(*g.shape):
            dbias += g[block].sum(axis=0)
        return g @ weight, *[Product(g[:, cut].T, x) for cut in cuts], *[dbias[cut] for cut in cuts]

    return y, pullback


@ops.dropout.on("numpy")
def _dropout(xp: Any, x: F32, *, draw: Draw) -> Any:
    if x.ndim != 2 or x.dtype != _float or not _covers(draw, x):
        return NotImplemented
    survives, scale = draw.mask(), _float(draw.scale)

    def run(v: F32) -> F32:
        out = v.copy()
        for block in blocks(*v.shape):
            _keep(out[block], survives[block], scale)
        return out

    return run(x), lambda g: (run(g),)


# ---------------------------------------------------------------- attention
def _softmax(p: F32, causal: bool) -> None:
    """Each row of scores ← its weights, in place. A causal query sees the keys up to its own place; without any, its weights are 0."""
    queries, keys = p.shape[1:]
    if keys == 0:
        return
    if causal:
        blind = max(queries - keys, 0)  # the first queries, which see nothing
        p[:, :blind] = 0
        p = p[:, blind:]
        np.copyto(p, -np.inf, where=~np.tri(queries - blind, keys, keys - (queries - blind), dtype=bool))
    p -= p.max(axis=2, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=2, keepdims=True)


@ops.attention.on("numpy")
def _attention(
    xp: Any,
    q: F32 | None,
    kv: F32,
    *,
    packing: Packing,
    queries: Packing | None = None,
    heads: int,
    draw: Draw | None = None,
    causal: bool = False,
) -> Any:
    if kv.dtype != _float or (q is not None and q.dtype != _float) or not kv.flags.c_contiguous:
        return NotImplemented
    parts = 3 if q is None else 2
    if kv.shape[1] % (parts * heads):
        return NotImplemented
    d = kv.shape[1] // (parts * heads)
    queries = packing if queries is None else queries
    if (len(kv), len(kv if q is None else q), len(packing)) != (packing.rows, queries.rows, len(queries)):
        return NotImplemented
    scale = _float(d**-0.5)
    keep_scale = _float(1.0 if draw is None else draw.scale)
    split = kv.reshape(-1, parts, heads, d)
    q4, k4, v4 = split[:, 0] if q is None else q.reshape(-1, heads, d), split[:, -2], split[:, -1]
    out = np.empty((len(q4), heads * d), _float)
    o4 = out.reshape(-1, heads, d)
    saved = []
    for i, ((a, b), (first, last)) in enumerate(zip(packing.key_spans, queries.spans, strict=True)):
        p = q4[first:last].transpose(1, 0, 2) @ k4[a:b].transpose(1, 2, 0)
        p *= scale
        _softmax(p, causal)
        dropped = p
        if draw is not None:
            dropped = np.multiply(draw.pairs(i), keep_scale, dtype=_float)
            dropped *= p
        np.matmul(dropped, v4[a:b].transpose(1, 0, 2), out=o4[first:last].transpose(1, 0, 2))
        saved.append((p, dropped))

    def pullback(g: F32) -> Any:
        dkv = np.empty_like(kv) if packing.masked_first is None else np.zeros_like(kv)
        dsplit = dkv.reshape(-1, parts, heads, d)
        dq = None if q is None else np.empty_like(q)
        dq4 = dsplit[:, 0] if dq is None else dq.reshape(-1, heads, d)
        g4 = g.reshape(-1, heads, d)
        delta = np.einsum("nhd,nhd->nh", g4, o4)  # Σ dP·P by row, read off the output (Dao et al., arXiv 2205.14135)
        for (p, dropped), (a, b), (first, last) in zip(saved, packing.key_spans, queries.spans, strict=True):
            go = g4[first:last].transpose(1, 0, 2)
            np.matmul(dropped.transpose(0, 2, 1), go, out=dsplit[a:b, -1].transpose(1, 0, 2))
            ds = go @ v4[a:b].transpose(1, 2, 0)
            ds *= dropped
            ds -= p * delta[first:last].T[:, :, None]
            ds *= scale
            np.matmul(ds, k4[a:b].transpose(1, 0, 2), out=dq4[first:last].transpose(1, 0, 2))
            np.matmul(ds.transpose(0, 2, 1), q4[first:last].transpose(1, 0, 2), out=dsplit[a:b, -2].transpose(1, 0, 2))
        return dq, dkv

    return out, pullback
