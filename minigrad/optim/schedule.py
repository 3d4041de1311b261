"""How the learning rate moves over a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim.optimizer import Optimizer


class LinearSchedule:
    """Linear warm-up from 0 to the optimizer's learning rates, then linear decay to 0 (the schedule of BERT's fine-tuning).

    Sets the learning rates at once for the first step; call `step()` after each `optimizer.step()`. The rates that the optimizer has now
    are the peaks. Raises: ArgumentError unless 0 <= warmup_steps <= total_steps and total_steps >= 1.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> None:
        if not 0 <= warmup_steps <= total_steps or total_steps < 1:
            raise ArgumentError(
                f"a schedule needs 0 <= warmup_steps <= total_steps and total_steps >= 1, got {warmup_steps} and {total_steps}"
            )
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
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands: numbers and lists only."""
        return {"steps": self.steps, "peaks": list(self.peaks), "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, its warm-up and length included; sets the learning rates. Raises: StateDictError."""
        wanted = self.state_dict().keys()
        if not isinstance(state, Mapping) or state.keys() != wanted or len(state["peaks"]) != len(self.peaks):
            raise StateDictError(
                f"the state of a schedule holds {', '.join(wanted)}, with one peak for each of {len(self.peaks)} parameter groups"
            )
        self.steps, self.peaks = state["steps"], list(state["peaks"])
        self.warmup_steps, self.total_steps = state["warmup_steps"], state["total_steps"]
        self._set()
