"""Rows of `ops/elementwise.py` and `ops/activation.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import CASES, Sample, case
from strategies import arrays, broadcastable, generator, shapes


def _unary(name: str, domain: str = "real") -> None:
    CASES[name] = arrays(shapes(), domain).map(lambda x: Sample((x,), {}))


for _name in ("negative", "exp", "expm1", "square", "sin", "cos", "tanh", "sigmoid", "erf", "erfc", "silu", "softplus"):
    _unary(_name)
for _name in ("log", "log1p", "sqrt", "rsqrt"):
    _unary(_name, "positive")
for _name, _domain in (("absolute", "nonzero"), ("relu", "nonzero")):
    _unary(_name, _domain)


def _binary(name: str, left: str, right: str, numbers: tuple[Any, ...]) -> None:
    """Two arrays that broadcast, or an array and one of `numbers` (allowed on the right, and if not 0 on the left)."""

    @st.composite
    def sample(draw: Any) -> Sample:
        a, b = draw(broadcastable(2))
        if draw(st.integers(0, 3)):
            return Sample((draw(arrays(a, left)), draw(arrays(b, right))), {})
        number = draw(st.sampled_from(numbers))
        return Sample((draw(arrays(a, left)), number) if draw(st.booleans()) or number == 0 else (number, draw(arrays(a, right))), {})

    CASES[name] = sample()


_binary("add", "real", "real", (0, 2, -1.5))
_binary("subtract", "real", "real", (0, 2, -1.5))
_binary("multiply", "real", "real", (0, 2, -1.5))
_binary("divide", "real", "nonzero", (2, -1.5))
_binary("maximum", "tenths", "between tenths", (0.28, -0.72))
_binary("minimum", "tenths", "between tenths", (0.28, -0.72))


@case
def power(draw: Any) -> Sample:
    a, b = draw(broadcastable(2))
    how = draw(st.sampled_from(["both", "number exponent", "integer exponents", "number base"]))
    if how == "both":
        return Sample((draw(arrays(a, "positive")), draw(arrays(b))), {})
    if how == "number base":
        return Sample((draw(st.sampled_from([2, 0.5, 1.0])), draw(arrays(a))), {})
    if how == "integer exponents":  # any base, and 0 among the exponents
        return Sample((draw(arrays(a, "nonzero")), generator(draw).integers(-1, 4, b)), {})
    exponent = draw(st.sampled_from([0, 1, 2, 3, 2.0, -1, -0.5, 1.5]))
    return Sample((draw(arrays(a, "real" if exponent in (0, 1, 2, 3) else "positive")), exponent), {})


@case
def where(draw: Any) -> Sample:
    c, a, b = draw(broadcastable(3))
    x: Any = draw(arrays(a))
    y: Any = draw(arrays(b))
    if draw(st.integers(0, 3)) == 0:
        x, y = draw(st.sampled_from([(x, 0.0), (1.5, y)]))
    return Sample((generator(draw).random(c) < 0.5, x, y), {})


@case
def clip(draw: Any) -> Sample:
    # No bound is a multiple of 0.1, as the numbers are; in the last pair min > max.
    low, high = draw(st.sampled_from([(-0.75, 1.15), (0.15, None), (None, -0.25), (0.55, 0.25)]))
    return Sample((draw(arrays(shapes(), "tenths")),), {"min": low, "max": high})


@case
def ldexp(draw: Any) -> Sample:
    a, b = draw(broadcastable(2))
    return Sample((draw(arrays(a)), generator(draw).integers(-3, 4, b)), {})


CASES["astype"] = arrays(shapes()).map(lambda x: Sample((x,), {"dtype": np.dtype("float64")}))
CASES["transfer"] = arrays(shapes()).map(lambda x: Sample((x,), {"device": "cpu"}))
