"""Where a training stands on the host between two steps, so that steps which a GPU has not made can be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from minigrad.backend import random
from minigrad.optim import Optimizer
from minigrad.parameter import Parameter
from minigrad.train.loss_scale import LossScaler


@dataclass(frozen=True)
class Standing:
    """counts: the updates that each parameter has had. options: of every parameter group. seed, step: of the random numbers. scaling: the
    state of the loss scaler."""

    counts: dict[Parameter, int]
    options: list[dict[str, Any]]
    seed: int
    step: int
    scaling: dict[str, Any] | None

    @classmethod
    def of(cls, optimizer: Optimizer, scaler: LossScaler | None = None) -> Self:
        """As it is now."""
        stream, options = random.current(), [dict(group) for group in optimizer.param_groups]
        return cls(dict(optimizer.steps), options, stream.seed, stream.step, None if scaler is None else scaler.state_dict())

    def set_counts(self, optimizer: Optimizer) -> None:
        """The updates made since then count as not made."""
        optimizer.steps.update(self.counts)

    def set_scaling(self, scaler: LossScaler | None) -> None:
        """The factor of the loss is that of then."""
        if scaler is not None and self.scaling is not None:
            scaler.load_state_dict(self.scaling)

    def set_options(self, optimizer: Optimizer) -> None:
        """The groups' options are those of then."""
        for group, options in zip(optimizer.param_groups, self.options, strict=True):
            group.update(options)

    def set_random(self) -> None:
        """The random numbers are those of then."""
        stream = random.current()
        stream.seed, stream.step = self.seed, self.step
        stream.ordinals.clear()
