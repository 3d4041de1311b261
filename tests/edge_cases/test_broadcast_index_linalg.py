"""E39-E46: broadcasting, indexing, and products of every rank. Each docstring is the convention."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from support import accumulated, grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.backend.gradients import RowSparse
from minigrad.errors import DTypeError, IndexRangeError
from minigrad.op import REGISTRY

Shape = tuple[int, ...]

SHAPES: list[Shape] = [sides for rank in range(5) for sides in product(range(4), repeat=rank)]
PAIRS = [(a, b) for a in SHAPES for b in SHAPES if all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))]
"""Every pair of shapes of rank 0 to 4 with sides 0 to 3 that broadcast together."""

BINARY: dict[str, Callable[..., mg.Tensor]] = {name: op for name, op in REGISTRY.items() if op.spec == "*s, *s -> *s"}
BINARY["where"] = lambda x, y: F.where(True, x, y)

EVERY = 1 if settings().max_examples >= 100 else len(BINARY)
"""The ci profile goes through every pair; a run of the dev profile takes one in eight for each operation, another one for each."""


@pytest.mark.parametrize("name", sorted(BINARY))
def test_e39_gradients_have_the_shapes_of_their_inputs(name: str) -> None:
    """The gradient of a binary operation has the shape of the input it belongs to, for every pair of shapes that broadcast together."""
    assert len(PAIRS) == 25_471
    left = {shape: leaf(np.full(shape, 1.5)) for shape in SHAPES}
    right = {shape: leaf(np.full(shape, 0.5)) for shape in SHAPES}
    for a, b in PAIRS[sorted(BINARY).index(name) % EVERY :: EVERY]:
        out = BINARY[name](left[a], right[b])
        assert out.shape == np.broadcast_shapes(a, b)
        found = mg.grad(out, [left[a], right[b]], np.ones(out.shape))
        assert [None if g is None else g.shape for g in found] == [a, b]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e40_a_scalar_times_a_vector_has_a_scalar_gradient(dtype: Any) -> None:
    """A tensor of shape () that meets a vector receives a gradient of shape (), the sum over the vector."""
    x, v = leaf(2.0, dtype), leaf([1.0, 2.0, 3.0], dtype)
    for out in (x * v, v * x):
        found = mg.grad(out.sum(), x)
        assert found is not None and found.shape == () and found.dtype == dtype and found.item() == 6.0
    (x * v).sum().backward()
    assert accumulated(x).shape == ()


def test_e41_a_repeated_index_accumulates() -> None:
    """An element that is indexed several times receives the sum of the gradients, in x[...], `embedding` and `take_along_axis`."""
    x = leaf([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(grad_of(x[[0, 0, 1]], x), [2.0, 1.0, 0.0])
    np.testing.assert_array_equal(grad_of(x[np.array([0, -3, 1])], x), [2.0, 1.0, 0.0])
    np.testing.assert_array_equal(grad_of(F.take_along_axis(x, [0, 0, 1]), x), [2.0, 1.0, 0.0])
    table = leaf(np.ones((3, 2)))
    np.testing.assert_array_equal(grad_of(F.embedding([[0, 0], [1, 0]], table), table), [[3.0, 3.0], [1.0, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize("ids", [[0, -1], [3], [[0, 1], [2, 7]], [-4]], ids=str)
def test_e42_ids_outside_the_table_are_named(ids: Any) -> None:
    """An embedding id below 0 or past the table raises IndexRangeError (an IndexError) naming the value and its position; negative ids do
    not count from the end. Ids that are not integers raise DTypeError (a TypeError)."""
    place, wrong = next((place, i) for place, i in enumerate(np.ravel(ids)) if not 0 <= i < 3)
    with pytest.raises(IndexError, match=rf"value {wrong} at place {place} is outside 0\.\.2") as error:
        F.embedding(ids, mg.zeros((3, 2)))
    assert isinstance(error.value, IndexRangeError)
    for no_integers, name in (([0.0, 1.0], "float"), ([True], "bool")):
        with pytest.raises(TypeError, match=name) as refused:
            F.embedding(np.array(no_integers), mg.zeros((3, 2)))
        assert isinstance(refused.value, DTypeError)


@pytest.mark.parametrize("count", [10, 10_000])
def test_e43_the_padding_row_of_an_embedding_has_gradient_0(count: int) -> None:
    """The row `padding_idx` of an embedding receives no gradient, however often it is read: the sparse gradient does not contain it."""
    ids = np.arange(count).reshape(2, -1) % 4
    table = leaf(np.ones((4, 3)))
    out = F.embedding(ids, table, padding_idx=1)
    np.testing.assert_array_equal(out.numpy(), np.ones((2, count // 2, 3)))
    found = grad_of(out, table)
    np.testing.assert_array_equal(found[:, 0], [np.sum(ids == row) * (row != 1) for row in range(4)])
    with mg.higher_order():
        np.testing.assert_array_equal(grad_of(F.embedding(ids, table, padding_idx=1), table), found)
    parameter = mg.Parameter(np.ones((4, 3)), gathered=True)
    F.embedding(ids, parameter, padding_idx=1).sum().backward()
    assert isinstance(parameter.leaf.grad, RowSparse)
    assert 1 not in parameter.leaf.grad.ids


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2)), ((4, 2, 3), (3,)), ((2, 0), (0, 3)),
        ((0,), (0,)), ((2, 1, 0), (0, 3)), ((0, 3), (3, 2)), ((1, 1, 3), (2, 3, 1)),
    ],
    ids=str,
)  # fmt: skip
def test_e44_matmul_of_every_rank(a: Shape, b: Shape) -> None:
    """`matmul` multiplies vectors, matrices and batches of them as NumPy does, and its gradients are right for each, for batches that
    broadcast, and for an inner dimension of 0, where the product is zeros."""
    rng = np.random.default_rng(0)
    x, y = leaf(rng.standard_normal(a)), leaf(rng.standard_normal(b))
    np.testing.assert_allclose((x @ y).numpy(), x.numpy() @ y.numpy(), rtol=1e-14)
    found = mg.grad((x @ y).sum(), [x, y])
    assert [None if g is None else g.shape for g in found] == [a, b]
    if x.size and y.size:
        assert mg.gradcheck(F.matmul, [x, y], order=2)


def test_e45_a_label_summed_in_one_operand_only_and_one_tensor_given_twice() -> None:
    """In `einsum`, a label that occurs in one operand only is summed before the product; a tensor passed twice receives both gradients, in
    `einsum` and in x @ x."""
    x, y = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([1.0, -1.0, 2.0])
    np.testing.assert_allclose(grad_of(F.einsum("ij,k->i", x, y), x), np.full((2, 2), 2.0))
    np.testing.assert_allclose(grad_of(F.einsum("ij,k->i", x, y), y), np.full(3, 10.0))
    for spec in ("ij,ij->", "ij,kj->ik", "ij,ji->ij", "ij,jk", "ij,kl->il"):
        assert mg.gradcheck(lambda x, spec=spec: F.einsum(spec, x, x), x, order=2)
    np.testing.assert_allclose(grad_of(F.einsum("ij,ij->", x, x), x), 2 * x.numpy())
    assert mg.gradcheck(lambda x: x @ x, x, order=2)
    np.testing.assert_allclose(grad_of(x @ x, x), np.ones((2, 2)) @ x.numpy().T + x.numpy().T @ np.ones((2, 2)))


def test_e46_broadcast_to_is_undone_by_a_sum() -> None:
    """The gradient of `broadcast_to` sums over every axis along which the tensor was repeated, also new ones; a length of 0 gives 0."""
    x = leaf([[1.0], [2.0]])
    np.testing.assert_array_equal(F.broadcast_to(x, (3, 2, 4)).sum(axis=(0, 2)).numpy(), [12.0, 24.0])
    np.testing.assert_array_equal(grad_of(F.broadcast_to(x, (3, 2, 4)), x), [[12.0], [12.0]])
    np.testing.assert_array_equal(grad_of(F.broadcast_to(x, (0, 2, 1)), x), [[0.0], [0.0]])
    number = leaf(2.0)
    assert grad_of(F.broadcast_to(number, (2, 3)), number) == 6.0
