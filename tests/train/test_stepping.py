"""The clock of a training: what counts as its time, and how fast it says that it is."""

from __future__ import annotations

import time

import pytest

from minigrad.train.stepping import RECENT, Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is."""
    found = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: found[0])
    return found


def step(clock: Clock, now: list[float], seconds: float, tokens: int) -> tuple[float, float]:
    now[0] += seconds
    clock.count(tokens)
    return clock.tokens_per_second, clock.seconds_for(10)


def test_the_first_step_counts_until_there_are_others(now: list[float]) -> None:
    clock = Clock(0.0)
    assert step(clock, now, 60.0, 120) == (2.0, 600.0)
    assert step(clock, now, 2.0, 100) == (50.0, 20.0)
    assert step(clock, now, 4.0, 200) == (50.0, 30.0)


def test_steps_of_long_ago_count_no_more(now: list[float]) -> None:
    clock = Clock(0.0)
    for _ in range(RECENT):
        step(clock, now, 10.0, 10)
    for _ in range(RECENT):
        found = step(clock, now, 0.5, 10)
    assert found == (20.0, 5.0)


def test_evaluations_are_no_training(now: list[float]) -> None:
    clock = Clock(1000.0)
    step(clock, now, 60.0, 1)
    step(clock, now, 2.0, 100)
    now[0] += 30.0
    clock.pause(30.0)
    assert step(clock, now, 2.0, 100) == (50.0, 20.0)
    assert clock.seconds == 1064.0


def test_before_any_step(now: list[float]) -> None:
    clock = Clock(0.0)
    assert clock.tokens_per_second == 0 and clock.seconds_for(0) == 0
