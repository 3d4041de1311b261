"""BERT's operations on NumPy in float32: which products are computed, what is saved for the backward pass, and which arrays are allocated.

Each function replaces the whole (output, pullback) pair of an operation and declines whatever it does not cover, mismatched shapes
included: the bodies in `ops/` define what is computed and which errors are raised, and a generated test compares the two. Between the
matrix products run passes over memory, from `passes` or `compiled`: see `passes_in_use`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np

from minigrad import ops
from minigrad.backend.layout import stacked
from minigrad.backend.random import Draw
from minigrad.kernels import passes_in_use
from minigrad.kernels.coverage import all_float32, covers_rows
from minigrad.kernels.passes import F32, Survives
from minigrad.packing import Packing

_float = np.float32


def _dropping(draw: Draw | None) -> tuple[Survives, np.float32]:
    """Which units survive, and the factor for them."""
    return (None, _float(1)) if draw is None else (draw.mask(), _float(draw.scale))


@ops.dense_gelu.on("numpy")
def _dense_gelu(xp: Any, x: F32, weight: F32, bias: F32, *, approximate: str = "none", keep: bool) -> Any:
    if approximate != "none" or x.ndim != 2 or not all_float32(x, weight, bias) or bias.shape != weight.shape[:1]:
        return NotImplemented
    passes = passes_in_use()
    h = xp.matmul(x, weight.T)
    y = np.empty_like(h) if keep else h
    passes.bias_gelu(h, bias, y, keep)

    def pullback(g: F32) -> Any:  # h now holds the slope
        dh, dbias = np.empty_like(h), np.zeros_like(bias)
        passes.bias_gelu_pullback(g, h, dh, dbias)
        return xp.matmul(dh, weight), xp.product(dh.T, x), dbias

    return y, pullback


@ops.layer_norm.on("numpy")
def _layer_norm(xp: Any, x: F32, weight: F32, bias: F32, *, eps: float = 1e-12) -> Any:
    if x.ndim != 2 or x.shape[1] == 0 or not all_float32(x, weight, bias) or not weight.shape == bias.shape == x.shape[1:]:
        return NotImplemented
    passes = passes_in_use()
    xhat, out, rstd = np.empty(x.shape, _float), np.empty(x.shape, _float), np.empty(len(x), _float)
    passes.norm(x, weight, bias, eps, out, xhat, rstd)

    def pullback(g: F32) -> Any:
        gx, dgamma, dbeta = np.empty(g.shape, _float), np.zeros_like(weight), np.zeros_like(bias)
        passes.norm_pullback(g, weight, xhat, rstd, gx, dgamma, dbeta)
        return gx, dgamma, dbeta

    return out, pullback


@ops.dense_add_norm.on("numpy")
def _dense_add_norm(
    xp: Any, x: F32, weight: F32, bias: F32, residual: F32, gamma: F32, beta: F32, *, draw: Draw | None = None, eps: float = 1e-12
) -> Any:
    if x.ndim != 2 or not all_float32(x, weight, bias, residual, gamma, beta) or residual.shape != (len(x), len(weight)):
        return NotImplemented
    if not bias.shape == gamma.shape == beta.shape == weight.shape[:1] or not covers_rows(draw, residual.shape):
        return NotImplemented
    passes = passes_in_use()
    y = xp.matmul(x, weight.T)
    survives, scale = _dropping(draw)
    out, rstd = np.empty_like(y), np.empty(len(y), _float)
    passes.add_norm(y, bias, survives, scale, residual, gamma, beta, eps, out, rstd)

    def pullback(g: F32) -> Any:  # y now holds x̂
        gx = np.empty_like(y)
        dy = gx if survives is None else np.empty_like(y)
        dgamma, dbeta, dbias = np.zeros_like(gamma), np.zeros_like(beta), np.zeros_like(bias)
        passes.add_norm_pullback(g, gamma, y, rstd, survives, scale, gx, dy, dgamma, dbeta, dbias)
        return xp.matmul(dy, weight), xp.product(dy.T, x), dbias, gx, dgamma, dbeta

    return out, pullback


@ops.linears.on("numpy")
def _linears(xp: Any, x: F32, *parameters: F32) -> Any:
    count = len(parameters) // 2
    weights, biases = parameters[:count], parameters[count:]
    if x.ndim != 2 or not all_float32(x, *parameters) or [b.shape for b in biases] != [w.shape[:1] for w in weights]:
        return NotImplemented
    passes = passes_in_use()
    weight, bias = stacked(xp, weights), stacked(xp, biases)
    y = xp.matmul(x, weight.T)
    passes.add_bias(y, bias)
    cuts = [slice(stop - len(w), stop) for w, stop in zip(weights, accumulate(map(len, weights)), strict=True)]

    def pullback(g: F32) -> Any:
        dbias = np.zeros(g.shape[1], _float)
        passes.add_column_sums(g, dbias)
        return xp.matmul(g, weight), *[xp.product(g[:, cut].T, x) for cut in cuts], *[dbias[cut] for cut in cuts]

    return y, pullback


@ops.dropout.on("numpy")
def _dropout(xp: Any, x: F32, *, draw: Draw) -> Any:
    if x.ndim != 2 or x.dtype != _float or not covers_rows(draw, x.shape):
        return NotImplemented
    passes, survives, scale = passes_in_use(), draw.mask(), _float(draw.scale)

    def run(v: F32) -> F32:
        out = np.empty(v.shape, _float)
        passes.drop(v, survives, scale, out)
        return out

    return run(x), lambda g: (run(g),)


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
    keep: bool,
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
    passes = passes_in_use()
    scale = _float(d**-0.5)
    keep_scale = _float(1.0 if draw is None else draw.scale)
    split = kv.reshape(-1, parts, heads, d)
    q4, k4, v4 = split[:, 0] if q is None else q.reshape(-1, heads, d), split[:, -2], split[:, -1]
    out = np.empty((len(q4), heads * d), _float)
    o4 = out.reshape(-1, heads, d)
    saved = []
    for i, count, (a, b), (first, last) in _equal_length_runs(packing, queries, heads):
        p = xp.matmul(by_head(q4[first:last], count), by_head(k4[a:b], count).swapaxes(2, 3))
        weights = p.reshape(count * heads, *p.shape[2:])
        weights *= scale
        dropped = weights if draw is None else np.empty_like(weights)
        first_seeing = _mask_future(weights) if causal else 0
        if a < b:
            survives = None if draw is None else draw.pairs(i, count)[:, first_seeing:]
            passes.softmax_drop(weights[:, first_seeing:], survives, keep_scale, dropped[:, first_seeing:])
        dropped[:, :first_seeing] = 0
        xp.matmul(dropped.reshape(p.shape), by_head(v4[a:b], count), out=by_head(o4[first:last], count))
        if keep:
            saved.append((weights, dropped))

    def pullback(g: F32) -> Any:
        dkv = np.empty_like(kv) if packing.masked_first is None else np.zeros_like(kv)
        dsplit = dkv.reshape(-1, parts, heads, d)
        dq = None if q is None else np.empty(q.shape, _float)
        dq4 = dsplit[:, 0] if dq is None else dq.reshape(-1, heads, d)
        g4 = g.reshape(-1, heads, d)
        delta = np.vecdot(g4, o4)  # Σ dP·P for each row, computed from the output (Dao et al., arXiv 2205.14135)
        for (weights, dropped), (_, count, (a, b), (first, last)) in zip(saved, _equal_length_runs(packing, queries, heads), strict=True):
            query, keys, values, go = (by_head(x, count) for x in (q4[first:last], k4[a:b], v4[a:b], g4[first:last]))
            p = dropped.reshape(count, heads, *dropped.shape[1:])
            xp.matmul(p.swapaxes(2, 3), go, out=by_head(dsplit[a:b, -1], count))
            dp = xp.matmul(go, values.swapaxes(2, 3))
            sums = delta[first:last].reshape(count, -1, heads).swapaxes(1, 2).reshape(count * heads, -1)
            passes.softmax_drop_pullback(dp.reshape(weights.shape), weights, dropped, sums, scale)
            xp.matmul(dp, keys, out=by_head(dq4[first:last], count))
            xp.matmul(dp.swapaxes(2, 3), query, out=by_head(dsplit[a:b, -2], count))
        return dq, dkv

    return out, pullback


def by_head(rows: F32, count: int) -> F32:
    """The rows of `count` sequences of equal length, as a view by head. Shapes: (count · n, heads, d) → (count, heads, n, d)."""
    return rows.reshape(count, len(rows) // count, *rows.shape[1:]).swapaxes(1, 2)


SCORES_AT_ONCE = 1 << 16
"""Scores computed at a time: few enough to stay in the second-level cache from one product to the next."""


def _equal_length_runs(packing: Packing, queries: Packing, heads: int) -> Iterator[tuple[int, int, tuple[int, int], tuple[int, int]]]:
    """(first sequence, how many, their key rows, their query rows) for runs of sequences of equal length, which are computed together."""
    sizes = list(zip(queries.lengths.tolist(), packing.lengths.tolist(), strict=True))
    i = 0
    while i < len(sizes):
        most = 1 if packing.masked_first is not None else max(1, SCORES_AT_ONCE // (heads * sizes[i][0] * sizes[i][1]))
        past = i + 1
        while past < min(len(sizes), i + most) and sizes[past] == sizes[i]:
            past += 1
        key_spans, query_spans = packing.key_spans, queries.spans
        yield i, past - i, (key_spans[i][0], key_spans[past - 1][1]), (query_spans[i][0], query_spans[past - 1][1])
        i = past


def _mask_future(p: F32) -> int:
    """Mask the keys after each causal query's own position. Returns how many leading queries see no key at all: their weights are 0."""
    queries, keys = p.shape[1:]
    blind = int(max(queries - keys, 0))
    p[:, :blind] = 0
    np.copyto(p[:, blind:], -np.inf, where=~np.tri(queries - blind, keys, keys - (queries - blind), dtype=bool))
    return blind
