"""Clipping by the global norm: one coefficient for all gradients, dense or row-sparse, in an arena or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optim.reference import feed, feed_rows

import minigrad as mg
from minigrad.backend.gradients import RowSparse
from minigrad.errors import ArgumentError
from minigrad.optim import clip, clip_grad_norm
from minigrad.optim.arena import TABLE_ROWS


def gradient(p: mg.Parameter) -> np.ndarray:
    assert p.grad is not None
    return p.grad.numpy()


def test_the_norm_is_global_and_the_gradients_shrink_together() -> None:
    p, q, unused = mg.Parameter(np.ones(2)), mg.Parameter(np.ones((1, 1))), mg.Parameter(np.ones(3))
    feed(p, np.array([3.0, 0.0]))
    feed(q, np.array([[4.0]]))
    assert clip_grad_norm([p, q, unused], 1.0) == 5.0
    np.testing.assert_allclose(gradient(p), [3 / (5 + 1e-6), 0], rtol=1e-15)  # two roundings
    np.testing.assert_allclose(gradient(q), [[4 / (5 + 1e-6)]], rtol=1e-15)
    assert unused.grad is None


def test_a_small_norm_changes_nothing() -> None:
    p = mg.Parameter(np.ones(2))
    feed(p, np.array([3.0, 4.0]))
    assert clip_grad_norm([p], 5.1) == 5.0
    assert gradient(p).tolist() == [3.0, 4.0]
    assert clip_grad_norm([p], float("inf")) == 5.0
    assert gradient(p).tolist() == [3.0, 4.0]


def test_no_gradients_have_norm_zero() -> None:
    assert clip_grad_norm([mg.Parameter(np.ones(2))], 1.0) == 0.0
    assert clip_grad_norm(iter([]), 1.0) == 0.0


def test_in_the_arena_the_views_are_scaled() -> None:
    p = mg.Parameter(np.ones(2))
    optimizer = mg.optim.SGD([p], lr=1.0)
    feed(p, np.array([30.0, 40.0]))
    clip_grad_norm([p], 5.0)
    assert p.leaf.grad is p.leaf.view
    optimizer.step()
    np.testing.assert_allclose(p.numpy(), [-2.0, -3.0], rtol=1e-6)  # the 1e-6 of the formula


def test_rows_are_added_up_before_the_norm_and_stay_rows() -> None:
    p = mg.Parameter(np.ones((TABLE_ROWS, 1)), gathered=True)
    mg.optim.SGD([p], lr=1.0)
    values = np.array([[1.0], [4.0], [2.0]])
    dense = feed_rows(p, np.array([7, 2, 7]), values)  # row 7 gets 3, not 1 and 2
    assert clip_grad_norm([p], 2.5) == 5.0
    assert isinstance(p.leaf.grad, RowSparse)
    assert p.leaf.grad.coalesced
    np.testing.assert_allclose(gradient(p), dense * (2.5 / (5 + 1e-6)), rtol=1e-15)  # two roundings
    assert values.tolist() == [[1.0], [4.0], [2.0]]


def test_a_scalar_parameter() -> None:
    p = mg.Parameter(2.0, dtype="float64")
    (p * 10.0).backward()
    assert clip_grad_norm([p], 1.0) == 10.0
    np.testing.assert_allclose(gradient(p), 1.0, rtol=1e-6)  # the 1e-6 of the formula


def test_float32_squares_are_summed_in_float64() -> None:
    p, q = mg.Parameter(np.ones(1, np.float32)), mg.Parameter(np.ones(300_000, np.float32))
    feed(p, np.full(1, 1e25, np.float32))  # its square is no float32
    assert clip_grad_norm([p], 1.0) == pytest.approx(1e25, rel=1e-7)  # 1e25 as a float32
    feed(q, np.full(300_000, 0.1, np.float32))  # several blocks
    assert clip_grad_norm([q], 1.0) == pytest.approx(float(np.float32(0.1)) * np.sqrt(300_000), rel=1e-13)
    assert q.grad is not None
    assert q.grad.dtype == np.float32


def test_a_norm_that_is_not_finite_is_returned() -> None:
    p = mg.Parameter(np.ones(2))
    feed(p, np.array([np.inf, 1.0]))
    assert clip_grad_norm([p], 1.0) == np.inf
    np.testing.assert_array_equal(gradient(p), [np.nan, 0.0])
    p.zero_grad()
    feed(p, np.array([np.nan, 1.0]))
    assert np.isnan(clip_grad_norm([p], 1.0))
    np.testing.assert_array_equal(gradient(p), [np.nan, np.nan])


def test_named_parameters_are_taken_and_one_given_twice_counts_once() -> None:
    layer = mg.nn.Linear(2, 2).to("float64")
    feed(layer.weight, np.array([[3.0, 0.0], [0.0, 4.0]]))
    assert clip_grad_norm(layer.named_parameters(), 10.0) == 5.0
    assert clip_grad_norm([layer.weight, ("again", layer.weight)], 2.5) == 5.0
    np.testing.assert_allclose(gradient(layer.weight), [[1.5, 0], [0, 2]], rtol=1e-6)  # the 1e-6 of the formula


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), None, "a", True, [1.0]])
def test_an_impossible_bound_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="max_norm"):
        clip_grad_norm([mg.Parameter(np.ones(2))], wrong)


WRONG = {
    "Linear": mg.nn.Linear(2, 2),
    "Parameter": mg.Parameter(np.ones(2)),
    "NoneType": None,
    "dict": {"w": mg.Parameter(np.ones(2))},
    "a Tensor": [mg.tensor([1.0])],
    "a str": ["weight"],
    "a tuple": [("w", mg.tensor([1.0]), 1)],
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_list_of_parameters_is_refused(what: str) -> None:
    wrong: Any = WRONG[what]
    with pytest.raises(ArgumentError, match=rf"{what}.*pass model\.parameters\(\)"):
        clip_grad_norm(wrong, 1.0)


def test_the_norm_of_an_optimizers_gradients_is_that_of_the_runs_of_its_arena() -> None:
    """Of those that are there, neighbours in one; what another optimizer has taken over is not there."""
    parameters = [
        mg.Parameter(np.arange(6, dtype=np.float32).reshape(2, 3)),
        mg.Parameter(np.ones(4, np.float32)),
        mg.Parameter(np.ones(2, np.float32)),
    ]
    optimizer = mg.optim.SGD(parameters, lr=0.1)
    sizes = {(): [], (0,): [6], (1,): [4], (0, 1): [10], (0, 2): [6, 2], (1, 2): [6], (0, 1, 2): [12]}
    for numbers, expected in sizes.items():
        optimizer.zero_grad()
        for number in numbers:
            (parameters[number] * parameters[number]).sum().backward()
        runs = optimizer.arena.gradient_runs()
        assert runs is not None and [run.size for run in runs] == expected
        norm = np.sqrt(sum(float(np.square(run).sum()) for run in runs))
        assert clip.gradient_norm(optimizer) == pytest.approx(norm)
        assert clip_grad_norm(parameters, float("inf")) == pytest.approx(norm)
    mg.optim.SGD(parameters[1:], lr=0.1)
    assert optimizer.arena.gradient_runs() is None
