"""E31-E38: tails, cancellation, powers of 0 and saturation. Each docstring is the convention."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
import scipy.special
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import ArgumentError, MinigradError

GRID = np.linspace(-12.0, 12.0, 4801)
SMALLEST = 1e-37
"""Below it float32 numbers are subnormal and lose digits one by one."""


def exact_gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """gelu and its derivative in float64, by SciPy."""
    return x * scipy.special.ndtr(x), scipy.special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    """The tanh form of gelu in float64, written with a sigmoid, which does not cancel."""
    return x * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def test_e31_exact_gelu_keeps_its_digits_in_float32() -> None:
    """`gelu` and its derivative in float32 are within 1e-5 relative of float64 on [-12, 12]: the left tail is computed by erfc, not as
    1 + erf."""
    x32 = GRID.astype(np.float32)
    value, slope = exact_gelu(x32.astype(np.float64))
    x = leaf(x32, np.float32)
    np.testing.assert_allclose(F.gelu(x).numpy(), value, rtol=1e-5, atol=SMALLEST)
    near_root = np.abs(x32 + 0.7518) < 0.1  # the derivative crosses 0 there, so an absolute error counts
    found = grad_of(F.gelu(x), x)
    np.testing.assert_allclose(found[near_root], slope[near_root], rtol=0.0, atol=2e-7)
    np.testing.assert_allclose(found[~near_root], slope[~near_root], rtol=1e-5, atol=SMALLEST)


def test_e32_tanh_gelu_keeps_its_digits_far_to_the_left() -> None:
    """`gelu` with approximate="tanh" is x · sigmoid(2u) in float32, without the cancellation of 1 + tanh(u) below -4."""
    x32 = np.linspace(-8.0, -4.0, 401).astype(np.float32)
    found = F.gelu(mg.Tensor(x32), approximate="tanh").numpy()
    # e^(2u) turns the rounding of an argument up to 2u = -49 into 49 times as much: 5e-5 relative
    np.testing.assert_allclose(found, tanh_gelu(x32.astype(np.float64)), rtol=5e-5, atol=SMALLEST)


def test_e33_the_two_forms_of_gelu_are_close_and_never_swapped() -> None:
    """gelu is exact (by erf) unless approximate="tanh" is passed; the two forms differ by at most 5e-4. Of the names in published models,
    "gelu" means the exact form, "gelu_new" and "gelu_pytorch_tanh" the tanh form; any other name is an error."""
    x = mg.Tensor(GRID)
    exact, tanh = F.gelu(x).numpy(), F.gelu(x, approximate="tanh").numpy()
    assert 1e-5 < np.abs(exact - tanh).max() <= 5e-4
    np.testing.assert_allclose(exact, exact_gelu(GRID)[0], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(tanh, tanh_gelu(GRID), rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(nn.GELU()(x).numpy(), exact)
    np.testing.assert_array_equal(nn.GELU(approximate="tanh")(x).numpy(), tanh)
    for name, expected in (("gelu", exact), ("gelu_new", tanh), ("gelu_pytorch_tanh", tanh)):
        layer = nn.TransformerEncoderLayer(4, 1, 4, activation=name)
        np.testing.assert_array_equal(layer.activation(x).numpy(), expected)
    with pytest.raises(MinigradError, match='"none" or "tanh"'):
        F.gelu(x, approximate="erf")
    with pytest.raises(ArgumentError, match="gelu_erf"):
        nn.TransformerEncoderLayer(4, 1, 4, activation="gelu_erf")


def test_e34_powers_of_0() -> None:
    """The derivative of x⁰ with respect to x is 0 everywhere, at x = 0 too; that of 0ᵇ with respect to b is 0 for b ≥ 0. This holds for
    numbers and tensors."""
    x = leaf([0.0, 2.0])
    zeros = mg.Tensor(np.zeros(2))
    b = leaf([2.0, 0.5])
    at_zero = leaf([0.0])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(grad_of(x**0, x), [0.0, 0.0])
        np.testing.assert_array_equal(grad_of(x**zeros, x), [0.0, 0.0])
        np.testing.assert_array_equal(grad_of(0.0**b, b), [0.0, 0.0])
        np.testing.assert_array_equal(grad_of(zeros**b, b), [0.0, 0.0])
        np.testing.assert_array_equal(grad_of(0.0**at_zero, at_zero), [0.0])


def test_mixed_second_derivative_of_a_power_at_exponent_0() -> None:
    x, y = leaf(1.5), leaf(0.0)
    with mg.higher_order():
        by_x = mg.grad(x**y, x, create_graph=True)
        assert by_x is not None
        assert grad_of(by_x, y) == pytest.approx(1 / 1.5, rel=1e-15)  # d²(xʸ)/dx dy = (1 + y ln x) / x at y = 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ord", [1, 2, inf])
def test_e35_norm_of_the_zero_vector_has_gradient_0(ord: float, dtype: Any) -> None:
    """The norm of the zero vector has gradient 0, without a warning, also among vectors that are not 0; √x keeps its infinite slope at 0,
    with NumPy's warning of a division by 0."""
    x = leaf([[0.0, 0.0], [3.0, -4.0]], dtype)
    with np.errstate(all="raise"):
        found = grad_of(F.norm(x, ord, axis=1), x)
        np.testing.assert_array_equal(grad_of(F.norm(x[0], ord), x), np.zeros((2, 2)))
    np.testing.assert_allclose(found, [[0, 0], {1: [1, -1], 2: [0.6, -0.8], inf: [0, -1]}[ord]], rtol=4 * np.finfo(dtype).eps)
    zero = leaf([0.0], dtype)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert grad_of(F.sqrt(zero), zero) == inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e36_bce_of_large_logits_is_finite_and_exact(dtype: Any) -> None:
    """`bce_with_logits` at ±100 and ±10,000 is finite and exact for both labels; neither tail overflows or loses its digits."""
    logits = np.array([100.0, -100.0, 1e4, -1e4], dtype)
    small = np.exp(dtype(-100.0))  # log(1 + e⁻¹⁰⁰) to all digits (a subnormal number in float32)
    for target, expected, slope in (
        (0.0, [100.0, small, 1e4, 0.0], [1.0, small, 1.0, 0.0]),
        (1.0, [small, 100.0, 0.0, 1e4], [-small, -1.0, 0.0, -1.0]),
    ):
        x = leaf(logits, dtype)
        loss = F.bce_with_logits(x, np.full(4, target, dtype), reduction="none")
        assert loss.dtype == dtype
        np.testing.assert_array_equal(loss.numpy(), np.array(expected, dtype))
        np.testing.assert_allclose(grad_of(loss, x), np.array(slope, dtype), rtol=1e-6, atol=0.0)


def test_e37_where_sends_exactly_0_to_the_branch_not_taken() -> None:
    """`where` sends exactly 0 to the branch not taken. An infinite slope in that branch turns it into 0 · ∞ = NaN, as in every library:
    make the input safe first, where(x > 0, log(where(x > 0, x, 1)), 0)."""
    x, y = leaf([0.0, 1.0]), leaf([inf, nan])
    np.testing.assert_array_equal(grad_of(F.where(x > 0, x * 3.0, y), x), [0.0, 3.0])
    np.testing.assert_array_equal(grad_of(F.where(x > 0, x * 3.0, y), y), [1.0, 0.0])
    with pytest.warns(RuntimeWarning):
        np.testing.assert_array_equal(grad_of(F.where(x > 0, F.log(x), 0.0), x), [nan, 1.0])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(grad_of(F.where(x > 0, F.log(F.where(x > 0, x, 1.0)), 0.0), x), [0.0, 1.0])


FAR = (-1e4, -100.0, 0.0, 100.0, 1e4)
SATURATING: dict[str, tuple[Any, tuple[float, ...], Any]] = {
    "sigmoid": (F.sigmoid, FAR, scipy.special.expit),
    "tanh": (F.tanh, FAR, np.tanh),
    "softplus": (F.softplus, FAR, lambda x: np.logaddexp(0.0, x)),
    "silu": (F.silu, FAR, lambda x: x * scipy.special.expit(x)),
    "erf": (F.erf, FAR, scipy.special.erf),
    "erfc": (F.erfc, FAR, scipy.special.erfc),
    "relu": (F.relu, FAR, lambda x: np.maximum(x, 0.0)),
    "gelu": (F.gelu, FAR, lambda x: exact_gelu(x)[0]),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), FAR, tanh_gelu),
    "log1p": (F.log1p, (0.0, 100.0, 1e4), np.log1p),
    "expm1": (F.expm1, (-1e4, -100.0, 0.0, 50.0), np.expm1),  # e^(1e4) is infinite in truth
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(SATURATING))
def test_e38_saturating_functions_are_right_far_out_and_silent(name: str, dtype: Any) -> None:
    """Far from 0 (up to ±10,000) the values of sigmoid, tanh, softplus, silu, erf, erfc, relu, gelu, log1p and expm1 are right, slopes and
    curvatures are finite, and NumPy warns of nothing but harmless underflow."""
    function, places, exact = SATURATING[name]
    x = leaf(places, dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):  # e⁻¹⁰⁰⁰⁰ = 0 is right: underflow is no error
        np.testing.assert_allclose(function(x).numpy(), exact(x.numpy().astype(np.float64)), rtol=1e-5, atol=SMALLEST)
        assert np.isfinite(grad_of(function(x), x)).all()
        with mg.higher_order():
            out = function(x)
            slope = mg.grad(out.sum(), x, create_graph=True)
            assert slope is not None
            curvature = mg.grad(slope.sum(), x) if slope.requires_grad else slope  # that of relu is constant but for the kink
            for found in (out, slope, curvature):
                assert found is not None and found.dtype == dtype and np.isfinite(found.numpy()).all()
