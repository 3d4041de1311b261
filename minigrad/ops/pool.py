"""Pooling: each window of the input reduced to its maximum or its mean.

Conventions: equal maxima of a window share its gradient evenly. Max pooling pads with -inf, which is never chosen; a window that contains
only padding, which is possible with dilation, has the maximum -inf without a gradient.
"""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.backend import Array, namespace_of
from minigrad.errors import ArgumentError
from minigrad.op import composite
from minigrad.ops.elementwise import where
from minigrad.ops.reduce import max, mean, sum
from minigrad.ops.windows import PerAxis, Window, spatial_shape, unfold
from minigrad.tensor import Tensor, TensorLike, as_tensor


def _windows(
    what: str, ndim: int, x: Tensor, kernel: PerAxis, stride: PerAxis | None, padding: PerAxis, dilation: PerAxis = 1
) -> tuple[Tensor, Array | None]:
    """The pooling windows, and 1 where a window covers input and 0 where it covers padding (None if there is no padding).

    Shapes: x (n, c, *s) → windows (n, c, places, *t), (1, 1, places, *t).
    """
    sizes = spatial_shape(what, x, ndim)
    window = Window.of(what, ndim, kernel, kernel if stride is None else stride, padding, dilation)
    if any(2 * before > k for (before, _), k in zip(window.padding, window.kernel, strict=True)):
        raise ArgumentError(
            f"{what}: padding {padding} is more than half of the kernel {window.kernel}, so a window would see padding only"
        )
    shape = (prod(window.kernel), *window.counts(sizes))
    options: dict[str, Any] = {"kernel_size": window.kernel, "stride": window.stride, "padding": padding, "dilation": dilation}
    windows = unfold(x, **options).reshape((*x.shape[:2], *shape))
    if not any(map(any, window.padding)):
        return windows, None
    ones = namespace_of(x.array).ones((1, 1, *sizes), dtype=x.dtype)
    return windows, unfold(ones, **options).array.reshape((1, 1, *shape))


def _max_pool(what: str, ndim: int, x: TensorLike, kernel: PerAxis, stride: PerAxis | None, padding: PerAxis, dilation: PerAxis) -> Tensor:
    windows, seen = _windows(what, ndim, as_tensor(x), kernel, stride, padding, dilation)
    return max(windows if seen is None else where(seen > 0, windows, float("-inf")), axis=2)


def _avg_pool(
    what: str, ndim: int, x: TensorLike, kernel: PerAxis, stride: PerAxis | None, padding: PerAxis, count_include_pad: bool
) -> Tensor:
    windows, seen = _windows(what, ndim, as_tensor(x), kernel, stride, padding)
    return mean(windows, axis=2) if seen is None or count_include_pad else sum(windows, axis=2) / seen.sum(axis=2)


@composite("n c s -> n c t")
def max_pool1d(x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dilation: PerAxis = 1) -> Tensor:
    """The maximum of each window; equal maxima share the gradient evenly, and padding is never chosen.

    stride: the kernel's size if None. An incomplete window at the end is left out (there is no ceil_mode).
    Shapes: x (batch, channels, length) → (batch, channels, windows).
    Raises: ShapeError for a kernel that does not fit; ArgumentError for invalid options, such as padding of more than half the kernel.
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation)


@composite("n c h w -> n c s t")
def max_pool2d(x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dilation: PerAxis = 1) -> Tensor:
    """As `max_pool1d`, over two axes. Shapes: x (batch, channels, height, width) → (batch, channels, rows, columns)."""
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation)


@composite("n c s -> n c t")
def avg_pool1d(
    x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window, including zero padding, or with count_include_pad=False over the input only.

    stride: the kernel's size if None. An incomplete window at the end is left out (there is no ceil_mode).
    Shapes: x (batch, channels, length) → (batch, channels, windows). Raises: as `max_pool1d`.
    """
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, count_include_pad)


@composite("n c h w -> n c s t")
def avg_pool2d(
    x: TensorLike, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, count_include_pad: bool = True
) -> Tensor:
    """As `avg_pool1d`, over two axes. Shapes: x (batch, channels, height, width) → (batch, channels, rows, columns)."""
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, count_include_pad)
