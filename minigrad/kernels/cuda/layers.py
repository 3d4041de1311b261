"""Layers on a GPU, from float32 to float32: the passes between matrix products, each one launch of a row kernel.

The contract is that of `kernels/cpu.py`; the bodies in `ops/` define what is computed. Each function replaces the whole (output, pullback)
pair of an operation and declines what it does not cover. Two things differ from the CPU: dropout is drawn inside the kernels, and GELU's
slope is recomputed from GELU's input in the backward pass, because memory is slower than arithmetic here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad import ops
from minigrad.backend import Array
from minigrad.backend.gradients import RowSum
from minigrad.backend.layout import stacked
from minigrad.backend.precision import gpu_precision
from minigrad.backend.random import Draw
from minigrad.kernels.coverage import all_float32, covers_rows
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.shortening import short_outputs, shortened
from minigrad.kernels.cuda.sums import Sums, summed
from minigrad.kernels.cuda.table import MAX_WIDTH


# ---------------------------------------------------------------- products
def product(xp: Any, x: Array, weight: Array) -> tuple[Array, Callable[..., Any]]:
    """x Wᵀ, and a pullback from its gradient g to that of x and those of W, split into parts with these numbers of rows if any are given.
    In bf16 and fp16, x, W and g are each shortened once."""
    precision = gpu_precision()
    x, weight = shortened(xp, x, precision), shortened(xp, weight, precision)

    def pullback(g: Array, *sizes: int) -> Any:
        g = shortened(xp, g, precision)
        dweight = xp.product_stored(g.T, x)
        return xp.matmul_stored(g, weight), *(dweight.parts(*sizes) if sizes else [dweight])

    return xp.matmul_stored(x, weight.T), pullback


# ---------------------------------------------------------------- operations
@ops.dense_gelu.on("cupy")
def _dense_gelu(xp: Any, x: Array, weight: Array, bias: Array, *, approximate: str = "none", keep: bool) -> Any:
    if approximate != "none" or x.ndim != 2 or not all_float32(x, weight, bias) or bias.shape != weight.shape[:1]:
        return NotImplemented
    (h, product_pullback), bias = product(xp, x, weight), xp.ascontiguousarray(bias)
    rows, width = h.shape
    y = xp.empty_like(h) if keep else h
    launch("bias_gelu_float32", h.shape, h, bias, y, rows, width)

    def pullback(g: Array) -> Any:
        dh, sums = xp.empty_like(h), Sums(xp, rows, width)
        launch("bias_gelu_pullback_float32", h.shape, xp.ascontiguousarray(g), h, bias, dh, sums.partial, rows, width, width)
        return *product_pullback(dh), *sums.parts(width)

    return y, pullback


@ops.dense_tanh.on("cupy")
def _dense_tanh(xp: Any, x: Array, weight: Array, bias: Array) -> Any:
    if x.ndim != 2 or not all_float32(x, weight, bias) or bias.shape != weight.shape[:1]:
        return NotImplemented
    y, product_pullback = product(xp, x, weight)
    launch("bias_tanh", y.shape, y, xp.ascontiguousarray(bias), *y.shape)

    def pullback(g: Array) -> Any:
        dh, sums = xp.empty_like(y), Sums(xp, *y.shape)
        launch("bias_tanh_pullback", y.shape, xp.ascontiguousarray(g), y, dh, *short_outputs(xp, dh), sums.partial, *y.shape)
        return *product_pullback(dh), *sums.parts(y.shape[1])

    return y, pullback


@ops.layer_norm.on("cupy")
def _layer_norm(xp: Any, x: Array, weight: Array, bias: Array, *, eps: float = 1e-12, keep: bool) -> Any:
    if x.ndim != 2 or not 0 < x.shape[1] <= MAX_WIDTH or not all_float32(x, weight, bias) or not weight.shape == bias.shape == x.shape[1:]:
        return NotImplemented
    x, gamma = xp.ascontiguousarray(x), xp.ascontiguousarray(weight)
    out, xhat, rstd = xp.empty_like(x), xp.empty_like(x) if keep else None, xp.empty(len(x), x.dtype) if keep else None
    arrays = (x, None, None, gamma, xp.ascontiguousarray(bias), out, None, xhat, rstd)
    launch("add_norm_float32", x.shape[:1], *arrays, *x.shape, eps, *row_draw(xp, None))

    def pullback(g: Array) -> Any:
        g, gx = xp.ascontiguousarray(g), xp.empty_like(x)
        launch("add_norm_pullback_float32", x.shape[:1], g, gamma, xhat, rstd, gx, None, *x.shape, *row_draw(xp, None))
        return gx, *norm_sums(xp, g, xhat, None)

    return out, pullback


@ops.dense_add_norm.on("cupy")
def _dense_add_norm(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    *,
    draw: Draw | None = None,
    eps: float = 1e-12,
    keep: bool,
) -> Any:
    if x.ndim != 2 or not all_float32(x, weight, bias, residual, gamma, beta) or residual.shape != (len(x), len(weight)):
        return NotImplemented
    if not bias.shape == gamma.shape == beta.shape == weight.shape[:1] or not 0 < len(weight) <= MAX_WIDTH:
        return NotImplemented
    if not covers_rows(draw, residual.shape):
        return NotImplemented
    bias, residual, gamma, beta = (xp.ascontiguousarray(a) for a in (bias, residual, gamma, beta))
    y, product_pullback = product(xp, x, weight)
    out, xhat, rstd = (xp.empty_like(y), y, xp.empty(len(y), y.dtype)) if keep else (y, None, None)
    drawing = row_draw(xp, draw)
    arrays = (y, bias, residual, gamma, beta, out, None, xhat, rstd)
    launch("add_norm_float32", y.shape[:1], *arrays, *y.shape, eps, *drawing)

    def pullback(g: Array) -> Any:
        g, gx = xp.ascontiguousarray(g), xp.empty_like(y)
        dy = gx if draw is None else xp.empty_like(y)
        gradients = (g, gamma, xhat, rstd, gx, None if draw is None else dy)
        launch("add_norm_pullback_float32", y.shape[:1], *gradients, *y.shape, *drawing)
        dbias, dgamma, dbeta = norm_sums(xp, g, xhat, dy)
        return *product_pullback(dy), dbias, gx, dgamma, dbeta

    return out, pullback


def norm_sums(xp: Any, g: Array, xhat: Array, dy: Array | None) -> list[RowSum]:
    """The gradients of the bias (only with dy), of gamma and of beta. Shapes: (width,) each."""
    rows, width = g.shape
    kinds = 2 if dy is None else 3
    sums = Sums(xp, rows, kinds * width)
    sums.add("norm_sums_float32", (g, xhat, dy), 0)
    return sums.parts(*[width] * kinds)


@ops.linears.on("cupy")
def _linears(xp: Any, x: Array, *parameters: Array) -> Any:
    count = len(parameters) // 2
    weights, biases = parameters[:count], parameters[count:]
    if x.ndim != 2 or not all_float32(x, *parameters) or [b.shape for b in biases] != [w.shape[:1] for w in weights]:
        return NotImplemented
    bias = stacked(xp, biases)
    y, product_pullback = product(xp, x, stacked(xp, weights))
    launch("add_bias_float32", y.shape, y, bias, *y.shape)
    sizes = [len(w) for w in weights]

    def pullback(g: Array) -> Any:
        return *product_pullback(g, *sizes), *summed(xp, xp.ascontiguousarray(g)).parts(*sizes)

    return y, pullback


@ops.linear.on("cupy")
def _linear(xp: Any, x: Array, weight: Array, bias: Array | None) -> Any:
    return NotImplemented if bias is None else _linears(xp, x, weight, bias)


@ops.dropout.on("cupy")
def _dropout(xp: Any, x: Array, *, draw: Draw) -> Any:
    if x.ndim != 2 or not all_float32(x) or not covers_rows(draw, x.shape):
        return NotImplemented
    drawing, out = row_draw(xp, draw), xp.empty(x.shape, x.dtype)

    def run(v: Array, out: Array, *rounded: Array | None) -> Array:
        launch("drop", v.shape[:1], xp.ascontiguousarray(v), out, *rounded, *v.shape, *drawing)
        return out

    return run(x, out, *short_outputs(xp, out)), lambda g: (run(g, xp.empty_like(out), None, None),)
