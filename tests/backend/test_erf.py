"""erf and erfc against SciPy, the C library and 20-digit values, at the seams of the three ranges, and at the edges of the floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special

from minigrad.backend.erf import BLOCK, FARTHEST, MIDDLE_END, NEAR_END, erf, erfc
from minigrad.errors import DTypeError

EPS = np.finfo(np.float64).eps
SEAMS = [np.nextafter(edge, toward) for edge in (NEAR_END, MIDDLE_END, FARTHEST) for toward in (0.0, edge, 100.0)]

finite = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-7.0, 7.0)
dtypes = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
functions = pytest.mark.parametrize("function", [erf, erfc])


def grid(limit: float) -> Any:
    """Points of both signs up to `limit`: evenly spaced, evenly spaced in their logarithm, and the ends of the ranges."""
    positive = np.concatenate([np.linspace(0.0, limit, 200_001), np.geomspace(1e-300, limit, 20_001), [e for e in SEAMS if e <= limit]])
    return np.concatenate([-positive, positive])


def c_erfc(x: Any) -> Any:
    """The C library's erfc, within 2 ulp. SciPy's cannot judge the tail: it is 6e-14 off at 26, because x² is rounded before exp."""
    return np.array([math.erfc(value) for value in x.tolist()])


def test_float64_erf_agrees_with_scipy() -> None:
    x = grid(30.0)
    # 1e-15, absolute and relative, is the promise of the docstring; measured 7e-16.
    np.testing.assert_allclose(erf(x), special.erf(x), rtol=0.0, atol=1e-15)
    np.testing.assert_allclose(erf(x), special.erf(x), rtol=1e-15, atol=0.0)


def test_float64_erfc_agrees_with_the_c_library_down_to_the_smallest_normal_number() -> None:
    x = grid(30.0)
    expected, got = c_erfc(x), erfc(x)
    normal = expected >= np.finfo(np.float64).tiny
    # Each of the two is within 8e-16 of the truth (7.7e-16 and 3.5e-16 measured against 36 digits).
    np.testing.assert_allclose(got[normal], expected[normal], rtol=1.6e-15, atol=0.0)
    assert np.all(got[~normal] < np.finfo(np.float64).tiny)


@pytest.mark.parametrize(
    ("x", "erf_x", "erfc_x"),  # 20 digits, computed with 40-digit arithmetic
    [
        (0.46875, 0.49261347321793799159, 0.50738652678206200841),
        (0.5, 0.52049987781304653768, 0.47950012218695346232),
        (4.0, 0.99999998458274209972, 1.5417257900280018852e-8),
        (4.5, 0.99999999980338395585, 1.9661604415428874763e-10),
        (10.0, 1.0, 2.0884875837625447570e-45),
        (26.0, 1.0, 5.6631924088561428465e-296),
    ],
)
def test_known_values(x: float, erf_x: float, erfc_x: float) -> None:
    assert float(erf(np.array(x))) == pytest.approx(erf_x, rel=1e-15, abs=0.0)
    assert float(erfc(np.array(x))) == pytest.approx(erfc_x, rel=1e-15, abs=0.0)


def test_float32_is_the_rounded_float64_result() -> None:
    x = grid(12.0).astype(np.float32)
    expected_erf, expected_erfc = special.erf(x.astype(np.float64)), c_erfc(x)
    normal = expected_erfc >= np.finfo(np.float32).tiny
    usable = np.abs(expected_erf) >= np.finfo(np.float32).tiny  # below, float32 has fewer digits than the bound asks for
    # One rounding costs at most 2⁻²⁴ ≈ 5.97e-8.
    np.testing.assert_allclose(erf(x)[usable].astype(np.float64), expected_erf[usable], rtol=6e-8, atol=0.0)
    np.testing.assert_allclose(erfc(x)[normal].astype(np.float64), expected_erfc[normal], rtol=6e-8, atol=0.0)


def test_float16_is_the_rounded_float64_result() -> None:
    x = np.linspace(-4.0, 4.0, 4001).astype(np.float16)
    # Half an ulp: 2⁻¹¹ ≈ 4.89e-4 of the value, or 2⁻²⁵ ≈ 3e-8 where float16 is subnormal.
    np.testing.assert_allclose(erf(x).astype(np.float64), special.erf(x.astype(np.float64)), rtol=4.9e-4, atol=3e-8)
    np.testing.assert_allclose(erfc(x).astype(np.float64), special.erfc(x.astype(np.float64)), rtol=4.9e-4, atol=3e-8)


@dtypes
def test_infinities_zeros_and_nan_are_exact(dtype: Any) -> None:
    x = np.array([-np.inf, np.inf, -0.0, 0.0, np.nan], dtype)
    result, complement = erf(x), erfc(x)
    assert result.dtype == complement.dtype == dtype
    np.testing.assert_array_equal(result, np.array([-1.0, 1.0, -0.0, 0.0, np.nan], dtype))
    np.testing.assert_array_equal(np.signbit(result[2:4]), [True, False])
    np.testing.assert_array_equal(complement, np.array([2.0, 0.0, 1.0, 1.0, np.nan], dtype))


@dtypes
def test_no_floating_point_error_is_ever_raised(dtype: Any) -> None:
    info = np.finfo(dtype)
    edges = [info.max, info.tiny, info.smallest_subnormal, info.smallest_normal * 1.5, np.inf, 0.0, 1.0, 9.3, 14.0, 26.6, 27.3, 700.0]
    x = np.array([*edges, *(-edge for edge in edges), np.nan], dtype)
    with np.errstate(all="raise"):
        result, complement = erf(x), erfc(x)
    assert np.all(np.abs(result[:-1]) <= 1.0)
    assert np.all((complement[:-1] >= 0.0) & (complement[:-1] <= 2.0))
    np.testing.assert_array_equal([result[0], complement[0]], [1.0, 0.0])


def test_the_smallest_subnormal_stays_itself() -> None:
    x = np.array([5e-324, -5e-324])  # times 2/√π = 1.128, rounded to whole multiples of itself
    np.testing.assert_array_equal(erf(x), x)


@functions
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (4, 5), (2, 3, 4)])
def test_shape_is_kept(function: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) if shape else np.array(0.7)
    result = function(x)
    assert isinstance(result, np.ndarray)
    assert result.shape == shape
    np.testing.assert_allclose(result, getattr(special, function.__name__)(x), rtol=2e-15)  # SciPy's erfc: 1.5e-15 below 4


@functions
def test_strided_input_gives_the_values_of_its_copy_and_is_left_alone(function: Callable[[Any], Any]) -> None:
    base = np.random.default_rng(1).normal(0.0, 3.0, (6, 8, 10))
    base.flags.writeable = False
    before = base.copy()
    for view in (base.T, base[::-1, ::2], base[:, :, 3], np.broadcast_to(base[0, 0], (4, 10)), np.asfortranarray(base)):
        np.testing.assert_array_equal(function(view), function(view.copy(order="C")))
    np.testing.assert_array_equal(base, before)


@functions
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_every_block_is_computed(function: Callable[[Any], Any], size: int) -> None:
    x = np.random.default_rng(2).normal(0.0, 2.0, size)
    expected = special.erf(x) if function is erf else c_erfc(x)
    np.testing.assert_allclose(function(x), expected, rtol=1.6e-15, atol=0.0)


@functions
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex128, object])
def test_other_dtypes_are_refused(function: Callable[[Any], Any], dtype: Any) -> None:
    with pytest.raises(DTypeError, match=rf"^{function.__name__}: cannot take dtype {np.dtype(dtype)}; convert") as caught:
        function(np.zeros(3, dtype))
    assert caught.value.code == "dtype"


@given(finite)
def test_erf_is_odd(x: float) -> None:
    assert float(erf(np.array(-x))) == -float(erf(np.array(x)))


@given(finite)
@example(NEAR_END)
@example(-MIDDLE_END)
def test_erf_and_erfc_add_up_to_one(x: float) -> None:
    assert abs(float(erf(np.array(x)) + erfc(np.array(x))) - 1.0) <= 2 * EPS  # EPS is one ulp of 1


@given(finite, finite)
@example(float(SEAMS[0]), float(SEAMS[2]))
@example(float(SEAMS[3]), float(SEAMS[5]))
def test_both_are_monotonic(a: float, b: float) -> None:
    x = np.array(sorted((a, b)))
    for low, high in (erf(x), erfc(x)[::-1]):
        assert low <= high + 1.6e-15 * abs(high)  # neighbours may swap within twice the relative error
