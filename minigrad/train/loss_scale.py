"""Loss scaling: keeps small gradients from underflowing in fp16, by differentiating a larger loss.

In fp16 a number below 6e-8 rounds to zero, and many gradients are smaller. The loss is multiplied by a large power of two, and with it all
of its gradients; the update divides by it, exactly. If the factor was too large, a gradient is infinite or NaN: that update is skipped and
the factor halved; after many good steps it is doubled.

Source: Micikevicius et al., "Mixed Precision Training", 2018 (arXiv 1710.03740), as torch.amp.GradScaler does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import frexp
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.optim.checks import check_count

GROW_AFTER = 2000
"""The number of good steps after which the factor is doubled."""


class LossScaler:
    """The factor of the loss, and the number of good steps since it last changed. A `Team` uses it by itself; in a loop of your own:

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
        """Whether the factor is 1: a gradient that is not finite is then not due to scaling."""
        return self.scale == 1

    def update(self, *, overflowed: bool) -> None:
        """Count a step. overflowed: its gradient was not finite."""
        self.good = 0 if overflowed else self.good + 1
        if overflowed:
            self.scale = max(self.scale / 2, 1.0)
        elif self.good == GROW_AFTER:
            self.scale, self.good = self.scale * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned. Raises: ArgumentError for a factor that is no power of two from 1, and a bad count."""
        scale, good = state["scale"], state["good"]
        if not isinstance(scale, int | float) or not 1 <= scale <= 2.0**1023 or frexp(scale)[0] != 0.5:
            raise ArgumentError(f"scale must be a power of two from 1, got {scale!r:.80}")
        check_count("good", good)
        self.scale, self.good = float(scale), good
