"""The update of elements that never had a gradient, on which the rows of a table rely, is exactly that of the dense rule."""

from __future__ import annotations

import numpy as np
import pytest
from optim.reference import CASES, Case, feed_rows
from optim.test_table import ROWS, WIDTH

import minigrad as mg

ZERO_EPS = [
    Case(mg.optim.Adam, {"eps": 0.0}),
    Case(mg.optim.AdamW, {"eps": 0.0}),
    Case(mg.optim.Adagrad, {"eps": 0.0}),
    Case(mg.optim.Adagrad, {"eps": 0.0, "initial_accumulator_value": 0.5}),
    Case(mg.optim.RMSprop, {"eps": 0.0}),
    Case(mg.optim.RMSprop, {"eps": 0.0, "momentum": 0.5, "centered": True}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [*CASES, *ZERO_EPS], ids=str)
def test_the_idle_factor_is_what_the_dense_rule_does(case: Case, dtype: str) -> None:
    """Values of every kind and both signs, 0, -0 and infinity among them, through three steps with zero gradients."""
    generator = np.random.default_rng(12)
    start = np.concatenate([generator.standard_normal(50), [0.0, -0.0, np.inf, -np.inf, 1e-15, 1e15]]).astype(dtype)
    p = mg.Parameter(start)
    optimizer = case.optimizer([p], lr=0.05, **case.options)
    factor = optimizer.idle_factor(optimizer.param_groups[0])
    expected = start.copy()
    with np.errstate(invalid="ignore"):  # 0/0 with eps 0, infinity minus infinity where decay is an L2 term
        for _ in range(3):
            p.leaf.grad = p.leaf.view
            p.leaf.view[...] = 0
            optimizer.step()
            if factor is not None:
                expected *= np.dtype(dtype).type(factor)
    if factor is None:
        assert not np.array_equal(p.numpy(), start)  # it does something, so None is no waste
    else:
        np.testing.assert_array_equal(p.numpy(), expected)
        np.testing.assert_array_equal(np.signbit(p.numpy()), np.signbit(expected))


@pytest.mark.parametrize("case", ZERO_EPS, ids=str)
def test_without_eps_a_table_is_nan_where_the_dense_rule_is(case: Case) -> None:
    start = np.random.default_rng(13).standard_normal((ROWS, WIDTH))
    rows, dense = mg.Parameter(start, gathered=True), mg.Parameter(start)
    for p in (rows, dense):
        optimizer = case.optimizer([p], lr=0.05, **case.options)
        feed_rows(p, np.array([5, 7]), np.ones((2, WIDTH)))
        with np.errstate(invalid="ignore"):  # 0/0
            optimizer.step()
    np.testing.assert_array_equal(rows.numpy(), dense.numpy())
    assert np.isnan(rows.numpy()[6]).all() == (case.options.get("initial_accumulator_value") is None)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_a_variance_that_rounding_would_make_negative_is_zero(alpha: float) -> None:
    """A constant gradient, for long: the mean square and the squared mean become equal but for rounding."""
    p = mg.Parameter(np.random.default_rng(14).standard_normal(1000))
    g = np.random.default_rng(15).standard_normal(1000)
    optimizer = mg.optim.RMSprop([p], lr=1e-3, alpha=alpha, eps=1e-2, centered=True)
    negative = False
    for _ in range(400):
        (p * g).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        square, mean = optimizer.moments["square_avg"], optimizer.moments["grad_avg"]
        negative = negative or bool((square - mean * mean < 0).any())
    assert negative or alpha == 0  # the case is real; with alpha 0 the two are equal to the last bit
    assert np.isfinite(p.numpy()).all()
