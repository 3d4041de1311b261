"""Loss scaling: gradients in fp16 that would be too small to exist, because a larger loss was differentiated.

Below 6e-8 a number rounds to zero in fp16, and many gradients are smaller. The loss is multiplied by a large power of two, so all of its
gradients are; the update divides by it, exactly. Where the factor was too large a gradient is infinite or NaN: that update is left out and
the factor halved; after many good steps it is tried with twice as much.

Source: Micikevicius et al., "Mixed Precision Training", 2018 (arXiv 1710.03740), as torch.amp.GradScaler does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import frexp
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.optim.checks import check_count

GROW_AFTER = 2000
"""Good steps after which the factor is doubled."""


class LossScaler:
    """The factor of the loss, and how many good steps it has lasted. A `Team` works with it by itself; a loop of your own:

        (loss * scaler.scale).backward()
        norm = mg.optim.clip_grad_norm(parameters, math.inf)
        if math.isfinite(norm):
            optimizer.step(scale=1 / scaler.scale)
        scaler.update(overflowed=not math.isfinite(norm))

    scale: the factor to begin with. It is halved down to 1 and no further.
    Raises: ArgumentError for a factor that is no power of two from 1.
    """

    scale: float
    good: int
    """Steps since the factor last changed."""

    def __init__(self, scale: float = 2.0**16) -> None:
        self.load_state_dict({"scale": scale, "good": 0})

    @property
    def is_least(self) -> bool:
        """Whether the factor is 1: what is not finite then was not made by scaling."""
        return self.scale == 1

    def update(self, *, overflowed: bool) -> None:
        """Count a step, whose gradient was not finite if it `overflowed`."""
        self.good = 0 if overflowed else self.good + 1
        if overflowed:
            self.scale = max(self.scale / 2, 1.0)
        elif self.good == GROW_AFTER:
            self.scale, self.good = self.scale * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises: ArgumentError for a factor that is no power of two from 1, and no count."""
        scale, good = state["scale"], state["good"]
        if not isinstance(scale, int | float) or not 1 <= scale <= 2.0**1023 or frexp(scale)[0] != 0.5:
            raise ArgumentError(f"scale must be a power of two from 1, got {scale!r:.80}")
        check_count("good", good)
        self.scale, self.good = float(scale), good
