"""Normalisation layers as operations: mean 0 and variance 1 over some axes, then scaled and shifted."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.errors import ShapeError
from minigrad.op import op


def normalise(xp: Any, x: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and 1/σ of each row. The mean is taken twice (corrected two-pass): rows with a large mean keep six more digits."""
    xhat = x - x.mean(axis=-1, keepdims=True)
    xhat -= xhat.mean(axis=-1, keepdims=True)
    rstd = 1.0 / xp.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)
    xhat *= rstd
    return xhat, rstd


def normalise_pullback(g: Array, xhat: Array, rstd: Array) -> Array:
    gx = g - g.mean(axis=-1, keepdims=True)
    gx -= xhat * (g * xhat).mean(axis=-1, keepdims=True)
    gx *= rstd
    return gx


@op("*b d, d, d -> *b d", promotes="float")
def layer_norm(xp: Any, x: Array, weight: Array, bias: Array, *, eps: float = 1e-12) -> Any:
    """Each row shifted to mean 0 and scaled to variance 1, then · weight + bias. Ba, Kiros & Hinton, arXiv 1607.06450."""
    if tuple(weight.shape) != tuple(x.shape[-1:]) or tuple(bias.shape) != tuple(weight.shape):
        raise ShapeError(f"layer_norm: x {tuple(x.shape)} needs a weight and a bias of its last axis, got {weight.shape} and {bias.shape}")
    xhat, rstd = normalise(xp, x, eps)

    def pullback(g: Array) -> Any:
        return normalise_pullback(g * weight, xhat, rstd), g * xhat, g

    return xhat * weight + bias, pullback
