"""Normalisation layers: over each row (LayerNorm, RMSNorm), over groups of channels, or over a batch for each channel."""

from __future__ import annotations

from typing import ClassVar

from minigrad import creation
from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn import init
from minigrad.nn.checks import check_number, check_sizes
from minigrad.nn.module import Module
from minigrad.parameter import Buffer, Parameter
from minigrad.tape import no_grad
from minigrad.tensor import Tensor


class LayerNorm(Module):
    """Normalises each row to mean 0 and variance 1, then scales and shifts it. Shapes: x (*b, dim); weight and bias (dim,).

    `eps` is added to the variance.
    Raises: ArgumentError for a size that is not an integer of at least 1, or an `eps` that is not a number >= 0.
    """

    weight: Parameter
    bias: Parameter

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        check_sizes("LayerNorm", dim=dim)
        check_number("LayerNorm", "eps", eps)
        self.weight, self.bias, self.eps = init.ones(dim), init.zeros(dim), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """Divides each row by the root of its mean square (plus `eps`), then scales it if `elementwise_affine`.

    Shapes: x (*b, dim); weight (dim,).
    Raises: ArgumentError for a size that is not an integer of at least 1, or an `eps` that is not a number >= 0; ShapeError for another x.
    """

    weight: Parameter | None

    def __init__(self, dim: int, eps: float = 1e-6, elementwise_affine: bool = True) -> None:
        check_sizes("RMSNorm", dim=dim)
        check_number("RMSNorm", "eps", eps)
        self.dim, self.eps = dim, eps
        self.weight = init.ones(dim) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.as_tensor(x)
        if x.shape[-1:] != (self.dim,):
            raise ShapeError(f"RMSNorm: x has shape {x.shape}, its last axis must have length {self.dim}")
        return F.rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}{'' if self.weight is not None else ', elementwise_affine=False'}"


class GroupNorm(Module):
    """Normalises each group of channels of each sample to mean 0 and variance 1, then scales and shifts each channel if `affine`.

    Shapes: x (batch, num_channels, *s) → the same; weight and bias (num_channels,).
    Raises: ArgumentError if the channels do not divide into the groups.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        check_number("GroupNorm", "eps", eps)
        if num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: {num_channels} channels do not divide into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = (init.ones(num_channels), init.zeros(num_channels)) if affine else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        x = F.as_tensor(x)
        if x.shape[1:2] != (self.num_channels,):
            raise ShapeError(f"GroupNorm: x has shape {x.shape}, expected (batch, {self.num_channels}) and any further axes")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}{'' if self.weight is not None else ', affine=False'}"


class _BatchNorm(Module):
    """Base of the batch normalisations; a subclass says which shapes it takes."""

    shapes: ClassVar[dict[int, str]]
    """The shapes of x by their number of axes, in words."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        name = type(self).__name__
        check_sizes(name, num_features=num_features)
        check_number(name, "eps", eps)
        if momentum is not None:
            check_number(name, "momentum", momentum, most=1.0)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight, self.bias = (init.ones(num_features), init.zeros(num_features)) if affine else (None, None)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean, self.running_var = Buffer(creation.zeros(num_features)), Buffer(creation.ones(num_features))
            self.num_batches_tracked = Buffer(0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.as_tensor(x)
        if x.ndim not in self.shapes or x.shape[1] != self.num_features:
            wanted = " or ".join(self.shapes.values())
            raise ShapeError(f"{type(self).__name__}: x has shape {x.shape}, expected {wanted} with {self.num_features} channels")
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        y = F.batch_norm(x, None, None, self.weight, self.bias, self.eps)
        if self.training:
            self._observe(x)
        return y

    def _observe(self, x: Tensor) -> None:
        """Update the running statistics with those of x."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.assign(self.num_batches_tracked + 1)
        step = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        axes = (0, *range(2, x.ndim))
        with no_grad():
            for running, found in ((self.running_mean, x.mean(axis=axes)), (self.running_var, x.var(axis=axes, ddof=1))):
                running.assign(running * (1.0 - step) + found * step)

    def extra_repr(self) -> str:
        options = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return f"{options}, affine={self.weight is not None}, track_running_stats={self.running_mean is not None}"


class BatchNorm1d(_BatchNorm):
    """Normalises each channel over the batch to mean 0 and variance 1, then scales and shifts it if `affine`.

    While training, mean and variance are those of the batch, and each forward pass updates `running_mean` and `running_var` (unbiased):
    running + momentum · (batch - running), or with momentum=None the mean over all batches so far. Repeating a forward pass, as gradcheck
    does, updates them again; `recompute` does not. In evaluation the running ones are used, unless `track_running_stats` is False. They
    and the integer `num_batches_tracked` are buffers: saved, converted and copied with the layer, but not trained.
    Source: Ioffe & Szegedy, arXiv 1502.03167.

    Shapes: x (batch, num_features) or (batch, num_features, length) → the same; weight and bias (num_features,).
    Raises: ShapeError for another x, or a training batch with fewer than two numbers per channel; ArgumentError for wrong options.
    """

    shapes: ClassVar[dict[int, str]] = {2: "(batch, channels)", 3: "(batch, channels, length)"}


class BatchNorm2d(_BatchNorm):
    """As `BatchNorm1d`, for images. Shapes: x (batch, num_features, height, width) → the same; weight and bias (num_features,)."""

    shapes: ClassVar[dict[int, str]] = {4: "(batch, channels, height, width)"}
