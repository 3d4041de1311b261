"""What is recorded of a step of training: forward and backward pass, what clipping and the host want to know, and Adam's update.

All that is another in the next step lies in arrays of a feed, and parameters, gradients and moments lie where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
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


class Key(NamedTuple):
    """Equal for steps that one recording makes.

    updates: whether the update is part of it. max_norm: None if no norm is asked for. scaled: whether the update divides by the factor that
    the loss is multiplied by. counted: which terms of the objective have items.
    """

    bucket: Bucket
    updates: bool
    max_norm: float | None
    scaled: bool
    counted: tuple[bool, ...]
    precision: str
    seed: int
    kind: Hashable


@dataclass(frozen=True)
class RecordedStep:
    """numbers: loss and squared norm (0 where it is not computed), on the GPU. rows: how many there are for which ids. ignored: the label
    that fills batches up. stretches, moments: of its update, empty where there is none."""

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

    scale: what the gradients of the step are multiplied by. stopped: 1 once a loss or a norm was not finite. nothing: a squared norm that
    nobody asks for.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.scale, self.stopped, self.nothing = map(optimizer.arena.allocate, [()] * 3, ["float32", "int32", "float64"])


def computed(
    loss_of: LossOf,
    optimizer: Optimizer,
    average: Average | None,
    control: Control,
    part: Batch,
    arrays: dict[str, Any],
    key: Key,
    branch: Branch,
) -> tuple[Any, dict[str, int], list[Update]]:
    """What is recorded: loss and squared norm of the gradient, which lies in the optimizer's arrays; how many rows there are for the ids;
    and the update if there is to be one, with the average of the weights. branch: for what can be computed beside the rest."""
    from minigrad.kernels.cuda.draws import clock
    from minigrad.kernels.cuda.optimizer import adam_captured, average_captured, begin_captured
    from minigrad.kernels.cuda.shortening import weights_at_once

    optimizer.zero_grad()
    with (
        Mode(clock, arrays["clock"]),
        random.at(random.current().seed, 0),
        branch.open(),
        weights_at_once(optimizer.arena),
        transfers.noting_ids() as noted,
    ):
        total = _loss(loss_of, part, arrays["counts"], key)
        branch.join()  # what the way back reads was computed beside the forward pass
        total.backward(Tensor.wrap(arrays["factor"]))
    if total.dtype != "float32":
        raise ArgumentError(f"the loss is {total.dtype}, and the kernels know float32")
    rows, others = rows_by_name(arrays, noted)
    numbers = optimizer.arena.xp.empty(2, "float64")
    squares = _squares(optimizer) if others or key.max_norm is not None else control.nothing
    if not key.updates:
        begin_captured(total.array, squares, inf, numbers, None, None)
        return numbers, rows, []
    flags = control.scale, control.stopped
    if key.scaled:  # by a power of two, so that nothing is rounded
        squares = squares / arrays["factor"].astype("float64") ** 2
    begin_captured(total.array, squares, inf if key.max_norm is None else key.max_norm, numbers, *flags)
    if key.scaled:
        control.scale /= arrays["factor"]
    updates = optimizer.begin_step()
    for update, changing in zip(updates, arrays["changing"], strict=False):
        same = {name: value for name, value in update.constants.items() if name not in CHANGING}
        for p, g, moments in optimizer.arena.blocks(update, [optimizer.moments[name] for name in update.moments]):
            adam_captured(p, g, moments, changing, *flags, **same)
    if average is not None:
        for weights, mean in average.blocks():
            average_captured(weights, mean, average.rate, control.stopped)
    return numbers, rows, updates


def _squares(optimizer: Optimizer) -> Any:
    """Numbers whose sum is the squared norm of the gradient, on the GPU."""
    from minigrad.kernels.cuda.optimizer import sums_of_squares

    whole = optimizer.arena.whole_gradient()
    return gradient_squares(optimizer) if whole is None else sums_of_squares(optimizer.arena.xp, whole)


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
