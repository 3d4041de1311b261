"""The learning rate falls when a metric stops improving, and only then."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim import ReduceOnPlateau


def optimizer_with(*rates: float) -> mg.optim.Optimizer:
    return mg.optim.SGD([{"params": [mg.Parameter(np.ones(2))], "lr": lr} for lr in rates])


def follow(schedule: ReduceOnPlateau, metrics: list[float]) -> list[float]:
    """The first group's rate after each metric."""
    rates = []
    for metric in metrics:
        schedule.step(metric)
        rates.append(schedule.optimizer.param_groups[0]["lr"])
    return rates


def test_it_waits_for_more_than_patience_bad_values() -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=2)
    assert follow(schedule, [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_an_improvement_starts_the_wait_again() -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=1)
    assert follow(schedule, [3.0, 3.0, 2.0, 2.0, 2.0]) == [1, 1, 1, 1, 0.5]


def test_an_improvement_below_the_margin_is_none() -> None:
    relative = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=0, threshold=0.1)
    assert follow(relative, [10.0, 9.1, 8.9, 8.1]) == [1, 0.5, 0.5, 0.25]
    absolute = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=0, threshold=0.5, threshold_mode="abs")
    assert follow(absolute, [10.0, 9.6, 9.4]) == [1, 0.5, 0.5]


def test_a_metric_may_rise() -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), mode="max", factor=0.5, patience=0, threshold=0.1)
    assert follow(schedule, [1.0, 1.05, 1.2, 0.1]) == [1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(("mode", "better", "same"), [("min", -1.2, -1.05), ("max", -0.8, -0.95)])
def test_the_relative_margin_points_the_right_way_around_negative_values(mode: str, better: float, same: float) -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), mode=mode, factor=0.5, patience=0, threshold=0.1)
    assert follow(schedule, [-1.0, better, better]) == [1, 1, 0.5]
    schedule = ReduceOnPlateau(optimizer_with(1.0), mode=mode, factor=0.5, patience=0, threshold=0.1)
    assert follow(schedule, [-1.0, same]) == [1, 0.5]


def test_cooldown_does_not_count() -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=0, cooldown=2)
    assert follow(schedule, [1.0] * 7) == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_the_rates_stop_at_min_lr_and_a_lower_one_is_not_raised() -> None:
    optimizer = optimizer_with(1.0, 0.1)
    schedule = ReduceOnPlateau(optimizer, factor=0.5, patience=0, min_lr=0.3)
    assert follow(schedule, [1.0] * 4) == [1, 0.5, 0.3, 0.3]
    assert optimizer.param_groups[1]["lr"] == 0.1


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_bad(odd: float) -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0), factor=0.5, patience=1)
    assert follow(schedule, [odd, odd, 1.0, odd, odd]) == [1, 0.5, 0.5, 0.5, 0.25]
    assert schedule.best == 1.0


def test_resumes_where_it_stood() -> None:
    metrics = [float(value) for value in np.random.default_rng(3).integers(0, 6, 40)]
    straight = ReduceOnPlateau(optimizer_with(1.0, 0.5), factor=0.5, patience=1, cooldown=2)
    expected = follow(straight, metrics)
    assert len(set(expected)) > 3
    stopped = ReduceOnPlateau(optimizer_with(1.0, 0.5), factor=0.5, patience=1, cooldown=2)
    for metric, rate in zip(metrics, expected, strict=True):  # stopped after every step: in every phase of the wait
        resumed = ReduceOnPlateau(optimizer_with(9.0, 9.0), mode="max")
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert follow(resumed, [metric]) == [rate]
        stopped = resumed
    assert stopped.state_dict() == straight.state_dict()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "low"}, "mode must be one of 'min', 'max'"),
        ({"factor": 1.0}, "factor must be below 1"),
        ({"factor": -0.1}, "factor must be a number >= 0"),
        ({"patience": -1}, "patience must be an integer of at least 0"),
        ({"patience": 1.5}, "patience must be an integer"),
        ({"threshold": -1}, "threshold must be a number >= 0"),
        ({"threshold_mode": "relative"}, "threshold_mode must be one of 'rel', 'abs'"),
        ({"cooldown": None}, "cooldown must be an integer"),
        ({"min_lr": [0.1]}, "min_lr must be a number"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        ReduceOnPlateau(optimizer_with(1.0), **options)
    schedule = ReduceOnPlateau(optimizer_with(1.0))
    before = schedule.state_dict()
    with pytest.raises(StateDictError, match=says):
        schedule.load_state_dict(before | options)
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    "wrong",
    [{"best": "1"}, {"best": float("nan")}, {"bad_steps": -1}, {"cooldown_left": 0.5}, {"rates": [1.0, 2.0]}, {"rates": [-1.0]}, {"x": 1}],
)
def test_a_state_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    schedule = ReduceOnPlateau(optimizer_with(1.0))
    before = schedule.state_dict()
    with pytest.raises(StateDictError, match="schedule"):
        schedule.load_state_dict(before | wrong)
    assert schedule.state_dict() == before


@pytest.mark.parametrize("metric", [None, "1", True, mg.tensor(1.0)])
def test_only_a_number_is_a_metric(metric: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"loss\.item\(\).*got {type(metric).__name__}"):
        ReduceOnPlateau(optimizer_with(1.0)).step(metric)


def test_only_an_optimizer_has_learning_rates() -> None:
    with pytest.raises(ArgumentError, match="rates of an optimizer, got list"):
        ReduceOnPlateau([])  # type: ignore[arg-type]
