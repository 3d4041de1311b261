"""Captured steps: a step of training as a CUDA graph, one for each bucket of batches, replayed without its Python.

A small model's step is hundreds of launches, each of which Python takes longer to make than the GPU to compute. A graph makes them by one
call. What is recorded stands in `recorded_step`, how long it is kept in `recordings`. What changes from step to step lies in arrays
that are filled before each replay (`feeding`): tokens and labels, the packing as kernels read it, the number of the step for dropout,
what the sums of losses are divided by, the rates of the update.

There are two kinds. `backward` replays forward and backward pass, and whoever called it makes the update. `launch` replays the update too,
and does not wait: its clipping is computed on the GPU, and so is whether there is to be an update at all. When a loss is not finite, or the
norm of a gradient where it is asked for, a flag is set, and no step launched after it changes anything until `resume`. An id that the model
does not have would show in neither if nobody asks for the norm and its sequence has no label, so the host looks at ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

from minigrad.backend import random, transfers
from minigrad.data.loader import Batch
from minigrad.optim import Optimizer
from minigrad.optim.adam import adam
from minigrad.train.average import Average
from minigrad.train.captured.feeding import write
from minigrad.train.captured.recorded_step import CHANGING, RecordedStep, unchanging
from minigrad.train.captured.recordings import Recordings
from minigrad.train.captured.standing import Standing
from minigrad.train.loss_scale import LossScaler
from minigrad.workers.graphs.ids import all_below

AHEAD = 2
"""Launched steps whose results nobody has waited for, at most."""


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
    loss_scale: float | None
    """With which the next one is launched."""
    result: Callable[[], tuple[float, float]]
    """(loss, norm of the gradient), once the GPU has computed them."""

    def is_finite(self) -> bool:
        """Whether the step was made."""
        return all(map(isfinite, self.result()))


class CapturedSteps:
    """The steps of one team. loss_of: a `LossOf`, whose objective can ignore items. average: takes in the weights after each update that is
    replayed."""

    def __init__(self, loss_of: Any, optimizer: Optimizer, average: Average | None = None) -> None:
        self.optimizer = optimizer
        self.can_update = optimizer.kernel is adam
        """Whether there is a kernel for the update inside of a graph."""
        self._recordings = Recordings(loss_of, optimizer, average)
        self._results = deque(_Slot(transfers.pinned((2,), np.float64)) for _ in range(AHEAD + 1))

    def backward(self, batch: Batch, scale: float) -> tuple[float, float] | None:
        """(loss, norm of the gradient of scale times the loss), the gradient lying where `Team.backward` leaves it.

        None if this step must be made without a graph: it has no gradient then.
        Raises: GraphError (graph-owner) as the optimizer's step.
        """
        counts, key = self._recordings.key(batch, False, inf, False)
        if key is None:
            return None
        self.optimizer.arena.check_ownership()
        step = self._recordings.found(key) or self._recordings.record(batch, key)
        if step is None or _written(step, batch, counts, scale) is None:
            return None
        loss, norm = self._replayed(step)()
        if not isfinite(loss) or not (isfinite(norm) or scale > 1):
            return None  # an id that the model does not have may be the reason: a plain step says so
        for p in step.touched:
            p.leaf.grad = p.leaf.view
        return loss, norm

    def launch(self, batch: Batch, max_norm: float | None, scaler: LossScaler | None) -> Launched | None:
        """Have the GPU make a whole step, once it has made those before; the host's counts, and the scaler's, say at once that it is made.

        None if that step is not recorded, or an id is none that the model has: nothing has happened then.
        Raises: as `Optimizer.begin_step`, before anything changes.
        """
        counts, key = self._recordings.key(batch, True, max_norm, scaler is not None)
        factor = 1.0 if scaler is None else scaler.scale
        if key is None or (step := self._recordings.found(key)) is None or (buffer := _written(step, batch, counts, factor)) is None:
            return None
        before = Standing.of(self.optimizer, scaler)
        try:
            for p in step.touched:
                p.leaf.grad = p.leaf.view
            updates = self.optimizer.begin_step()
        finally:
            self.optimizer.zero_grad()
        same = list(map(id, step.moments.values())) == list(map(id, self.optimizer.moments.values()))  # loading a state makes new ones
        if not same or step.stretches != list(map(unchanging, updates)):
            before.set_counts(self.optimizer)
            self._recordings.forget(key)
            return None
        buffer["changing"][: len(updates)] = [[update.constants[name] for name in CHANGING] for update in updates]
        result = self._replayed(step)
        self.optimizer.end_step()
        if scaler is not None:
            scaler.update(overflowed=False)
        return Launched(batch, before, None if scaler is None else scaler.scale, result)

    def record(self, batch: Batch, max_norm: float | None, scaler: LossScaler | None) -> bool:
        """Record the step of a batch, when no step is on its way.

        False where it cannot be done, which the log says, or is of no use, since it has been done.
        """
        _, key = self._recordings.key(batch, True, max_norm, scaler is not None)
        return key is not None and self._recordings.found(key) is None and self._recordings.record(batch, key) is not None

    def resume(self) -> None:
        """Launched steps count again, after one that was not finite and those behind it, which are over."""
        self._recordings.restart()

    def _replayed(self, step: RecordedStep) -> Callable[[], tuple[float, float]]:
        """Launches a step that is written; returns what waits for its loss and norm."""
        self._results.rotate()
        slot = self._results[0]
        with self._recordings.recorder.entered():
            step.feed.send()
            step.replay()
            slot.arrived = transfers.fetch(step.numbers, slot.numbers, slot.arrived)

        def result() -> tuple[float, float]:
            slot.arrived.synchronize()
            return float(slot.numbers[0]), sqrt(slot.numbers[1])

        return result


def _written(step: RecordedStep, batch: Batch, counts: Sequence[float], factor: float) -> dict[str, np.ndarray[Any, Any]] | None:
    """What the step reads next, written where it is sent from. None if an id is none that the model has.

    counts: what the sums of losses are divided by. factor: what the loss is multiplied by for its backward pass.
    """
    buffer = step.feed.buffer()
    write(batch, random.current().step, factor, buffer, step.ignored)
    buffer["counts"][...] = counts
    return buffer if all_below(buffer, step.rows) else None
