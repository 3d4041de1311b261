"""E01-E07: points without a unique derivative, and ties. Each docstring is the convention."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import axes, shapes
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F


def test_e01_equal_maxima_share_the_gradient() -> None:
    """Equal largest elements share the gradient of `max` evenly, over an axis or over all; likewise for `min`."""
    x = leaf([2.0, 2.0, 1.0])
    np.testing.assert_array_equal(grad_of(x.max(), x), [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(grad_of(x.max(axis=0), x), [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(grad_of((-x).min(), x), [-0.5, -0.5, 0.0])


@given(st.data())
def test_e02_gradient_of_max_sums_to_the_upstream_gradient(data: st.DataObject) -> None:
    """However many elements tie (infinities too), the gradients that `max` and `min` give to a slice add up to the incoming one."""
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x = leaf(data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, -0.0, 1.0, inf, -inf]))))
    axis = data.draw(axes(len(shape)))
    upstream = np.full(np.max(x.numpy(), axis=axis).shape, 3.0)
    for out in (x.max(axis=axis), x.min(axis=axis)):
        found = mg.grad(out, x, upstream)
        assert found is not None
        np.testing.assert_allclose(found.numpy().sum(axis=axis), upstream, rtol=1e-12)


def test_e03_maximum_at_equality_gives_half_to_each_side() -> None:
    """If both operands of `maximum` or `minimum` are equal, each receives half of the gradient, also if the other is a number."""
    x, y = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    np.testing.assert_array_equal(grad_of(F.maximum(x, y), x), [0.5, 1.0])
    np.testing.assert_array_equal(grad_of(F.maximum(x, y), y), [0.5, 0.0])
    np.testing.assert_array_equal(grad_of(F.maximum(x, 1), x), [0.5, 1.0])
    np.testing.assert_array_equal(grad_of(F.minimum(x, 1), x), [0.5, 0.0])


def test_e04_a_maximum_shared_by_70000_float16_values_is_counted_in_integers() -> None:
    """Ties are counted in integers, so 70,000 equal float16 numbers share a gradient that is not 0 (the largest float16 is 65,504)."""
    x = mg.Tensor(np.ones(70_000, np.float16), requires_grad=True)
    for found in (grad_of(x.max() * 60_000.0, x), grad_of(x.max(axis=0) * 60_000.0, x), grad_of((-x).min() * -60_000.0, x)):
        np.testing.assert_allclose(found, np.full(70_000, 60_000 / 70_000), rtol=0.02)  # 1/70,000 is a subnormal float16 of 8 bits


def test_e05_max_plus_x_has_the_sum_of_the_two_gradients() -> None:
    """A tensor used twice receives the sum of both gradients, as in max(x) + x."""
    x = leaf([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(grad_of(x.max() + x, x), grad_of(x.max() * 3.0, x) + grad_of(x, x))
    np.testing.assert_array_equal(grad_of(x.max() + x, x), [1.0, 4.0, 1.0])


def test_e06_slopes_at_the_kinks_of_relu_absolute_and_clip() -> None:
    """relu'(0) = 0 and |x|'(0) = 0, for -0 too; the derivative of `clip` is 1 within the bounds and at both of them, 0 outside."""
    x = leaf([0.0, -0.0, 1.0, -1.0])
    np.testing.assert_array_equal(grad_of(F.relu(x), x), [0, 0, 1, 0])
    np.testing.assert_array_equal(grad_of(abs(x), x), [0, 0, 1, -1])
    x = leaf([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(grad_of(F.clip(x, -1.0, 1.0), x), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(grad_of(F.clip(x, min=-1.0), x), [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(grad_of(F.clip(x, max=1.0), x), [1, 1, 1, 1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e07_bce_at_logit_0_has_slope_one_half(dtype: type) -> None:
    """The derivative of `bce_with_logits` at logit 0 is 1/2 for target 0 and -1/2 for target 1; there is no kink from |x|."""
    x = leaf([0.0, -0.0, 0.0], dtype)
    np.testing.assert_array_equal(grad_of(F.bce_with_logits(x, np.array([0.0, 0.0, 1.0], dtype), reduction="sum"), x), [0.5, 0.5, -0.5])
