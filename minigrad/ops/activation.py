"""Activation functions. Convention at the kink: relu'(0) = 0."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError
from minigrad.op import op


def logistic(xp: Any, x: Array) -> Array:
    """1 / (1 + e⁻ˣ) without overflow: the exponent is never positive."""
    positive = xp.constant(x) >= 0
    e = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, 1.0, e) / (1.0 + e)


@op("*s -> *s", promotes="float")
def sigmoid(xp: Any, x: Array) -> Any:
    """1 / (1 + e⁻ˣ)."""
    y = logistic(xp, x)
    return y, (lambda g: g * (y * (1.0 - y)),)


@op("*s -> *s", promotes="float")
def silu(xp: Any, x: Array) -> Any:
    """x / (1 + e⁻ˣ), also called swish. Elfwing et al., arXiv 1702.03118."""
    gate = logistic(xp, x)
    return x * gate, (lambda g: g * (gate * (1.0 + x * (1.0 - gate))),)


@op("*s -> *s", promotes="float")
def softplus(xp: Any, x: Array) -> Any:
    """log(1 + eˣ), without overflow: the exponent is never positive."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x))), (lambda g: g * logistic(xp, x),)


@op("*s -> *s")
def relu(xp: Any, x: Array) -> Any:
    """max(x, 0)."""
    return xp.maximum(x, 0), (lambda g: g * (xp.constant(x) > 0),)


def gelu_gate(xp: Any, x: Array, approximate: str) -> Array:
    """The factor of x in gelu(x): Φ(x) by erfc, or its tanh approximation as a sigmoid. Both keep their digits in the left tail."""
    if approximate == "tanh":
        return logistic(xp, (x + x * x * x * 0.044715) * (2.0 * sqrt(2.0 / pi)))
    gate = xp.erfc(x * -sqrt(0.5))
    gate *= 0.5
    return gate


def gelu_slope(xp: Any, x: Array, gate: Array, approximate: str) -> Array:
    """gelu'(x) = gate + x · gate'."""
    if approximate == "tanh":
        inner = (x * x * (3.0 * 0.044715) + 1.0) * (2.0 * sqrt(2.0 / pi))
        return gate + x * gate * (1.0 - gate) * inner
    slope = xp.exp(x * x * -0.5)
    slope *= x * (1.0 / sqrt(2.0 * pi))
    slope += gate
    return slope


@op("*s -> *s", promotes="float")
def gelu(xp: Any, x: Array, *, approximate: str = "none") -> Any:
    """x · Φ(x), the Gaussian error linear unit; approximate="tanh" is GPT's approximation. Hendrycks & Gimpel, arXiv 1606.08415.

    Raises: ArgumentError for another value of `approximate`.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')
    gate = gelu_gate(xp, x, approximate)
    return x * gate, (lambda g: g * gelu_slope(xp, x, gate, approximate),)
