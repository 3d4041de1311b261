"""Captured steps: forward and backward pass as CUDA graphs, one for each bucket of batches, replayed without their Python.

A small model's step is hundreds of launches, each of which Python takes longer to make than the GPU to compute. A graph makes them by one
call. What changes from step to step lies in arrays that are filled before each replay: tokens and labels, the packing as kernels read it,
the number of the step for dropout, and what the sum of the losses is multiplied by. The optimizer's update stays outside: it is a few
launches, and its numbers are then arguments like any others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np

from minigrad.anomaly import detecting
from minigrad.backend import random, to_number
from minigrad.backend.graphs import Feed, HostArrays, Recorder
from minigrad.backend.precision import product_precision
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.modes import Mode
from minigrad.optim import Optimizer
from minigrad.optim.clip import gradient_squares
from minigrad.packing import PackedTokens
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor
from minigrad.train.buckets import bucket_for, filled
from minigrad.train.objectives import LossOf
from minigrad.workers.surroundings import Surroundings

logger = logging.getLogger("minigrad")

KEPT = 8
"""Graphs that are kept, each with the memory of its activations; the one used longest ago goes first."""


@dataclass(frozen=True)
class _Step:
    """A recorded step: what it reads, how it is replayed, and where its results lie on the GPU."""

    feed: Feed
    replay: Callable[[], None]
    loss: Any
    squares: Any
    touched: list[Parameter]


class CapturedSteps:
    """The steps of one team. loss_of: a `LossOf`, whose objective can ignore items."""

    def __init__(self, loss_of: Any, optimizer: Optimizer) -> None:
        self.loss_of, self.optimizer = loss_of, optimizer
        self._steps: OrderedDict[Any, _Step] = OrderedDict()
        self._around: Surroundings | None = None
        self._recorder: Recorder | None = None
        self._given_up = False
        if not isinstance(loss_of, LossOf):
            self._give_up("the loss is not an objective's (mg.train.LossOf)")
        elif not loss_of.objective.ignores:
            self._give_up(f"{type(loss_of.objective).__name__} cannot ignore an item, so batches cannot be filled up to one size")

    def backward(self, batch: Batch, scale: float) -> tuple[float, float] | None:
        """(loss, norm of the gradient of scale times the loss), the gradient lying where `Team.backward` leaves it.

        None if this step must be made without a graph: it has no gradient then.
        Raises: MemoryError; GraphError (graph-owner) as the optimizer's step.
        """
        bucket = None if self._given_up or detecting.get() else bucket_for(batch.tokens.packing.lengths)
        count = 0.0 if bucket is None else self.loss_of.objective.count(batch)
        if bucket is None or not count or batch.tokens.packing.masked_first is not None:
            return None
        self.optimizer.arena.check_ownership()
        stream, whole = random.current(), filled(batch, bucket)
        host = _numbers(whole, stream.step, scale / count)
        key = product_precision.get(), stream.seed, tuple((name, array.shape, array.dtype) for name, array in host.items())
        if self._around is None or self._around.changed():
            self._steps.clear()
            self._around = Surroundings(self.optimizer.steps)
        if self._recorder is None:
            self._recorder = Recorder()
        with self._recorder.entered():
            step = self._steps.get(key) or self._recorded(self._recorder, self._around, whole, host)
            if step is None:
                return None
            self._steps[key] = step
            self._steps.move_to_end(key)
            while len(self._steps) > KEPT:
                self._steps.popitem(last=False)
            step.feed.fill(host)
            step.replay()
            loss, squares = to_number(step.loss), to_number(step.squares)
        if not isfinite(loss) or not (isfinite(squares) or scale > 1):
            return None  # an id that the model does not have may be the reason: a plain step says so
        for p in step.touched:
            p.leaf.grad = p.leaf.view
        return float(np.float32(loss) * np.float32(1.0 / count)), sqrt(squares)

    def _recorded(self, recorder: Recorder, around: Surroundings, whole: Batch, host: HostArrays) -> _Step | None:
        """None where it cannot be done, which the log says. Raises: MemoryError."""
        strangers = around.strangers()
        try:
            feed = Feed(host)
            part = _placed(whole, feed)
            (loss, squares), replay = recorder.recorded(lambda: self._computed(part, feed))
            if around.changed():
                raise ArgumentError("a step changes a buffer of the model")
            for p in strangers:
                if p.leaf.grad is not None:
                    raise ArgumentError(f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's")
        except MemoryError:
            self._steps.clear()
            raise
        except Exception as error:  # whatever it is: a plain step has it too, or does without graphs
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        finally:
            touched = [p for p in self.optimizer.steps if p.leaf.grad is not None]
            self.optimizer.zero_grad()
        return _Step(feed, replay, loss, squares, touched)

    def _computed(self, part: Batch, feed: Feed) -> tuple[Any, Any]:
        """What is recorded: the sum of the losses of all items, and the squared norm of the gradient, whose arrays are the optimizer's."""
        from minigrad.kernels.cuda.draws import clock

        self.optimizer.zero_grad()
        with Mode(clock, feed.arrays["clock"]), random.at(random.current().seed, 0):
            total = self.loss_of.objective.share(self.loss_of.model, part, 1.0)
            total.backward(Tensor.wrap(feed.arrays["factor"]))
            return total.array, gradient_squares(self.optimizer)

    def _give_up(self, reason: str) -> None:
        self._given_up = True
        self._steps.clear()
        logger.warning("steps are not captured in CUDA graphs: %s", reason)


def _numbers(whole: Batch, step: int, factor: float) -> dict[str, np.ndarray[Any, Any]]:
    """All that changes from one step to the next."""
    from minigrad.kernels.cuda.inputs import packing_arrays

    tokens = whole.tokens
    named = {"input_ids": tokens.input_ids, "token_type_ids": tokens.token_type_ids, "positions": tokens.positions}
    known = {"labels": whole.labels, "token_labels": whole.token_labels}
    named |= {name: array for name, array in known.items() if array is not None}
    return {**named, **packing_arrays(tokens.packing), "clock": np.array(step, np.uint64), "factor": np.array(factor, np.float32)}


def _placed(whole: Batch, feed: Feed) -> Batch:
    """The batch with its numbers on the GPU."""
    from minigrad.kernels.cuda.inputs import PlacedPacking

    arrays = feed.arrays
    packing = PlacedPacking(whole.tokens.packing, arrays)
    tokens = PackedTokens(arrays["input_ids"], packing, arrays["token_type_ids"], arrays["positions"])
    return Batch(tokens, arrays.get("labels"), arrays.get("token_labels"), whole.rows)
