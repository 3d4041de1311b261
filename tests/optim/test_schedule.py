"""The linear schedule: warm-up from 0, decay to 0, resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ArgumentError, StateDictError


def optimizer_with(*rates: float) -> mg.optim.Optimizer:
    return mg.optim.SGD([{"params": [mg.Parameter(np.ones(2))], "lr": lr} for lr in rates])


def test_factors() -> None:
    schedule = mg.optim.LinearSchedule(optimizer_with(1.0), warmup_steps=4, total_steps=12)
    expected = [0, 0.25, 0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0, 0, 0]
    assert [schedule.factor(step) for step in range(15)] == expected


def test_without_warmup_it_starts_at_the_top() -> None:
    schedule = mg.optim.LinearSchedule(optimizer_with(1.0), warmup_steps=0, total_steps=2)
    assert [schedule.factor(step) for step in range(4)] == [1, 0.5, 0, 0]


def test_warmup_over_the_whole_run() -> None:
    schedule = mg.optim.LinearSchedule(optimizer_with(1.0), warmup_steps=2, total_steps=2)
    assert [schedule.factor(step) for step in range(4)] == [0, 0.5, 0, 0]


def test_a_schedule_built_on_rates_of_0_says_so() -> None:
    optimizer = optimizer_with(0.5)
    first = mg.optim.LinearSchedule(optimizer, 2, 4)
    again = mg.optim.LinearSchedule(optimizer, 2, 4)  # a cell that was run twice: warm-up has begun, at 0
    with pytest.raises(ArgumentError, match=r"LinearSchedule multiplies the learning rates .* all of them were 0"):
        again.step()
    again.load_state_dict(first.state_dict())
    again.step()
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_each_group_keeps_its_own_peak() -> None:
    optimizer = optimizer_with(0.4, 0.8)
    schedule = mg.optim.LinearSchedule(optimizer, warmup_steps=2, total_steps=6)
    seen = []
    for _ in range(7):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(seen, [[0.4 * f, 0.8 * f] for f in (0, 0.5, 1, 0.75, 0.5, 0.25, 0)], rtol=1e-15)  # one rounding


def test_resumes_where_it_stood() -> None:
    optimizer = optimizer_with(0.4)
    schedule = mg.optim.LinearSchedule(optimizer, warmup_steps=3, total_steps=10)
    for _ in range(5):
        schedule.step()
    state, saved = schedule.state_dict(), optimizer.state_dict()
    other = optimizer_with(123.0)
    resumed = mg.optim.LinearSchedule(other, warmup_steps=0, total_steps=1)
    other.load_state_dict(saved)
    resumed.load_state_dict(state)
    for _ in range(6):
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        schedule.step()
        resumed.step()


@pytest.mark.parametrize(("warmup", "total"), [(-1, 5), (6, 5), (0, 0), ("a", 5), (0, "a"), (0, None), (0, 5.0), (True, 5), ([0], 5)])
def test_impossible_lengths_are_refused(warmup: Any, total: Any) -> None:
    with pytest.raises(ArgumentError, match=r"(warmup|total)_steps must be"):
        mg.optim.LinearSchedule(optimizer_with(0.1), warmup, total)


@pytest.mark.parametrize("wrong", [None, mg.nn.Linear(2, 2), []])
def test_only_an_optimizer_has_learning_rates(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=f"rates of an optimizer, got {type(wrong).__name__}"):
        mg.optim.LinearSchedule(wrong, 0, 5)


def test_a_group_appended_afterwards_is_named() -> None:
    optimizer = optimizer_with(0.1)
    schedule = mg.optim.LinearSchedule(optimizer, 0, 5)
    optimizer.param_groups.append({"params": [], "lr": 1.0})
    with pytest.raises(ArgumentError, match="had 1 parameter groups, it now has 2"):
        schedule.step()


GOOD = {"schedule": "LinearSchedule", "steps": 1, "peaks": [1.0], "warmup_steps": 0, "total_steps": 5}
STATES: list[Any] = [
    {},
    [],
    None,
    GOOD | {"more": 1},
    GOOD | {"schedule": "CosineSchedule"},
    GOOD | {"schedule": None},
    GOOD | {"peaks": [1.0, 2.0]},
    GOOD | {"peaks": 1.0},
    GOOD | {"peaks": "1"},
    GOOD | {"peaks": ["a"]},
    GOOD | {"peaks": [-1.0]},
    GOOD | {"peaks": [float("nan")]},
    GOOD | {"steps": "1"},
    GOOD | {"steps": -1},
    GOOD | {"steps": 1.5},
    GOOD | {"warmup_steps": 6},
    GOOD | {"warmup_steps": None},
    GOOD | {"total_steps": 0},
    GOOD | {"total_steps": [5]},
]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state: Any) -> None:
    optimizer = optimizer_with(0.1)
    schedule = mg.optim.LinearSchedule(optimizer, 0, 4)
    before = schedule.state_dict()
    with pytest.raises(StateDictError, match="schedule"):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before
    assert optimizer.param_groups[0]["lr"] == 0.1
    schedule.load_state_dict(GOOD)
    assert schedule.state_dict() == GOOD
