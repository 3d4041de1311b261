"""Every optimizer and option equals its formula, written out in `reference.py`."""

from __future__ import annotations

import numpy as np
import pytest
from optim.reference import CASES, Case, feed, feed_rows, relative_error

import minigrad as mg
from minigrad.optim.arena import TABLE_ROWS

STEPS = 50
SHAPES = [(3, 4), (), (5,), (2, 3, 2), (40, 1000), (1,), (0, 3)]  # 40 · 1000 float64 elements are more than one block


def rates(lr: float = 0.05) -> list[float]:
    """A learning rate that moves, as under a schedule."""
    return [lr * (1 + 0.5 * np.sin(step)) for step in range(STEPS)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fifty_steps_equal_the_formula(case: Case) -> None:
    generator = np.random.default_rng(1)
    starts = [generator.standard_normal(shape) for shape in SHAPES]
    # Some parameters miss some steps: each follows its own formula with its own step count.
    gradients = [[generator.standard_normal(shape) if generator.random() < 0.8 else None for _ in range(STEPS)] for shape in SHAPES]
    parameters = [mg.Parameter(start) for start in starts]
    optimizer = case.optimizer(parameters, lr=0.05, **case.options)
    for step, lr in enumerate(rates()):
        optimizer.param_groups[0]["lr"] = lr
        for p, g in zip(parameters, gradients, strict=True):
            if g[step] is not None:
                feed(p, g[step])
        optimizer.step()
        optimizer.zero_grad()
    for p, start, g in zip(parameters, starts, gradients, strict=True):
        assert p.dtype == np.float64
        # Rounding of 50 updates; the formula is arranged differently.
        assert relative_error(p.numpy(), case.expected(start, g, rates())) < 1e-12


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_stays_float32(case: Case) -> None:
    generator = np.random.default_rng(2)
    start = generator.standard_normal((7, 5)).astype(np.float32)
    gradients = [generator.standard_normal((7, 5)).astype(np.float32) for _ in range(STEPS)]
    p = mg.Parameter(start)
    optimizer = case.optimizer([p], lr=0.01, **case.options)
    for g in gradients:
        feed(p, g)
        optimizer.step()
        optimizer.zero_grad()
    assert p.dtype == np.float32
    assert all(m.dtype == np.float32 for m in optimizer.moments.values())
    expected = case.expected(start.astype(np.float64), [g.astype(np.float64) for g in gradients], [0.01] * STEPS)
    assert relative_error(p.numpy(), expected) < 2e-5  # 50 float32 roundings of numbers around 1, each 6e-8, amplified by the momentum


def test_the_gradient_is_only_read() -> None:
    for case in CASES:
        p = mg.Parameter(np.ones(3))
        optimizer = case.optimizer([p], lr=0.1, **case.options)
        feed(p, np.array([1.0, 2.0, 3.0]))
        optimizer.step()
        assert p.grad is not None
        assert p.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("gathered", [False, True])
def test_a_gradient_that_somebody_keeps_stays_what_it_is(gathered: bool) -> None:
    p = mg.Parameter(np.ones((3, 2)), gathered=gathered)
    optimizer = mg.optim.SGD([p], lr=1.0)
    kept = []
    for factor in (1.0, 2.0, 3.0):
        if factor == 3.0:
            optimizer.zero_grad()
        (p * factor).sum().backward()
        kept.append(p.grad)
    mg.optim.clip_grad_norm([p], 1e-3)
    assert [g.numpy()[0, 0] for g in kept if g is not None] == [1.0, 3.0, 3.0]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rows", [3, TABLE_ROWS])
def test_a_gradient_may_be_replaced(case: Case, rows: int) -> None:
    """By a list of rows, in an optimizer's buffer and in a table's gradient by rows alike; None is no gradient."""
    p, q = (mg.Parameter(np.ones((rows, 2)), gathered=rows == TABLE_ROWS) for _ in range(2))
    optimizers = [case.optimizer([one], lr=0.1, **case.options) for one in (p, q)]
    for factor in (2.0, 0.5):
        feed_rows(p, np.array([1, 2, 1]), np.ones((3, 2)))
        feed(q, np.full((rows, 2), 7.0))
        assert p.grad is not None
        q.grad = (p.grad * factor).tolist()
        p.grad = p.grad * factor
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert p.grad is None
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert p.numpy()[1, 0] != 1.0
    p.grad = [[1.0, 2.0]] * rows
    p.grad = None
    assert p.grad is None


def test_gradients_of_several_backward_passes_add_up() -> None:
    p, q = mg.Parameter(np.zeros(2)), mg.Parameter(np.zeros(2))
    optimizer = mg.optim.SGD([p, q], lr=1.0)
    feed(p, np.array([1.0, 2.0]))
    feed(p, np.array([10.0, 20.0]))
    optimizer.step()
    optimizer.zero_grad()
    assert p.tolist() == [-11.0, -22.0]
    feed(p, np.array([1.0, 1.0]))  # overwrites: nothing of the step before is left
    optimizer.step()
    assert p.tolist() == [-12.0, -23.0]
    assert q.tolist() == [0.0, 0.0]


def test_groups_have_their_own_options() -> None:
    a, b = mg.Parameter(np.ones(2)), mg.Parameter(np.ones(2))
    optimizer = mg.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b], "weight_decay": 1.0}], lr=0.1)
    for p in (a, b):
        feed(p, np.ones(2))
    optimizer.step()
    assert a.tolist() == [0.5, 0.5]
    assert b.tolist() == [0.8, 0.8]


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fifty_steps_of_table_and_arena_through_saving_and_loading(case: Case, clipped: bool) -> None:
    generator = np.random.default_rng(6)
    starts = {"table": generator.standard_normal((TABLE_ROWS, 2)), "weight": generator.standard_normal((4, 3))}
    parameters = {name: mg.Parameter(start, gathered=name == "table") for name, start in starts.items()}
    seen: dict[str, list[np.ndarray | None]] = {"table": [], "weight": []}
    optimizer = case.optimizer(parameters.values(), lr=0.05, **case.options)
    for step in range(STEPS):
        if step == STEPS // 2:
            saved = optimizer.state_dict()
            optimizer = case.optimizer(parameters.values(), lr=0.05, **case.options)
            optimizer.load_state_dict(saved)
        g = {"weight": generator.standard_normal((4, 3))}
        feed(parameters["weight"], g["weight"])
        g["table"] = feed_rows(parameters["table"], generator.integers(0, 30 + 5 * step, 20), generator.standard_normal((20, 2)))
        if clipped:
            norm = np.sqrt(sum(np.sum(part**2) for part in g.values()))
            assert norm > 1.5
            g = {name: part * (1.5 / (norm + 1e-6)) for name, part in g.items()}
            mg.optim.clip_grad_norm(parameters.values(), 1.5)
        optimizer.step()
        optimizer.zero_grad()
        for name, part in g.items():
            seen[name].append(part)
    for name, p in parameters.items():
        # Rounding of 50 updates; the formula is arranged differently.
        assert relative_error(p.numpy(), case.expected(starts[name], seen[name], [0.05] * STEPS)) < 1e-12, name
