"""E19-E26: infinite scores, masked rows, and combined masks. Each docstring is the convention."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from edge_cases.forms import both_forms
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import nn, ops
from minigrad.packing import Packing


@both_forms
def test_e19_a_query_that_may_attend_to_nothing_gives_zeros_and_finite_gradients(form: Any) -> None:
    """A query that may attend to no key gives zeros, and every gradient of the batch is finite; no query attends to a masked first
    token."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        q, k, v = (leaf(rng.standard_normal((2, 3, 4)), dtype) for _ in range(3))
        mask = np.ones((2, 3, 3), bool)
        mask[1, 2] = False
        with form():
            out = F.scaled_dot_product_attention(q, k, v, mask=mask)
        np.testing.assert_array_equal(out.numpy()[1, 2], np.zeros(4))
        for gradient in mg.grad(out.sum(), [q, k, v]):
            assert gradient is not None and np.isfinite(gradient.numpy()).all()
        packing = Packing([3, 1, 2], masked_first=[True, True, False])  # the second sequence is one token, which is masked
        asking, kv = leaf(rng.standard_normal((6, 2)), dtype), leaf(rng.standard_normal((6, 3 * 2)), dtype)
        hidden = kv.numpy().copy()
        hidden[[0, 3], 2:] = 1e3  # keys and values of the masked first tokens
        for q, first in ((None, 2), (asking, 0)):
            with form():
                before = ops.attention(q, kv[:, 2 - first :], packing=packing, heads=1)
                after = ops.attention(q, mg.tensor(hidden)[:, 2 - first :], packing=packing, heads=1)  # laid out as before
            np.testing.assert_array_equal(after.numpy(), before.numpy())
            np.testing.assert_array_equal(before.numpy()[3], [0.0, 0.0])
            found = grad_of(before, kv)
            assert np.isfinite(found).all() and (found[[0, 3], 2:] == 0).all() and (found[[1, 2, 4, 5], 4:] != 0).all()


def test_e20_logsumexp_of_minus_infinities() -> None:
    """`logsumexp` of only -inf is -inf, with gradient 0."""
    x = leaf([[-inf, -inf], [-inf, 1.0]])
    out = F.logsumexp(x)
    np.testing.assert_array_equal(out.numpy(), [-inf, 1.0])
    np.testing.assert_array_equal(grad_of(out, x), [[0.0, 0.0], [0.0, 1.0]])


def test_e21_logsumexp_with_plus_infinity() -> None:
    """`logsumexp` with +inf is +inf; the +inf entries share the gradient, the others receive 0."""
    x = leaf([[1.0, inf], [inf, inf]])
    out = F.logsumexp(x)
    np.testing.assert_array_equal(out.numpy(), [inf, inf])
    np.testing.assert_array_equal(grad_of(out, x), [[0.0, 1.0], [0.5, 0.5]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e22_log_softmax_of_large_differences(dtype: Any) -> None:
    """`log_softmax` is exact for differences of any size, where the logarithm of a softmax would be -inf, and its gradient is finite."""
    x = leaf([1e4, 0.0], dtype)
    out = F.log_softmax(x)
    np.testing.assert_array_equal(out.numpy(), [0.0, -1e4])
    np.testing.assert_array_equal(grad_of(out * mg.Tensor(np.array([0.5, 2.0], dtype)), x), [-2.0, 2.0])


def test_e23_softmax_and_log_softmax_of_a_fully_masked_row() -> None:
    """`softmax` with a mask gives zeros for a row without an allowed entry, with gradient 0. `log_softmax` takes no mask: masked, it is
    written x - logsumexp(masked_fill(x, hidden, -inf)), which gives such a row -inf, with gradient 0. Other rows are not affected."""
    x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    mask = np.array([[False, False], [True, True], [False, True]])
    out = F.softmax(x, mask=mask)
    np.testing.assert_array_equal(out.numpy()[[0, 2]], [[0.0, 0.0], [0.0, 1.0]])
    found = grad_of(out * out, x)
    assert np.isfinite(found).all() and (found[[0, 2]] == 0).all() and (found[1] != 0).all()

    total = F.logsumexp(F.masked_fill(x, ~mask, -inf), keepdims=True)
    log_p = F.masked_fill(F.masked_fill(x, ~mask, 0.0) - total, ~mask, -inf)
    np.testing.assert_array_equal(log_p.numpy()[[0, 2]], [[-inf, -inf], [-inf, 0.0]])
    np.testing.assert_allclose(log_p.numpy()[1], F.log_softmax(x[1]).numpy(), rtol=1e-14)
    np.testing.assert_allclose(np.exp(log_p.numpy()), out.numpy(), rtol=1e-14)
    found = grad_of(F.where(mask, log_p, 0.0) * np.array([1.0, 3.0]), x)
    assert np.isfinite(found).all() and (found[[0, 2]] == 0).all() and (found[1] != 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e24_masks_are_joined_as_booleans(dtype: Any) -> None:
    """A padding mask, an extra mask and causality are combined as booleans: a key must be allowed by each. No constants are summed, so
    nothing overflows, and a query to which the masks together leave no key gives zeros."""
    rng = np.random.default_rng(1)
    q, k, v = (leaf(rng.standard_normal((2, 4, 3)) * 1e4, dtype) for _ in range(3))
    padding = np.array([[1, 1, 1, 0], [0, 0, 1, 1]])[:, None, :]
    extra = rng.random((2, 4, 4)) < 0.7
    extra[0, 2] = [False, False, False, True]  # its only key is padding
    with np.errstate(over="raise", invalid="raise"):
        out = F.scaled_dot_product_attention(q, k, v, mask=(padding != 0) & extra, causal=True)
        found = mg.grad(out.sum(), [q, k, v])
    joined = (padding != 0) & extra & np.tri(4, dtype=bool)
    np.testing.assert_array_equal(out.numpy(), F.scaled_dot_product_attention(q, k, v, mask=joined).numpy())
    assert np.isfinite(out.numpy()).all() and not out.numpy()[0, 2].any() and not out.numpy()[1, :2].any()
    assert all(g is not None and np.isfinite(g.numpy()).all() for g in found)

    layer = nn.MultiHeadAttention(4, 2, causal=True).to(np.dtype(dtype).name)
    x, real = leaf(rng.standard_normal((2, 5, 4)), dtype), np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]])
    y = layer(x, attention_mask=real)
    for row, length in ((0, 3), (1, 4)):
        places = np.flatnonzero(real[row])
        for t in range(len(places)):  # each row sees the real rows up to its own, whatever the others hold
            alone = layer(x.detach()[row : row + 1, places[: t + 1]])
            np.testing.assert_allclose(y.numpy()[row, places[t]], alone.numpy()[0, -1], atol=1e-6 if dtype is np.float32 else 1e-14)
        assert not y.numpy()[row, length:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e25_no_score_is_low_enough_to_be_outvoted_by_a_masked_one(dtype: Any) -> None:
    """A masked key has exactly the weight 0, however low the allowed scores are: a mask is not a constant such as -1e4 added to scores."""
    scores = leaf([[-1e6, -1e6 - 1.0, 0.0], [-1e30, 1e30, 1e4]], dtype)
    weights = F.softmax(scores, mask=[[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(weights.numpy()[:, 2], [0.0, 0.0])
    np.testing.assert_allclose(weights.numpy()[0, :2], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], rtol=1e-6)
    np.testing.assert_array_equal(weights.numpy()[1], [1.0, 0.0, 0.0])
    assert (grad_of(weights * weights, scores)[:, 2] == 0).all()

    x = np.array([[1e4, -1e4, 1.0], [-1e4, 1e4, 2.0]], dtype)  # Q | K | V: row 0 scores -1e8 with itself, +1e8 with row 1
    y = ops.attention(None, x, packing=Packing([2]), heads=1, causal=True)
    np.testing.assert_array_equal(y.numpy(), [[1.0], [1.0]])
    q, k, v = (x[:, i : i + 1] for i in range(3))
    np.testing.assert_array_equal(F.scaled_dot_product_attention(q, k, v, causal=True).numpy(), [[1.0], [1.0]])
    np.testing.assert_array_equal(F.scaled_dot_product_attention(q, k, v, mask=[[True, False], [True, False]]).numpy(), [[1.0], [1.0]])


@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_e26_softmax_rows_sum_to_1(size: float) -> None:
    """The rows of a softmax sum to 1 within 1e-6 for float32 inputs up to ±1e30, and for rows of length 1, which are exactly 1."""
    rng = np.random.default_rng(0)
    for width in (1, 2, 17):
        x = mg.Tensor(rng.uniform(-size, size, (50, width)).astype(np.float32))
        for rows in (F.softmax(x), F.softmax(x, mask=np.ones((50, width), bool)), F.softmax(x.T, axis=0).T):
            np.testing.assert_allclose(rows.sum(axis=-1).numpy(), np.ones(50), atol=1e-6 if width > 1 else 0.0, rtol=0.0)
