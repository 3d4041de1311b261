"""What is recorded of a step of training: forward and backward pass, what clipping and the host want to know, and Adam's update.

All that is another in the next step lies in arrays of a feed, and parameters, gradients and moments lie where they are. A step that is
computed in parts is several recordings: of its first part, of the others, which add to that, and of what comes when all are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Any, NamedTuple

from minigrad.backend import random, transfers
from minigrad.backend.branch import Branch
from minigrad.backend.graphs import Feed
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.modes import Mode
from minigrad.optim import Optimizer
from minigrad.optim.clip import gradient_squares
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor
from minigrad.train.average import Average
from minigrad.train.objectives import LossOf, weighted
from minigrad.workers.graphs.buckets import Bucket
from minigrad.workers.graphs.ids import rows_by_name

CHANGING = ("size", "eps", "decay")
"""The constants of Adam that are others in every step, in the order in which its kernel reads them."""


class Extent(Enum):
    """How much of a step is recorded."""

    WHOLE = auto()
    FIRST = auto()
    """Both passes of its first part."""
    FURTHER = auto()
    """Those of another part, whose loss and gradient are added to what is there."""
    END = auto()
    """What is done with the gradient of all parts."""


class Key(NamedTuple):
    """Equal for what one recording makes.

    bucket, kind: of the batch or the part, None for the end of a step. updates: whether the update is part of it. max_norm: None if no norm
    is asked for. scaled: whether the update divides by the factor that the loss is multiplied by. counted: which terms of the objective
    have items.
    """

    extent: Extent
    bucket: Bucket | None
    kind: Hashable
    updates: bool
    max_norm: float | None
    scaled: bool
    counted: tuple[bool, ...]
    precision: str
    seed: int


@dataclass(frozen=True)
class RecordedStep:
    """A step, or what of it its key says.

    numbers: loss and squared norm (0 where it is not computed), on the GPU, where the step ends. rows: how many there are for which
    ids. ignored: the label that fills batches up. touched: the parameters that have a gradient then. stretches, moments: of its update,
    empty where there is none.
    """

    feed: Feed
    replay: Callable[[], None]
    numbers: Any
    rows: dict[str, int]
    ignored: float
    touched: list[Parameter]
    stretches: list[Hashable]
    moments: dict[str, Any]


class Control:
    """Numbers on the GPU by which its steps are controlled. Shapes: () each.

    loss: the sum over the parts of a step. scale: what the gradients of a step are multiplied by. stopped: 1 once a loss or a norm was
    not finite. nothing: a squared norm that nobody asks for.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        dtypes = "float64", "float32", "int32", "float64"
        self.loss, self.scale, self.stopped, self.nothing = map(optimizer.arena.allocate, [()] * 4, dtypes)


@dataclass(frozen=True)
class Recordable:
    """The steps of a team. average: takes in the weights after each update."""

    loss_of: LossOf
    optimizer: Optimizer
    average: Average | None
    control: Control

    def computed(self, part: Batch | None, arrays: dict[str, Any], key: Key, branch: Branch) -> tuple[Any, dict[str, int], list[Update]]:
        """What is recorded: an array that is made in it, which is `RecordedStep.numbers` where a step ends (a recording gives one anyway);
        how many rows there are for the ids; the update, if there is to be one.

        The gradient lies in the optimizer's arrays, and is added to what is a gradient before. part: None at the end of a step in parts.
        branch: for what can be computed beside the rest.
        """
        if part is None:
            numbers, updates = self._end(None, arrays, key, True)  # whether its parts read rows by unknown ids is not known here
            return numbers, {}, updates
        loss, noted = self._passes(part, arrays, key, branch)
        rows, others = rows_by_name(arrays, noted)
        if key.extent is Extent.WHOLE:
            numbers, updates = self._end(loss, arrays, key, others or key.max_norm is not None)
            return numbers, rows, updates
        if key.extent is Extent.FIRST:
            self.control.loss[...] = loss
        else:
            self.control.loss += loss
        return loss, rows, []

    def _passes(self, part: Batch, arrays: dict[str, Any], key: Key, branch: Branch) -> tuple[Any, transfers.Noted]:
        """Forward and back; the loss, and the ids that were read."""
        from minigrad.kernels.cuda.draws import clock
        from minigrad.kernels.cuda.shortening import weights_at_once

        with (
            Mode(clock, arrays["clock"]),
            random.at(random.current().seed, 0),
            branch.open(),
            weights_at_once(self.optimizer.arena),
            transfers.noting_ids() as noted,
        ):
            total = _loss(self.loss_of, part, arrays["counts"], key)
            branch.join()  # what the way back reads was computed beside the forward pass
            total.backward(Tensor.wrap(arrays["factor"]))
        if total.dtype != "float32":
            raise ArgumentError(f"the loss is {total.dtype}, and the kernels know float32")
        return total.array, noted

    def _end(self, loss: Any, arrays: dict[str, Any], key: Key, measured: bool) -> tuple[Any, list[Update]]:
        """What is done with the gradient of a step: it is measured, if it is to be, and the update is made. loss: None for the sum of its
        parts."""
        from minigrad.kernels.cuda.optimizer import adam_captured, average_captured, begin_captured

        control, arena = self.control, self.optimizer.arena
        numbers, squares = arena.xp.empty(2, "float64"), _squares(self.optimizer) if measured else control.nothing
        losses = control.loss if loss is None else None
        if not key.updates:
            begin_captured(loss, losses, squares, inf, numbers, None, None)
            return numbers, []
        flags = control.scale, control.stopped
        if key.scaled:  # by a power of two, so that nothing is rounded
            squares = squares / arrays["factor"].astype("float64") ** 2
        begin_captured(loss, losses, squares, inf if key.max_norm is None else key.max_norm, numbers, *flags)
        if key.scaled:
            control.scale /= arrays["factor"]
        updates = self.optimizer.begin_step()
        for update, changing in zip(updates, arrays["changing"], strict=False):
            same = {name: value for name, value in update.constants.items() if name not in CHANGING}
            for p, g, moments in arena.blocks(update, [self.optimizer.moments[name] for name in update.moments]):
                adam_captured(p, g, moments, changing, *flags, **same)
        if self.average is not None:
            for weights, mean in self.average.blocks():
                average_captured(weights, mean, self.average.rate, control.stopped)
        return numbers, updates


def _squares(optimizer: Optimizer) -> Any:
    """Numbers whose sum is the squared norm of the gradient, on the GPU."""
    from minigrad.kernels.cuda.optimizer import sums_of_squares

    runs = optimizer.arena.gradient_runs()
    return sums_of_squares(optimizer.arena.xp, *runs) if runs is not None and len(runs) == 1 else gradient_squares(optimizer)


def _loss(loss_of: LossOf, part: Batch, counts: Any, key: Key) -> Tensor:
    """The objective's loss. A term without items is left out, as in a plain step: it gives no parameter a gradient."""
    shares = []
    for place, (weight, objective) in enumerate(loss_of.objective.terms()):
        if key.counted[place]:
            count = Tensor.wrap(counts[place : place + 1].reshape(()))
            shares.append((weight, objective.share(loss_of.model, part, count)))
    return weighted(shares)


def unchanging(update: Update) -> Hashable:
    """What a recorded stretch of an update has for good."""
    same = [value for name, value in update.constants.items() if name not in CHANGING]
    return update.start, update.stop, update.moments, *same
