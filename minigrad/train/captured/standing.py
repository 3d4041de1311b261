"""Where a training stands on the host between two steps, so that steps which a GPU has not made can be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from minigrad.backend import random
from minigrad.optim import Optimizer
from minigrad.parameter import Parameter


@dataclass(frozen=True)
class Standing:
    """counts: the updates that each parameter has had. options: of every parameter group. seed, step: of the random numbers."""

    counts: dict[Parameter, int]
    options: list[dict[str, Any]]
    seed: int
    step: int

    @classmethod
    def of(cls, optimizer: Optimizer) -> Self:
        """As it is now."""
        stream = random.current()
        return cls(dict(optimizer.steps), [dict(group) for group in optimizer.param_groups], stream.seed, stream.step)

    def set_counts(self, optimizer: Optimizer) -> None:
        """The updates made since then count as not made."""
        optimizer.steps.update(self.counts)

    def set_options(self, optimizer: Optimizer) -> None:
        """The groups' options are those of then."""
        for group, options in zip(optimizer.param_groups, self.options, strict=True):
            group.update(options)

    def set_random(self) -> None:
        """The random numbers are those of then."""
        stream = random.current()
        stream.seed, stream.step = self.seed, self.step
        stream.ordinals.clear()
