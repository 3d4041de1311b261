"""The two blocks of BERT's layer, each as one operation (post-norm; Vaswani et al., arXiv 1706.03762).

Their bodies run the operations that they consist of, one after the other. They exist for backends that can optimise a whole block: on a
GPU the activations between its matrix products need never become float32, and fewer kernel launches suffice. Elsewhere a model calls the
single operations (`models.blocks.can_fuse`), which takes less memory, because in the backward pass each frees its activations before the
next one runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op
from minigrad.ops.attention import attention
from minigrad.ops.dense import dense_add_norm, dense_gelu, linears
from minigrad.ops.index import take_rows
from minigrad.packing import Packing


def _check_residual(block: str, x: Array, outputs: Array) -> None:
    if x.ndim != 2 or outputs.ndim != 2 or outputs.shape[0] != x.shape[1]:
        raise ShapeError(f"{block}: weight {tuple(outputs.shape)} (outputs, inputs) gives no rows like those of x {tuple(x.shape)}")


Projections: TypeAlias = tuple[Array | None, Array, Array, Callable[[Array | None, Array, Array], tuple[Array, list[Array]]]]
"""q and kv as `attention` takes them, the rows that are queries, and a function from the gradients of these three to those of x and of the
parameters."""


def _project(xp: Any, x: Array, weights: tuple[Array, ...], biases: tuple[Array, ...], keep: bool) -> Projections:
    """Every row is a query."""
    qkv, through_inputs = linears.run(xp, (x, *weights, *biases), {}, keep=keep)

    def pullback(dq: Array | None, dqkv: Array, dquery_rows: Array) -> tuple[Array, list[Array]]:
        dx, *dparameters = through_inputs(dqkv)
        dx += dquery_rows
        return dx, dparameters

    return None, qkv, x, pullback


def _project_first(xp: Any, x: Array, first_rows: Array, weights: tuple[Array, ...], biases: tuple[Array, ...], keep: bool) -> Projections:
    """Only the first rows are queries."""
    first, (through_rows, _) = take_rows.run(xp, (x, xp.like(first_rows, x)), {}, keep=keep)
    kv, through_keys = linears.run(xp, (x, *weights[1:], *biases[1:]), {}, keep=keep)
    q, through_queries = linears.run(xp, (first, weights[0], biases[0]), {}, keep=keep)

    def pullback(dq: Array | None, dkv: Array, dquery_rows: Array) -> tuple[Array, list[Array]]:
        dx, dwk, dwv, dbk, dbv = through_keys(dkv)
        dfirst, dwq, dbq = through_queries(dq)
        dfirst += dquery_rows
        dx += through_rows(dfirst)
        return dx, [dwq, dwk, dwv, dbq, dbk, dbv]

    return q, kv, first, pullback


@op("n d, (h d)*3, (h)*3, d h, d, d, d -> n d | sequences d", promotes="float")
def attention_block(
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
    keep: bool = True,
) -> Any:
    """layer_norm(dropout(attention(x Wqᵀ + bq, …) Woᵀ + bo) + x): every row attends to the rows of its sequence.

    first_only: only the first row of each sequence (`packing.first`) is a query, and the result has one row per sequence. mixing: dropout
    of the attention weights; draw: dropout of the rows before the residual is added.
    Raises: ShapeError for shapes that do not fit; ArgumentError for first_only in a causal model.
    """
    _check_residual("attention_block", x, wo)
    if first_only and causal:
        raise ArgumentError("attention_block: in a causal model the first rows attend to themselves only; compute all rows")
    weights, biases = (wq, wk, wv), (bq, bk, bv)
    if first_only:
        queries, (q, kv, query_rows, through_inputs) = packing.first, _project_first(xp, x, packing.first_rows, weights, biases, keep)
    else:
        queries, (q, kv, query_rows, through_inputs) = packing, _project(xp, x, weights, biases, keep)
    options = {"packing": packing, "queries": queries, "heads": heads, "draw": mixing, "causal": causal}
    mixed, through_attention = attention.run(xp, (q, kv), options, keep=keep)
    del q, kv  # without gradients, no more than one of these large arrays is alive at a time
    y, through_outputs = dense_add_norm.run(xp, (mixed, wo, bo, query_rows, gamma, beta), {"draw": draw, "eps": eps}, keep=keep)

    def pullback(g: Array) -> Any:
        dmixed, dwo, dbo, dquery_rows, dgamma, dbeta = through_outputs(g)
        dq, dkv = through_attention(dmixed)
        del dmixed
        dx, dinputs = through_inputs(dq, dkv, dquery_rows)
        return dx, *dinputs, dwo, dbo, dgamma, dbeta

    return y, pullback


@op("n d, m d, m, d m, d, d, d -> n d", promotes="float")
def feed_forward(
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
    keep: bool = True,
) -> Any:
    """layer_norm(dropout(gelu(x W₁ᵀ + b₁) W₂ᵀ + b₂) + x): the second block of a layer."""
    _check_residual("feed_forward", x, w2)
    h, through_gelu = dense_gelu.run(xp, (x, w1, b1), {"approximate": approximate}, keep=keep)
    y, through_norm = dense_add_norm.run(xp, (h, w2, b2, x, gamma, beta), {"draw": draw, "eps": eps}, keep=keep)

    def pullback(g: Array) -> Any:
        dh, dw2, db2, dresidual, dgamma, dbeta = through_norm(g)
        dx, dw1, db1 = through_gelu(dh)
        dx += dresidual
        return dx, dw1, db1, dw2, db2, dgamma, dbeta

    return y, pullback
