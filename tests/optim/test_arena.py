"""The arena: one flat buffer, in a fixed order, of which parameters and gradients are views."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from optim.reference import Case, feed, feed_rows

import minigrad as mg
from minigrad.backend.layout import neighbours
from minigrad.errors import ArgumentError, GraphError
from minigrad.optim.arena import TABLE_ROWS


def four() -> list[mg.Parameter]:
    """Weight, bias, weight, bias, as a walk over two layers finds them."""
    return [mg.Parameter(np.full(shape, float(i))) for i, shape in enumerate([(2, 3), (2,), (4, 3), (4,)])]


def test_matrices_come_first_then_vectors_in_the_given_order() -> None:
    a, b, c, d = four()
    optimizer = mg.optim.SGD([a, b, c, d], lr=0.1)
    assert optimizer.arena.data.tolist() == [0.0] * 6 + [2.0] * 12 + [1.0] * 2 + [3.0] * 4
    for p in (a, b, c, d):
        assert p.array.base is optimizer.arena.data
        assert p.owner is optimizer.arena
    feed(c, np.full((4, 3), 7.0))
    assert c.leaf.grad.base is optimizer.arena.gradients


def test_each_group_is_laid_out_by_itself() -> None:
    a, b, c, d = four()
    optimizer = mg.optim.SGD([{"params": [b, a]}, {"params": [d, c]}], lr=0.1)
    assert optimizer.arena.data.tolist() == [0.0] * 6 + [1.0] * 2 + [2.0] * 12 + [3.0] * 4


def test_neighbours_are_read_as_one_and_follow_updates() -> None:
    a, b, c, d = four()
    optimizer = mg.optim.SGD([a, b, c, d], lr=1.0)
    weights, biases = neighbours([a.array, c.array]), neighbours([b.array, d.array])
    assert weights is not None
    assert biases is not None
    assert weights.shape == (6, 3)
    assert biases.tolist() == [1.0, 1.0, 3.0, 3.0, 3.0, 3.0]
    feed(c, np.ones((4, 3)))
    optimizer.step()
    np.testing.assert_array_equal(weights, np.concatenate([a.numpy(), c.numpy()]))
    joined = neighbours([c.array])
    assert joined is not None
    assert np.shares_memory(joined, c.array)


def test_moved_parameters_keep_numbers_order_gradients_and_optimizer() -> None:
    a, b, c, d = four()
    optimizer = mg.optim.SGD([a, b, c, d], lr=1.0)
    before = optimizer.arena.data
    feed(a, np.ones((2, 3)))
    optimizer.arena.move(np.zeros)
    moved = optimizer.arena.data
    assert moved is not before
    assert neighbours([a.array, c.array]) is not None
    feed(c, np.ones((4, 3)))
    optimizer.step()
    assert moved.tolist() == [-1.0] * 6 + [1.0] * 12 + [1.0] * 2 + [3.0] * 4
    assert [p.array.base is moved for p in (a, b, c, d)] == [True] * 4
    assert before.tolist() == [0.0] * 6 + [2.0] * 12 + [1.0] * 2 + [3.0] * 4


def test_moving_leaves_alone_what_another_optimizer_has_taken_over() -> None:
    a, b, c, d = four()
    first, later = mg.optim.SGD([a, b, c, d], lr=1.0), mg.optim.SGD([a], lr=1.0)
    first.arena.move(np.zeros)
    assert a.array.base is later.arena.data
    assert b.array.base is first.arena.data


def test_neighbours_of_a_buffer_in_shared_memory() -> None:
    flat = np.frombuffer(mmap.mmap(-1, 48))
    flat[:] = np.arange(6.0)
    joined = neighbours([flat[:2].reshape(1, 2), flat[2:6].reshape(2, 2)])
    assert joined is not None
    assert joined.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_rows_of_a_matrix_are_neighbours() -> None:
    matrix = np.ones((3, 4))
    joined = neighbours([matrix[1], matrix[2]])
    assert joined is not None and joined.shape == (8,)
    assert np.shares_memory(joined, matrix[1:]) and not np.shares_memory(joined, matrix[0])


def test_two_buffers_are_no_neighbourhood_though_their_memory_is_adjacent() -> None:
    memory = mmap.mmap(-1, 64)
    first, second = np.frombuffer(memory, count=4), np.frombuffer(memory, count=4, offset=32)
    assert neighbours([first[:4], second[:4]]) is None


FLAT, OTHER = np.arange(12.0), np.arange(12.0)
BY_COLUMNS = np.ones((3, 4), order="F")


@pytest.mark.parametrize(
    "arrays",
    [
        [FLAT[3:6], FLAT[:3]],  # wrong order
        [FLAT[:3], FLAT[4:6]],  # a gap
        [FLAT[:3], FLAT[2:6]],  # an overlap
        [FLAT[:3], OTHER[3:6]],  # two buffers
        [FLAT[:4].reshape(2, 2), FLAT[4:7].reshape(1, 3)],  # rows of different width
        [FLAT[:6:2], FLAT[6:8]],  # strided
        [FLAT[:4].reshape(2, 2).T, FLAT[4:6].reshape(1, 2)],  # transposed
        [FLAT[:1].reshape(()), FLAT[1:2].reshape(())],  # nothing to stack along
        [FLAT[:3], FLAT[3:4].reshape(())],
        [np.arange(3.0), np.arange(3.0)],  # owners of their memory
        [np.frombuffer(bytes(16)), np.frombuffer(bytes(16))],  # their base is no array
        [FLAT[:2].view("int64"), FLAT[2:4].view("int64")],  # another dtype
        [FLAT[:2], FLAT[2:4].view("int64")],
        [np.arange(12.0).reshape(3, 4)[:1], np.arange(12.0).reshape(3, 4)[1:]],
        [BY_COLUMNS[:, 0], BY_COLUMNS[:, 1]],  # the base is not contiguous
    ],
    ids=range(15),
)
def test_anything_else_is_no_neighbourhood(arrays: list[np.ndarray]) -> None:
    assert neighbours(arrays) is None


def test_values_and_gradients_that_exist_come_along() -> None:
    a, b, c, d = four()
    feed(a, np.full((2, 3), 5.0))
    scalar = mg.Parameter(2.0, dtype="float64")
    (scalar * scalar).backward()
    optimizer = mg.optim.SGD([a, b, c, d, scalar], lr=1.0)
    assert a.leaf.grad is a.leaf.view
    optimizer.step()
    np.testing.assert_array_equal(a.numpy(), -5.0)
    np.testing.assert_array_equal(b.numpy(), 1.0)
    assert scalar.item() == -2.0


def test_a_later_optimizer_takes_over() -> None:
    a, b, c, d = four()
    first = mg.optim.SGD([("layer.weight", a), ("layer.bias", b), ("other.weight", c)], lr=1.0)
    feed(c, np.ones((4, 3)))
    second = mg.optim.SGD([c, d], lr=1.0)
    with pytest.raises(GraphError, match=r"other\.weight") as caught:
        first.step()
    assert caught.value.code == "graph-owner"
    np.testing.assert_array_equal(a.numpy(), 0.0)
    second.step()
    np.testing.assert_array_equal(c.numpy(), 1.0)


def test_the_second_optimizer_of_a_table_goes_on_from_settled_rows() -> None:
    p = mg.Parameter(np.ones((TABLE_ROWS, 2)), gathered=True)
    for _ in range(2):
        optimizer = mg.optim.AdamW([p], lr=0.1, weight_decay=0.5)
        p.zero_grad()
        feed_rows(p, np.array([5]), np.ones((1, 2)))
        optimizer.step()
    np.testing.assert_allclose(p.numpy()[6], 0.95**2, rtol=1e-15)  # two roundings


def test_a_row_gradient_that_exists_stays_by_rows_for_a_table() -> None:
    case = Case(mg.optim.SGD, {})
    p = mg.Parameter(np.ones((TABLE_ROWS, 2)), gathered=True)
    dense = feed_rows(p, np.array([5, 5]), np.ones((2, 2)))
    optimizer = case.optimizer([p], lr=0.1)
    optimizer.step()
    np.testing.assert_allclose(p.numpy(), 1 - 0.1 * dense, rtol=1e-15)  # one rounding


def test_mixed_dtypes_are_refused_by_name() -> None:
    pairs = [("encoder.weight", mg.Parameter(np.ones(2))), ("head.weight", mg.Parameter(np.ones(2, np.float32)))]
    with pytest.raises(ArgumentError, match=r"encoder\.weight is float64 on cpu, head\.weight is float32"):
        mg.optim.SGD(pairs, lr=0.1)
    assert all(p.owner is None for _, p in pairs)
