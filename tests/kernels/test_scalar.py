"""What compiled passes compute of single numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed (the `fast` extra)")

from numba import njit

from minigrad.kernels import scalar


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Not for each kind of passes: only compiled ones have these functions."""


def test_the_exponential() -> None:
    @njit
    def exponentials(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(x.size):
            out[i] = scalar.exp(x[i])

    x = np.concatenate([np.linspace(-87.3, 0.0, 200_000), -np.logspace(-30, 0, 1000)]).astype(np.float32)
    y = np.empty_like(x)
    exponentials(x, y)
    np.testing.assert_allclose(y, np.exp(x.astype(np.float64)), rtol=1e-7)
    odd, y = np.array([0.0, -0.0, -math.inf, -1e30, -88.0, math.nan, -math.nan], np.float32), np.empty(7, np.float32)
    exponentials(odd, y)
    np.testing.assert_array_equal(y, [1.0, 1.0, 0.0, 0.0, 0.0, math.nan, math.nan])
