"""`embed_norm` equals the sequence of its operations bit for bit: rows, gradients and dropped units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from ops.cases import CASES, Sample
from support import cpu_kernels

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.backend.gradients import RowSparse
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError


def parts(gamma: mg.Tensor, beta: mg.Tensor, *given: mg.Tensor, untrained: Any, draw: Any, eps: float) -> mg.Tensor:
    tables, ids = given[: len(untrained)], given[len(untrained) :]
    first, *others = (ops.embedding(*pair, padding_idx=row) for *pair, row in zip(tables, ids, untrained, strict=True))
    y = F.layer_norm(sum(others, first), gamma, beta, eps)
    return y if draw is None else ops.dropout(y, draw=draw)


def leaves(sample: Sample) -> list[mg.Tensor]:
    return [mg.Tensor(a, requires_grad=i in sample.floating) for i, a in enumerate(sample.args)]


def evaluated(function: Any, sample: Sample) -> list[np.ndarray]:
    """The resulting rows, and the gradient of each argument that has one."""
    inputs = leaves(sample)
    y = function(*inputs, **sample.constants)
    g = mg.Tensor(np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype))
    (y * g).sum().backward()
    return [y.numpy(), *[x.grad.numpy() for x in inputs if x.grad is not None]]


@given(CASES["embed_norm"])
def test_it_is_its_parts_bit_for_bit(sample: Sample) -> None:
    cpu_kernels()
    for same in (sample, sample.in_float32()):
        for mine, theirs in zip(evaluated(F.embed_norm, same), evaluated(parts, same), strict=True):
            np.testing.assert_array_equal(mine, theirs, strict=True)


@given(CASES["embed_norm"])
def test_second_derivatives_are_those_of_its_parts(sample: Sample) -> None:
    def twice(function: Any) -> list[np.ndarray]:
        inputs = leaves(sample)
        floating = [inputs[i] for i in sample.floating]
        with mg.higher_order():
            first = mg.grad((function(*inputs, **sample.constants) ** 2).sum(), floating[2], create_graph=True)
            found = mg.grad((first**2).sum(), floating)
        return [x.numpy() for x in found if x is not None]

    for mine, theirs in zip(twice(F.embed_norm), twice(parts), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(np.abs(theirs).max(initial=1.0)))


ONES = np.ones(2)


def test_gradients_of_tables_stay_by_rows_and_leave_the_untrained_out() -> None:
    words, places = mg.Parameter(np.eye(5, 2)), mg.Parameter(np.eye(3, 2))
    F.embed_norm(ONES, ONES, words, places, [1, 4, 1], [0, 1, 2], untrained=(4, None)).sum().backward()
    assert isinstance(words.leaf.grad, RowSparse) and isinstance(places.leaf.grad, RowSparse)
    assert words.leaf.grad.ids.tolist() == [1, 1]
    assert places.leaf.grad.ids.tolist() == [0, 1, 2]


def test_tables_and_ids_must_be_as_many_as_it_is_told() -> None:
    for given_, count in (((np.eye(2), [0]), 2), ((np.eye(2), np.eye(2), [0]), 1), ((), 0)):
        with pytest.raises(ArgumentError, match=f"{len(given_)} tables and arrays of ids for {count} untrained rows"):
            F.embed_norm(ONES, ONES, *given_, untrained=(None,) * count)


def test_an_id_outside_of_its_table_is_named() -> None:
    with pytest.raises(IndexRangeError, match=r"embedding ids: value 3 at place 1 is outside 0\.\.1"):
        F.embed_norm(ONES, ONES, np.eye(4, 2), np.eye(2), [0, 3], [0, 3], untrained=(None, None))


def test_tables_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match="layer_norm: x"):
        F.embed_norm(ONES, ONES, np.eye(3), [0], untrained=(None,))


def test_ids_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"the ids of all tables have one shape, these have \(1,\), \(2,\)"):
        F.embed_norm(ONES, ONES, np.eye(4, 2), np.eye(2), [0, 3], [0], untrained=(None, None))
