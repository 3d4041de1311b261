"""Values of elementwise functions, reductions, functions without a gradient and creation: functions with a NumPy name equal NumPy's in
value, shape and dtype. Conventions that finite differences cannot check have numbered tests in `edge_cases/`.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import PUBLIC
from ops.test_values import numbers, promoted, same
from strategies import axes, broadcastable, shapes
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.op import REGISTRY

FLOATS = (np.float32, np.float64)
DTYPES = (*FLOATS, np.int64)


# ---------------------------------------------------------------- elementwise
@pytest.mark.parametrize("name", ["expm1", "log1p", "square", "sin", "cos"])
@given(data=st.data())
def test_unary_functions_equal_numpy(name: str, data: st.DataObject) -> None:
    x = data.draw(numbers(data.draw(shapes()), data.draw(st.sampled_from(DTYPES)), 0.0 if name == "log1p" else -20.0, 20.0))
    same(getattr(F, name)(mg.Tensor(x)), getattr(np, name)(*promoted(name, x) if REGISTRY[name].promotes else (x,)))


@given(data=st.data())
def test_clip_equals_numpy(data: st.DataObject) -> None:
    x = data.draw(numbers(data.draw(shapes()), data.draw(st.sampled_from(DTYPES))))
    low, high = data.draw(st.sampled_from([(-3, 7), (2, None), (None, -2), (-0.5, 1.5), (None, 0.25), (5, 1)]))
    broken = x.dtype.kind == "i" and isinstance(low if high is None else high, float)  # the documented rule: float32
    same(F.clip(mg.Tensor(x), low, high), np.clip(x.astype(np.float32) if broken else x, low, high))


def test_clip_keeps_float32_whatever_kind_of_number_the_bound_is() -> None:
    assert F.clip(mg.ones(2), np.float64(0.5), np.float32(2.0)).dtype == np.float32
    assert F.clip([1, 2], max=np.int64(1)).dtype == np.int64


@pytest.mark.parametrize("bounds", [(None, None), ("0", None), (mg.ones(1), None)], ids=str)
def test_clip_refuses_what_is_no_bound(bounds: Any) -> None:
    with pytest.raises(ArgumentError, match="clip"):
        F.clip(mg.ones(2), *bounds)


@given(data=st.data())
def test_ldexp_equals_numpy(data: st.DataObject) -> None:
    a, b = data.draw(broadcastable(2))
    x, k = data.draw(numbers(a, data.draw(st.sampled_from(DTYPES)))), data.draw(numbers(b, np.int64, -20, 20))
    same(F.ldexp(mg.Tensor(x), k), np.ldexp(x.astype(np.float32) if x.dtype.kind == "i" else x, k))


SPECIAL: dict[str, Any] = {
    "silu": lambda x: x * scipy.special.expit(x),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
}


@pytest.mark.parametrize("name", sorted(SPECIAL))
@given(data=st.data())
def test_functions_that_numpy_lacks(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(numbers(data.draw(shapes()), dtype, 1.0 if name == "rsqrt" else -50.0, 50.0))
    kind = np.float32 if dtype is np.int64 else dtype
    exact = np.asarray(SPECIAL[name](x.astype(np.float64))).astype(kind)
    same(getattr(F, name)(mg.Tensor(x)), exact, rtol=100 * float(np.finfo(kind).eps), atol=float(np.finfo(kind).tiny))  # e⁻⁵⁰ of a float32


def test_silu_and_softplus_end_in_0_and_x() -> None:
    x = mg.Tensor([-1e4, 1e4])
    np.testing.assert_array_equal(F.silu(x).numpy(), np.float32([0.0, 1e4]))
    np.testing.assert_array_equal(F.softplus(x).numpy(), np.float32([0.0, 1e4]))


# ---------------------------------------------------------------- reductions
@given(data=st.data())
def test_prod_equals_numpy(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(shapes(max_size=12))
    x, axis, keepdims = data.draw(numbers(shape, dtype, -8.0, 8.0)), data.draw(axes(len(shape))), data.draw(st.booleans())
    expected = np.prod(x, axis=axis, keepdims=keepdims)
    if dtype is np.int64:
        return same(F.prod(mg.Tensor(x), axis=axis, keepdims=keepdims), expected)
    kind = np.finfo(dtype)
    lost = float(kind.smallest_subnormal) * 8.0**12  # the error of a partial product that underflows, times the others
    return same(F.prod(mg.Tensor(x), axis=axis, keepdims=keepdims), expected, rtol=24 * float(kind.eps), atol=lost)


@given(data=st.data())
def test_cumsum_equals_numpy(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1))
    x, axis = data.draw(numbers(shape, data.draw(st.sampled_from(DTYPES)))), data.draw(st.integers(-len(shape), len(shape) - 1))
    same(F.cumsum(mg.Tensor(x), axis=axis), np.cumsum(x, axis=axis))


@given(data=st.data())
def test_norm_equals_numpy(data: st.DataObject) -> None:
    dtype, ord = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([1, 2, inf]))
    shape = data.draw(shapes(min_side=1 if ord == inf else 0))
    x, axis, keepdims = data.draw(numbers(shape, dtype)), data.draw(axes(len(shape))), data.draw(st.booleans())
    kind = np.float32 if dtype is np.int64 else dtype
    expected = _vector_norm(x.astype(np.float64), ord, axis, keepdims).astype(kind)
    same(F.norm(mg.Tensor(x), ord=ord, axis=axis, keepdims=keepdims), expected, rtol=32 * float(np.finfo(kind).eps))


def _vector_norm(x: np.ndarray, ord: float, axis: Any, keepdims: bool) -> np.ndarray:
    if axis == ():  # every element is a vector of its own; NumPy's function fails there
        return np.abs(x)
    return np.asarray(np.linalg.vector_norm(x, ord=ord, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.cumsum(x, axis=2), lambda x: F.prod(x, axis=2), lambda x: F.norm(x, axis=2), lambda x: F.sum(x, axis=(0, 0)),
        lambda x: F.prod(x, axis=(0, 0)), lambda x: F.argmax(x, axis=2), lambda x: F.argsort(x, axis=2),
        lambda x: F.norm(x[:0], ord=inf), lambda x: F.argmin(x[:0]), lambda x: F.cumsum(x.sum(), axis=0),
    ],
)  # fmt: skip
def test_an_axis_that_cannot_be_reduced_is_a_shape_error(call: Any) -> None:
    with pytest.raises(ShapeError):
        call(mg.ones((2, 3)))


def test_wrong_options_of_reductions_are_named() -> None:
    with pytest.raises(ArgumentError, match="ord is 1, 2 or inf, not 3"):
        F.norm(mg.ones(3), ord=3)
    with pytest.raises(ArgumentError, match="ord is 1, 2 or inf, not array"):
        F.norm(mg.ones(3), ord=np.ones(2))
    with pytest.raises(DTypeError, match="argmin"):
        F.argmin(mg.ones(3), axis=10**30)
    with pytest.raises(ArgumentError, match="axis is one integer, not None"):
        F.cumsum(mg.ones(3), axis=None)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_the_slope_of_a_quotient_squares_nothing(size: float) -> None:
    """y² would underflow or overflow in float32 and make -x / y² infinite or 0, unlike -(x / y) / y."""
    x, y = leaf([3.0 * size], np.float32), leaf([size], np.float32)
    np.testing.assert_allclose(grad_of(x / y, y), [-3.0 / size], rtol=1e-6)


@pytest.mark.parametrize("layout", ["C", "F"])
def test_sums_keep_six_digits_of_float32_in_any_layout(layout: Any) -> None:
    """NumPy adds the last axis of a transposed array row after row, which loses three digits over 100,000 rows."""
    x = mg.Tensor.wrap(np.asarray(np.full((3, 100_000), 0.1, np.float32), order=layout))
    noise = mg.Tensor.wrap(np.asarray(np.random.default_rng(0).uniform(size=(3, 100_000)), np.float32, order=layout))
    for found in (x.sum(axis=-1) / 1e4, x.mean(axis=1) * 10.0, F.softmax(noise.T, axis=0).numpy().sum(axis=0, dtype=np.float64)):
        np.testing.assert_allclose(np.asarray(found), 1.0, rtol=2e-6)
    exact = scipy.special.logsumexp(noise.numpy().astype(np.float64), axis=1)
    np.testing.assert_allclose(F.logsumexp(noise.T, axis=0).numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_numbers_have_no_variance_and_a_deviation_without_slope(dtype: Any) -> None:
    """Even if their computed mean is not exactly their value."""
    for number in (0.1, 10000.1, 1e30):
        x = leaf(np.full((2, 7), number), dtype)
        for axis in (None, 0, 1, (0, 1)):
            assert not F.var(x, axis=axis).numpy().any() and not grad_of(F.std(x, axis=axis), x).any()


def test_a_variance_far_from_0_keeps_its_digits() -> None:
    x = (1e4 + 0.01 * np.arange(8)).astype(np.float32)
    assert F.var(mg.Tensor(x)).item() == pytest.approx(np.var(x.astype(np.float64)), rel=1e-6)


def test_counts_and_axes_may_be_numpys_integers() -> None:
    assert F.one_hot([0, 2], np.int64(3)).shape == (2, 3)
    same(F.cumsum(mg.ones((2, 3)), axis=np.int64(1)), np.cumsum(np.ones((2, 3), np.float32), axis=1))
    assert F.group_norm(mg.ones((2, 4)), np.int64(2)).shape == (2, 4)


def test_a_product_does_not_depend_on_the_order_of_huge_and_tiny_factors() -> None:
    for factors in ([1e30, 1e30, 1e-30, 1e-30], [1e-30, 1e-30, 1e30, 1e30]):
        x = leaf(factors, np.float32)
        assert F.prod(x).item() == pytest.approx(1.0, rel=1e-6)
        np.testing.assert_allclose(grad_of(F.prod(x), x), 1.0 / np.float32(factors), rtol=1e-6)


@pytest.mark.parametrize("factors", [[inf, 2.0], [nan, 2.0], [-inf, -3.0]], ids=str)
def test_infinities_and_nan_pass_through_a_product(factors: list[float]) -> None:
    x = leaf(factors)
    same(F.prod(x).detach(), np.prod(factors))
    np.testing.assert_array_equal(grad_of(F.prod(x), x), factors[::-1])


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_norm_squares_nothing_that_overflows(size: float) -> None:
    x = leaf([3.0 * size, 4.0 * size], np.float32)
    assert F.norm(x).item() == pytest.approx(5.0 * size, rel=1e-6)
    np.testing.assert_allclose(grad_of(F.norm(x), x), [0.6, 0.8], rtol=1e-6)


# ---------------------------------------------------------------- without a gradient
def test_the_list_of_functions_without_a_gradient() -> None:
    assert len(set(ops.NON_DIFFERENTIABLE)) == len(ops.NON_DIFFERENTIABLE)
    assert not set(ops.NON_DIFFERENTIABLE) & set(PUBLIC)
    for name in ops.NON_DIFFERENTIABLE:
        assert getattr(F, name) is getattr(ops, name)
        assert "carries no gradient" in getattr(F, name).__doc__.lower(), name


@pytest.mark.parametrize("name", ops.NON_DIFFERENTIABLE)
def test_their_results_require_no_gradient(name: str) -> None:
    x = leaf([0.5, 2.5])
    arguments = {"one_hot": ([0, 1], 2)}.get(name, (x, x) if name.startswith(("equal", "not_equal", "less", "greater")) else (x,))
    assert not getattr(F, name)(*arguments).requires_grad


@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "round", "isfinite", "isnan"])
@given(data=st.data())
def test_rounding_and_tests_equal_numpy(name: str, data: st.DataObject) -> None:
    x = data.draw(numbers(data.draw(shapes()), data.draw(st.sampled_from(DTYPES))))
    if x.dtype.kind == "f" and name.startswith("is") and x.size:
        x.flat[0] = data.draw(st.sampled_from([nan, inf, -inf]))
    same(getattr(F, name)(mg.Tensor(x)), getattr(np, name)(x))


@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
@given(data=st.data())
def test_comparisons_equal_numpy(name: str, data: st.DataObject) -> None:
    x, y = (data.draw(numbers(s, data.draw(st.sampled_from(DTYPES)), -2, 2)) for s in data.draw(broadcastable(2, max_dims=3)))
    expected = getattr(np, name)(x, y)
    same(getattr(F, name)(mg.Tensor(x), mg.Tensor(y)), expected)
    same(getattr(F, name)(x, mg.Tensor(y)), expected)
    same(getattr(F, name)(mg.Tensor(x), y), expected)


def test_lists_are_compared_in_the_tensors_dtype() -> None:
    for dtype in FLOATS:
        x = mg.Tensor(np.array([0.1, 0.2], dtype))
        assert F.equal(x, [0.1, 0.3]).tolist() == F.equal([0.1, 0.3], x).tolist() == [True, False]
        assert F.equal(x, 0.1).tolist() == F.equal(0.1, x).tolist() == [True, False]
    assert F.less(mg.Tensor([1, 2]), [1.5, 1.5]).tolist() == [True, False]


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(data=st.data())
def test_argmax_and_argmin_equal_numpy(name: str, data: st.DataObject) -> None:
    shape = data.draw(shapes(min_side=1))
    x = data.draw(numbers(shape, data.draw(st.sampled_from(DTYPES)), -3, 3))
    axis, keepdims = data.draw(st.sampled_from([None, *range(-len(shape), len(shape))])), data.draw(st.booleans())
    same(getattr(F, name)(mg.Tensor(x), axis=axis, keepdims=keepdims), getattr(np, name)(x, axis=axis, keepdims=keepdims))


@given(data=st.data())
def test_argsort_equals_numpys_stable_sort(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1))
    x, axis = data.draw(numbers(shape, data.draw(st.sampled_from(DTYPES)), -3, 3)), data.draw(st.integers(-len(shape), len(shape) - 1))
    same(F.argsort(mg.Tensor(x), axis=axis), np.argsort(x, axis=axis, kind="stable"))


@given(data=st.data())
def test_one_hot_equals_rows_of_the_identity(data: st.DataObject) -> None:
    classes, dtype = data.draw(st.integers(1, 5)), data.draw(st.sampled_from(["float32", "float64", "int64", "bool"]))
    ids = data.draw(numbers(data.draw(shapes(max_dims=3)), np.int64, 0, classes - 1))
    same(F.one_hot(mg.Tensor(ids), classes, dtype), np.eye(classes, dtype=dtype)[ids])


@pytest.mark.parametrize("wrong", [-1, 3])
def test_one_hot_names_an_id_outside_the_classes(wrong: int) -> None:
    with pytest.raises(IndexRangeError, match=rf"value {wrong} at place 1 is outside 0\.\.2"):
        F.one_hot([0, wrong], 3)


@pytest.mark.parametrize(("ids", "classes", "error"), [([0.5], 3, DTypeError), ([0], -1, ArgumentError), ([0], 2.0, ArgumentError)])
def test_one_hot_refuses_what_are_no_ids_or_classes(ids: Any, classes: Any, error: type[MinigradError]) -> None:
    with pytest.raises(error, match="one_hot"):
        F.one_hot(ids, classes)


# ---------------------------------------------------------------- creation
@given(n=st.integers(0, 4), m=st.none() | st.integers(0, 4), dtype=st.sampled_from(["float32", "float64", "int64", "bool"]))
def test_eye_equals_numpy(n: int, m: int | None, dtype: str) -> None:
    same(mg.eye(n, m, dtype=dtype), np.eye(n, m, dtype=dtype))


def test_eye_is_float32_and_may_want_a_gradient() -> None:
    assert mg.eye(2).dtype == np.float32 and mg.eye(2, requires_grad=True).requires_grad


@pytest.mark.parametrize("draw", [mg.randn, mg.rand])
def test_random_tensors_follow_the_seed(draw: Any) -> None:
    mg.manual_seed(3)
    first, second = draw(2, 3), draw((2, 3))
    mg.manual_seed(3)
    same(draw((2, 3)), first.numpy())
    assert (first.numpy() != second.numpy()).all()
    assert draw(2, 3, dtype="float64").dtype == np.float64 and draw(2).dtype == np.float32
    assert draw().shape == () and draw(0).shape == draw([0]).shape == (0,) and draw(2, requires_grad=True).requires_grad


def test_random_tensors_have_their_distribution() -> None:
    mg.manual_seed(0)
    normal, uniform = mg.randn(100_000).numpy(), mg.rand(100_000).numpy()
    # Five standard errors of a mean of 100,000 numbers are 0.016 σ; those of a variance 0.022 σ² at most.
    assert abs(normal.mean()) < 0.016 and abs(normal.var() - 1.0) < 0.023
    assert uniform.min() >= 0.0 and uniform.max() < 1.0 and abs(uniform.mean() - 0.5) < 0.016 and abs(uniform.var() - 1 / 12) < 0.002


@pytest.mark.parametrize(
    "make",
    [
        lambda: mg.eye(-1), lambda: mg.eye(2.5), lambda: mg.eye(2, dtype="complex64"), lambda: mg.randn(-1), lambda: mg.rand("2"),
        lambda: mg.rand(2, 2.5), lambda: mg.randn(2, dtype="int64"), lambda: mg.rand(2, dtype="nonsense"), lambda: mg.rand(2, device="tpu"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_an_argument_error(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()
