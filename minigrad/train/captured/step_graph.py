"""What a CUDA graph of a training step computes: forward and backward pass, loss and gradient norm, clipping, and Adam's update.

Everything that changes between steps is in the arrays of a `Feed`; parameters, gradients and moments stay where they are in memory. A step
in parts (gradient accumulation) takes several graphs: one for its first part, one for the others, which add to the gradients of the first,
and one for its end, once all gradients are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Any, NamedTuple

from minigrad.backend import random, transfers
from minigrad.backend.graphs import Feed
from minigrad.backend.side_stream import SideStream
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
"""The constants of Adam that change in every step, in the order in which its kernel reads them."""


class Extent(Enum):
    """How much of a step a graph computes."""

    WHOLE = auto()
    FIRST = auto()
    """Forward and backward pass of the first part."""
    FURTHER = auto()
    """Forward and backward pass of a later part, which adds to the loss and the gradients."""
    END = auto()
    """What follows the last part: norm, clipping and update."""


class GraphKey(NamedTuple):
    """Identifies a graph: steps with equal keys replay the same one.

    bucket, kind: of the batch or the part, None for the end of a step. updates: whether the update is in the graph. max_norm: None if the
    norm is not measured. scaled: whether the update divides by the loss scale. counted: which terms of the objective have items.
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
class StepGraph:
    """The graph of a step, or of the part of it that its key names.

    numbers: loss and squared norm (0 if not computed), on the GPU, in the graph that ends the step. rows: the number of rows that each kind
    of id may index. ignored: the label of padding. touched: the parameters that have a gradient afterwards. stretches, moments: of its
    update, empty without one.
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
    """Scalars on the GPU that control captured steps. Shapes: () each.

    loss: the sum over the parts of a step. scale: the factor that the update applies to the gradients. stopped: 1 once a loss or a norm was
    not finite. zero: 0, in place of a squared norm that is not measured.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        dtypes = "float64", "float32", "int32", "float64"
        self.loss, self.scale, self.stopped, self.zero = map(optimizer.arena.allocate, [()] * 4, dtypes)


@dataclass(frozen=True)
class StepComputation:
    """The computation of a team's step, as it is captured. average: updated with the weights after each step."""

    loss_of: LossOf
    optimizer: Optimizer
    average: Average | None
    control: Control

    def run(
        self, part: Batch | None, arrays: dict[str, Any], key: GraphKey, side_stream: SideStream
    ) -> tuple[Any, dict[str, int], list[Update]]:
        """Run the computation that a graph captures.

        Returns an array allocated in it (`StepGraph.numbers` if the step ends here; the recorder needs one in any case), the rows that
        ids may index (`StepGraph.rows`), and the updates, if there are any.

        Gradients are in the optimizer's arrays, and are added to existing ones. part: None at the end of a step in parts.
        """
        if part is None:
            numbers, updates = self._end(None, arrays, key, True)  # its parts may read rows by ids computed on the GPU
            return numbers, {}, updates
        loss, noted = self._passes(part, arrays, key, side_stream)
        rows, others = rows_by_name(arrays, noted)
        if key.extent is Extent.WHOLE:
            numbers, updates = self._end(loss, arrays, key, others or key.max_norm is not None)
            return numbers, rows, updates
        if key.extent is Extent.FIRST:
            self.control.loss[...] = loss
        else:
            self.control.loss += loss
        return loss, rows, []

    def _passes(self, part: Batch, arrays: dict[str, Any], key: GraphKey, side_stream: SideStream) -> tuple[Any, transfers.UncheckedIds]:
        """Forward and backward pass. Returns the loss, and the ids by which rows were read."""
        from minigrad.kernels.cuda.draws import clock
        from minigrad.kernels.cuda.shortening import weights_at_once

        with (
            Mode(clock, arrays["clock"]),
            random.at(random.current().seed, 0),
            side_stream.open(),
            weights_at_once(self.optimizer.arena),
            transfers.collecting_ids() as noted,
        ):
            total = _loss(self.loss_of, part, arrays["counts"], key)
            side_stream.join()  # the backward pass reads results of the side stream
            total.backward(Tensor.wrap(arrays["factor"]))
        if total.dtype != "float32":
            raise ArgumentError(f"the loss is {total.dtype}, and the kernels know float32")
        return total.array, noted

    def _end(self, loss: Any, arrays: dict[str, Any], key: GraphKey, measured: bool) -> tuple[Any, list[Update]]:
        """Measure the gradient of a step if `measured`, and update if the key says so. loss: None for the sum over its parts."""
        from minigrad.kernels.cuda.optimizer import adam_captured, average_captured, begin_captured

        control, arena = self.control, self.optimizer.arena
        numbers, squares = arena.xp.empty(2, "float64"), _squares(self.optimizer) if measured else control.zero
        losses = control.loss if loss is None else None
        if not key.updates:
            begin_captured(loss, losses, squares, inf, numbers, None, None)
            return numbers, []
        flags = control.scale, control.stopped
        if key.scaled:  # the scale is a power of two, so nothing is rounded
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
    """An array on the GPU whose sum is the squared norm of the gradient."""
    from minigrad.kernels.cuda.optimizer import sums_of_squares

    runs = optimizer.arena.gradient_runs()
    return sums_of_squares(optimizer.arena.xp, *runs) if runs is not None and len(runs) == 1 else gradient_squares(optimizer)


def _loss(loss_of: LossOf, part: Batch, counts: Any, key: GraphKey) -> Tensor:
    """The objective's loss. A term without items is left out, as in an eager step: it gives no parameter a gradient."""
    shares = []
    for place, (weight, objective) in enumerate(loss_of.objective.terms()):
        if key.counted[place]:
            count = Tensor.wrap(counts[place : place + 1].reshape(()))
            shares.append((weight, objective.share(loss_of.model, part, count)))
    return weighted(shares)


def fixed_part(update: Update) -> Hashable:
    """The part of an update that a graph fixes."""
    same = [value for name, value in update.constants.items() if name not in CHANGING]
    return update.start, update.stop, update.moments, *same
