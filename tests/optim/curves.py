"""Independent step-by-step implementations of the schedules, as a reference for their factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import Any

import minigrad as mg


def _warm(step: int, warmup_steps: int, after: Callable[[], float]) -> float:
    return step / warmup_steps if step < warmup_steps else after()


def linear(step: int, warmup_steps: int, total_steps: int) -> float:
    return polynomial(step, warmup_steps, total_steps)


def polynomial(step: int, warmup_steps: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> float:
    left = max(0.0, 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return _warm(step, warmup_steps, lambda: floor + (1 - floor) * left**power)


def cosine(step: int, warmup_steps: int, total_steps: int, num_cycles: float = 0.5, floor: float = 0.0) -> float:
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return _warm(step, warmup_steps, lambda: floor + (1 - floor) * cos(pi * num_cycles * done) ** 2)


def constant(step: int, warmup_steps: int = 0) -> float:
    return _warm(step, warmup_steps, lambda: 1.0)


def one_cycle(
    step: int,
    total_steps: int,
    pct_start: float = 0.3,
    anneal: str = "cosine",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> float:
    low = 1 / div_factor
    points = [(0.0, low), (pct_start * total_steps - 1, 1.0)]
    if three_phase:
        points.append((2 * pct_start * total_steps - 2, low))
    points.append((total_steps - 1.0, low / final_div_factor))
    for (at, value), (until, target) in pairwise(points):
        if step < until:
            done = (step - at) / (until - at)
            return value + (target - value) * (done if anneal == "linear" else 0.5 - 0.5 * cos(pi * done))
        if step == until:
            return target
    return points[-1][1]


FACTORS: dict[type[mg.optim.Schedule], Callable[..., float]] = {
    mg.optim.LinearSchedule: linear,
    mg.optim.CosineSchedule: cosine,
    mg.optim.PolynomialSchedule: polynomial,
    mg.optim.ConstantSchedule: constant,
    mg.optim.OneCycleSchedule: one_cycle,
}


@dataclass(frozen=True)
class Curve:
    """One schedule with options, and its factors."""

    schedule: type[mg.optim.Schedule]
    options: dict[str, Any]

    def expected(self, step: int) -> float:
        return FACTORS[self.schedule](step, **self.options)

    def __str__(self) -> str:
        return f"{self.schedule.__name__}-{'-'.join(f'{k}={v}' for k, v in self.options.items())}"


CURVES = [
    Curve(mg.optim.LinearSchedule, {"warmup_steps": 4, "total_steps": 12}),
    Curve(mg.optim.LinearSchedule, {"warmup_steps": 0, "total_steps": 20}),
    Curve(mg.optim.CosineSchedule, {"warmup_steps": 4, "total_steps": 20}),
    Curve(mg.optim.CosineSchedule, {"warmup_steps": 0, "total_steps": 20, "num_cycles": 1.5, "floor": 0.1}),
    Curve(mg.optim.CosineSchedule, {"warmup_steps": 3, "total_steps": 17, "floor": 1.0}),
    Curve(mg.optim.PolynomialSchedule, {"warmup_steps": 4, "total_steps": 20}),
    Curve(mg.optim.PolynomialSchedule, {"warmup_steps": 5, "total_steps": 20, "power": 2.5, "floor": 0.05}),
    Curve(mg.optim.PolynomialSchedule, {"warmup_steps": 0, "total_steps": 20, "power": 0.5}),
    Curve(mg.optim.ConstantSchedule, {}),
    Curve(mg.optim.ConstantSchedule, {"warmup_steps": 7}),
    Curve(mg.optim.OneCycleSchedule, {"total_steps": 20}),
    Curve(
        mg.optim.OneCycleSchedule, {"total_steps": 21, "pct_start": 0.4, "anneal": "linear", "div_factor": 10.0, "final_div_factor": 50.0}
    ),
    Curve(mg.optim.OneCycleSchedule, {"total_steps": 20, "three_phase": True}),
    Curve(mg.optim.OneCycleSchedule, {"total_steps": 23, "three_phase": True, "pct_start": 0.25, "anneal": "linear"}),
]
