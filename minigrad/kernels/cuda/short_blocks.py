"""BERT's layer on a GPU where products have operands of bf16 or fp16: all that lies between the products of a block is stored as short.

The block's input is shortened once, and so are its weights in each forward pass; the way back takes both as they are. Products read and
write two bytes a number and add in float32. What stays float32: the input that is added at the end, the output, the gradients of both,
sums, parameters and their gradients. Every number that a kernel hands on is rounded once. The contract is that of `blocks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad import ops
from minigrad.backend import Array
from minigrad.backend.gemm import SHORT
from minigrad.backend.precision import product_precision
from minigrad.backend.random import Draw
from minigrad.kernels.cuda.attention import attend
from minigrad.kernels.cuda.blocks import all_float32, beside, covers, partial_sums, summed
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.launch import HEAD_SIZES, ROWS, WIDEST, launch
from minigrad.packing import Packing


@ops.attention_block.on("cupy")
def _attention_block(
    xp: Any,
    x: Array,
    wq: Array,
    wk: Array,
    wv: Array,
    bq: Array,
    bk: Array,
    bv: Array,
    wo: Array,
    bo: Array,
    gamma: Array,
    beta: Array,
    *,
    packing: Packing,
    heads: int,
    mixing: Draw | None = None,
    draw: Draw | None = None,
    causal: bool = False,
    eps: float = 1e-12,
    keep: bool,
) -> Any:
    precision = product_precision.get()
    weights, biases = (wq, wk, wv), (bq, bk, bv)
    if precision not in SHORT or not all_float32(x, *weights, *biases, wo, bo, gamma, beta) or not _fits(x, wo, bo, gamma, beta, draw):
        return NotImplemented
    rows, width, inner = len(x), x.shape[1], wo.shape[1]
    if rows != packing.rows or any(w.shape != (inner, width) for w in weights) or any(b.shape != (inner,) for b in biases):
        return NotImplemented
    if inner % heads or (size := inner // heads) not in HEAD_SIZES:
        return NotImplemented
    if mixing is not None and (mixing.packing is not packing or mixing.keys is not packing or mixing.width != heads):
        return NotImplemented
    x = xp.ascontiguousarray(x)
    short_x, short_in, short_out = (_shortened(xp, a, precision) for a in (x, beside(xp, weights), wo))
    qkv = xp.matmul_short(short_x, short_in.T, short=True)
    launch(f"add_bias_{precision}", qkv.shape, qkv, beside(xp, biases), *qkv.shape)
    settings: dict[str, Any] = {"packing": packing, "queries": packing, "heads": heads, "draw": mixing, "causal": causal}
    mixed, mixed_pullback = attend(xp, None, qkv, **settings, size=size, precision=precision)
    out, end_pullback = _dense_add_norm(xp, mixed, short_out, bo, x, gamma, beta, draw, eps, precision, keep)

    def pullback(g: Array) -> Any:
        partial = partial_sums(xp, rows, 3 * width + 3 * inner)
        stride, places = partial.shape[1], partial.reshape(-1)
        gx, dy = end_pullback(xp.ascontiguousarray(g), places, stride)
        dqkv = mixed_pullback(xp.matmul_short(dy, short_out, short=True))[1]
        launch(f"column_sums_{precision}", (*dqkv.shape, ROWS), dqkv, places[3 * width :], *dqkv.shape, ROWS, stride)
        sums = summed(xp, partial)
        dgamma, dbeta, dbo = (sums[i * width : (i + 1) * width] for i in range(3))
        cuts = [slice(i * inner, (i + 1) * inner) for i in range(3)]
        return (
            xp.matmul_short(dqkv, short_in, out=gx, accumulate=True),
            *[xp.product_short(dqkv[:, cut].T, short_x) for cut in cuts],
            *[sums[3 * width :][cut] for cut in cuts],
            xp.product_short(dy.T, mixed),
            dbo,
            dgamma,
            dbeta,
        )

    return out, pullback


@ops.feed_forward.on("cupy")
def _feed_forward(
    xp: Any,
    x: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    gamma: Array,
    beta: Array,
    *,
    approximate: str = "none",
    draw: Draw | None = None,
    eps: float = 1e-12,
    keep: bool,
) -> Any:
    precision = product_precision.get()
    if precision not in SHORT or approximate != "none" or not all_float32(x, w1, b1, w2, b2, gamma, beta):
        return NotImplemented
    if not _fits(x, w2, b2, gamma, beta, draw) or w1.shape != w2.shape[::-1] or b1.shape != w1.shape[:1]:
        return NotImplemented
    x, b1 = xp.ascontiguousarray(x), xp.ascontiguousarray(b1)
    short_x, short_1, short_2 = (_shortened(xp, a, precision) for a in (x, w1, w2))
    h = xp.matmul_short(short_x, short_1.T, short=True)
    y = xp.empty_like(h) if keep else h
    launch(f"bias_gelu_{precision}", h.shape, h, b1, y, *h.shape)
    out, end_pullback = _dense_add_norm(xp, y, short_2, b2, x, gamma, beta, draw, eps, precision, keep)
    width = x.shape[1]

    def pullback(g: Array) -> Any:
        rows, inner = h.shape
        partial = partial_sums(xp, rows, 3 * width + inner)
        stride, places = partial.shape[1], partial.reshape(-1)
        gx, dy = end_pullback(xp.ascontiguousarray(g), places, stride)
        dh = xp.matmul_short(dy, short_2, short=True)
        launch(f"bias_gelu_pullback_{precision}", h.shape, dh, h, b1, dh, places[3 * width :], rows, inner, stride)
        sums = summed(xp, partial)
        dgamma, dbeta, db2 = (sums[i * width : (i + 1) * width] for i in range(3))
        dx = xp.matmul_short(dh, short_1, out=gx, accumulate=True)
        return dx, xp.product_short(dh.T, short_x), sums[3 * width :], xp.product_short(dy.T, y), db2, dgamma, dbeta

    return out, pullback


# ---------------------------------------------------------------- what both have
def _fits(x: Array, weight: Array, bias: Array, gamma: Array, beta: Array, draw: Draw | None) -> bool:
    """Whether rows like those of x come out of a block's last product, and the kernels can normalise them."""
    vectors = bias.shape == gamma.shape == beta.shape == x.shape[1:]
    return x.ndim == weight.ndim == 2 and 0 < x.shape[1] <= WIDEST and len(weight) == x.shape[1] and vectors and covers(draw, x)


def _shortened(xp: Any, x: Array, precision: str) -> Array:
    return xp.shortened(xp.ascontiguousarray(x), precision)


def _dense_add_norm(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    draw: Draw | None,
    eps: float,
    precision: str,
    keep: bool,
) -> tuple[Array, Callable[[Array, Array, int], tuple[Array, Array]]]:
    """`ops.dense_add_norm` of short x and weight, and its way back as far as the product.

    That takes the gradient g, where to put the partial sums of gamma's, beta's and the bias's gradients, and how far those of one block
    are from the next one's; it gives the gradients of the residual, in float32, and of the product, short.
    """
    bias, gamma, beta = (xp.ascontiguousarray(a) for a in (bias, gamma, beta))
    y = xp.matmul_short(x, weight.T, short=True)
    out, xhat, rstd = xp.empty(y.shape, "float32"), y if keep else None, xp.empty(len(y), "float32") if keep else None
    drawing = row_draw(xp, draw)
    arrays = (y, bias, residual, gamma, beta, out, xhat, rstd)
    launch(f"add_norm_{precision}", y.shape[:1], *arrays, *y.shape, eps, *drawing)

    def pullback(g: Array, partial: Array, stride: int) -> tuple[Array, Array]:
        gx, dy = xp.empty_like(g), xp.empty_like(xhat)
        launch(f"add_norm_pullback_{precision}", g.shape[:1], g, gamma, xhat, rstd, gx, dy, *g.shape, *drawing)
        launch(f"norm_sums_{precision}", g.shape, g, xhat, dy, partial, *g.shape, stride)
        return gx, dy

    return out, pullback
