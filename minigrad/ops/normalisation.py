"""Normalisation layers as operations: mean 0 and variance 1 over some axes, then scaled and shifted."""

from __future__ import annotations

from math import prod
from numbers import Integral
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.elementwise import sqrt
from minigrad.tensor import Tensor, TensorLike, as_tensor, as_tensors


def _mean(xp: Any, x: Array, axis: Any) -> Array:
    """The mean over `axis`, which keeps length 1; 0 over empty axes, which leave nothing to normalise."""
    count = x.shape[-1] if axis == -1 else prod([x.shape[i] for i in axis])
    return xp.sum(x, axis=axis, keepdims=True) / (count or 1)


def normalise(xp: Any, x: Array, eps: float, axis: Any = -1) -> tuple[Array, Array]:
    """x̂ and 1/σ over `axis`. The mean is subtracted twice (corrected two-pass), which saves six digits in rows with a large mean."""
    xhat = x - _mean(xp, x, axis)
    xhat -= _mean(xp, xhat, axis)
    rstd = 1.0 / xp.sqrt(_mean(xp, xhat * xhat, axis) + eps)
    xhat *= rstd
    return xhat, rstd


def normalise_pullback(xp: Any, g: Array, xhat: Array, rstd: Array, axis: Any = -1) -> Array:
    gx = g - _mean(xp, g, axis)
    gx -= xhat * _mean(xp, g * xhat, axis)
    gx *= rstd
    return gx


@op("*b d, d, d -> *b d", promotes="float")
def layer_norm(xp: Any, x: Array, weight: Array, bias: Array, *, eps: float = 1e-12) -> Any:
    """Each row shifted to mean 0 and scaled to variance 1, then · weight + bias. Ba, Kiros & Hinton, arXiv 1607.06450.

    Raises: ShapeError unless weight and bias have the shape of the last axis.
    """
    if tuple(weight.shape) != tuple(x.shape[-1:]) or tuple(bias.shape) != tuple(weight.shape):
        raise ShapeError(f"layer_norm: x {tuple(x.shape)} needs a weight and a bias of its last axis, got {weight.shape} and {bias.shape}")
    xhat, rstd = normalise(xp, x, eps)

    def pullback(g: Array) -> Any:
        return normalise_pullback(xp, g * weight, xhat, rstd), g * xhat, g

    return xhat * weight + bias, pullback


@op("*s, *w, *b -> *s", promotes="float")
def standardise(xp: Any, x: Array, weight: Array | None, bias: Array | None, *, axes: tuple[int, ...], eps: float = 1e-5) -> Any:
    """x shifted to mean 0 and scaled to variance 1 over several axes together, then · weight + bias (each broadcast to x, or None)."""
    xhat, rstd = normalise(xp, x, eps, axes)
    y = xhat if weight is None else xhat * weight

    def by_x(g: Array) -> Array:
        return normalise_pullback(xp, g if weight is None else g * weight, xhat, rstd, axes)

    return y if bias is None else y + bias, (by_x, lambda g: g * xhat, lambda g: g)


@op("*b d, d -> *b d", promotes="float")
def rms_norm(xp: Any, x: Array, weight: Array | None, *, eps: float = 1e-6) -> Any:
    """Each row divided by the root of its mean square, then · weight (or None). Zhang & Sennrich, arXiv 1910.07467.

    Raises: ShapeError unless the weight has the shape of the last axis.
    """
    if x.ndim == 0 or (weight is not None and tuple(weight.shape) != tuple(x.shape[-1:])):
        raise ShapeError(f"rms_norm: x {tuple(x.shape)} needs a weight of its last axis, got {weight if weight is None else weight.shape}")
    rstd = 1.0 / xp.sqrt(_mean(xp, x * x, -1) + float(eps))  # a NumPy float64 would turn float32 into float64
    xhat = x * rstd

    def by_x(g: Array) -> Array:
        gx = g if weight is None else g * weight
        return (gx - xhat * _mean(xp, gx * xhat, -1)) * rstd

    return xhat if weight is None else xhat * weight, (by_x, lambda g: g * xhat)


def _of_channels(what: str, x: Tensor, **vectors: TensorLike | None) -> list[Tensor | None]:
    """Vectors with one element per channel, as tensors. Raises: ShapeError for any other shape, or an x without channels (axis 1)."""
    if x.ndim < 2:
        raise ShapeError(f"{what}: x has shape {x.shape}, expected (batch, channels) and any further axes")
    given = {name: vector for name, vector in vectors.items() if vector is not None}
    found = dict(zip(given, as_tensors(x, *given.values())[1:], strict=True))
    for name, vector in found.items():
        if vector.shape != x.shape[1:2]:
            raise ShapeError(f"{what}: x {x.shape} has {x.shape[1]} channels (axis 1), so {name} must have that shape; got {vector.shape}")
    return [found.get(name) for name in vectors]


@composite("n c *s, c, c -> n c *s")
def group_norm(
    x: TensorLike, num_groups: int, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-5
) -> Tensor:
    """Each group of channels of each sample normalised to mean 0 and variance 1, then scaled and shifted by channel.

    A group of a single number becomes 0 before the shift. Wu & He, arXiv 1803.08494.
    Shapes: x (batch, channels, *s), weight and bias (channels,) → like x.
    Raises: ArgumentError if the channels do not divide into `num_groups`; ShapeError for shapes that do not fit.
    """
    x = as_tensor(x)
    scale, shift = _of_channels("group_norm", x, weight=weight, bias=bias)
    n, c = x.shape[:2]
    if not isinstance(num_groups, Integral) or num_groups < 1 or c % num_groups:
        raise ArgumentError(f"group_norm: {c} channels do not divide into {num_groups!r:.80} groups")
    grouped = (num_groups, c // num_groups, prod(x.shape[2:]))
    factors = [None if v is None else v.reshape((*grouped[:2], 1)) for v in (scale, shift)]
    return standardise(x.reshape((n, *grouped)), *factors, axes=(2, 3), eps=eps).reshape(x.shape)


@composite("n c *s, c, c, c, c -> n c *s")
def batch_norm(
    x: TensorLike,
    mean: TensorLike | None = None,
    var: TensorLike | None = None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel normalised to mean 0 and variance 1 over batch and space, then scaled and shifted. Ioffe & Szegedy, arXiv 1502.03167.

    mean, var: used instead of the batch's own statistics (in evaluation), of which the variance is the biased one, divided by n.
    Shapes: x (batch, channels, *s), the others (channels,) → like x.
    Raises: ShapeError for shapes that do not fit, or batch statistics of fewer than two numbers per channel; ArgumentError for only one of
    `mean` and `var`.
    """
    x = as_tensor(x)
    vectors = _of_channels("batch_norm", x, mean=mean, var=var, weight=weight, bias=bias)
    middle, spread, scale, shift = [None if v is None else v.reshape((-1,) + (1,) * (x.ndim - 2)) for v in vectors]
    if (middle is None) != (spread is None):
        raise ArgumentError("batch_norm: pass both mean and var, or neither for the batch's own")
    if middle is None or spread is None:
        if x.size // (x.shape[1] or 1) < 2:
            raise ShapeError(f"batch_norm: a batch of shape {x.shape} has fewer than two numbers per channel, so it has no variance")
        return standardise(x, scale, shift, axes=(0, *range(2, x.ndim)), eps=eps)
    deviation = sqrt(spread + float(eps))
    factor = 1.0 / deviation if scale is None else scale / deviation
    y = (x - middle) * factor
    return y if shift is None else y + shift
