"""A snapshot of the training state on the host between two steps, to roll back steps whose update the GPU skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from minigrad.backend import random
from minigrad.optim import Optimizer
from minigrad.parameter import Parameter
from minigrad.train.loss_scale import LossScaler


@dataclass(frozen=True)
class HostState:
    """The state at one moment. counts: of each parameter's updates. options: of every parameter group. seed, step: of the random stream.
    scaling: the loss scaler's state."""

    counts: dict[Parameter, int]
    options: list[dict[str, Any]]
    seed: int
    step: int
    scaling: dict[str, Any] | None

    @classmethod
    def of(cls, optimizer: Optimizer, scaler: LossScaler | None = None) -> Self:
        """The current state."""
        stream, options = random.current(), [dict(group) for group in optimizer.param_groups]
        return cls(dict(optimizer.steps), options, stream.seed, stream.step, None if scaler is None else scaler.state_dict())

    def restore_counts(self, optimizer: Optimizer) -> None:
        """Restore the update counts."""
        optimizer.steps.update(self.counts)

    def restore_scaling(self, scaler: LossScaler | None) -> None:
        """Restore the loss scale."""
        if scaler is not None and self.scaling is not None:
            scaler.load_state_dict(self.scaling)

    def restore_options(self, optimizer: Optimizer) -> None:
        """Restore the options of the parameter groups."""
        for group, options in zip(optimizer.param_groups, self.options, strict=True):
            group.update(options)

    def restore_random(self) -> None:
        """Restore the random stream."""
        stream = random.current()
        stream.seed, stream.step = self.seed, self.step
        stream.ordinals.clear()
