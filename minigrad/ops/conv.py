"""Convolution as one matrix product with the unfolded input, im2col (Chellapilla, Puri & Simard, IWFHR 2006).

The columns are several times larger than the input and cheap to compute, so they are computed again in the backward pass instead of kept.
"""

from __future__ import annotations

from math import prod
from numbers import Integral
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.windows import PerAxis, Window, col2im, im2col, spatial_shape
from minigrad.tensor import Tensor, TensorLike, as_tensors


@op("n c *s, m c/groups *k, m -> n m *t", promotes="float")
def conv(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Any:
    """Each output channel is a weighted sum over windows of the input channels of its group (cross-correlation); bias may be None.

    Internally batch and channels are swapped, so that all windows of the batch are columns of one matrix per group.
    Raises: ArgumentError for invalid options, or groups that do not divide the channels; ShapeError for shapes that do not fit.
    """
    sizes = spatial_shape("conv", x, weight.ndim - 2)
    window = Window.of("conv", len(sizes), tuple(weight.shape[2:]), stride, padding, dilation)
    (n, c), m = x.shape[:2], weight.shape[0]
    if not isinstance(groups, Integral) or groups < 1 or c % groups or m % groups:
        raise ArgumentError(f"conv: {c} input and {m} output channels do not divide into {groups!r:.80} groups")
    if weight.shape[1] * groups != c or (bias is not None and tuple(bias.shape) != (m,)):
        raise ShapeError(
            f"conv: x {tuple(x.shape)} in {groups} group(s) needs a weight (outputs, {c // groups}, *kernel) and bias (outputs,) or None; "
            f"got {tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}"
        )
    counts, cells = window.counts(sizes), prod(window.kernel)
    height, width = c // groups * cells, n * prod(counts)
    rows = weight.reshape((groups, m // groups, height))

    def columns() -> Array:
        return im2col(xp, x.swapaxes(0, 1), window, axis=1).reshape((groups, height, width))

    def flat(g: Array) -> Array:
        return g.swapaxes(0, 1).reshape((groups, m // groups, width))

    def by_x(g: Array) -> Array:
        back = xp.matmul(rows.swapaxes(1, 2), flat(g)).reshape((c, cells, n, *counts))
        return col2im(xp, back, window, sizes, axis=1).swapaxes(0, 1)

    y = xp.matmul(rows, columns()).reshape((m, width))
    if bias is not None:
        y += bias.reshape((m, 1))
    return y.reshape((m, n, *counts)).swapaxes(0, 1), (
        by_x,
        lambda g: xp.matmul(flat(g), columns().swapaxes(1, 2)).reshape(weight.shape),
        lambda g: xp.sum(g, axis=(0, *range(2, g.ndim))),
    )


@composite("n c s, m c/groups k, m -> n m t")
def conv1d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over one axis. padding: zeros on both sides, "valid" (none), or with stride 1 "same" (output as long as the input).

    Shapes: x (batch, channels, length), weight (outputs, channels / groups, kernel), bias (outputs,) → (batch, outputs, positions).
    Raises: ShapeError for shapes that do not fit, or a kernel longer than the padded input; ArgumentError for invalid options.
    """
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@composite("n c h w, m c/groups k l, m -> n m s t")
def conv2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over two axes; each option is one number, or one for each axis. padding: as in `conv1d`.

    Shapes: x (batch, channels, height, width), weight (outputs, channels / groups, kernel height, kernel width), bias (outputs,)
    → (batch, outputs, rows, columns). Raises: as `conv1d`.
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def _conv(
    what: str, ndim: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    x, weight = as_tensors(x, weight)
    spatial_shape(what, x, ndim)
    if weight.ndim != ndim + 2:
        raise ShapeError(f"{what}: weight has shape {weight.shape}, expected (outputs, channels / groups) and {ndim} side(s) of the kernel")
    return conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
