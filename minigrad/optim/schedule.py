"""Base of the learning-rate schedules: peaks, the count of steps, setting the rates, saving and resuming.

A schedule adds its curve: a factor for every step, by which each group's peak is multiplied (`schedules.py`). Only `ReduceOnPlateau` is
separate (`plateau.py`), because it follows a metric instead of the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim.checks import check_count, check_number
from minigrad.optim.optimizer import Optimizer


class Schedule(ABC):
    """Base of the schedules: the learning rate of each group is its peak times `factor(step)`.

    Sets the learning rates at once for the first step; call `step()` after each `optimizer.step()`. The rates that the optimizer has now
    are the peaks. `options` holds what the curve was built with.

    Raises: ArgumentError unless `optimizer` is one, and for impossible options.
    """

    def __init__(self, optimizer: Optimizer, **options: Any) -> None:
        check_optimizer(optimizer)
        self.check(options)
        self.optimizer, self.options = optimizer, options
        self.peaks = rates_of(optimizer)
        self.steps = 0
        self._set()

    # ---------------------------------------------------------------- what a schedule defines
    @abstractmethod
    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an option with an impossible value."""

    @abstractmethod
    def factor(self, step: int) -> float:
        """The factor on the peaks after `step` updates."""

    # ---------------------------------------------------------------- the step
    def step(self) -> None:
        """Count one update and set the learning rates for the next.

        Raises: ArgumentError if all peaks are 0, so that nothing would ever be trained.
        """
        if not any(self.peaks):
            raise ArgumentError(
                f"{type(self).__name__} multiplies the learning rates that the optimizer had when the schedule was built, and all of them "
                'were 0, where an earlier schedule may have left them: set each param_groups[i]["lr"], then build the schedule'
            )
        self.steps += 1
        self._set()

    def _set(self) -> None:
        factor = self.factor(self.steps)
        set_rates(self.optimizer, [peak * factor for peak in self.peaks])

    # ---------------------------------------------------------------- saving and resuming
    def state_dict(self) -> dict[str, Any]:
        """The current state: numbers, strings and lists only."""
        return {"schedule": type(self).__name__, "steps": self.steps, "peaks": list(self.peaks), **self.options}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state, its options included; sets the learning rates. Raises: StateDictError."""
        check_state(state, self.state_dict())
        options = {name: state[name] for name in self.options}
        try:
            check_rates("peaks", state["peaks"], len(self.peaks))
            check_count("steps", state["steps"])
            self.check(options)
        except ArgumentError as error:
            raise StateDictError(f"a schedule's state: {error}") from error
        self.steps, self.peaks, self.options = state["steps"], list(state["peaks"]), options
        self._set()


def check_optimizer(optimizer: Any) -> None:
    """Raises: ArgumentError unless `optimizer` is one."""
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(f"a schedule sets the learning rates of an optimizer, got {type(optimizer).__name__}")


def check_rates(name: str, rates: Any, count: int) -> None:
    """Raises: ArgumentError unless `rates` is a list of one learning rate for each of `count` groups."""
    if not isinstance(rates, list | tuple) or len(rates) != count:
        raise ArgumentError(f"{name} must be a list, one number for each of {count} parameter groups, got {rates!r:.80}")
    for number, rate in enumerate(rates):
        check_number(f"{name}[{number}]", rate)


def check_state(state: Any, own: Mapping[str, Any]) -> None:
    """Raises: StateDictError unless `state` has the keys of `own`, a state of the same schedule."""
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise StateDictError(f"the state of a schedule {own['schedule']} is a dict with exactly {', '.join(own)}")
    if state["schedule"] != own["schedule"]:
        raise StateDictError(f"this is the state of the schedule {state['schedule']!s:.80}, not of {own['schedule']}")


def rates_of(optimizer: Optimizer) -> list[float]:
    """The learning rate of each group."""
    return [group["lr"] for group in optimizer.param_groups]


def set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Set the learning rate of each group. Raises: ArgumentError if the optimizer does not have that many groups."""
    if len(optimizer.param_groups) != len(rates):
        raise ArgumentError(f"the optimizer had {len(rates)} parameter groups, it now has {len(optimizer.param_groups)}")
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
