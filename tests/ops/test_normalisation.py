"""Normalisations against their formulas in NumPy, large means, constant and short inputs, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import absolute_error, grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import ArgumentError, ShapeError

EXACT = 1e-13
"""float64 rounding of the same few sums in another order."""

SHAPES = [(5, 4), (3, 4, 6), (2, 4, 3, 5)]

rng = np.random.default_rng(0)


def by_channel(vector: Any, x: np.ndarray) -> Any:
    return np.reshape(vector, (1, -1) + (1,) * (x.ndim - 2))


def numpy_standardised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)


@pytest.mark.parametrize("eps", [1e-5, 0.3])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm(shape: tuple[int, ...], affine: bool, eps: float) -> None:
    x, mean, var = rng.standard_normal(shape) + 3.0, rng.standard_normal(4), rng.random(4) + 0.1
    weight, bias = (rng.standard_normal(4), rng.standard_normal(4)) if affine else (None, None)
    scale, shift = by_channel(1.0 if weight is None else weight, x), by_channel(0.0 if bias is None else bias, x)
    expected = numpy_standardised(x, (0, *range(2, x.ndim)), eps) * scale + shift
    assert absolute_error(F.batch_norm(x, None, None, weight, bias, eps).numpy(), expected) < EXACT
    expected = (x - by_channel(mean, x)) / np.sqrt(by_channel(var, x) + eps) * scale + shift
    assert absolute_error(F.batch_norm(x, mean, var, weight, bias, eps).numpy(), expected) < EXACT


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_group_norm(shape: tuple[int, ...], groups: int) -> None:
    x, weight, bias = rng.standard_normal(shape) + 3.0, rng.standard_normal(4), rng.standard_normal(4)
    grouped = x.reshape((shape[0], groups, -1))
    expected = numpy_standardised(grouped, (2,), 1e-5).reshape(shape)
    assert absolute_error(F.group_norm(x, groups).numpy(), expected) < EXACT
    expected = expected * by_channel(weight, x) + by_channel(bias, x)
    assert absolute_error(F.group_norm(x, groups, weight, bias).numpy(), expected) < EXACT


@pytest.mark.parametrize("eps", [1e-6, 0.3])
@pytest.mark.parametrize("shape", [(4,), *SHAPES])
def test_rms_norm(shape: tuple[int, ...], eps: float) -> None:
    x, weight = rng.standard_normal(shape), rng.standard_normal(shape[-1])
    expected = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    assert absolute_error(F.rms_norm(x, eps=eps).numpy(), expected) < EXACT
    assert absolute_error(F.rms_norm(x, weight, eps).numpy(), expected * weight) < EXACT


@pytest.mark.parametrize("given", ["both", "weight", "bias", "neither"])
def test_layer_norm_with_and_without_scale_and_shift(given: str) -> None:
    x, weight, bias = leaf(rng.standard_normal((3, 4))), leaf(rng.standard_normal(4)), leaf(rng.standard_normal(4))
    scale, shift = weight if given in ("both", "weight") else None, bias if given in ("both", "bias") else None
    found = F.layer_norm(x, scale, shift, eps=0.1)
    whole = F.layer_norm(x, np.ones(4) if scale is None else scale, np.zeros(4) if shift is None else shift, eps=0.1)
    assert absolute_error(found.numpy(), whole.numpy()) < EXACT
    g = rng.standard_normal((3, 4))
    assert absolute_error(mg.grad(found, x, g).numpy(), mg.grad(whole, x, g).numpy()) < EXACT


# ---------------------------------------------------------------- numbers that are hard to normalise
@pytest.mark.parametrize("mean", [0.0, 100.0, 1e3, 1e4])
def test_a_large_mean_costs_no_digits(mean: float) -> None:
    x = (mean + np.arange(64, dtype=np.float32).reshape(8, 2, 4) * np.float32(1e-3)).astype(np.float32)
    exact = mg.Tensor(x.astype(np.float64))
    for norm in (lambda t: F.batch_norm(t), lambda t: F.group_norm(t, 1), lambda t: F.group_norm(t, 2)):
        assert norm(mg.Tensor(x)).dtype == np.float32
        assert absolute_error(norm(mg.Tensor(x)).numpy(), norm(exact).numpy()) < 1e-5


@given(x=hnp.arrays(np.float32, (3, 2, 2), elements=st.floats(-1e4, 1e4, width=32)))
def test_results_are_finite_and_bounded_whatever_the_variance(x: np.ndarray) -> None:
    """No variance is negative: √(n - 1) is the largest |x̂| that n numbers can have."""
    for y, count in ((F.batch_norm(x), 6), (F.group_norm(x, 1), 4), (F.rms_norm(x), 3)):
        assert np.abs(y.numpy()).max() < np.sqrt(count) + 1e-3  # float32 rounding


@pytest.mark.parametrize("number", [0.0, 0.1, 1e6])
def test_a_constant_channel_becomes_the_bias_with_finite_gradients(number: float) -> None:
    x, weight, bias = leaf(np.full((4, 2, 3), number), np.float32), leaf([2.0, 3.0], np.float32), leaf([0.5, -1.0], np.float32)
    for norm in (lambda: F.batch_norm(x, None, None, weight, bias), lambda: F.group_norm(x, 2, weight, bias)):
        np.testing.assert_array_equal(norm().numpy(), np.broadcast_to(np.float32([[0.5], [-1.0]]), (4, 2, 3)))
        assert all(np.isfinite(grad_of(norm(), tensor)).all() for tensor in (x, weight, bias))
    assert np.isfinite(grad_of(F.rms_norm(x), x)).all()


def test_a_group_of_one_number_becomes_the_bias() -> None:
    x = leaf([[3.0, 4.0]])
    np.testing.assert_array_equal(F.group_norm(x, 2, None, [1.0, 2.0]).numpy(), [[1.0, 2.0]])
    np.testing.assert_array_equal(grad_of(F.group_norm(x, 2), x), [[0.0, 0.0]])


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)])
def test_nothing_to_normalise(shape: tuple[int, ...]) -> None:
    x = leaf(np.zeros(shape))
    assert F.group_norm(x, 2, np.ones(4), np.ones(4)).shape == shape
    assert F.batch_norm(x, np.zeros(4), np.ones(4)).shape == shape
    assert grad_of(F.group_norm(x, 2), x).shape == shape
    assert F.rms_norm(x).shape == F.layer_norm(x).shape == shape


def test_the_statistics_of_a_batch_take_part_in_the_gradient() -> None:
    """Shifting or scaling a whole channel does not change the result, so the gradient is orthogonal to both."""
    x = leaf(rng.standard_normal((6, 3)))
    gradient = mg.grad(F.batch_norm(x, eps=0.0), x, rng.standard_normal((6, 3))).numpy()
    np.testing.assert_allclose(gradient.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose((gradient * x.numpy()).sum(axis=0), 0.0, atol=1e-12)


# ---------------------------------------------------------------- errors
X = np.zeros((2, 4, 3))

INVALID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "one number per channel": (lambda: F.batch_norm(np.zeros((1, 4))), ShapeError, "(1, 4) has fewer than two numbers per channel"),
    "one pixel": (lambda: F.batch_norm(np.zeros((1, 4, 1, 1))), ShapeError, "has fewer than two numbers per channel"),
    "an empty batch": (lambda: F.batch_norm(np.zeros((0, 4))), ShapeError, "has fewer than two numbers per channel"),
    "no channels": (lambda: F.batch_norm(np.zeros(4)), ShapeError, "batch_norm: x has shape (4,), expected (batch, channels)"),
    "mean alone": (lambda: F.batch_norm(X, np.zeros(4)), ArgumentError, "pass both mean and var, or neither"),
    "mean": (
        lambda: F.batch_norm(X, np.zeros(3), np.zeros(4)),
        ShapeError,
        "has 4 channels (axis 1), so mean must have that shape; got (3,)",
    ),
    "weight": (lambda: F.batch_norm(X, weight=np.zeros((4, 1))), ShapeError, "weight must have that shape; got (4, 1)"),
    "groups": (lambda: F.group_norm(X, 3), ArgumentError, "4 channels do not divide into 3 groups"),
    "no groups": (lambda: F.group_norm(X, 0), ArgumentError, "do not divide into 0 groups"),
    "groups that are a word": (lambda: F.group_norm(X, "2"), ArgumentError, "do not divide into '2' groups"),
    "bias of groups": (lambda: F.group_norm(X, 2, None, np.zeros(2)), ShapeError, "group_norm: x (2, 4, 3) has 4 channels"),
    "width": (lambda: F.rms_norm(X, np.zeros(4)), ShapeError, "rms_norm: x (2, 4, 3) needs a weight of its last axis, got (4,)"),
    "a number": (lambda: F.rms_norm(3.0), ShapeError, "rms_norm: x ()"),
    "width of the weight": (lambda: F.layer_norm(X, np.zeros(4)), ShapeError, "layer_norm: x (2, 4, 3) needs a weight and a bias"),
    "a number without axes": (lambda: F.layer_norm(3.0), ShapeError, "layer_norm: x ()"),
}


@pytest.mark.parametrize("what", INVALID)
def test_what_does_not_fit_is_refused_by_name(what: str) -> None:
    call, kind, words = INVALID[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


def test_standardise_over_any_axes() -> None:
    x, weight = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 1))
    found = ops.standardise(x, weight, None, axes=(0, 2), eps=1e-3).numpy()
    assert absolute_error(found, numpy_standardised(x, (0, 2), 1e-3) * weight) < EXACT
