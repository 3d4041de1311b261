"""Convolution and pooling layers over one or two spatial axes, with PyTorch's names and options."""

from __future__ import annotations

from math import prod, sqrt
from typing import ClassVar

from minigrad import functional as F
from minigrad.errors import ArgumentError
from minigrad.nn import init
from minigrad.nn.checks import check_sizes
from minigrad.nn.module import Module
from minigrad.ops.windows import PerAxis, Window
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor


class _Convolution(Module):
    """Base of the convolutions: weight (out, in / groups, *kernel) and bias (out,), both start uniform in ±1/√(in / groups · kernel)."""

    axes: ClassVar[int]
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis | str = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{name}: {in_channels} input and {out_channels} output channels do not divide into {groups} groups")
        kernel = Window.of(name, self.axes, kernel_size, stride, padding, dilation).kernel
        shape = (out_channels, in_channels // groups, *kernel)
        bound = 1.0 / sqrt(prod(shape[1:]))
        self.weight = init.uniform(shape, bound)
        self.bias = init.uniform((out_channels,), bound) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        said = f"{inputs * self.groups}, {outputs}, kernel_size={tuple(kernel)}, stride={self.stride}, padding={self.padding!r}"
        return f"{said}, dilation={self.dilation}, groups={self.groups}{'' if self.bias is not None else ', bias=False'}"


class Conv1d(_Convolution):
    """Each output channel is a weighted sum over windows of the input channels of its group, plus a bias.

    padding: zeros on both sides, "valid" (none), or with stride 1 "same" (as many as keep the length).
    Shapes: x (batch, in_channels, length) → (batch, out_channels, positions); weight (out, in / groups, kernel), bias (out,).
    Both start uniform in ±1/√(in / groups · kernel). Raises: ArgumentError for sizes and options that do not fit.
    """

    axes = 1

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """As `Conv1d`, over two axes; kernel and options are one number, or one for each axis.

    Shapes: x (batch, in_channels, height, width) → (batch, out_channels, rows, columns); weight (out, in / groups, *kernel), bias (out,).
    """

    axes = 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class _Pool(Module):
    """Base of the pooling layers: a window and its stride, which is the kernel's size if None."""

    axes: ClassVar[int]

    def __init__(self, kernel_size: PerAxis, stride: PerAxis | None, padding: PerAxis, dilation: PerAxis) -> None:
        Window.of(type(self).__name__, self.axes, kernel_size, kernel_size if stride is None else stride, padding, dilation)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    def __init__(self, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, dilation: PerAxis = 1) -> None:
        super().__init__(kernel_size, stride, padding, dilation)
        self.dilation = dilation


class MaxPool1d(_MaxPool):
    """The largest number of each window; equal ones share the gradient evenly, and padding is never chosen.

    Shapes: x (batch, channels, length) → (batch, channels, windows). Raises: ArgumentError for wrong options.
    """

    axes = 1

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool1d(x, self.kernel_size, self.stride, self.padding, self.dilation)


class MaxPool2d(_MaxPool):
    """As `MaxPool1d`, over two axes. Shapes: x (batch, channels, height, width) → (batch, channels, rows, columns)."""

    axes = 2

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)


class _AvgPool(_Pool):
    def __init__(self, kernel_size: PerAxis, stride: PerAxis | None = None, padding: PerAxis = 0, count_include_pad: bool = True) -> None:
        super().__init__(kernel_size, stride, padding, 1)
        self.count_include_pad = count_include_pad


class AvgPool1d(_AvgPool):
    """The mean of each window; zero padding counts as input unless count_include_pad=False.

    Shapes: x (batch, channels, length) → (batch, channels, windows). Raises: ArgumentError for wrong options.
    """

    axes = 1

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


class AvgPool2d(_AvgPool):
    """As `AvgPool1d`, over two axes. Shapes: x (batch, channels, height, width) → (batch, channels, rows, columns)."""

    axes = 2

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)
