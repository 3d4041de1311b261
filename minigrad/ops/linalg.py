"""Matrix products. A weight's gradient is returned as a lazy product: computed into the optimizer's buffer, or never."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ShapeError
from minigrad.op import op


@op("*b m k, *b k n -> *b m n", promotes="mixed")
def matmul(xp: Any, x: Array, y: Array) -> Any:
    """The matrix product over the last two axes; 1-D operands are rows or columns, leading axes broadcast."""
    row, column = x.ndim == 1, y.ndim == 1
    a = x.reshape((1, x.shape[0])) if row else x
    b = y.reshape((y.shape[0], 1)) if column else y
    x_shape, y_shape = x.shape, y.shape

    def matrix(g: Array) -> Array:
        """g with the axes that 1-D operands left out."""
        shape = tuple(g.shape)
        if column:
            shape = (*shape, 1)
        if row:
            shape = (*shape[:-1], 1, shape[-1])
        return g.reshape(shape)

    def by_x(g: Array) -> Array:
        gx = matrix(g) @ b.swapaxes(-1, -2)
        return gx.reshape((*gx.shape[:-2], x_shape[0])) if row else gx

    def by_y(g: Array) -> Array:
        gy = a.swapaxes(-1, -2) @ matrix(g)
        return gy.reshape((*gy.shape[:-2], y_shape[0])) if column else gy

    return x @ y, (by_x, by_y)


def _flat(x: Array) -> Array:
    """All leading axes as one."""
    return x if x.ndim == 2 else x.reshape((prod(x.shape[:-1]), x.shape[-1]))


@op("*b k, m k, m -> *b m", promotes="float")
def linear(xp: Any, x: Array, weight: Array, bias: Array | None) -> Any:
    """x Wᵀ + b; the bias may be None."""
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: weight {tuple(weight.shape)} (outputs, inputs) does not fit x {tuple(x.shape)}, whose last axis is the inputs"
        )
    y = x @ weight.swapaxes(0, 1)
    return (y if bias is None else y + bias), (
        lambda g: g @ weight,
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
        return g @ weight, *[xp.product(transposed[cut], x) for cut in cuts], *[summed[cut] for cut in cuts]

    return x @ weight.swapaxes(0, 1) + bias, pullback
