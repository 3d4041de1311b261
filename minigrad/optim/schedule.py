"""How the learning rate moves over a training run."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim.optimizer import Optimizer, check_number


class LinearSchedule:
    """Linear warm-up from 0 to the optimizer's learning rates, then linear decay to 0 (the schedule of BERT's fine-tuning).

    Sets the learning rates at once for the first step; call `step()` after each `optimizer.step()`. The rates that the optimizer has now
    are the peaks. Raises: ArgumentError for what is no optimizer, or unless 0 <= warmup_steps <= total_steps and total_steps >= 1.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"a schedule sets the learning rates of an optimizer, got {type(optimizer).__name__}")
        _check_lengths(warmup_steps, total_steps)
        self.optimizer, self.warmup_steps, self.total_steps = optimizer, warmup_steps, total_steps
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.steps = 0
        self._set()

    def factor(self, step: int) -> float:
        """What the peaks are multiplied by after `step` updates: step/warmup, then (total - step)/(total - warmup), never below 0."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))

    def step(self) -> None:
        """Count one update and set the learning rates for the next."""
        self.steps += 1
        self._set()

    def _set(self) -> None:
        if len(self.optimizer.param_groups) != len(self.peaks):
            raise ArgumentError(f"the optimizer had {len(self.peaks)} parameter groups, it now has {len(self.optimizer.param_groups)}")
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands: numbers and lists only."""
        return {"steps": self.steps, "peaks": list(self.peaks), "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, its warm-up and length included; sets the learning rates. Raises: StateDictError."""
        wanted = self.state_dict().keys()
        if not isinstance(state, Mapping) or state.keys() != wanted:
            raise StateDictError(f"the state of a schedule is a dict with exactly {', '.join(wanted)}")
        steps, peaks = state["steps"], state["peaks"]
        if not isinstance(peaks, list | tuple) or len(peaks) != len(self.peaks):
            raise StateDictError(f"a schedule's state needs a list of peaks, one for each of {len(self.peaks)} parameter groups")
        try:
            _check_lengths(state["warmup_steps"], state["total_steps"])
            for number, peak in enumerate(peaks):
                check_number(f"peaks[{number}]", peak)
        except ArgumentError as error:
            raise StateDictError(f"a schedule's state: {error}") from error
        if not _is_count(steps):
            raise StateDictError(f"a schedule's state: steps must be an integer of at least 0, got {steps!r}")
        self.steps, self.peaks = steps, list(peaks)
        self.warmup_steps, self.total_steps = state["warmup_steps"], state["total_steps"]
        self._set()


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 0  # type: ignore[operator]


def _check_lengths(warmup_steps: Any, total_steps: Any) -> None:
    if not _is_count(warmup_steps) or not _is_count(total_steps) or not warmup_steps <= total_steps or total_steps < 1:
        raise ArgumentError(
            "a schedule needs integers 0 <= warmup_steps <= total_steps and total_steps >= 1, "
            f"got {warmup_steps!r:.80} and {total_steps!r:.80}"
        )
