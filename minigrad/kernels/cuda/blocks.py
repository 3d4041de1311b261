"""BERT's two blocks on a GPU, each as one operation, which allows what a single product or pass cannot do.

The gradient of the sum at a block's end is turned into that of its input in place: products accumulate into it. All sums over rows are
finished by one launch. With operands in bf16 or fp16, everything between the products is stored in that format too, by products that read
and write two bytes a number and accumulate in float32: the block's input and its weights are shortened once (`shortening.py`), and the
backward pass uses the same shortened arrays. Still float32 then are the input added at the end, the output, the gradients of both, sums,
parameters and their gradients. Every number that a kernel passes on is rounded once. In float32 and tf32 everything is float32. The
contract is that of `layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from minigrad import ops
from minigrad.backend import Array
from minigrad.backend.gemm import SHORT
from minigrad.backend.layout import neighbours, stacked
from minigrad.backend.precision import gpu_precision
from minigrad.backend.random import Draw
from minigrad.kernels.coverage import all_float32, covers_rows, covers_weights
from minigrad.kernels.cuda.attention import attend
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.embedding import NO_ROW
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.shortening import register_short, short_outputs, shortened
from minigrad.kernels.cuda.sums import Sums
from minigrad.kernels.cuda.table import HEAD_SIZES, MAX_WIDTH
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
    first_only: bool = False,
    heads: int,
    mixing: Draw | None = None,
    draw: Draw | None = None,
    causal: bool = False,
    eps: float = 1e-12,
    keep: bool,
) -> Any:
    precision = gpu_precision()
    storage, weights, biases = _storage(precision), (wq, wk, wv), (bq, bk, bv)
    if not all_float32(x, *weights, *biases, wo, bo, gamma, beta) or not _fits(x, wo, bo, gamma, beta):
        return NotImplemented
    rows, width, inner = len(x), x.shape[1], wo.shape[1]
    if rows != packing.rows or any(w.shape != (inner, width) for w in weights) or any(b.shape != (inner,) for b in biases):
        return NotImplemented
    if inner % heads or (size := inner // heads) not in HEAD_SIZES or (first_only and causal):
        return NotImplemented
    queries = packing.first if first_only else packing
    if not covers_weights(mixing, queries, packing, heads) or not covers_rows(draw, (queries.rows, width)):
        return NotImplemented
    x, bias = xp.ascontiguousarray(x), stacked(xp, biases)
    stored_x, (stored_in, stored_out) = shortened(xp, x, precision), _shortened_weights(xp, (stacked(xp, weights), wo), precision)
    query_x, q, start = x, None, 0  # the part of Q | K | V that is computed for all rows begins at `start`
    if first_only:
        first_rows, start = xp.like(packing.first_rows, x), inner
        query_x = xp.empty((len(first_rows), width), x.dtype)
        launch("gather_rows", first_rows.shape, x, first_rows, query_x, *short_outputs(xp, query_x), None, len(query_x), *x.shape, NO_ROW)
        stored_query_x = shortened(xp, query_x, precision)
        q, through_queries = _linears(xp, stored_query_x, stored_in[:inner], bias[:inner], inner, storage)
    kv, through_inputs = _linears(xp, stored_x, stored_in[start:], bias[start:], inner, storage)
    mixed, mixed_pullback = attend(
        xp, q, kv, packing=packing, queries=queries, heads=heads, draw=mixing, causal=causal, size=size, precision=precision
    )
    if not keep:
        del q, kv, mixed_pullback  # frees their memory
    out, end_pullback = _dense_add_norm(xp, mixed, stored_out, bo, query_x, gamma, beta, draw, eps, storage, keep)

    def pullback(g: Array) -> Any:
        sums = Sums(xp, rows, 3 * inner + 3 * width, zeroed=first_only)  # the first rows do not fill all of it
        dx, dy = end_pullback(xp.ascontiguousarray(g), sums, 3 * inner)
        dq, dkv = mixed_pullback(xp.matmul_stored(dy, stored_out, alike=True))
        if first_only:
            dquery_x, dweights = through_queries(dq, dx, sums, 0)
            dx, others = through_inputs(dkv, None, sums, start)
            launch("scatter_rows", first_rows.shape, dquery_x, first_rows, dx, *dquery_x.shape)
            dweights += others
        else:
            dx, dweights = through_inputs(dkv, dx, sums, start)
        # In the order of an optimizer's layout, so that one launch accumulates them all.
        dbq, dbk, dbv, dbo, dgamma, dbeta = sums.parts(*[inner] * 3, *[width] * 3)
        return dx, *dweights, dbq, dbk, dbv, xp.product_stored(dy.T, mixed), dbo, dgamma, dbeta

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
    precision = gpu_precision()
    storage = _storage(precision)
    if approximate != "none" or not all_float32(x, w1, b1, w2, b2, gamma, beta):
        return NotImplemented
    if not _fits(x, w2, b2, gamma, beta) or not covers_rows(draw, x.shape) or w1.shape != w2.shape[::-1] or b1.shape != w1.shape[:1]:
        return NotImplemented
    x, b1 = xp.ascontiguousarray(x), xp.ascontiguousarray(b1)
    stored_x, (stored_1, stored_2) = shortened(xp, x, precision), _shortened_weights(xp, (w1, w2), precision)
    h = xp.matmul_stored(stored_x, stored_1.T, alike=True)
    y = xp.empty_like(h) if keep else h
    launch(f"bias_gelu_{storage}", h.shape, h, b1, y, *h.shape)
    out, end_pullback = _dense_add_norm(xp, y, stored_2, b2, x, gamma, beta, draw, eps, storage, keep)
    width = x.shape[1]

    def pullback(g: Array) -> Any:
        rows, inner = h.shape
        sums = Sums(xp, rows, inner + 3 * width)
        gx, dy = end_pullback(xp.ascontiguousarray(g), sums, inner)
        dh = xp.matmul_stored(dy, stored_2, alike=True)
        launch(f"bias_gelu_pullback_{storage}", h.shape, dh, h, b1, dh, sums.partial, rows, inner, sums.partial.shape[1])
        db1, db2, dgamma, dbeta = sums.parts(inner, *[width] * 3)
        dx = xp.matmul_stored(dh, stored_1, out=gx, accumulate=True)
        return dx, xp.product_stored(dh.T, stored_x), db1, xp.product_stored(dy.T, y), db2, dgamma, dbeta

    return out, pullback


# ---------------------------------------------------------------- shared by both
def _fits(x: Array, weight: Array, bias: Array, gamma: Array, beta: Array) -> bool:
    """Whether a block's last product gives rows like those of x, narrow enough for the kernels to normalise."""
    if x.ndim != 2 or weight.ndim != 2 or not 0 < x.shape[1] <= MAX_WIDTH:
        return False
    return bool(x.shape[1:] == weight.shape[:1] == bias.shape == gamma.shape == beta.shape)


def _storage(precision: str) -> str:
    """The storage between products of this precision: one of `table.STORAGES`."""
    return precision if precision in SHORT else "float32"


def _shortened_weights(xp: Any, weights: Sequence[Array], precision: str) -> list[Array]:
    """Each weight as `shortened`; weights that an optimizer laid out side by side take one launch."""
    flat = neighbours([w.reshape(-1) for w in weights])
    if flat is None:
        return [shortened(xp, w, precision) for w in weights]
    short, ends = shortened(xp, flat, precision), accumulate(w.size for w in weights)
    return [short[end - w.size : end].reshape(w.shape) for end, w in zip(ends, weights, strict=True)]


def _linears(
    xp: Any, x: Array, weight: Array, bias: Array, each: int, storage: str
) -> tuple[Array, Callable[[Array, Array | None, Sums, int], tuple[Array, list[Any]]]]:
    """Linear layers of x, side by side, and their pullback. weight, bias: those of all layers, stacked. each: the width of one layer.

    The pullback takes the output's gradient, an array to which x's gradient is added (or None), and the column of `sums` at which the bias
    gradients begin; it returns the gradients of x and of each layer's weight.
    """
    y = xp.matmul_stored(x, weight.T, alike=True)
    launch(f"add_bias_{storage}", y.shape, y, bias, *y.shape)

    def pullback(dy: Array, dx: Array | None, sums: Sums, place: int) -> tuple[Array, list[Any]]:
        sums.add(f"column_sums_{storage}", (dy,), place)
        dx = xp.matmul_stored(dy, weight, out=dx, accumulate=dx is not None)
        return dx, xp.product_stored(dy.T, x).parts(*[each] * (dy.shape[1] // each))

    return y, pullback


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
    storage: str,
    keep: bool,
) -> tuple[Array, Callable[[Array, Sums, int], tuple[Array, Array]]]:
    """`ops.dense_add_norm` of x and weight in the same storage, and its pullback as far as the product.

    The pullback takes the gradient g and the column of `sums` at which those for bias, gamma and beta begin; it returns the gradients of
    the residual, in float32, and of the product. These are separate arrays: the caller accumulates into the first, and the second is read
    later, by the gradients of weights.
    """
    bias, gamma, beta = (xp.ascontiguousarray(a) for a in (bias, gamma, beta))
    y = xp.matmul_stored(x, weight.T, alike=True)
    rounded = xp.empty_like(y) if storage in SHORT else None
    out = y if rounded is None and not keep else xp.empty(y.shape, "float32")
    xhat, rstd, drawing = y if keep else None, xp.empty(len(y), "float32") if keep else None, row_draw(xp, draw)
    launch(f"add_norm_{storage}", y.shape[:1], y, bias, residual, gamma, beta, out, rounded, xhat, rstd, *y.shape, eps, *drawing)
    if rounded is not None:
        register_short(out, rounded)

    def pullback(g: Array, sums: Sums, place: int) -> tuple[Array, Array]:
        gx, dy = xp.empty_like(g), xp.empty_like(xhat)
        launch(f"add_norm_pullback_{storage}", g.shape[:1], g, gamma, xhat, rstd, gx, dy, *g.shape, *drawing)
        sums.add(f"norm_sums_{storage}", (g, xhat, dy), place)
        return gx, dy

    return out, pullback
