"""Every schedule equals its curve in `curves.py`, also after a restart, and refuses invalid arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optim.curves import CURVES, Curve

import minigrad as mg
from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim import ConstantSchedule, CosineSchedule, LinearSchedule, OneCycleSchedule, PolynomialSchedule, Schedule

STEPS = 26  # beyond the end of every curve


def optimizer_with(*rates: float) -> mg.optim.Optimizer:
    return mg.optim.SGD([{"params": [mg.Parameter(np.ones(2))], "lr": lr} for lr in rates])


def rates_of(optimizer: mg.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("curve", CURVES, ids=str)
def test_the_rates_equal_the_curve(curve: Curve) -> None:
    optimizer = optimizer_with(0.4, 0.8)
    schedule = curve.schedule(optimizer, **curve.options)
    for step in range(STEPS):
        expected = curve.expected(step)
        # Tolerance: a few roundings of numbers up to 1; the curve is written out differently.
        np.testing.assert_allclose(rates_of(optimizer), [0.4 * expected, 0.8 * expected], rtol=1e-13, atol=1e-15)
        assert 0 <= schedule.factor(step) <= 1 + 1e-15  # one rounding
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("curve", CURVES, ids=str)
def test_a_resumed_schedule_goes_on_to_the_last_bit(curve: Curve) -> None:
    optimizer, other = optimizer_with(0.4, 0.8), optimizer_with(123.0, 0.0)
    schedule = curve.schedule(optimizer, **curve.options)
    others = {"total_steps": 5, "warmup_steps": 2}
    resumed = curve.schedule(other, **{name: others[name] for name in curve.options if name in others})
    for _ in range(7):
        schedule.step()
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for _ in range(STEPS):
        assert rates_of(other) == rates_of(optimizer)
        schedule.step()
        resumed.step()
    assert resumed.state_dict() == schedule.state_dict()


def test_the_ends_are_held() -> None:
    def last(schedule: Schedule) -> float:
        return schedule.factor(1000)

    assert last(LinearSchedule(optimizer_with(1.0), 2, 10)) == 0
    assert last(CosineSchedule(optimizer_with(1.0), 2, 10, floor=0.25)) == 0.25
    assert last(PolynomialSchedule(optimizer_with(1.0), 2, 10, floor=0.25)) == 0.25
    assert last(ConstantSchedule(optimizer_with(1.0))) == 1
    assert last(OneCycleSchedule(optimizer_with(1.0), 10)) == pytest.approx(1 / 25e4, rel=1e-15)  # two divisions


def test_one_cycle_passes_its_points() -> None:
    schedule = OneCycleSchedule(optimizer_with(1.0), 20, pct_start=0.25, div_factor=4, final_div_factor=2, three_phase=True)
    assert [schedule.factor(step) for step in (0, 4, 8, 19)] == [0.25, 1.0, 0.25, 0.125]


@pytest.mark.parametrize(("total", "pct_start"), [(1, 0.3), (1, 1.0), (4, 0.25), (4, 0.0), (4, 1.0), (10, 0.1)])
@pytest.mark.parametrize("three_phase", [False, True])
def test_a_cycle_with_empty_phases_has_no_holes(total: int, pct_start: float, three_phase: bool) -> None:
    pct_start = pct_start / 2 if three_phase else pct_start
    schedule = OneCycleSchedule(optimizer_with(1.0), total, pct_start=pct_start, three_phase=three_phase)
    factors = [schedule.factor(step) for step in range(total + 2)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[-1] == pytest.approx(1 / 25e4, rel=1e-15)  # two divisions


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda o: CosineSchedule(o, 6, 5), "warmup_steps must be at most total_steps, got 6 and 5"),
        (lambda o: CosineSchedule(o, 0, 5, num_cycles=0), "num_cycles must be above 0"),
        (lambda o: CosineSchedule(o, 0, 5, floor=1.5), "floor must be at most 1"),
        (lambda o: CosineSchedule(o, 0, 5, floor=float("nan")), "floor must be a number >= 0"),
        (lambda o: PolynomialSchedule(o, 0, 5, power=0), "power must be above 0"),
        (lambda o: PolynomialSchedule(o, 0, 5, power="2"), "power must be a number"),
        (lambda o: PolynomialSchedule(o, 0, 5, floor=-0.1), "floor must be a number >= 0"),
        (lambda o: PolynomialSchedule(o, 0.5, 5), "warmup_steps must be an integer"),
        (lambda o: ConstantSchedule(o, -1), "warmup_steps must be an integer of at least 0, got -1"),
        (lambda o: ConstantSchedule(o, None), "warmup_steps must be an integer"),
        (lambda o: OneCycleSchedule(o, 0), "total_steps must be an integer of at least 1, got 0"),
        (lambda o: OneCycleSchedule(o, 10, pct_start=1.5), "pct_start must be at most 1"),
        (lambda o: OneCycleSchedule(o, 10, pct_start=0.6, three_phase=True), "three_phase .* at most 1, got 1.2"),
        (lambda o: OneCycleSchedule(o, 10, three_phase=1), "three_phase must be True or False"),
        (lambda o: OneCycleSchedule(o, 10, anneal="cos"), "anneal must be one of 'cosine', 'linear', got 'cos'"),
        (lambda o: OneCycleSchedule(o, 10, anneal=["linear"]), "anneal must be one of"),
        (lambda o: OneCycleSchedule(o, 10, div_factor=0), "div_factor must be above 0"),
        (lambda o: OneCycleSchedule(o, 10, final_div_factor=0), "final_div_factor must be above 0"),
        (lambda o: CosineSchedule([o], 0, 5), "rates of an optimizer, got list"),
    ],
)
def test_impossible_options_are_named_and_change_nothing(build: Callable[[Any], object], says: str) -> None:
    optimizer = optimizer_with(0.3)
    with pytest.raises(ArgumentError, match=says):
        build(optimizer)
    assert rates_of(optimizer) == [0.3]


@pytest.mark.parametrize("wrong", [{"floor": 2}, {"num_cycles": "1"}, {"schedule": "LinearSchedule"}, {"warmup_steps": 30}])
def test_a_state_of_another_schedule_or_with_impossible_options_is_refused(wrong: dict[str, Any]) -> None:
    optimizer = optimizer_with(0.3)
    schedule = CosineSchedule(optimizer, 0, 20)
    before = schedule.state_dict()
    with pytest.raises(StateDictError, match="schedule"):
        schedule.load_state_dict(before | wrong)
    assert schedule.state_dict() == before
    assert rates_of(optimizer) == [0.3]
