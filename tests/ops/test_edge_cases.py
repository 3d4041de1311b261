"""Edge cases by number (e01, e02, …): ties, kinks, infinities, empty arrays, large means, long sums, wrong indices.

Finite differences cannot judge most of them, so each convention is a test of its own. The numbers are those of the project's list of
known failures of other libraries.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import inf, isnan
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import axes, broadcastable, shapes
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.op import REGISTRY
from minigrad.packing import Packing

both_forms = pytest.mark.parametrize("form", [nullcontext, mg.higher_order], ids=["kernel", "body"])
"""Inside `higher_order` the readable body runs, outside of it the fast kernel where there is one."""


# ---------------------------------------------------------------- ties and kinks
def test_e01_equal_maxima_share_the_gradient() -> None:
    x = leaf([2.0, 2.0, 1.0])
    np.testing.assert_array_equal(grad_of(x.max(), x), [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(grad_of((-x).min(), x), [-0.5, -0.5, 0.0])


@given(st.data())
def test_e02_gradient_of_max_sums_to_the_upstream_gradient(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x = leaf(data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, -0.0, 1.0, inf, -inf]))))
    axis = data.draw(axes(len(shape)))
    found = mg.grad(x.max(axis=axis), x, np.full(np.max(x.numpy(), axis=axis).shape, 3.0)).numpy()
    np.testing.assert_allclose(found.sum(axis=axis), np.full(np.max(x.numpy(), axis=axis).shape, 3.0), rtol=1e-12)


def test_e03_maximum_at_equality_gives_half_to_each_side() -> None:
    x, y = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    np.testing.assert_array_equal(grad_of(F.maximum(x, y), x), [0.5, 1.0])
    np.testing.assert_array_equal(grad_of(F.maximum(x, y), y), [0.5, 0.0])
    np.testing.assert_array_equal(grad_of(F.minimum(x, 1), x), [0.5, 0.0])


def test_e04_a_maximum_shared_by_70000_float16_values_is_counted_in_integers() -> None:
    x = mg.Tensor(np.ones(70_000, np.float16), requires_grad=True)
    assert (grad_of(x.max() * 60_000.0, x) > 0).all()


def test_e05_max_plus_x_has_the_sum_of_the_two_gradients() -> None:
    x = leaf([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(grad_of(x.max() + x, x), grad_of(x.max() * 3.0, x) + grad_of(x, x))


def test_e06_relu_and_absolute_have_slope_0_at_0() -> None:
    x = leaf([0.0, -0.0, 1.0, -1.0])
    np.testing.assert_array_equal(grad_of(F.relu(x), x), [0, 0, 1, 0])
    np.testing.assert_array_equal(grad_of(abs(x), x), [0, 0, 1, -1])


# ---------------------------------------------------------------- reductions
def test_e11_std_of_a_constant_vector_has_gradient_0() -> None:
    x = leaf([0.1] * 5)
    np.testing.assert_array_equal(grad_of(F.std(x), x), np.zeros(5))


def test_e12_var_of_one_element_with_ddof_1_is_nan_of_the_right_shape() -> None:
    x = leaf([[3.0], [4.0]])
    assert np.isnan(x.var(axis=1, ddof=1).numpy()).all()
    assert grad_of(x.var(axis=1, ddof=1), x).shape == (2, 1)


@both_forms
def test_e13_long_float32_sums_and_bias_gradients_keep_their_digits(form: Any) -> None:
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
    ones = np.ones(20_000_000, np.float32)
    assert mg.Tensor.wrap(ones).mean().item() == 1.0
    assert mg.Tensor.wrap(ones.reshape(-1, 1)).mean(axis=0).item() == 1.0
    assert mg.Tensor.wrap(ones.reshape(-1, 2)).mean(axis=0).tolist() == [1.0, 1.0]


def test_e15_std_of_a_million_equal_float32_rows_is_0() -> None:
    rows = mg.Tensor.wrap(np.broadcast_to(np.array([100.0, -100.0], np.float32), (1_000_000, 2)))
    np.testing.assert_allclose(F.std(rows, axis=0).numpy(), [0.0, 0.0], atol=1e-4)


def test_e16_sum_and_mean_of_nothing() -> None:
    x = leaf([])
    assert x.sum().item() == 0.0
    assert grad_of(x.sum(), x).shape == (0,)
    assert isnan(x.mean().item())
    assert grad_of(x.mean(), x).shape == (0,)


def test_e17_max_over_an_empty_axis_raises_by_name() -> None:
    x = mg.zeros((0, 4))
    assert x.max(axis=1).shape == (0,)
    with pytest.raises(ShapeError, match=r"max\(float32\[0, 4\]"):
        x.max(axis=0)
    with pytest.raises(ShapeError, match="min"):
        x.min()


def test_e18_gradient_through_an_empty_broadcast_is_0_of_its_own_shape() -> None:
    x, y = leaf(np.ones((4, 0))), leaf(np.ones((4, 1)))
    np.testing.assert_array_equal(grad_of(x + y, y), np.zeros((4, 1)))


# ---------------------------------------------------------------- softmax and its kin
def test_e19_a_query_that_may_attend_to_nothing_gives_zeros_and_finite_gradients() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (leaf(rng.standard_normal((2, 3, 4))) for _ in range(3))
    mask = np.ones((2, 3, 3), bool)
    mask[1, 2] = False
    out = F.scaled_dot_product_attention(q, k, v, mask=mask)
    np.testing.assert_array_equal(out.numpy()[1, 2], np.zeros(4))
    for gradient in mg.grad(out.sum(), [q, k, v]):
        assert gradient is not None and np.isfinite(gradient.numpy()).all()


def test_e19_masked_first_tokens_are_attended_to_by_nobody() -> None:
    packing = Packing([3, 2], masked_first=[True, False])
    kv = leaf(np.random.default_rng(0).standard_normal((5, 3 * 2)))
    before = ops.attention(None, kv, packing=packing, heads=1)
    changed = kv.numpy().copy()
    changed[0, 2:] = 1e3  # keys and values of the masked first token
    np.testing.assert_array_equal(ops.attention(None, changed, packing=packing, heads=1).numpy(), before.numpy())
    assert (grad_of(before, kv)[0, 2:] == 0).all()


def test_e20_logsumexp_of_minus_infinities() -> None:
    x = leaf([-inf, -inf])
    out = F.logsumexp(x)
    assert out.item() == -inf
    np.testing.assert_array_equal(grad_of(out, x), [0.0, 0.0])


def test_e21_logsumexp_with_plus_infinity() -> None:
    x = leaf([[1.0, inf], [inf, inf]])
    out = F.logsumexp(x)
    np.testing.assert_array_equal(out.numpy(), [inf, inf])
    np.testing.assert_array_equal(grad_of(out, x), [[0.0, 1.0], [0.5, 0.5]])


def test_e22_log_softmax_of_large_differences() -> None:
    x = leaf([1e4, 0.0])
    out = F.log_softmax(x)
    np.testing.assert_array_equal(out.numpy(), [0.0, -1e4])
    assert np.isfinite(grad_of(out * mg.Tensor([0.5, 2.0]), x)).all()


def test_e23_softmax_of_a_fully_masked_row() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    out = F.softmax(x, mask=np.array([[False, False], [True, True]]))
    np.testing.assert_array_equal(out.numpy()[0], [0.0, 0.0])
    found = grad_of(out * out, x)
    assert np.isfinite(found).all() and (found[0] == 0).all() and (found[1] != 0).all()


@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_e26_softmax_rows_sum_to_1(size: float) -> None:
    rng = np.random.default_rng(0)
    for width in (1, 2, 17):
        rows = F.softmax(mg.Tensor(rng.uniform(-size, size, (50, width)).astype(np.float32)))
        np.testing.assert_allclose(rows.sum(axis=-1).numpy(), np.ones(50), atol=1e-6)


# ---------------------------------------------------------------- normalisation
@both_forms
@pytest.mark.parametrize("mean", [0.0, 100.0, 1e3, 1e4])
def test_e27_layer_norm_keeps_its_digits_for_rows_with_a_large_mean(mean: float, form: Any) -> None:
    rows = (mean + np.arange(768) * 1e-3 + np.zeros((4, 1))).astype(np.float32)
    with form():
        found = F.layer_norm(mg.Tensor(rows), mg.ones(768), mg.zeros(768)).numpy()
    double = rows.astype(np.float64)
    centred = double - double.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12), atol=1e-5)


@both_forms
def test_e28_layer_norm_of_40000_and_the_next_three(form: Any) -> None:
    with form():
        found = F.layer_norm(mg.Tensor([[40000.0, 40001.0, 40002.0, 40003.0]]), mg.ones(4), mg.zeros(4))
    np.testing.assert_allclose(found.numpy(), [[-1.3416, -0.4472, 0.4472, 1.3416]], atol=1e-4)


def test_e29_layer_norm_of_a_constant_row_is_the_bias() -> None:
    x, weight, bias = leaf(np.full((2, 3), 0.1)), leaf([1.0, 2.0, 3.0]), leaf([4.0, 5.0, 6.0])
    out = F.layer_norm(x, weight, bias)
    np.testing.assert_allclose(out.numpy(), np.broadcast_to(bias.numpy(), (2, 3)), atol=1e-9)
    for gradient in mg.grad((out * out).sum(), [x, weight, bias]):
        assert gradient is not None and np.isfinite(gradient.numpy()).all()


@given(st.data())
def test_e30_variance_is_never_negative(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(9999.0, 10001.0, width=32)))
    assert (mg.Tensor(x).var(axis=-1).numpy() >= 0).all()


# ---------------------------------------------------------------- elementwise
GRID = np.linspace(-12.0, 12.0, 4801)


def exact_gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """gelu and its derivative in float64, by SciPy."""
    return x * scipy.special.ndtr(x), scipy.special.ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def test_e31_exact_gelu_keeps_its_digits_in_float32() -> None:
    x32 = GRID.astype(np.float32)
    value, slope = exact_gelu(x32.astype(np.float64))
    x = mg.Tensor(x32, requires_grad=True)
    np.testing.assert_allclose(F.gelu(x).numpy(), value, rtol=1e-5, atol=1e-37)
    near_root = np.abs(x32 + 0.7518) < 0.1  # the derivative crosses 0 there, so an absolute error counts
    found = grad_of(F.gelu(x), x)
    np.testing.assert_allclose(found[near_root], slope[near_root], atol=2e-7)
    np.testing.assert_allclose(found[~near_root], slope[~near_root], rtol=1e-5, atol=1e-37)


def test_e32_tanh_gelu_keeps_its_digits_far_to_the_left() -> None:
    x32 = np.linspace(-8.0, -4.0, 401).astype(np.float32)
    x = x32.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    np.testing.assert_allclose(
        F.gelu(mg.Tensor(x32), approximate="tanh").numpy(), x * scipy.special.expit(2 * inner), rtol=5e-5, atol=1e-37
    )


def test_e33_the_two_forms_of_gelu_are_close_and_differ() -> None:
    exact, tanh = F.gelu(mg.Tensor(GRID)).numpy(), F.gelu(mg.Tensor(GRID), approximate="tanh").numpy()
    assert 1e-5 < np.abs(exact - tanh).max() <= 5e-4
    np.testing.assert_allclose(exact, exact_gelu(GRID)[0], rtol=1e-12, atol=1e-300)
    with pytest.raises(MinigradError, match='"none" or "tanh"'):
        F.gelu(mg.Tensor(GRID), approximate="erf")


def test_e34_powers_of_0() -> None:
    x = leaf([0.0, 2.0])
    np.testing.assert_array_equal(grad_of(x**0, x), [0.0, 0.0])
    np.testing.assert_array_equal(grad_of(x ** mg.Tensor(np.zeros(2)), x), [0.0, 0.0])
    b = leaf([2.0, 0.5])
    np.testing.assert_array_equal(grad_of(0.0**b, b), [0.0, 0.0])
    np.testing.assert_array_equal(grad_of(mg.Tensor(np.zeros(2)) ** b, b), [0.0, 0.0])


def test_mixed_second_derivative_of_a_power_at_exponent_0() -> None:
    x, y = leaf(1.5), leaf(0.0)
    with mg.higher_order():
        by_x = mg.grad(x**y, x, create_graph=True)
        assert by_x is not None
        assert grad_of(by_x, y) == pytest.approx(1 / 1.5, rel=1e-15)  # d²(xʸ)/dx dy = (1 + y ln x) / x at y = 0


def test_e35_sqrt_at_0_has_an_infinite_slope() -> None:
    x = leaf([0.0])
    with np.errstate(divide="ignore"):
        assert grad_of(F.sqrt(x), x) == inf


def test_e37_where_sends_exactly_0_to_the_branch_not_taken() -> None:
    x = leaf([0.0, 1.0])
    safe = F.where(x.data > 0, x, 1.0)  # the documented idiom: make the input safe first
    np.testing.assert_array_equal(grad_of(F.where(x.data > 0, F.log(safe), 0.0), x), [0.0, 1.0])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "erf", "erfc", "gelu", "relu"])
def test_e38_saturating_functions_are_finite_far_out_and_silent(name: str) -> None:
    for dtype in (np.float32, np.float64):
        x = leaf([-1e4, -100.0, 100.0, 1e4], dtype)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            out = REGISTRY[name](x)
            assert np.isfinite(out.numpy()).all() and np.isfinite(grad_of(out, x)).all()


# ---------------------------------------------------------------- broadcasting, indexing, matrix products
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum"])
@given(sides=broadcastable(2, max_side=3))
def test_e39_gradients_have_the_shapes_of_their_inputs(name: str, sides: list[tuple[int, ...]]) -> None:
    x, y = (leaf(np.full(s, 1.0 + i)) for i, s in enumerate(sides))
    out = REGISTRY[name](x, y)
    assert [g.shape if g is not None else None for g in mg.grad(out.sum(), [x, y])] == [x.shape, y.shape]


def test_e40_a_scalar_times_a_vector_has_a_scalar_gradient() -> None:
    x, v = leaf(2.0), leaf([1.0, 2.0, 3.0])
    found = mg.grad((x * v).sum(), x)
    assert found is not None and found.shape == () and found.item() == 6.0


def test_e41_a_repeated_index_accumulates() -> None:
    x = leaf([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(grad_of(x[[0, 0, 1]], x), [2.0, 1.0, 0.0])
    table = leaf(np.ones((3, 2)))
    np.testing.assert_array_equal(grad_of(F.embedding([[0, 0], [1, 0]], table), table), [[3.0, 3.0], [1.0, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize("ids", [[0, -1], [3], [[0, 1], [2, 7]]], ids=str)
def test_e42_ids_outside_the_table_are_named(ids: Any) -> None:
    wrong = next(i for i in np.ravel(ids) if not 0 <= i < 3)
    with pytest.raises(IndexRangeError, match=rf"value {wrong} at place \d+ is outside 0\.\.2"):
        F.embedding(ids, mg.zeros((3, 2)))


def test_e42_ids_must_be_integers() -> None:
    with pytest.raises(DTypeError, match="float"):
        F.embedding(np.array([0.0, 1.0]), mg.zeros((3, 2)))
    with pytest.raises(DTypeError, match="bool"):
        F.embedding(np.array([True]), mg.zeros((3, 2)))


@pytest.mark.parametrize("count", [10, 10_000])
def test_e43_a_row_that_no_id_names_has_gradient_0(count: int) -> None:
    table = leaf(np.ones((4, 3)))
    found = grad_of(F.embedding(np.arange(count) % 3 + 1, table), table)
    assert (found[0] == 0).all() and found[1:].sum() == 3 * count


@pytest.mark.parametrize(
    ("a", "b"),
    [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2)), ((4, 2, 3), (3,)), ((2, 0), (0, 3))],
    ids=str,
)
def test_e44_matmul_of_every_rank(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = leaf(rng.standard_normal(a)), leaf(rng.standard_normal(b))
    assert mg.gradcheck(F.matmul, [x, y], order=2)
    np.testing.assert_allclose((x @ y).numpy(), x.numpy() @ y.numpy(), rtol=1e-14)


def test_e45_the_same_tensor_on_both_sides_of_a_product() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert mg.gradcheck(lambda x: x @ x, x, order=2)
    np.testing.assert_allclose(grad_of(x @ x, x), np.ones((2, 2)) @ x.numpy().T + x.numpy().T @ np.ones((2, 2)))


def test_e46_broadcast_to_is_undone_by_a_sum() -> None:
    x = leaf([[1.0], [2.0]])
    np.testing.assert_array_equal(grad_of(F.broadcast_to(x, (3, 2, 4)), x), [[12.0], [12.0]])


# ---------------------------------------------------------------- losses
def test_e53_cross_entropy_without_a_label_is_nan_with_gradient_0() -> None:
    logits = leaf(np.ones((2, 3)))
    loss = F.cross_entropy(logits, [-100, -100])
    assert isnan(loss.item())
    np.testing.assert_array_equal(grad_of(loss, logits), np.zeros((2, 3)))


@pytest.mark.parametrize("label", [3, -1, -4])
def test_e54_a_label_outside_the_classes_is_named(label: int) -> None:
    with pytest.raises(IndexRangeError, match=f"value {label} at place 1 is outside 0..2"):
        F.cross_entropy(mg.zeros((4, 3)), [0, label, -100, 2])


def test_e54_the_place_of_a_wrong_label_counts_ignored_rows() -> None:
    with pytest.raises(IndexRangeError, match="value 9 at place 2 "):
        F.cross_entropy(mg.zeros((3, 3)), [-100, 0, 9])


def test_e55_losses_of_parts_with_a_common_denominator_add_up() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 3)), np.array([0, -100, 2, 1, -100, -100])
    whole = leaf(logits)
    expected = F.cross_entropy(whole, labels)
    parts = leaf(logits)
    total = sum((ops.cross_entropy(parts[a:b], labels[a:b], denominator=3) for a, b in ((0, 2), (2, 3), (3, 6))), mg.Tensor(0.0))
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad_of(total, parts), grad_of(expected, whole), rtol=1e-12)
