"""The worker processes of a team."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigrad.data.loader import Batch
from minigrad.tensor import Tensor


def share_of(loss_of: Callable[[Batch, Batch], Tensor], pieces: Sequence[Batch], whole: Batch) -> float:
    """The loss of some pieces of a step, one after the other, so that the memory of one is free before the next; adds to the gradients."""
    total = 0.0
    for piece in pieces:
        loss = loss_of(piece, whole)
        loss.backward()
        total += float(loss.item())
    return total
