"""Elementwise operations; shapes broadcast as in NumPy.

Conventions at kinks: |x|'(0) = 0; clip has slope 1 at both bounds; of equal values in maximum or minimum each receives half the gradient.
"""

from __future__ import annotations

from math import log as number_log
from math import pi
from math import sqrt as root
from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError
from minigrad.op import op


@op("*s, *s -> *s", promotes="mixed")
def add(xp: Any, x: Array, y: Array) -> Any:
    """x + y."""
    return x + y, (lambda g: g, lambda g: g)


@op("*s, *s -> *s", promotes="mixed")
def subtract(xp: Any, x: Array, y: Array) -> Any:
    """x - y."""
    return x - y, (lambda g: g, lambda g: -g)


@op("*s, *s -> *s", promotes="mixed")
def multiply(xp: Any, x: Array, y: Array) -> Any:
    """x · y."""
    return x * y, (lambda g: g * y, lambda g: g * x)


@op("*s, *s -> *s", promotes="float")
def divide(xp: Any, x: Array, y: Array) -> Any:
    """x / y; always floating."""
    ratio = x / y
    return ratio, (lambda g: g / y, lambda g: g * (-ratio / y))  # not -x / y²: the square may overflow or underflow


@op("*s, *s -> *s", promotes="mixed")
def power(xp: Any, x: Array, y: Array) -> Any:
    """x ** y. Conventions: the derivative of x⁰ is 0 everywhere, and that of 0ʸ with respect to y is 0."""
    out = x**y

    def by_base(g: Array) -> Array:
        if isinstance(y, int | float):
            return g * (y * x ** (y - 1)) if y != 0 else g * 0.0
        both_zero = (xp.constant(y) == 0) & (xp.constant(x) == 0)  # 0 · 0⁻¹ would be NaN
        return g * (y * xp.where(both_zero, 1.0, x) ** (y - 1.0))

    def by_exponent(g: Array) -> Array:
        if isinstance(x, int | float):
            return g * out * (number_log(x) if x > 0 else 0.0 if x == 0 else float("nan"))
        return g * out * xp.log(xp.where(xp.constant(x) == 0, 1.0, x))

    return out, (by_base, by_exponent)


@op("*s -> *s")
def negative(xp: Any, x: Array) -> Any:
    """-x."""
    return -x, (lambda g: -g,)


@op("*s -> *s")
def absolute(xp: Any, x: Array) -> Any:
    """|x|."""
    return abs(x), (lambda g: g * xp.sign(xp.constant(x)),)


@op("*s -> *s", promotes="float")
def exp(xp: Any, x: Array) -> Any:
    """eˣ."""
    y = xp.exp(x)
    return y, (lambda g: g * y,)


@op("*s -> *s", promotes="float")
def log(xp: Any, x: Array) -> Any:
    """The natural logarithm."""
    return xp.log(x), (lambda g: g / x,)


@op("*s -> *s", promotes="float")
def expm1(xp: Any, x: Array) -> Any:
    """eˣ - 1, accurate where x is close to 0."""
    return xp.expm1(x), (lambda g: g * xp.exp(x),)


@op("*s -> *s", promotes="float")
def log1p(xp: Any, x: Array) -> Any:
    """log(1 + x), accurate where x is close to 0."""
    return xp.log1p(x), (lambda g: g / (1.0 + x),)


@op("*s -> *s", promotes="float")
def sqrt(xp: Any, x: Array) -> Any:
    """√x; its derivative at 0 is infinite."""
    y = xp.sqrt(x)
    return y, (lambda g: g * (0.5 / y),)


@op("*s -> *s", promotes="float")
def rsqrt(xp: Any, x: Array) -> Any:
    """1 / √x."""
    y = 1.0 / xp.sqrt(x)
    return y, (lambda g: g * (-0.5 * y / x),)


@op("*s -> *s")
def square(xp: Any, x: Array) -> Any:
    """x²."""
    return x * x, (lambda g: g * (2.0 * x),)


@op("*s, *s:int -> *s", promotes="float")
def ldexp(xp: Any, x: Array, k: Array) -> Any:
    """x · 2ᵏ for integers k: exact, and 0 remains 0 even where 2ᵏ overflows."""
    return xp.ldexp(x, k), (lambda g: xp.ldexp(g, k), None)


@op("*s -> *s", promotes="float")
def sin(xp: Any, x: Array) -> Any:
    """The sine of an angle in radians."""
    return xp.sin(x), (lambda g: g * xp.cos(x),)


@op("*s -> *s", promotes="float")
def cos(xp: Any, x: Array) -> Any:
    """The cosine of an angle in radians."""
    return xp.cos(x), (lambda g: -g * xp.sin(x),)


@op("*s -> *s", promotes="float")
def tanh(xp: Any, x: Array) -> Any:
    """The hyperbolic tangent."""
    y = xp.tanh(x)
    return y, (lambda g: g * (1.0 - y * y),)


@op("*s -> *s", promotes="float")
def erf(xp: Any, x: Array) -> Any:
    """The error function, 2/√π ∫₀ˣ e^(-t²) dt."""
    return xp.erf(x), (lambda g: g * (xp.exp(-(x * x)) * (2.0 / root(pi))),)


@op("*s -> *s", promotes="float")
def erfc(xp: Any, x: Array) -> Any:
    """1 - erf(x), accurate where erf is close to 1."""
    return xp.erfc(x), (lambda g: g * (xp.exp(-(x * x)) * (-2.0 / root(pi))),)


@op("*s -> *s")
def clip(xp: Any, x: Array, *, min: float | None = None, max: float | None = None) -> Any:
    """x limited to min … max; None means no limit. The slope is 1 within and at both bounds, 0 outside.

    Raises: ArgumentError without any bound.
    """
    if min is None and max is None:
        raise ArgumentError("clip: give a lower bound min, an upper bound max, or both")
    values = xp.constant(x)
    clipped = values.clip(min, max)
    return clipped, (lambda g: g * (values == clipped),)


def _share(g: Array, wins: Array, at_least: Array) -> Array:
    """The factor of g, a constant: 1 where the operand is chosen, 1/2 where the operands are equal, 0 elsewhere."""
    return 0.5 * wins.astype(g.dtype) + 0.5 * at_least.astype(g.dtype)


@op("*s, *s -> *s", promotes="mixed")
def maximum(xp: Any, x: Array, y: Array) -> Any:
    """The larger of two values; equal values share the gradient."""
    a, b = xp.constant(x), xp.constant(y)
    return xp.maximum(x, y), (lambda g: g * _share(g, a > b, a >= b), lambda g: g * _share(g, b > a, b >= a))


@op("*s, *s -> *s", promotes="mixed")
def minimum(xp: Any, x: Array, y: Array) -> Any:
    """The smaller of two values; equal values share the gradient."""
    a, b = xp.constant(x), xp.constant(y)
    return xp.minimum(x, y), (lambda g: g * _share(g, a < b, a <= b), lambda g: g * _share(g, b < a, b <= a))


@op("*s:bool, *s, *s -> *s", promotes="mixed")
def where(xp: Any, condition: Array, x: Array, y: Array) -> Any:
    """x where the condition holds, else y. The other branch receives exactly 0 (but 0 · NaN is NaN: make its input safe first)."""
    return xp.where(condition, x, y), (None, lambda g: xp.where(condition, g, 0.0), lambda g: xp.where(condition, 0.0, g))


@op("*s -> *s")
def astype(xp: Any, x: Array, *, dtype: Any) -> Any:
    """The same values in another floating dtype."""
    old = x.dtype
    return x.astype(dtype), (lambda g: g.astype(old),)


@op("*s -> *s")
def transfer(xp: Any, x: Array, *, device: str) -> Any:
    """The same values on another device."""
    home = xp.DEVICE if xp.DEVICE != "any" else x.device
    return xp.transfer(x, device), (lambda g: xp.transfer(g, home),)
