"""Team: a step's gradient, computed in parts, by one process or by several.

A backward pass cannot be divided after the forward pass, so the batch is: its sequences are dealt out, every part contributes its share of
the loss and of the gradient, and the shares add up to what one pass over the whole batch gives. Dropout takes part in this because units
are drawn by a sequence's number in the step, which the parts keep.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from minigrad.backend import random
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.optim import Optimizer
from minigrad.tensor import Tensor
from minigrad.train._workers import share_of


class Team:
    """Computes the gradient of a step, in one process or in several.

    loss_of(part, whole): the part's share of the loss of the whole step: the sum over the part's items, divided by how many the WHOLE has.
    """

    def __init__(self, loss_of: Callable[[Batch, Batch], Tensor], optimizer: Optimizer, *, workers: int | str = 1) -> None:
        self.loss_of, self.optimizer = loss_of, optimizer
        if workers != 1:
            raise ArgumentError(f"workers must be 1, got {workers!r}")

    def backward(self, batch: Batch, parts: int = 1) -> float:
        """The loss of the whole step; its gradient lies in every parameter's `grad`, where nothing older is left."""
        self.optimizer.zero_grad()
        stream = random.current()
        try:
            with random.at(stream.seed, stream.step):
                return share_of(self.loss_of, batch.split(parts) if parts > 1 else [batch], batch)
        except BaseException:
            self.optimizer.zero_grad()
            raise

    def step(self) -> None:
        """Update the parameters and forget the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def close(self) -> None:
        """End the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
