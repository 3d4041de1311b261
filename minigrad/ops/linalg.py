"""Products of vectors and matrices."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.op import composite, op
from minigrad.tensor import Tensor, TensorLike, as_tensors


@op("*b m k, *b k n -> *b m n", promotes="mixed")
def matmul(xp: Any, x: Array, y: Array) -> Any:
    """The matrix product over the last two axes; a 1-D x is a row, a 1-D y a column, leading axes broadcast."""
    row, column = x.ndim == 1, y.ndim == 1
    a = x.reshape((1, x.shape[0])) if row else x
    b = y.reshape((y.shape[0], 1)) if column else y
    x_shape, y_shape = x.shape, y.shape

    def matrix(g: Array) -> Array:
        """g with the axes that the product of 1-D operands lacks."""
        shape = tuple(g.shape)
        if column:
            shape = (*shape, 1)
        if row:
            shape = (*shape[:-1], 1, shape[-1])
        return g.reshape(shape)

    def by_x(g: Array) -> Array:
        gx = xp.matmul(matrix(g), b.swapaxes(-1, -2))
        return gx.reshape((*gx.shape[:-2], x_shape[0])) if row else gx

    def by_y(g: Array) -> Array:
        gy = xp.matmul(a.swapaxes(-1, -2), matrix(g))
        return gy.reshape((*gy.shape[:-2], y_shape[0])) if column else gy

    return xp.matmul(x, y), (by_x, by_y)


@composite("*a, *b -> m n")
def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """Every element of x (flattened) times every element of y: xᵢ yⱼ. Shapes: any, any → (x.size, y.size)."""
    x, y = as_tensors(x, y)
    return x.reshape((-1, 1)) * y.reshape((1, -1))
