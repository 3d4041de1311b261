"""Scalar functions for the compiled passes, in float32: e^x, GELU and its slope, and integers in the order of floats.

They use only operations that the compiler vectorises.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigrad.kernels.jit import inner
from minigrad.kernels.passes import DENOMINATOR, FAR, GAUSS, NUMERATOR

_float, _int = np.float32, np.int32
_ZERO, _ONE, _HALF = _float(0), _float(1), _float(0.5)

# ---------------------------------------------------------------- exponential
_LOG2E = _float(1.0 / math.log(2.0))
_LN2_HIGH = _float(0.693359375)  # 355/512: its products with small integers are exact
_LN2_LOW = _float(math.log(2.0) - 0.693359375)
_LOWEST = _float(-87.3)
_ROUNDING = _float(1.5 * 2**23 + 127)
_C2, _C3, _C4, _C5, _C6, _C7 = (_float(1.0 / math.factorial(n)) for n in range(2, 8))


@inner
def exp(x: Any) -> Any:
    """e^x for x ≤ 0 or NaN, within 1e-7 relative; 0 below -87.3, where float32 becomes subnormal. math.exp would not be vectorised.

    x = k·ln 2 + r with |r| ≤ ½ ln 2, and e^r by its series to r⁷/7!, with an error of 5e-9. Adding `_ROUNDING` leaves k + 127 in the lowest
    bits: shifted, they are the float 2^k.
    """
    below = x < _LOWEST
    x = _LOWEST if below else x
    t = x * _LOG2E + _ROUNDING
    k = t - _ROUNDING
    r = x - k * _LN2_HIGH
    r = r - k * _LN2_LOW
    y = _C7 * r + _C6
    y = y * r + _C5
    y = y * r + _C4
    y = y * r + _C3
    y = y * r + _C2
    y = y * r + _ONE
    y = y * r + _ONE
    y = y * _int(_float(t).view(_int) << 23).view(_float)
    return _ZERO if below else y


# ---------------------------------------------------------------- gelu
_P3, _P2, _P1, _P0 = NUMERATOR
_Q3, _Q2, _Q1, _Q0 = DENOMINATOR


@inner
def gelu(x: Any) -> tuple[Any, Any]:
    """gelu(x) and gelu'(x), by the rational fit of `passes.py`."""
    a = abs(x)
    a = FAR if a > FAR else a
    density = exp(-_HALF * x * x)
    tail = (((_P3 * a + _P2) * a + _P1) * a + _P0) / ((((a + _Q3) * a + _Q2) * a + _Q1) * a + _Q0) * density  # Φ(-|x|)
    cdf = _ONE - tail if x > _ZERO else tail
    return x * cdf, cdf + x * (density * GAUSS)


# ---------------------------------------------------------------- order
@inner
def ordered(bits: Any) -> Any:
    """The bits of a float32 as an integer with the same order, and back. The maximum of integers does not depend on the order of
    comparisons, so it can be vectorised; with NaN that of floats does. A row with NaN becomes NaN either way."""
    return _int(bits ^ ((bits >> 31) & 0x7FFFFFFF))
