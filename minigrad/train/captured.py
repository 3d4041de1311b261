"""Captured steps: a step of training as a CUDA graph, one for each bucket of batches, replayed without its Python.

A small model's step is hundreds of launches, each of which Python takes longer to make than the GPU to compute. A graph makes them by one
call. What changes from step to step lies in arrays that are filled before each replay (`feeding.py`): tokens and labels, the packing as
kernels read it, the number of the step for dropout, what the sum of the losses is multiplied by, the rates of the update.

There are two kinds. `backward` replays forward and backward pass, and whoever called it makes the update. `launch` replays the update too,
and does not wait: its clipping is computed on the GPU, and so is whether there is to be an update at all. When a loss is not finite, or the
norm of a gradient where it is asked for, a flag is set, and no step launched after it changes anything until `resume`. An id that the model
does not have would show in neither if nobody asks for the norm and its sequence has no label, so the host looks at ids.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np

from minigrad.anomaly import detecting
from minigrad.backend import random, transfers
from minigrad.backend.graphs import KEPT, Feed, Recorder
from minigrad.backend.precision import product_precision
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError
from minigrad.modes import Mode
from minigrad.nn.module import Module
from minigrad.optim import Optimizer
from minigrad.optim.adam import adam
from minigrad.optim.clip import gradient_squares
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor
from minigrad.train.feeding import filled, kind_of, layout_of, placed, write
from minigrad.train.objectives import LossOf, Objective
from minigrad.train.standing import Standing
from minigrad.workers.buckets import Bucket, bucket_for
from minigrad.workers.ids import all_below, rows_by_name
from minigrad.workers.surroundings import PLAIN, Surroundings

logger = logging.getLogger("minigrad")

AHEAD = 2
"""Launched steps whose results nobody has waited for, at most."""


CHANGING = ("size", "eps", "decay")
"""The constants of Adam that are others in every step, in the order in which its kernel reads them."""


class _Key(NamedTuple):
    """Equal for steps that one recording makes. updates: whether the update is part of it. max_norm: None if no norm is asked for."""

    bucket: Bucket
    updates: bool
    max_norm: float | None
    precision: str
    seed: int
    kind: Hashable


@dataclass(frozen=True)
class _Step:
    """A recorded step. numbers: loss and squared norm (0 where it is not computed), on the GPU. rows: how many there are for which ids.
    stretches, moments: of its update, empty where there is none."""

    feed: Feed
    replay: Callable[[], None]
    numbers: Any
    rows: dict[str, int]
    touched: list[Parameter]
    stretches: list[Hashable]
    moments: dict[str, Any]


@dataclass
class _Slot:
    """Where the numbers of a step arrive."""

    numbers: np.ndarray[Any, Any]
    arrived: Any = None


@dataclass(frozen=True)
class Launched:
    """A step on its way. before: the standing from which it was launched."""

    batch: Batch
    before: Standing
    result: Callable[[], tuple[float, float]]
    """(loss, norm of the gradient), once the GPU has computed them."""

    def is_finite(self) -> bool:
        """Whether the step was made."""
        return all(map(isfinite, self.result()))


class CapturedSteps:
    """The steps of one team. loss_of: a `LossOf`, whose objective can ignore items."""

    def __init__(self, loss_of: Any, optimizer: Optimizer) -> None:
        self.loss_of, self.optimizer = loss_of, optimizer
        self.can_update = optimizer.kernel is adam
        """Whether there is a kernel for the update inside of a graph."""
        self._steps: OrderedDict[Hashable, _Step] = OrderedDict()
        self._too_large: set[Hashable] = set()
        """Keys of steps whose graph had no room in the memory even when there was no other."""
        self._around: Surroundings | None = None
        self._attributes: dict[str, Any] = {}
        self._recorder: Recorder | None = None
        self._results: deque[_Slot] = deque()
        self._scale: Any = None
        self._stopped: Any = None
        self._nothing: Any = None
        self._given_up = False
        if not isinstance(loss_of, LossOf):
            self._give_up("the loss is not an objective's (mg.train.LossOf)")
            return
        objective, kind = loss_of.objective, type(loss_of.objective)
        if not objective.ignores:
            self._give_up(f"{kind.__name__} cannot ignore an item, so batches cannot be filled up to one size", logging.INFO)
        elif getattr(objective.loss, "__func__", None) is not Objective.loss:
            self._give_up(f"{kind.__name__} has a `loss` of its own, and what is recorded is `share`", logging.INFO)

    # ---------------------------------------------------------------- steps
    def backward(self, batch: Batch, scale: float) -> tuple[float, float] | None:
        """(loss, norm of the gradient of scale times the loss), the gradient lying where `Team.backward` leaves it.

        None if this step must be made without a graph: it has no gradient then.
        Raises: GraphError (graph-owner) as the optimizer's step.
        """
        count, key = self._key(batch, False, inf)
        if key is None:
            return None
        self.optimizer.arena.check_ownership()
        if self._found(key) is None and not self._record(batch, key):
            return None
        step = self._steps[key]
        if self._written(step, batch, scale / count) is None:
            return None
        loss, norm = self._replayed(step, count)()
        if not isfinite(loss) or not (isfinite(norm) or scale > 1):
            return None  # an id that the model does not have may be the reason: a plain step says so
        for p in step.touched:
            p.leaf.grad = p.leaf.view
        return loss, norm

    def launch(self, batch: Batch, max_norm: float | None) -> Launched | None:
        """Have the GPU make a whole step, once it has made those before; the host's counts say at once that it is made.

        None if that step is not recorded, or an id is none that the model has: nothing has happened then.
        Raises: as `Optimizer.begin_step`, before anything changes.
        """
        count, key = self._key(batch, True, max_norm)
        if key is None or (step := self._found(key)) is None or (buffer := self._written(step, batch, 1.0 / count)) is None:
            return None
        before = Standing.of(self.optimizer)
        try:
            for p in step.touched:
                p.leaf.grad = p.leaf.view
            updates = self.optimizer.begin_step()
        finally:
            self.optimizer.zero_grad()
        same = list(map(id, step.moments.values())) == list(map(id, self.optimizer.moments.values()))  # loading a state makes new ones
        if not same or step.stretches != [_unchanging(update) for update in updates]:
            before.set_counts(self.optimizer)
            del self._steps[key]
            return None
        buffer["changing"][: len(updates)] = [[update.constants[name] for name in CHANGING] for update in updates]
        result = self._replayed(step, count)
        self.optimizer.end_step()
        return Launched(batch, before, result)

    def resume(self) -> None:
        """Launched steps count again, after one that was not finite and those behind it, which are over."""
        assert self._recorder is not None
        with self._recorder.entered():
            self._stopped.fill(0)

    def _key(self, batch: Batch, updates: bool, max_norm: float | None) -> tuple[float, _Key | None]:
        """What the sum of the losses is divided by, and the key, which is None for a step that cannot be recorded."""
        packing = batch.tokens.packing
        if self._given_up or detecting.get() or packing.masked_first is not None:
            return 0.0, None
        if any(p.leaf.hooks is not None and any(True for _ in p.leaf.hooks) for p in self.optimizer.steps):  # a replay would not call them
            return 0.0, None
        count, bucket = self.loss_of.objective.count(batch), bucket_for(packing.lengths)
        if not count or bucket is None:
            return count, None
        return count, _Key(bucket, updates, max_norm, product_precision.get(), random.current().seed, kind_of(batch))

    def _found(self, key: _Key) -> _Step | None:
        if self._is_old() or key not in self._steps:
            return None
        self._steps.move_to_end(key)
        return self._steps[key]

    def _is_old(self) -> bool:
        """Whether the model or the objective computes another thing now than was recorded."""
        return self._around is None or self._around.changed() or not _are_same(vars(self.loss_of.objective), self._attributes)

    def _written(self, step: _Step, batch: Batch, factor: float) -> dict[str, np.ndarray[Any, Any]] | None:
        """What the step reads next, written where it is sent from. None if an id is none that the model has."""
        buffer = step.feed.buffer()
        write(batch, random.current().step, factor, buffer)
        return buffer if all_below(buffer, step.rows) else None

    def _replayed(self, step: _Step, count: float) -> Callable[[], tuple[float, float]]:
        """Launches a step that is written; returns what waits for its loss and norm."""
        assert self._recorder is not None
        self._results.rotate()
        slot = self._results[0]
        with self._recorder.entered():
            step.feed.send()
            step.replay()
            slot.arrived = transfers.fetch(step.numbers, slot.numbers, slot.arrived)

        def result() -> tuple[float, float]:
            slot.arrived.synchronize()
            return float(np.float32(slot.numbers[0]) * np.float32(1.0 / count)), sqrt(slot.numbers[1])

        return result

    # ---------------------------------------------------------------- recordings
    def record(self, batch: Batch, max_norm: float | None) -> bool:
        """Record the step of a batch, when no step is on its way.

        False where it cannot be done, which the log says, or is of no use, since it has been done.
        """
        _, key = self._key(batch, True, max_norm)
        return key is not None and self._found(key) is None and self._record(batch, key)

    def _record(self, batch: Batch, key: _Key) -> bool:
        if self._around is None or self._is_old():
            self._steps.clear()
            self._too_large.clear()
            model = self.loss_of.model
            modules = [module for _, module in model.named_modules()] if isinstance(model, Module) else []
            self._around = Surroundings(self.optimizer.steps, modules)
            self._attributes = dict(vars(self.loss_of.objective))
        if self._around.hooked():  # a replay would not call them
            return False
        if self._recorder is None:
            self._recorder = Recorder()
            self._results.extend(_Slot(transfers.pinned((2,), np.float64)) for _ in range(AHEAD + 1))
            self._scale, self._stopped, self._nothing = map(self.optimizer.arena.allocate, [()] * 3, ["float32", "int32", "float64"])
        if key in self._too_large:
            return False
        whole = filled(batch, key.bucket)
        with self._recorder.entered():
            step = self._recorded(self._recorder, self._around, whole, key)
            if step is None and not self._given_up:
                self._steps.clear()
                self._recorder.free_unused()
                step = self._recorded(self._recorder, self._around, whole, key)
        if step is None:
            if not self._given_up:
                self._too_large.add(key)
                logger.warning("a step of %d tokens is not captured: the memory does not suffice for its graph", whole.tokens.packing.rows)
            return False
        self._steps[key] = step
        while len(self._steps) > KEPT:
            self._steps.popitem(last=False)
        return True

    def _recorded(self, recorder: Recorder, around: Surroundings, whole: Batch, key: _Key) -> _Step | None:
        """None if the memory does not suffice, or no step can be recorded, which is given up then."""
        strangers, before = around.strangers(), Standing.of(self.optimizer)
        try:
            if key.updates:
                self.optimizer.arrays()  # moments that do not exist yet: not out of a recording's memory
            feed = Feed({**layout_of(whole), "changing": ((len(self.optimizer.arena.places), len(CHANGING)), np.float32)})
            write(whole, 0, 1.0, feed.buffer())
            feed.send()
            self._stopped.fill(1)  # so that runs before the recording update nothing
            part = placed(whole, feed.arrays)
            (numbers, rows, updates), replay = recorder.recorded(lambda: self._computed(part, feed.arrays, key))
            self._stopped.fill(0)
            if self._is_old():
                raise ArgumentError("a step changes a buffer of the model or an attribute of the objective")
            for p in strangers:
                if p.leaf.grad is not None:
                    raise ArgumentError(f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's")
        except MemoryError:
            return None  # outside, where the error no longer holds what had been computed, it is tried again
        except Exception as error:  # whatever it is: a plain step has it too, or does without graphs
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        finally:
            around.put_back()
            touched = [p for p in self.optimizer.steps if p.leaf.grad is not None]
            before.set_counts(self.optimizer)
            self.optimizer.zero_grad()
        return _Step(feed, replay, numbers, rows, touched, [_unchanging(update) for update in updates], dict(self.optimizer.moments))

    def _computed(self, part: Batch, arrays: dict[str, Any], key: _Key) -> tuple[Any, dict[str, int], list[Update]]:
        """What is recorded: loss (the sum over all items) and squared norm of the gradient, which lies in the optimizer's arrays; how many
        rows there are for the ids; and the update if there is to be one."""
        from minigrad.kernels.cuda.draws import clock
        from minigrad.kernels.cuda.optimizer import adam_captured, begin_captured

        optimizer = self.optimizer
        optimizer.zero_grad()
        with Mode(clock, arrays["clock"]), random.at(random.current().seed, 0), transfers.noting_ids() as noted:
            total = self.loss_of.objective.share(self.loss_of.model, part, 1.0)
            total.backward(Tensor.wrap(arrays["factor"]))
        if total.dtype != "float32":
            raise ArgumentError(f"the loss is {total.dtype}, and the kernels know float32")
        rows, others = rows_by_name(arrays, noted)
        numbers = optimizer.arena.xp.empty(2, "float64")
        squares = gradient_squares(optimizer) if others or key.max_norm is not None else self._nothing
        if not key.updates:
            begin_captured(total.array, squares, inf, numbers, None, None)
            return numbers, rows, []
        flags = self._scale, self._stopped
        begin_captured(total.array, squares, inf if key.max_norm is None else key.max_norm, numbers, *flags)
        updates = optimizer.begin_step()
        for update, changing in zip(updates, arrays["changing"], strict=False):
            same = {name: value for name, value in update.constants.items() if name not in CHANGING}
            for p, g, moments in optimizer.arena.blocks(update, [optimizer.moments[name] for name in update.moments]):
                adam_captured(p, g, moments, changing, *flags, **same)
        return numbers, rows, updates

    def _give_up(self, reason: str, level: int = logging.WARNING) -> None:
        """level: of the log's line; INFO for what lies in the objective, since trainings capture without being asked."""
        self._given_up = True
        self._steps.clear()
        logger.log(level, "steps are not captured in CUDA graphs: %s", reason)


def _are_same(attributes: dict[str, Any], were: dict[str, Any]) -> bool:
    """Whether they are the same objects, or equal where they are plain values."""
    return attributes.keys() == were.keys() and all(
        value is were[name] or (isinstance(value, PLAIN) and type(value) is type(were[name]) and value == were[name])
        for name, value in attributes.items()
    )


def _unchanging(update: Update) -> Hashable:
    """What a recorded stretch of an update has for good."""
    same = [value for name, value in update.constants.items() if name not in CHANGING]
    return update.start, update.stop, update.moments, *same
