"""E08-E18: products with zeros, constant slices, long float32 sums, and empty reductions. Each docstring is the convention."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from edge_cases.forms import both_forms
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ShapeError


def test_e08_gradient_of_a_product_with_zeros() -> None:
    """The derivative of a product with respect to a factor is the product of the others, even if factors are 0; so are its derivatives."""
    one, two = leaf([0.0, 2.0, 3.0]), leaf([0.0, 0.0, 3.0])
    np.testing.assert_array_equal(grad_of(F.prod(one), one), [6.0, 0.0, 0.0])
    np.testing.assert_array_equal(grad_of(F.prod(two), two), [0.0, 0.0, 0.0])
    with mg.higher_order():
        for x, curvature in ((one, [[0, 3, 2], [3, 0, 0], [2, 0, 0]]), (two, [[0, 3, 0], [3, 0, 0], [0, 0, 0]])):
            slope = mg.grad(F.prod(x), x, create_graph=True)
            assert slope is not None
            rows = [mg.grad(slope[i], x, retain_graph=True) for i in range(3)]
            np.testing.assert_array_equal([row.tolist() for row in rows if row is not None], curvature)


def test_e09_gradient_of_a_product_over_an_axis_with_a_zero_keeps_its_shape() -> None:
    """Zeros in one slice of a product over an axis change neither the shape of the gradient nor the gradient of other slices."""
    x = leaf([[0.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(grad_of(F.prod(x, axis=1), x), [[6, 0, 0], [30, 24, 20]])
    np.testing.assert_array_equal(grad_of(F.prod(x, axis=0, keepdims=True), x), [[4, 5, 6], [0, 2, 3]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e10_products_of_huge_numbers_and_zeros_are_finite(dtype: Any) -> None:
    """Partial products do not overflow: a zero among numbers whose product exceeds the largest float gives 0, and no gradient is NaN."""
    for places in ([0, 1], [0, -1], [-2, -1], [700, 800, 900]):
        factors = np.full((40, 40), 1e13, dtype)
        factors.flat[places] = 0.0
        x = leaf(factors, dtype)
        with np.errstate(all="raise"):
            assert F.prod(x).item() == 0.0
            np.testing.assert_array_equal(grad_of(F.prod(x), x), np.zeros((40, 40)))
    for place in (0, 12, 24):  # one zero: its gradient is the product of all others, 1 in truth, whose parts are past the largest float
        factors = np.insert(np.repeat(np.array([2.0**100, 2.0**-100], dtype), 12), place, 0.0)
        x = leaf(factors, dtype)
        with np.errstate(all="raise"):
            np.testing.assert_array_equal(grad_of(F.prod(x), x), np.arange(25) == place)
    x = leaf(np.insert(np.full(1599, 1e13, dtype), 3, 0.0), dtype)  # here the product of the others is infinite in truth
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(grad_of(F.prod(x), x), np.where(np.arange(1600) == 3, np.inf, 0.0))


@pytest.mark.parametrize("ddof", [0, 1])
def test_e11_std_of_a_constant_vector_has_gradient_0(ddof: int) -> None:
    """The standard deviation of a constant slice is 0 with gradient 0, without a warning, also among slices that vary."""
    x = leaf([0.1] * 5)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(grad_of(F.std(x, ddof=ddof), x), np.zeros(5))
        rows = leaf([[7.0, 7.0, 7.0], [1.0, 2.0, 3.0]])
        found = grad_of(F.std(rows, axis=1, ddof=ddof), rows)
    assert (found[0] == 0).all() and found[1, 0] == pytest.approx(-1.0 / np.sqrt((3 - ddof) * 2.0), rel=1e-14)


def test_e12_var_and_std_of_one_element_with_ddof_1_are_nan() -> None:
    """`var` and `std` of one element with ddof=1 are NaN (0 divided by 0), with a NaN gradient of the input's shape; nothing is raised."""
    x = leaf([[3.0], [4.0]])
    for function in (F.var, F.std):
        out = function(x, axis=1, ddof=1)
        assert out.shape == (2,) and np.isnan(out.numpy()).all()
        found = grad_of(out, x)
        assert found.shape == (2, 1) and np.isnan(found).all()


@both_forms
def test_e13_long_float32_sums_and_bias_gradients_keep_their_digits(form: Any) -> None:
    """Sums over rows are chunked: for 200,000 float32 rows, the sum and the gradient of a bias are within 5e-6 of the float64 result."""
    column = np.full((200_000, 2), 0.1, np.float32)
    exact = column.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(mg.Tensor(column).sum(axis=0).numpy(), exact, rtol=5e-6)
    bias = mg.zeros(2, requires_grad=True)
    np.testing.assert_allclose(grad_of((mg.Tensor(np.zeros((200_000, 2), np.float32)) + bias) * mg.Tensor(column), bias), exact, rtol=5e-6)
    weight, inputs = mg.zeros((2, 1)), mg.Tensor(np.zeros((200_000, 1), np.float32))
    for layer in (F.linear, F.linears):
        with form():
            out = layer(inputs, weight, bias) * mg.Tensor(column)
        np.testing.assert_allclose(grad_of(out, bias), exact, rtol=5e-6)


def test_e14_mean_of_20_million_float32_ones_is_1() -> None:
    """The mean of 20,000,000 float32 ones is 1, also along axis 0, where a running float32 sum would stop at 16,777,216."""
    ones = np.ones(20_000_000, np.float32)
    assert mg.Tensor.wrap(ones).mean().item() == 1.0
    assert mg.Tensor.wrap(ones.reshape(-1, 1)).mean(axis=0).item() == 1.0
    assert mg.Tensor.wrap(ones.reshape(-1, 2)).mean(axis=0).tolist() == [1.0, 1.0]


def test_e15_std_of_a_million_equal_float32_rows_is_0() -> None:
    """The standard deviation over a million equal float32 rows is 0 within 1e-4, because the mean that is subtracted is accurate."""
    rows = np.broadcast_to(np.array([100.0, -100.0], np.float32), (1_000_000, 2))
    for layout in (rows, np.ascontiguousarray(rows)):
        np.testing.assert_allclose(F.std(mg.Tensor.wrap(layout), axis=0).numpy(), [0.0, 0.0], atol=1e-4)


def test_e16_sum_and_mean_of_nothing() -> None:
    """The sum of no elements is 0 and their mean NaN, without a warning; the gradients are empty, of the input's shape."""
    x = leaf([])
    assert x.sum().item() == 0.0
    assert grad_of(x.sum(), x).shape == (0,)
    assert isnan(x.mean().item())
    assert grad_of(x.mean(), x).shape == (0,)
    rows = leaf(np.zeros((0, 3)))
    assert rows.sum(axis=0).tolist() == [0.0] * 3 and np.isnan(rows.mean(axis=0).numpy()).all()
    assert grad_of(rows.sum(axis=0), rows).shape == grad_of(rows.mean(axis=0), rows).shape == (0, 3)


def test_e17_max_over_an_empty_axis_raises_by_name() -> None:
    """`max` and `min` over an empty axis raise ShapeError (a ValueError) naming the operation and the shape; over another axis of an
    empty array they give an empty result."""
    x = mg.zeros((0, 4))
    assert x.max(axis=1).shape == x.min(axis=1).shape == (0,)
    for call, message in ((lambda: x.max(axis=0), r"max\(float32\[0, 4\]"), (x.min, r"min\(float32\[0, 4\]")):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert isinstance(error.value, ShapeError)


def test_e18_gradient_through_an_empty_broadcast_is_0_of_its_own_shape() -> None:
    """An input that was broadcast to no elements receives a gradient of zeros of its own shape."""
    x, y = leaf(np.ones((4, 0))), leaf(np.ones((4, 1)))
    np.testing.assert_array_equal(grad_of(x + y, y), np.zeros((4, 1)))
    assert grad_of(x * y, x).shape == (4, 0)
