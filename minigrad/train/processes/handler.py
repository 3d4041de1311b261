"""The workers' side of a team: compute a share of a step, add up the gradients of all processes, make a part of the update.

A worker is a fork (`workers/process.py`), so it already has the model and the loss function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from minigrad.anomaly import detecting
from minigrad.backend import random
from minigrad.backend.precision import precision
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.modes import Mode
from minigrad.optim.updates import Update
from minigrad.tensor import Tensor
from minigrad.train.processes.shared import Outbox, SharedOptimizer
from minigrad.workers.messages import Arrays, token_arrays, tokens_of
from minigrad.workers.process import Reply
from minigrad.workers.snapshot import ModelSnapshot

LossFunction: TypeAlias = Callable[[Batch, Batch], Tensor]
"""(part, whole) → the part's share of the loss of the whole step. Shapes: → ()."""


def share_of(loss_of: LossFunction, pieces: Sequence[Batch], whole: Batch, scale: float) -> float:
    """Compute some pieces of a step, one after the other, so that the memory of one is free before the next. Adds to the gradients, and
    returns the sum of the pieces' losses.

    scale: the loss scale, for the backward pass only.
    Raises: ArgumentError if `loss_of` returns no Tensor, and whatever it raises itself.
    """
    total = 0.0
    for piece in pieces:
        loss = loss_of(piece, whole)
        if not isinstance(loss, Tensor):
            raise ArgumentError(f"a team's loss_of must return a Tensor, the part's share of the loss; got {type(loss).__name__}")
        (loss if scale == 1 else loss * scale).backward()
        total += float(loss.item())
    return total


# ---------------------------------------------------------------- batches
def batch_arrays(batch: Batch) -> Arrays:
    """A batch as arrays by name, without fields that are None."""
    known = {"labels": batch.labels, "token_labels": batch.token_labels, "rows": batch.rows}
    return {**token_arrays(batch.tokens), **{name: array for name, array in known.items() if array is not None}}


def batch_of(arrays: Arrays) -> Batch:
    """The inverse of `batch_arrays`."""
    return Batch(tokens_of(arrays), arrays.get("labels"), arrays.get("token_labels"), arrays["rows"])


# ---------------------------------------------------------------- in the child
class StepHandler:
    """Handles the messages of a worker; made in the worker."""

    def __init__(self, loss_of: LossFunction, shared: SharedOptimizer, snapshot: ModelSnapshot, outbox: Outbox) -> None:
        outbox.attach()
        self.loss_of, self.shared, self.outbox = loss_of, shared, outbox
        self.ledgers, self.foreign = shared.watch_tables(), snapshot.cleared_parameters()
        self.tasks = {"share": self._share, "add up": self._add_up, "update": self._update}

    def __call__(self, content: dict[str, Any], arrays: Arrays) -> Reply:
        return self.tasks[content["task"]](content, arrays), {}

    def _share(self, step: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        """Compute a share of the loss and of the gradient."""
        self.shared.optimizer.zero_grad()
        for ledger, factors in zip(self.ledgers, step["factors"], strict=True):
            ledger.begin(factors)
        whole = batch_of(arrays)
        pieces = whole.split(step["pieces"])[step["first"] :: step["stride"]]
        with Mode(detecting, step["anomaly"]), precision(step["precision"]), random.at(step["seed"], step["step"]):
            loss = share_of(self.loss_of, pieces, whole, step["loss_scale"])
        self._check_foreign()
        return {"loss": loss, "gradients": self.outbox.publish(), "missed": [ledger.missed for ledger in self.ledgers]}

    def _add_up(self, content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        """Add up the gradients of all processes in some ranges of the arena."""
        self.shared.add_up(self.shared.stretches(content["touched"]), content["first"], content["past"], content["measure"])
        return {}

    def _update(self, content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        """Make a part of the optimizer's step."""
        for table, count in zip(self.shared.optimizer.tables.values(), content["due"], strict=True):
            table.count = count
        for fields in content["updates"]:
            self.shared.optimizer.apply(Update(*fields), content["scale"])
        return {}

    def _check_foreign(self) -> None:
        """Raises: ArgumentError if a parameter that is not the optimizer's has a gradient: the parent would never see it."""
        for p in self.foreign:
            if p.leaf.grad is not None:
                raise ArgumentError(
                    f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's, whose gradients alone "
                    "several workers carry: freeze it, or give it to the optimizer"
                )
