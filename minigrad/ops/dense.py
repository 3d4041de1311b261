"""Linear layers, alone and fused with the operations that follow them in BERT.

A fused body calls the same helpers as the plain one, so that each formula is written once. A weight's gradient is returned as a lazy
product, which is computed straight into the optimizer's buffer, or never if the weight is frozen.
"""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ShapeError
from minigrad.op import op
from minigrad.ops.activation import gelu_gate, gelu_slope
from minigrad.ops.normalisation import normalise, normalise_pullback


def _flat(x: Array) -> Array:
    """All leading axes as one."""
    return x if x.ndim == 2 else x.reshape((prod(x.shape[:-1]), x.shape[-1]))


@op("*b k, m k, m -> *b m", promotes="float")
def linear(xp: Any, x: Array, weight: Array, bias: Array | None) -> Any:
    """x Wᵀ + b; the bias may be None.

    Raises: ShapeError unless the weight is (outputs, inputs) and the last axis of x has that many inputs.
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: weight {tuple(weight.shape)} (outputs, inputs) does not fit x {tuple(x.shape)}, whose last axis is the inputs"
        )
    y = xp.matmul(x, weight.swapaxes(0, 1))
    return (y if bias is None else y + bias), (
        lambda g: xp.matmul(g, weight),
        lambda g: xp.product(_flat(g).swapaxes(0, 1), _flat(x)),
        lambda g: g,
    )


@op("n k, (m k)*, (m)* -> n sum(m)", promotes="float")
def linears(xp: Any, x: Array, *parameters: Array) -> Any:
    """Several linear layers on one input, side by side: x W₁ᵀ + b₁ | x W₂ᵀ + b₂ | …   parameters: all weights, then all biases."""
    count = len(parameters) // 2
    weight, bias = xp.concatenate(parameters[:count], axis=0), xp.concatenate(parameters[count:], axis=0)
    cuts, start = [], 0
    for w in parameters[:count]:
        cuts.append(slice(start, start + w.shape[0]))
        start = cuts[-1].stop

    def pullback(g: Array) -> Any:
        transposed, summed = g.swapaxes(0, 1), xp.sum(g, axis=0)
        return xp.matmul(g, weight), *[xp.product(transposed[cut], x) for cut in cuts], *[summed[cut] for cut in cuts]

    return xp.matmul(x, weight.swapaxes(0, 1)) + bias, pullback


# ---------------------------------------------------------------- dropout
def dropout_mask(xp: Any, draw: Draw, x: Array) -> Array:
    """The scaled dropout mask: `draw.scale` where a unit is kept, 0 where it is dropped. A plain array under every interpreter."""
    return (xp.like(draw.mask(), x).astype(x.dtype) * draw.scale).reshape(x.shape)


@op("*b d -> *b d", promotes="float")
def dropout(xp: Any, x: Array, *, draw: Draw) -> Any:
    """Units dropped by `draw`, the others scaled up. Srivastava et al., JMLR 15, 2014. Leading axes count as rows."""
    mask = dropout_mask(xp, draw, x)
    return x * mask, (lambda g: g * mask,)


# ---------------------------------------------------------------- fused with a linear layer
@op("n k, m k, m -> n m", promotes="float")
def dense_gelu(xp: Any, x: Array, weight: Array, bias: Array, *, approximate: str = "none") -> Any:
    """gelu(x Wᵀ + b): the first half of a feed-forward block."""
    h = xp.matmul(x, weight.swapaxes(0, 1)) + bias
    gate = gelu_gate(xp, h, approximate)

    def pullback(g: Array) -> Any:
        dh = g * gelu_slope(xp, h, gate, approximate)
        return xp.matmul(dh, weight), xp.product(dh.swapaxes(0, 1), x), dh

    return h * gate, pullback


@op("n k, m k, m -> n m", promotes="float")
def dense_tanh(xp: Any, x: Array, weight: Array, bias: Array) -> Any:
    """tanh(x Wᵀ + b), BERT's pooler for the first row of each sequence."""
    y = xp.tanh(xp.matmul(x, weight.swapaxes(0, 1)) + bias)

    def pullback(g: Array) -> Any:
        dh = g * (1.0 - y * y)
        return xp.matmul(dh, weight), xp.product(dh.swapaxes(0, 1), x), dh

    return y, pullback


@op("n k, d k, d, n d, d, d -> n d", promotes="float")
def dense_add_norm(
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
) -> Any:
    """layer_norm(dropout(x Wᵀ + b) + residual): the end of an attention or feed-forward block (post-norm)."""
    y = xp.matmul(x, weight.swapaxes(0, 1)) + bias
    mask = None if draw is None else dropout_mask(xp, draw, y)
    if mask is not None:
        y = y * mask
    xhat, rstd = normalise(xp, y + residual, eps)

    def pullback(g: Array) -> Any:
        gx = normalise_pullback(xp, g * gamma, xhat, rstd)
        dy = gx if mask is None else gx * mask
        return xp.matmul(dy, weight), xp.product(dy.swapaxes(0, 1), x), dy, gx, g * xhat, g

    return xhat * gamma + beta, pullback
