"""Planted errors: wrong pullbacks, and an engine that does not undo broadcasting, must be rejected by the check.

A checker that accepted everything would pass all other tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from ops.cases import CASES, Sample

import minigrad as mg
from minigrad import autograd
from minigrad.autograd import sum_to
from minigrad.backend.gradients import dense
from minigrad.errors import GradientCheckError
from minigrad.op import REGISTRY

PLANTED = settings(
    max_examples=60,
    derandomize=True,  # fixed, because the test asserts that some drawn call exposes each error
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
FACTORS = (1.001, -1.0)
"""Factors by which a right gradient is multiplied: off by a thousandth, and of the wrong sign."""

ALWAYS_ZERO = {("attention_block", 5): "a number added to every key changes no weight of softmax"}
"""Gradients that are always zero, and so remain right when they are multiplied by a factor."""

COUNT: list[int] = []


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    yield
    print(f"\n{sum(COUNT)} planted errors in the arguments of {len(COUNT)} operations, all caught")


class Corrupted:
    """`operation.run` with one argument's gradient multiplied by `factor`; `largest` is the largest change so far."""

    def __init__(self, name: str, position: int, factor: float) -> None:
        self.original, self.position, self.factor, self.largest = REGISTRY[name].run, position, factor, 0.0

    def __call__(self, xp: Any, arrays: Any, constants: Any, **how: Any) -> Any:
        output, pullback = self.original(xp, arrays, constants, **{**how, "generic": True})

        def wrong(g: Any) -> Any:
            parts = [f(g) if f is not None else None for f in pullback] if type(pullback) is tuple else pullback(g)
            parts = list(parts) if isinstance(parts, list | tuple) else [parts]
            true = dense(parts[self.position])
            if true is not None:
                change = np.abs(sum_to(true, arrays[self.position].shape) * (self.factor - 1.0))
                self.largest = max(self.largest, float(change.max(initial=0.0)))
                parts[self.position] = true * self.factor
            return tuple(parts)

        return output, wrong


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_wrong_gradient_of_any_argument_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[int, float]] = set()
    caught: set[tuple[int, float]] = set()

    @PLANTED
    @given(CASES[name])
    def run(sample: Sample) -> None:
        for position, factor in product(sample.floating, FACTORS):
            if (name, position) in ALWAYS_ZERO:
                continue
            seen.add((position, factor))
            if (position, factor) in caught:
                continue
            inputs = [mg.Tensor(a, requires_grad=i == position) if i in sample.floating else a for i, a in enumerate(sample.args)]
            corrupted = Corrupted(name, position, factor)
            with monkeypatch.context() as patch:
                patch.setattr(REGISTRY[name], "run", corrupted)
                try:
                    mg.gradcheck(lambda *a: sample.call(REGISTRY[name], a), inputs)
                    assert corrupted.largest < 2e-7, f"a gradient was off by {corrupted.largest}, unnoticed"  # below gradcheck's ATOL
                except GradientCheckError:
                    caught.add((position, factor))

    run()
    assert seen and caught == seen
    COUNT.append(len(caught))


@pytest.mark.parametrize("shapes", [((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2,)), ((1, 1, 3), (2, 2, 1))], ids=str)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power"])
def test_missing_sum_over_broadcast_axes_is_caught(name: str, shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    inputs = [mg.Tensor(rng.uniform(0.5, 1.5, shape), requires_grad=True) for shape in shapes]
    assert mg.gradcheck(REGISTRY[name], inputs)
    monkeypatch.setattr(autograd, "sum_to", lambda gradient, shape: gradient)
    with pytest.raises(GradientCheckError):
        mg.gradcheck(REGISTRY[name], inputs)


def test_missing_sum_for_a_bias_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    inputs = [mg.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((4, 3), (2, 3), (2,))]
    assert mg.gradcheck(REGISTRY["linear"], inputs)
    monkeypatch.setattr(autograd, "sum_to", lambda gradient, shape: gradient)
    with pytest.raises(GradientCheckError):
        mg.gradcheck(REGISTRY["linear"], inputs)
