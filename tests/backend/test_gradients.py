"""Lazy gradients: rows of a table stay rows, weight products wait, and both add up with plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import accumulated, leaf

from minigrad import functional as F
from minigrad import ops
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import Product, RowSparse, RowSum, joined
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor


def test_gradients_of_a_table_stay_by_rows_until_somebody_asks() -> None:
    table = Parameter(np.ones((1000, 4)), gathered=True)
    for _ in range(2):
        F.embedding([3, 3, 7], table).sum().backward()
    assert isinstance(table.leaf.grad, RowSparse)
    expected = np.zeros((1000, 4))
    expected[3], expected[7] = 4.0, 2.0
    np.testing.assert_array_equal(accumulated(table), expected)


@pytest.mark.parametrize("rows_first", [True, False])
def test_row_gradients_and_dense_gradients_add_up(rows_first: bool) -> None:
    """A tied table: gathered at the input, multiplied at the output."""
    table = Parameter(np.arange(6.0).reshape(3, 2))
    uses = [lambda: F.embedding([0, 2, 2], table).sum().backward(), lambda: (table * 10.0).sum().backward()]
    for use in uses if rows_first else uses[::-1]:
        use()
    np.testing.assert_array_equal(accumulated(table), [[11.0, 11.0], [10.0, 10.0], [12.0, 12.0]])


def test_row_gradients_of_one_graph_are_joined_and_meet_dense_ones() -> None:
    x = leaf(np.arange(6.0).reshape(3, 2))
    inner = x * 1.0  # not a leaf: contributions wait side by side
    total = F.embedding([0, 0], inner).sum() + F.embedding([1], inner).sum() + F.linear(Tensor(np.ones((1, 2))), inner).sum() + inner.sum()
    total.backward()
    np.testing.assert_array_equal(accumulated(x), [[4.0, 4.0], [3.0, 3.0], [2.0, 2.0]])


@pytest.mark.parametrize("count", [1, 5, 24, 25, 200])
def test_equal_ids_are_summed_whatever_their_number(count: int) -> None:
    rng = np.random.default_rng(count)
    ids = np.concatenate([np.full(count, 2), np.full(count // 2, 3), [0, 4, 4], rng.integers(0, 6, 30)])
    rng.shuffle(ids)
    values = rng.standard_normal((len(ids), 3))
    expected = np.zeros((6, 3))
    np.add.at(expected, ids, values)
    gradient = RowSparse(ids, values, (6, 3))
    np.testing.assert_allclose(gradient.dense(), expected, rtol=1e-12)
    distinct = gradient.coalesce()
    assert len(np.unique(distinct.ids)) == len(distinct.ids)
    np.testing.assert_allclose(distinct.scaled(2.0).dense(), 2 * expected, rtol=1e-12)
    np.testing.assert_allclose(gradient.joined(distinct).dense(), 2 * expected, rtol=1e-12)
    np.testing.assert_allclose(gradient.into(np.ones((6, 3)), accumulate=True), expected + 1, rtol=1e-12)
    np.testing.assert_allclose(gradient.into(np.ones((6, 3)), accumulate=False), expected, rtol=1e-12)
    assert gradient.astype(np.float32).dense().dtype == np.float32


def test_an_empty_row_gradient() -> None:
    np.testing.assert_array_equal(RowSparse(np.zeros(0, np.int64), np.zeros((0, 2)), (3, 2)).dense(), np.zeros((3, 2)))


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weight gradients computed during a test."""
    computed: list[tuple[int, ...]] = []
    for method in ("dense", "into"):
        original = getattr(Product, method)
        monkeypatch.setattr(Product, method, lambda self, *a, _f=original, **k: computed.append(self.shape) or _f(self, *a, **k))
    return computed


LAYERS = {
    "linear": lambda x, w, b: F.linear(x, w, b),
    "linears": lambda x, w, b: ops.linears(x, w, w, b, b),
    "dense_gelu": lambda x, w, b: ops.dense_gelu(x, w, b),
    "dense_add_norm": lambda x, w, b: ops.dense_add_norm(x, w, b, np.ones((4, 2), x.dtype), np.ones(2, x.dtype), np.zeros(2, x.dtype)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_frozen_weight_has_its_product_never_computed(name: str, dtype: Any, products: list[tuple[int, ...]]) -> None:
    x, b = leaf(np.ones((4, 3)), dtype), Parameter(np.ones(2, dtype))
    weight = Parameter(np.ones((2, 3), dtype))
    LAYERS[name](x, weight.requires_grad_(False), b).sum().backward()
    assert products == [] and weight.grad is None and b.grad is not None
    LAYERS[name](x, weight.requires_grad_(), b).sum().backward()
    assert set(products) == {(2, 3)} and weight.grad is not None


def test_a_product_is_computed_into_the_buffer_of_an_arena(products: list[tuple[int, ...]]) -> None:
    weight, arena = Parameter(np.ones((2, 3))), np.full(6, 99.0)
    weight.leaf.view = arena.reshape(2, 3)
    F.linear(Tensor(np.ones((4, 3))), weight).sum().backward()
    np.testing.assert_array_equal(arena, np.full(6, 4.0))  # the first gradient overwrites what was there
    F.linear(Tensor(np.ones((4, 3))), weight).sum().backward()
    (weight * 1.0).sum().backward()
    np.testing.assert_array_equal(arena, np.full(6, 9.0))
    assert weight.leaf.grad is weight.leaf.view


def test_the_parts_of_a_product_are_one_product_again() -> None:
    a, b = np.arange(12.0).reshape(2, 6).T, np.arange(8.0).reshape(2, 4)
    whole = Product(a, b, numpy_namespace.matmul, np.dtype(np.float32))
    first, second, third = parts = whole.parts(3, 1, 2)
    np.testing.assert_array_equal(np.concatenate([part.dense() for part in parts]), whole.dense())
    for some, rows in ((parts, slice(0, 6)), (parts[1:], slice(3, 6)), (parts[:1], slice(0, 3))):
        found = joined(some)
        assert found is not None and (found.shape, found.dtype) == ((rows.stop - rows.start, 4), np.float32)
        np.testing.assert_array_equal(found.dense(), whole.dense()[rows])
    assert joined([second, first]) is None and joined([first, third]) is None
    assert joined([first, whole.parts(3, 3)[1]]) is not None and joined([first, Product(a, b, whole.matmul).parts(3, 3)[1]]) is None
    assert joined([whole]) is None and joined([first, np.ones((1, 4))]) is None
    rows = np.arange(6.0).reshape(3, 2)
    assert np.shares_memory(joined([rows[:1], rows[1:]]), rows) and joined([rows[1:], rows[:1]]) is None


def test_a_row_gradient_goes_into_the_buffer_of_an_arena() -> None:
    table, arena = Parameter(np.ones((3, 2))), np.full((3, 2), 99.0)
    table.leaf.view = arena
    for _ in range(2):
        F.embedding([1, 1], table).sum().backward()
    np.testing.assert_array_equal(arena, [[0.0, 0.0], [4.0, 4.0], [0.0, 0.0]])


def test_the_parts_of_a_sum_of_rows_go_to_their_places_by_one_sum() -> None:
    made: list[str] = []

    def total(x: np.ndarray, out: np.ndarray | None) -> Any:
        made.append("an array of its own" if out is None else "there")
        return x.sum(axis=0, out=out)

    x = np.arange(12.0).reshape(2, 6)
    parts = RowSum(x, total).parts(3, 1, 2)
    together, there = joined(parts), np.zeros(6)
    assert together is not None and together.shape == (6,)
    together.into(there, accumulate=False)
    assert made == ["there"]
    np.testing.assert_array_equal(there, x.sum(axis=0))
    together.into(there, accumulate=True)
    np.testing.assert_array_equal(there, 2 * x.sum(axis=0))
    some = joined(parts[1:])
    assert some is not None and joined([parts[2], parts[1]]) is None
    for part, columns in ((parts[0], slice(0, 3)), (parts[1], slice(3, 4)), (some, slice(3, 6))):
        out = np.ones(part.shape)
        np.testing.assert_array_equal(part.dense(), x.sum(axis=0)[columns])
        np.testing.assert_array_equal(part.into(out, accumulate=False), part.dense())
        np.testing.assert_array_equal(part.into(out, accumulate=True), 2 * part.dense())
    assert made == ["there", "an array of its own"]
