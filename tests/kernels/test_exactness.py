"""The fast versions keep the digits that the bodies keep: tails, large means, long sums, scores beyond the range of exp.

The judge is the body in float64 on the same float32 numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import without_kernels

import minigrad as mg
from minigrad import ops
from minigrad.backend.random import Draw
from minigrad.packing import Packing

SMALLEST = 1.2e-38
"""Below it float32 numbers are subnormal and lose digits one by one."""


def both(operation: Any, *args: np.ndarray, seed: np.ndarray | None = None, **constants: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fast float32, body in float64) of the output and of each gradient."""
    results = []
    for dtype in (np.float32, np.float64):
        leaves = [mg.Tensor(a.astype(np.float32).astype(dtype), requires_grad=True) for a in args]
        first: list[Any] = [None] if operation is ops.attention else []
        with without_kernels() if dtype is np.float64 else mg.enable_grad():
            y = operation(*first, *leaves, **constants)
            weights = np.ones(y.shape) if seed is None else seed
            found = mg.grad((y * weights.astype(dtype)).sum(), leaves)
        results.append([y.numpy(), *[g.numpy() for g in found]])
    return list(zip(*results, strict=True))


def test_gelu_keeps_its_digits_on_both_sides() -> None:
    """E31 through `dense_gelu`: value and slope within 1e-5 relative of float64 on [-12, 12]."""
    x = np.linspace(-12, 12, 4801)[:, None]
    (y, exact), (slope, exact_slope), _, _ = both(ops.dense_gelu, x, np.ones((1, 1)), np.zeros(1))
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=SMALLEST)
    near_root = np.abs(x + 0.7518) < 0.1  # the derivative crosses 0 there, so an absolute error counts
    np.testing.assert_allclose(slope[near_root], exact_slope[near_root], rtol=0.0, atol=2e-7)
    np.testing.assert_allclose(slope[~near_root], exact_slope[~near_root], rtol=1e-5, atol=SMALLEST)


def test_gelu_of_extreme_numbers() -> None:
    x = np.array([0.0, -0.0, 1e-38, -1e-38, 50.0, -50.0, 1e19, -1e19, 3e38, -3e38])[:, None]
    (y, exact), (slope, exact_slope), _, _ = both(ops.dense_gelu, x, np.ones((1, 1)), np.zeros(1))
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=SMALLEST)
    np.testing.assert_allclose(slope, exact_slope, rtol=1e-6, atol=SMALLEST)


def test_gelu_of_what_is_not_finite() -> None:
    """+inf stays, NaN stays, and neither touches its neighbours."""
    x = np.array([[np.inf], [np.nan], [1.0]], np.float32)
    with np.errstate(invalid="ignore"):
        y = ops.dense_gelu(x, np.ones((1, 1), np.float32), np.zeros(1, np.float32)).numpy()
    assert y[0] == np.inf
    assert np.isnan(y[1])
    assert y[2] == pytest.approx(0.8413447)


@pytest.mark.parametrize("width", [8, 128, 768])
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
def test_rows_with_a_large_mean_are_normalised_as_well(mean: float, width: int) -> None:
    """What float32 still holds of rows around a large mean is normalised to about 1e-6 of their spread."""
    generator = np.random.default_rng(0)
    x = (mean + generator.standard_normal((50, width))).astype(np.float32)
    gamma, beta, seed = generator.standard_normal(width), generator.standard_normal(width), generator.standard_normal((50, width))
    for ours, exact in both(ops.layer_norm, x, gamma, beta, seed=seed):
        np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=2e-5)
    zeros = np.zeros((50, 1)), np.zeros((width, 1)), np.zeros(width)
    for ours, exact in both(ops.dense_add_norm, *zeros, x, gamma, beta, seed=seed)[:1]:
        np.testing.assert_allclose(ours, exact, rtol=2e-5, atol=2e-5)


def test_sums_over_many_rows_keep_their_digits() -> None:
    """E13 as a bias gradient, over 200,000 equal rows: adding one after another in float32 would be off by 2e-3."""
    rows = 200_000
    x, weight, bias = np.zeros((rows, 1)), np.zeros((2, 1)), np.array([0.1, 0.2])
    for operation in (ops.dense_gelu, ops.linears):
        ours, exact = both(operation, x, weight, bias, seed=np.full((rows, 2), 0.1))[-1]
        np.testing.assert_allclose(ours, exact, rtol=5e-6)


@pytest.mark.parametrize("size", [1.0, 30.0, 100.0, 1000.0])
def test_scores_of_any_size(size: float) -> None:
    """Scores that exp can and cannot take; the largest decide, whatever their size."""
    generator = np.random.default_rng(0)
    qkv = generator.standard_normal((12, 3 * 2 * 4))
    qkv[:, :8] *= size
    (ours, exact), _ = both(ops.attention, qkv, packing=Packing([5, 7]), heads=2)
    # a score of size s is rounded by s · 6e-8, which moves its weight by as much
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5 + size * 3e-6)


def test_rows_of_scores_far_below_zero() -> None:
    """All scores of a row may be too small for exp: the softmax is about their differences."""
    q, k = np.full((3, 1), -20.0), np.array([[10.0], [10.1], [10.2]])
    kv = np.concatenate([q, k, np.array([[1.0], [2.0], [3.0]])], axis=1)
    (ours, exact), _ = both(ops.attention, kv, packing=Packing([3]), heads=1)
    np.testing.assert_allclose(ours, exact, rtol=1e-4)  # scores of 200 are rounded by 1.5e-5


def test_a_sequence_of_a_masked_row_alone_attends_to_nothing() -> None:
    """Zeros, and no gradient, with dropout of the weights too."""
    packing = Packing([1, 3], masked_first=[True, False])
    qkv = np.random.default_rng(0).standard_normal((4, 24))
    draw = Draw("attention", 0.3, packing, 2, packing)
    for ours, exact in both(ops.attention, qkv, packing=packing, heads=2, draw=draw):
        assert not ours[0].any() and not exact[0].any()
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)
