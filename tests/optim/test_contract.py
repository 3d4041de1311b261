"""Every public optimizer, option and schedule of `minigrad.optim` has its row in the tables of formulas.

An optimizer without one in `reference.py`, or a schedule without one in `curves.py`, fails here; the other tests of this folder run over
the tables, so a row is enough to have it checked against its formula, by rows and dense, through saving and loading.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from optim.curves import CURVES, FACTORS
from optim.reference import CASES, RULES

import minigrad as mg

PUBLIC = {name: getattr(mg.optim, name) for name in mg.optim.__all__}
OPTIMIZERS = [kind for kind in PUBLIC.values() if inspect.isclass(kind) and issubclass(kind, mg.optim.Optimizer)]
SCHEDULES = [kind for kind in PUBLIC.values() if inspect.isclass(kind) and issubclass(kind, mg.optim.Schedule)]

ELSEWHERE = {
    "Optimizer": "the abstract base: what it does, every optimizer's rows check",
    "Schedule": "the abstract base: what it does, every schedule's rows check",
    "ReduceOnPlateau": "follows a metric, not the step: test_plateau.py",
    "clip_grad_norm": "no rule of its own: test_clip.py",
    "decay_groups": "no rule of its own: test_optimizer.py",
    "layer_groups": "no rule of its own: test_layers.py",
}
"""What is public and has no row, with the reason."""


def options_of(kind: type) -> dict[str, Any]:
    """The options of an optimizer or a schedule, each with its default."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("params", "optimizer")}


def unchecked(names: dict[str, Any]) -> list[str]:
    """Which of the public names have neither a row nor a reason."""
    rows = {*RULES, *FACTORS}
    return [name for name, what in names.items() if what not in rows and name not in ELSEWHERE]


def test_every_public_name_has_a_row_or_a_reason() -> None:
    assert unchecked(PUBLIC) == []
    assert ELSEWHERE.keys() <= PUBLIC.keys()
    assert {kind.__name__ for kind in (*RULES, *FACTORS)} <= PUBLIC.keys()


def test_a_name_without_a_row_is_found() -> None:
    class Unknown(mg.optim.SGD):
        pass

    class UnknownSchedule(mg.optim.LinearSchedule):
        pass

    assert unchecked(PUBLIC | {"Unknown": Unknown, "UnknownSchedule": UnknownSchedule, "new_groups": len}) == [
        "Unknown",
        "UnknownSchedule",
        "new_groups",
    ]


def is_moved(default: Any, value: Any) -> bool:
    return default is inspect.Parameter.empty or value != default


@pytest.mark.parametrize("kind", [k for k in OPTIMIZERS if k is not mg.optim.Optimizer], ids=lambda kind: kind.__name__)
def test_every_option_of_an_optimizer_is_moved_in_some_row(kind: type[mg.optim.Optimizer]) -> None:
    rows = [case.options for case in CASES if case.optimizer is kind]
    assert {} in rows, "the defaults need a row too"
    for name, default in options_of(kind).items():
        if name != "lr":  # moves in every row
            assert any(name in row and is_moved(default, row[name]) for row in rows), name


@pytest.mark.parametrize("kind", [k for k in SCHEDULES if k is not mg.optim.Schedule], ids=lambda kind: kind.__name__)
def test_every_option_of_a_schedule_is_moved_in_some_row(kind: type[mg.optim.Schedule]) -> None:
    rows = [curve.options for curve in CURVES if curve.schedule is kind]
    assert rows
    for name, default in options_of(kind).items():
        assert any(name in row and is_moved(default, row[name]) for row in rows), name


@pytest.mark.parametrize(("kind", "rule"), [*RULES.items(), *FACTORS.items()], ids=lambda either: either.__name__)
def test_the_formula_has_the_options_and_defaults_of_what_it_describes(kind: type, rule: Callable[..., Any]) -> None:
    """So that a row that does not name an option compares the same numbers."""
    written = inspect.signature(rule).parameters
    for name, default in options_of(kind).items():
        if name != "lr":  # a formula takes the rates of all steps
            assert written[name].default == default, name
