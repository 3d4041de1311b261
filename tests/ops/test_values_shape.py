"""Shape, padding, indexing and sorting functions and einsum equal NumPy's in value, shape and dtype; conventions; invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import CASES, Sample
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError

DTYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_)


def as_kind(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The drawn numbers in another dtype, as integers with ties, of both signs if the dtype has them."""
    return array if dtype is np.float64 else np.round(np.abs(array) if np.dtype(dtype).kind in "ub" else array).astype(dtype)


def same(found: mg.Tensor, expected: Any, rtol: float = 0.0) -> None:
    """Equal shape and dtype; values equal, or within a tolerance where the order of additions differs."""
    array = np.asarray(expected)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_allclose(found.numpy(), array, rtol=rtol, atol=rtol)


# ---------------------------------------------------------------- NumPy's names
@pytest.mark.parametrize(
    "name",
    ["squeeze", "moveaxis", "flip", "repeat", "tile", "tril", "triu", "pad", "expand_dims", "transpose", "take_along_axis"],
)
@given(data=st.data())
def test_one_array_as_numpy_does_it(name: str, data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES[name])
    x = as_kind(sample.args[0], data.draw(st.sampled_from(DTYPES)))
    rest, constants = sample.args[1:], sample.constants
    same(getattr(F, name)(mg.Tensor(x), *rest, **constants), getattr(np, name)(x, *rest, **constants))


@given(data=st.data())
def test_reshape(data: st.DataObject) -> None:
    """NumPy names its argument `shape` only since 2.1."""
    sample: Sample = data.draw(CASES["reshape"])
    x = as_kind(sample.args[0], data.draw(st.sampled_from(DTYPES)))
    same(F.reshape(mg.Tensor(x), **sample.constants), np.reshape(x, sample.constants["shape"]))


@given(data=st.data())
def test_swapaxes(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["swapaxes"])
    a, b = sample.constants["a"], sample.constants["b"]
    same(F.swapaxes(sample.args[0], a, b), np.swapaxes(sample.args[0], a, b))


def test_transpose_without_axes_reverses_them() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    same(F.transpose(x), np.transpose(x))
    same(F.reshape(x, 24), np.reshape(x, 24))
    same(F.reshape(x, (4, -1)), np.reshape(x, (4, -1)))


@given(data=st.data())
def test_split(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["split"])
    x = as_kind(sample.args[0], data.draw(st.sampled_from(DTYPES)))
    for found, expected in zip(F.split(mg.Tensor(x), **sample.constants), np.split(x, *sample.constants.values()), strict=True):
        same(found, expected)


@given(data=st.data())
def test_outer(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["outer"])
    dtype = data.draw(st.sampled_from(DTYPES))
    x, y = (as_kind(a, dtype) for a in sample.args)
    same(F.outer(mg.Tensor(x), mg.Tensor(y)), np.outer(x, y))


@given(data=st.data())
def test_sort(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["sort"])
    axis, dtype = sample.constants["axis"], data.draw(st.sampled_from(DTYPES))
    x = as_kind(sample.args[0], dtype)
    same(F.sort(mg.Tensor(x), axis), np.sort(x, axis))
    same(F.sort(mg.Tensor(x), axis, descending=True), np.flip(np.sort(x, axis), -1 if axis is None else axis))


@given(data=st.data())
def test_topk_is_the_beginning_of_the_sorted_elements(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["topk"])
    x = as_kind(sample.args[0], data.draw(st.sampled_from(DTYPES)))
    k, axis, largest = (sample.constants[key] for key in ("k", "axis", "largest"))
    values, places = F.topk(mg.Tensor(x), k, axis, largest)
    ordered = np.flip(np.sort(x, axis), axis) if largest else np.sort(x, axis)
    same(values, np.take(ordered, np.arange(k), axis))
    assert places.dtype == np.int64 and not places.requires_grad
    same(values, np.take_along_axis(x, places.numpy(), axis))


@given(data=st.data())
def test_masked_fill_is_where(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["masked_fill"])
    x, mask, value = sample.args
    same(F.masked_fill(mg.Tensor(x), mask, value), np.where(mask, value, x))
    narrow = x.astype(np.float32)
    same(F.masked_fill(mg.Tensor(narrow), mask, value), np.where(mask, np.float32(value), narrow))
    whole = as_kind(x, np.int32)
    same(F.masked_fill(mg.Tensor(whole), mask, 7), np.where(mask, np.int32(7), whole))


def test_masked_fill_takes_infinities() -> None:
    x = leaf([1.0, 2.0])
    out = F.masked_fill(x, [True, False], -np.inf)
    same(out, np.array([-np.inf, 2.0]))
    np.testing.assert_array_equal(grad_of(out, x), [0.0, 1.0])


@given(data=st.data())
def test_scatter_add_adds_one_value_after_another(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["scatter_add"])
    (x, indices, values), axis = sample.args, sample.constants["axis"]
    dtype = data.draw(st.sampled_from((np.float32, np.float64, np.int64)))
    x, values = as_kind(x, dtype), as_kind(values, dtype)
    expected = x.copy()
    for place in np.ndindex(indices.shape):
        target = list(place)
        target[axis] = indices[place]
        expected[tuple(target)] += values[place]
    same(F.scatter_add(mg.Tensor(x), indices, values, axis), expected, rtol=1e-14 if dtype is np.float64 else 0.0)


@given(data=st.data())
def test_einsum(data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES["einsum"])
    dtype = data.draw(st.sampled_from(DTYPES))
    spec, *arrays = sample.args
    arrays = [as_kind(a, dtype) for a in arrays]
    same(F.einsum(spec, *arrays), np.einsum(spec, *arrays), rtol=1e-13 if dtype is np.float64 else 0.0)  # float32: small whole numbers


@pytest.mark.parametrize("spec", ["ij , jk -> ik", "Ab,bC", "aB,Bc->cA"], ids=str)
def test_einsum_reads_spaces_and_orders_capitals_as_numpy_does(spec: str) -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    if spec == "aB,Bc->cA":
        with pytest.raises(ArgumentError, match="no operand has the label 'A'"):
            F.einsum(spec, x, y)
    else:
        same(F.einsum(spec, x, y), np.einsum(spec, x, y))


# ---------------------------------------------------------------- conventions
def test_a_gradient_goes_to_the_equal_elements_that_were_chosen() -> None:
    x = leaf([1.0, 3.0, 3.0, 3.0, 0.0])
    values, places = F.topk(x, 2)
    assert places.tolist() == [1, 2]
    np.testing.assert_array_equal(grad_of(values, x), [0, 1, 1, 0, 0])
    assert F.topk(x, 2, largest=False)[1].tolist() == [4, 0]
    weights = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    np.testing.assert_array_equal(grad_of(F.sort(x) * weights, x), [10, 100, 1000, 10000, 1])
    np.testing.assert_array_equal(grad_of(F.sort(x, descending=True) * weights, x), [1000, 1, 10, 100, 10000])


def test_nan_is_sorted_as_the_largest() -> None:
    x = np.array([1.0, np.nan, 2.0])
    np.testing.assert_array_equal(F.sort(x).numpy(), [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(F.sort(x, descending=True).numpy(), [np.nan, 2.0, 1.0])


def test_an_element_taken_twice_receives_the_sum() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(grad_of(F.take_along_axis(x, [[1, 1, -1], [0, 0, 0]], 1), x), [[0, 3], [3, 0]])
    np.testing.assert_array_equal(grad_of(F.repeat(x, [0, 3], axis=0), x), [[0, 0], [3, 3]])


def test_scatter_add_reads_no_values_beyond_its_indices() -> None:
    x, values = leaf(np.zeros((3, 2))), leaf(np.ones((4, 2)))
    out = F.scatter_add(x, [[2, 0], [2, 1]], values, axis=0)
    same(out, np.array([[0.0, 1], [0, 1], [2, 0]]))
    by_x, by_values = mg.grad(out.sum(), [x, values])
    assert by_x is not None and by_values is not None
    np.testing.assert_array_equal(by_values.numpy(), [[1, 1], [1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(by_x.numpy(), np.ones((3, 2)))


def test_indices_are_read_when_they_are_given() -> None:
    indices = np.array([0, 0])
    x = leaf([1.0, 2.0])
    out = F.take_along_axis(x, indices, 0)
    indices[:] = 1
    np.testing.assert_array_equal(grad_of(out, x), [2.0, 0.0])


# ---------------------------------------------------------------- dtypes
LISTED: dict[str, Callable[[Any], mg.Tensor]] = {
    "stack": lambda row: F.stack([row, np.zeros(3)]),
    "outer": lambda row: F.outer(row, np.ones(2)),
    "einsum": lambda row: F.einsum("i,ij->j", row, np.ones((3, 2))),
    "scatter_add": lambda row: F.scatter_add(np.zeros(3), [0, 0, 1], row, 0),
    "conv1d": lambda row: F.conv1d(
        np.ones((1, 3, 1)), np.array(row).reshape(1, 3, 1) if isinstance(row, np.ndarray) else [[[v] for v in row]]
    ),
    "batch_norm": lambda row: F.batch_norm(np.ones((2, 3)), row, row, row, row),
    "group_norm": lambda row: F.group_norm(np.arange(6.0).reshape(2, 3), 1, row, row),
    "attention": lambda row: F.scaled_dot_product_attention(
        np.ones((2, 3)), [row] if isinstance(row, list) else row[None], np.ones((1, 3))
    ),
}


@pytest.mark.parametrize("name", sorted(LISTED))
def test_the_floats_of_lists_take_over_float64(name: str) -> None:
    """0.1 in a list beside float64 is 0.1, not the float32 next to it."""
    row = [0.1, 0.2, 0.3]
    found = LISTED[name](row)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.numpy(), LISTED[name](np.array(row)).numpy())


def test_rows_that_are_no_list_are_refused() -> None:
    with pytest.raises(ShapeError, match="rows must be a list"):
        F.take_rows(MATRIX, 0)


# ---------------------------------------------------------------- clumsy calls
VECTOR, MATRIX = np.arange(3.0), np.arange(6.0).reshape(2, 3)
CLUMSY: list[tuple[Callable[[], Any], type[MinigradError], str]] = [
    (lambda: F.squeeze(MATRIX, 0), ShapeError, "squeeze"),
    (lambda: F.squeeze(MATRIX, 5), ShapeError, "squeeze.*axis 5"),
    (lambda: F.squeeze(MATRIX, 0.5), DTypeError, "squeeze"),
    (lambda: F.flip(MATRIX, 2), ShapeError, r"flip: axis 2 is out of bounds for shape \(2, 3\)"),
    (lambda: F.flip(MATRIX, (0, -2)), ShapeError, "twice"),
    (lambda: F.flip(MATRIX, "0"), DTypeError, "flip: an axis must be an integer, got '0'"),
    (lambda: F.moveaxis(MATRIX, (0, 1), 0), ShapeError, "moveaxis: 2 axes cannot go to 1 places"),
    (lambda: F.moveaxis(MATRIX, 0, 3), ShapeError, "moveaxis: axis 3"),
    (lambda: F.expand_dims(MATRIX, 4), ShapeError, "expand_dims: axis 4"),
    (lambda: F.expand_dims(MATRIX, 1.5), DTypeError, "expand_dims"),
    (lambda: F.stack([VECTOR, MATRIX]), ShapeError, "concatenate"),
    (lambda: F.stack([]), ArgumentError, "at least one"),
    (lambda: F.stack(5), ArgumentError, "stack needs a list"),
    (lambda: F.concatenate(5), ArgumentError, "concatenate needs a list"),
    (lambda: F.broadcast_to(MATRIX, 2.5), DTypeError, "broadcast_to: shape must be an integer, got 2.5"),
    (lambda: F.take_rows(1.0, [0]), ShapeError, "has no rows"),
    (lambda: F.put_rows(MATRIX, [0, 1], "2"), DTypeError, "put_rows: count must be an integer"),
    (lambda: F.tile(VECTOR, mg.Tensor(True)), DTypeError, "tile: reps must be an integer"),
    (lambda: F.dropout(MATRIX, "0.5"), ArgumentError, "p lies between 0 and 1, got '0.5'"),
    (lambda: F.softmax(MATRIX, mask=[0.0, -np.inf, 0.0]), ArgumentError, "booleans .*, not float32 numbers that are added .* mask == 0"),
    (lambda: F.softmax(MATRIX, mask=[0, -10000, 0]), ArgumentError, "booleans .*, not int64 numbers that are added .* mask == 0"),
    (lambda: F.masked_fill(MATRIX, np.ones(3), 0.0), ArgumentError, "booleans .*, not float64 numbers .* mask != 0"),
    (
        lambda: F.scaled_dot_product_attention(MATRIX, MATRIX, MATRIX, mask=np.zeros((2, 2))),
        ArgumentError,
        "booleans .*, not float64 numbers that are added .* mask == 0",
    ),
    (lambda: F.pad(MATRIX, 1, constant_values=mg.ones((), requires_grad=True)), ArgumentError, "no gradient would reach"),
    (lambda: F.repeat(MATRIX, -1), ArgumentError, "repeat: repeats must not be negative, got -1"),
    (lambda: F.repeat(MATRIX, [1, 2], axis=1), ShapeError, "repeat: 2 repeats for an axis of length 3"),
    (lambda: F.repeat(MATRIX, 1.5), DTypeError, "repeat: repeats must be an integer"),
    (lambda: F.repeat(MATRIX, [[1]]), DTypeError, "repeat: repeats must be an integer"),
    (lambda: F.repeat(MATRIX, 2, axis=-3), ShapeError, "repeat: axis -3"),
    (lambda: F.tile(MATRIX, (1, -2)), ArgumentError, "tile: reps must not be negative"),
    (lambda: F.tile(MATRIX, None), DTypeError, "tile: reps must be an integer, got None"),
    (lambda: F.tril(VECTOR), ShapeError, "tril: a triangle needs at least two axes"),
    (lambda: F.triu(MATRIX, 0.5), DTypeError, "triu: k must be an integer"),
    (lambda: F.pad(MATRIX, -1), ArgumentError, "pad: pad_width must not be negative"),
    (lambda: F.pad(MATRIX, 1.0), DTypeError, "pad: pad_width must hold integers"),
    (lambda: F.pad(MATRIX, [(1, 1)] * 3), ShapeError, r"pad: a pad_width of shape \(3, 2\) does not fit 2 axes"),
    (lambda: F.pad(MATRIX, [(1, 1), 2]), DTypeError, "cannot make a tensor"),
    (lambda: F.pad(MATRIX, 1, mode="mean"), ArgumentError, "pad: mode is \"constant\".*not 'mean'"),
    (lambda: F.pad(np.zeros((2, 0)), 1, mode="edge"), ShapeError, "pad: axis 1 .* is empty"),
    (lambda: F.pad(MATRIX, 1, constant_values=(1, 2, 3)), ArgumentError, "pad: constant_values"),
    (lambda: F.pad(np.zeros(2, np.int64), 1, constant_values=float("nan")), ArgumentError, "pad: constant_values"),
    (lambda: F.masked_fill(MATRIX, [True, False], 0), ShapeError, "mask of shape"),
    (lambda: F.masked_fill(VECTOR, [True, False, True], MATRIX), ShapeError, "value of shape"),
    (lambda: F.masked_fill(np.arange(3), [True, False, True], 0.5), DTypeError, "int64 cannot hold the value 0.5"),
    (lambda: F.split(MATRIX, 2, axis=1), ShapeError, "split: an axis of length 3 does not divide into 2"),
    (lambda: F.split(MATRIX, 0), ShapeError, "into 0 parts"),
    (lambda: F.split(MATRIX, [1.5]), DTypeError, "split: sections must be an integer, got 1.5"),
    (lambda: F.split(MATRIX, 1, axis=2), ShapeError, "split: axis 2"),
    (lambda: F.reshape(MATRIX, (4, -1)), ShapeError, "reshape"),
    (lambda: F.reshape(MATRIX, (2.0, 3)), DTypeError, "reshape"),
    (lambda: F.transpose(MATRIX, (0, 0)), ShapeError, "transpose"),
    (lambda: F.transpose(MATRIX, (0, 5)), ShapeError, "transpose"),
    (lambda: F.transpose(MATRIX, 1), DTypeError, "transpose"),
    (lambda: F.swapaxes(MATRIX, 0, 2), ShapeError, "swapaxes"),
    (lambda: F.take_along_axis(MATRIX, [[0], [3]], 1), IndexRangeError, r"index 3 at place 1 is outside -3\.\.2"),
    (lambda: F.take_along_axis(MATRIX, [[-4]], 1), IndexRangeError, r"index -4 at place 0 is outside -3\.\.2"),
    (lambda: F.take_along_axis(np.zeros((2, 0)), [[0]], 1), IndexRangeError, "outside an empty axis"),
    (lambda: F.take_along_axis(MATRIX, [0, 1], 1), ShapeError, "do not fit"),
    (lambda: F.take_along_axis(MATRIX, [[0], [1], [0]], 1), ShapeError, "do not fit"),
    (lambda: F.take_along_axis(MATRIX, [[0.0]], 1), DTypeError, "indices must be integers, got float32"),
    (lambda: F.take_along_axis(MATRIX, [[True]], 1), DTypeError, "indices must be integers, got bool"),
    (lambda: F.take_along_axis(MATRIX, [[0]], 2), ShapeError, "axis 2"),
    (lambda: F.scatter_add(MATRIX, [[0, -1]], MATRIX, 0), IndexRangeError, r"index -1 at place 1 is outside 0\.\.1"),
    (lambda: F.scatter_add(MATRIX, [[2]], MATRIX, 0), IndexRangeError, r"index 2 at place 0 is outside 0\.\.1"),
    (lambda: F.scatter_add(MATRIX, [[0, 0, 0, 0]], np.zeros((1, 4)), 0), ShapeError, "reach no further"),
    (lambda: F.scatter_add(MATRIX, [[0, 0]], np.zeros((1, 1)), 0), ShapeError, "reach no further"),
    (lambda: F.scatter_add(MATRIX, [0], VECTOR, 0), ShapeError, "as many axes"),
    (lambda: F.scatter_add(1.0, 0, 1.0, 0), ShapeError, "axis 0"),
    (lambda: F.embedding([0], mg.zeros((2, 3)), padding_idx=2), IndexRangeError, r"padding_idx 2 is outside 0\.\.1"),
    (lambda: F.embedding([0], mg.zeros((2, 3)), padding_idx=-1), IndexRangeError, r"padding_idx -1 is outside 0\.\.1"),
    (lambda: F.embedding([0], mg.zeros((2, 3)), padding_idx=0.5), DTypeError, "padding_idx must be an integer"),
    (lambda: F.sort(MATRIX, 2), ShapeError, "sort: axis 2"),
    (lambda: F.sort(1.0), ShapeError, "sort: axis -1"),
    (lambda: F.topk(MATRIX, 4), ShapeError, "topk: k = 4 does not lie between 0 and 3"),
    (lambda: F.topk(MATRIX, -1), ShapeError, "topk: k = -1"),
    (lambda: F.topk(MATRIX, 1.0), DTypeError, "topk: k must be an integer"),
    (lambda: F.topk(1.0, 1), ShapeError, "topk: axis -1"),
    (lambda: F.einsum(MATRIX, MATRIX), DTypeError, "first argument is a string"),
    (lambda: F.einsum("ij,jk", MATRIX), ArgumentError, "names 2 operands, given are 1"),
    (lambda: F.einsum("i,i,i", VECTOR, VECTOR, VECTOR), ArgumentError, "it takes one or two"),
    (lambda: F.einsum("ij,jk->iz", MATRIX, MATRIX.T), ArgumentError, r"einsum\('ij,jk->iz'\): no operand has the label 'z'"),
    (lambda: F.einsum("ij->iji", MATRIX), ArgumentError, "names 'i' twice"),
    (lambda: F.einsum("i.j", MATRIX), ArgumentError, "not made of letters"),
    (lambda: F.einsum("i1", MATRIX), ArgumentError, "not made of letters"),
    (lambda: F.einsum("i...j...", MATRIX), ArgumentError, "not made of letters"),
    (lambda: F.einsum("ij->i->j", MATRIX), ArgumentError, "not made of letters"),
    (lambda: F.einsum("ijk", MATRIX), ShapeError, r"'ijk' does not fit an operand of shape \(2, 3\)"),
    (lambda: F.einsum("i", MATRIX), ShapeError, "does not fit"),
    (lambda: F.einsum("ii", MATRIX), ShapeError, "'i' has lengths 2 and 3 in one operand"),
    (lambda: F.einsum("ij,jk", MATRIX, MATRIX), ShapeError, "'j' has lengths 3 and 2"),
    (lambda: F.einsum("...i,...i->", MATRIX, MATRIX), ShapeError, "needs an ellipsis"),
    (lambda: F.einsum("...,...", MATRIX, np.zeros((3, 3))), ShapeError, "has lengths 2 and 3"),
]


READERS: dict[str, Callable[[mg.Tensor, np.ndarray], mg.Tensor]] = {
    "embedding": lambda x, ids: F.embedding(ids, x),
    "take_rows": F.take_rows,
    "put_rows": lambda x, ids: F.put_rows(x[:2], ids, 4),
    "cross_entropy": lambda x, ids: F.cross_entropy(x[:2], ids),
    "getitem": lambda x, ids: x[ids],
}


@pytest.mark.parametrize("name", READERS)
def test_the_callers_ids_may_change_before_the_way_back(name: str) -> None:
    def gradient(change: bool) -> np.ndarray:
        x, ids = leaf(np.arange(12.0).reshape(4, 3)), np.array([2, 0])
        y = READERS[name](x, ids)
        if change:
            ids[:] = 1
        return grad_of((y * y).sum(), x)

    np.testing.assert_array_equal(gradient(True), gradient(False))


@pytest.mark.parametrize(("call", "kind", "message"), CLUMSY, ids=[message for _, _, message in CLUMSY])
def test_clumsy_calls_are_explained(call: Callable[[], Any], kind: type[MinigradError], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
