"""E27-E30: rows with a large mean, constant rows, and variances. Each docstring is the convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_cases.forms import both_forms
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import shapes
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F


@both_forms
@pytest.mark.parametrize("mean", [0.0, 100.0, 1e3, 1e4])
def test_e27_layer_norm_keeps_its_digits_for_rows_with_a_large_mean(mean: float, form: Any) -> None:
    """`layer_norm` in float32 is within 1e-5 of the float64 result for rows with a mean of 10,000 and steps of 0.001: the mean is
    subtracted twice."""
    rows = (mean + np.arange(768) * 1e-3 + np.zeros((4, 1))).astype(np.float32)
    with form():
        found = F.layer_norm(mg.Tensor(rows), mg.ones(768), mg.zeros(768)).numpy()
    double = rows.astype(np.float64)
    centred = double - double.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12), rtol=0.0, atol=1e-5)


@both_forms
def test_e28_layer_norm_of_40000_and_the_next_three(form: Any) -> None:
    """`layer_norm` of [40000, 40001, 40002, 40003] is [-1.3416, -0.4472, 0.4472, 1.3416]: only differences from the mean are squared."""
    with form():
        found = F.layer_norm(mg.Tensor([[40000.0, 40001.0, 40002.0, 40003.0]]), mg.ones(4), mg.zeros(4))
    np.testing.assert_allclose(found.numpy(), [np.array([-3.0, -1.0, 1.0, 3.0]) / np.sqrt(5.0)], rtol=1e-6)


@both_forms
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e29_layer_norm_of_a_constant_row_is_the_bias(dtype: Any, form: Any) -> None:
    """`layer_norm` of a constant row is the bias, with finite gradients: eps is added to the variance before the root."""
    x, weight, bias = leaf(np.full((2, 3), 0.1), dtype), leaf([1.0, 2.0, 3.0], dtype), leaf([4.0, 5.0, 6.0], dtype)
    with form(), np.errstate(over="raise", invalid="raise", divide="raise"):
        out = F.layer_norm(x, weight, bias)
        gradients = mg.grad((out * out).sum(), [x, weight, bias])
    np.testing.assert_allclose(out.numpy(), np.broadcast_to(bias.numpy(), (2, 3)), rtol=0.0, atol=1e-9)
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in gradients)


@given(st.data())
def test_e30_variance_is_never_negative(data: st.DataObject) -> None:
    """A variance is a mean of squared differences and never negative, so no standard deviation is NaN; that of equal numbers is 0, except
    for the rounding of their mean."""
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(9999.0, 10001.0, width=32)))
    assert (mg.Tensor(x).var(axis=-1).numpy() >= 0).all()
    assert np.isfinite(F.std(mg.Tensor(x), axis=-1).numpy()).all()
    same = leaf(np.full((1000, 2), x.flat[0]), np.float32)
    # The mean of 1000 float32 numbers near 10,000 is off by at most four units in the last place of 1e-3 each.
    np.testing.assert_allclose(same.var(axis=0).numpy(), [0.0, 0.0], rtol=0.0, atol=(4 * np.spacing(np.float32(10_001))) ** 2)
    assert np.isfinite(grad_of(F.std(same, axis=0), same)).all()
