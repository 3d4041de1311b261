"""The two blocks of BERT's layer, each as one operation (post-norm; Vaswani et al., arXiv 1706.03762).

Their bodies run the operations that they are made of, one after the other. They exist for what a backend can do with a whole block: on a
GPU the numbers between its products need never become float32. Where there is nothing of the kind, the operations themselves take less
memory: what one of them has kept is free again when the way back reaches the next.
"""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ShapeError
from minigrad.op import op
from minigrad.ops.attention import attention
from minigrad.ops.dense import dense_add_norm, dense_gelu, linears
from minigrad.packing import Packing


def _check_residual(block: str, x: Array, outputs: Array) -> None:
    if x.ndim != 2 or outputs.ndim != 2 or outputs.shape[0] != x.shape[1]:
        raise ShapeError(f"{block}: weight {tuple(outputs.shape)} (outputs, inputs) gives no rows like those of x {tuple(x.shape)}")


@op("n d, (h d)*3, (h)*3, d h, d, d, d -> n d", promotes="float")
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
    heads: int,
    mixing: Draw | None = None,
    draw: Draw | None = None,
    causal: bool = False,
    eps: float = 1e-12,
    keep: bool = True,
) -> Any:
    """layer_norm(dropout(attention(x Wqᵀ + bq, …) Woᵀ + bo) + x): every row asks the rows of its sequence.

    mixing: what drops of attention's weights; draw: of the rows before the sum.
    """
    _check_residual("attention_block", x, wo)
    qkv, through_inputs = linears.run(xp, (x, wq, wk, wv, bq, bk, bv), {}, keep=keep)
    asked = {"packing": packing, "heads": heads, "draw": mixing, "causal": causal}
    mixed, through_attention = attention.run(xp, (None, qkv), asked, keep=keep)
    del qkv  # whoever computes no gradients holds no more than one of these at a time
    y, through_outputs = dense_add_norm.run(xp, (mixed, wo, bo, x, gamma, beta), {"draw": draw, "eps": eps}, keep=keep)

    def pullback(g: Array) -> Any:
        dmixed, dwo, dbo, dresidual, dgamma, dbeta = through_outputs(g)
        _, dqkv = through_attention(dmixed)
        del dmixed
        dx, *dinputs = through_inputs(dqkv)
        dx += dresidual
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
    """layer_norm(dropout(gelu(x W₁ᵀ + b₁) W₂ᵀ + b₂) + x): the second half of a layer."""
    _check_residual("feed_forward", x, w2)
    h, through_gelu = dense_gelu.run(xp, (x, w1, b1), {"approximate": approximate}, keep=keep)
    y, through_norm = dense_add_norm.run(xp, (h, w2, b2, x, gamma, beta), {"draw": draw, "eps": eps}, keep=keep)

    def pullback(g: Array) -> Any:
        dh, dw2, db2, dresidual, dgamma, dbeta = through_norm(g)
        dx, dw1, db1 = through_gelu(dh)
        dx += dresidual
        return dx, dw1, db1, dw2, db2, dgamma, dbeta

    return y, pullback
