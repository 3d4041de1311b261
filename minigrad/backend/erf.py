"""The error function and its complement, which NumPy lacks and the exact GELU needs.

    erf(x) = 2/√π ∫₀ˣ exp(-t²) dt        erfc(x) = 1 - erf(x)

No single formula is accurate everywhere: erf needs care where it is close to 0, erfc where it is. So |x| is cut in three
ranges, each with its own quotient of polynomials (a "rational Chebyshev approximation", R below):

    near     |x| ≤ 0.46875        erf(x)  = x · R(x²)
    middle   0.46875 < |x| ≤ 4    erfc(x) = exp(-x²) · R(x)                      for x > 0
    tail     4 < |x|              erfc(x) = exp(-x²) · (1/√π - R(1/x²)/x²) / x   for x > 0

and the rest follows from erf(-x) = -erf(x) and erf + erfc = 1.

Source: W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969),
pp. 631-637. The coefficients, good for 18 digits, are those he published with it in SPECFUN (Netlib, routine CALERF, 1990).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from minigrad.errors import DTypeError

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Table: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

NEAR_END = 0.46875
MIDDLE_END = 4.0
FARTHEST = 28.0
"""erfc(28) ≈ 1e-342 is 0 in float64, so every larger |x| (inf too) is replaced by 28 and nothing overflows."""

BLOCK = 32768
"""Elements computed at a stretch: enough to hide the cost of a NumPy call, few enough for the scratch to stay in the cache."""

# One table per range: the numerator of R above its denominator, highest power first.
# fmt: off
NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)
TAIL = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2,
     6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346047e0, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3),
)
# fmt: on


def erf(x: Floats) -> Floats:
    """The error function, elementwise, to a relative 1e-15. float32 and float16 are computed in float64 and rounded once.

    Shapes: any → the same.
    Raises: DTypeError for any dtype but float16, float32, float64.
    """
    return _by_blocks("erf", x, complement=False)


def erfc(x: Floats) -> Floats:
    """1 - erf(x), elementwise, to a relative 1e-15 however small it is. float32 and float16 are computed in float64 and rounded once.

    Shapes: any → the same.
    Raises: DTypeError for any dtype but float16, float32, float64.
    """
    return _by_blocks("erfc", x, complement=True)


def _by_blocks(name: str, x: Floats, *, complement: bool) -> Floats:
    """Split x into blocks and evaluate each in float64, whatever the dtype of x."""
    out = np.array(x, order="C")
    if out.dtype not in (np.float16, np.float32, np.float64):
        raise DTypeError(f"{name}: cannot take dtype {out.dtype}; convert the array to float32 or float64 first")
    flat = out.reshape(-1)
    values, scratch = np.empty(min(BLOCK, flat.size)), np.empty((4, min(BLOCK, flat.size)))
    # Underflow to 0 is the right answer here (exp(-x²) far out, x² close to 0): never an error, whatever the caller has set.
    with np.errstate(under="ignore"):
        for start in range(0, flat.size, BLOCK):
            part = flat[start : start + BLOCK]
            block = values[: part.size]
            block[:] = part
            _evaluate(block, complement, scratch)
            part[:] = block
    return out


def _evaluate(x: Doubles, complement: bool, scratch: Doubles) -> None:
    """Replace x by erf(x), or by erfc(x) if `complement`. Each range is computed on its own elements only."""
    y = np.abs(x)
    np.minimum(y, FARTHEST, out=y)
    near, tail = y <= NEAR_END, y > MIDDLE_END
    middle = ~(near | tail)  # includes NaN, which every formula propagates
    if (places := np.flatnonzero(near)).size:
        value = _erf_near(x[places], scratch)
        x[places] = 1.0 - value if complement else value
    for places, formula in ((np.flatnonzero(middle), _erfc_middle), (np.flatnonzero(tail), _erfc_tail)):
        if places.size:
            value, sign = formula(y[places], scratch), x[places]
            x[places] = np.where(sign < 0, 2.0 - value, value) if complement else np.copysign(1.0 - value, sign)


# The formulas return a row of `scratch` (4, BLOCK): rows 0 and 1 hold the quotient, rows 2 and 3 are temporaries.


def _erf_near(x: Doubles, scratch: Doubles) -> Doubles:
    value = _quotient(NEAR, np.multiply(x, x, out=scratch[2, : x.size]), scratch)
    value *= x
    return value


def _erfc_middle(y: Doubles, scratch: Doubles) -> Doubles:
    return _times_gaussian(_quotient(MIDDLE, y, scratch), y, scratch)


def _erfc_tail(y: Doubles, scratch: Doubles) -> Doubles:
    z = np.multiply(y, y, out=scratch[2, : y.size])
    np.reciprocal(z, out=z)
    value = _quotient(TAIL, z, scratch)
    value *= z
    np.subtract(1.0 / np.sqrt(np.pi), value, out=value)
    value /= y
    return _times_gaussian(value, y, scratch)


def _quotient(table: Table, z: Doubles, scratch: Doubles) -> Doubles:
    """R(z): numerator over denominator, each by Horner's rule."""
    value, divisor = scratch[0, : z.size], scratch[1, : z.size]
    for coefficients, row in zip(table, (value, divisor), strict=True):
        np.multiply(z, coefficients[0], out=row)
        for coefficient in coefficients[1:-1]:
            row += coefficient
            row *= z
        row += coefficients[-1]
    value /= divisor
    return value


def _times_gaussian(value: Doubles, y: Doubles, scratch: Doubles) -> Doubles:
    """value · exp(-y²) in place, without the rounding error of y², which exp would magnify up to y² ≈ 700 times.

    With s = y cut to a multiple of 1/16, s² has few bits and is exact, and exp(-y²) = exp(-s²) · exp((s - y)(s + y)).
    """
    s, rest = scratch[2, : y.size], scratch[3, : y.size]
    np.trunc(np.multiply(y, 16.0, out=s), out=s)
    s /= 16.0
    np.subtract(s, y, out=rest)
    rest *= s + y
    value *= np.exp(rest, out=rest)
    s *= -s
    value *= np.exp(s, out=s)
    return value
