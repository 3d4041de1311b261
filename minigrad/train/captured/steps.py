"""Captured steps: a step of training as a CUDA graph, one for each bucket of batches, replayed without its Python.

A small model's step is hundreds of launches, each of which Python takes longer to make than the GPU to compute. A graph makes them by one
call. What is recorded stands in `recorded_step`, how long it is kept in `recordings`. What changes from step to step lies in arrays
that are filled before each replay (`feeding`): tokens and labels, the packing as kernels read it, the number of the step for dropout,
what the sums of losses are divided by, the rates of the update.

A step in parts is as many replays, and one more for its end: what is done when the gradients of all parts are added up. There the norm is
always asked for.

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
from minigrad.train.captured.recordings import Pieces, Recordings
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

    def backward(self, batch: Batch, parts: int, scale: float) -> tuple[float, float] | None:
        """(loss, norm of the gradient of scale times the loss), the gradient lying where `Team.backward` leaves it.

        None if this step must be made without a graph: it has no gradient then.
        Raises: GraphError (graph-owner) as the optimizer's step.
        """
        counts, pieces = self._recordings.pieces(batch, parts, False, inf, False)
        if not pieces:
            return None
        self.optimizer.arena.check_ownership()
        steps = self._recordings.found(pieces)
        if not steps and self._recordings.record(pieces):
            steps = self._recordings.found(pieces)
        result = self._replayed(pieces, steps, counts, scale, [])
        if result is None:
            return None
        loss, norm = result()
        if not isfinite(loss) or not (isfinite(norm) or scale > 1):
            return None  # an id that the model does not have may be the reason: a plain step says so
        for p in steps[-1].touched:
            p.leaf.grad = p.leaf.view
        return loss, norm

    def launch(self, batch: Batch, parts: int, max_norm: float | None, scaler: LossScaler | None) -> Launched | None:
        """Have the GPU make a whole step, once it has made those before; the host's counts, and the scaler's, say at once that it is made.

        None if that step is not recorded, or an id is none that the model has: nothing has changed then but gradients, which nobody has.
        Raises: as `Optimizer.begin_step`, before anything changes.
        """
        counts, pieces = self._recordings.pieces(batch, parts, True, max_norm, scaler is not None)
        steps = self._recordings.found(pieces)
        if not steps:
            return None
        last, before = steps[-1], Standing.of(self.optimizer, scaler)
        try:
            for p in last.touched:
                p.leaf.grad = p.leaf.view
            updates = self.optimizer.begin_step()
        finally:
            self.optimizer.zero_grad()
        same = list(map(id, last.moments.values())) == list(map(id, self.optimizer.moments.values()))  # loading a state makes new ones
        if not same or last.stretches != list(map(unchanging, updates)):
            before.set_counts(self.optimizer)
            self._recordings.forget(pieces[-1][1])
            return None
        changing, result = [[update.constants[name] for name in CHANGING] for update in updates], None
        try:
            result = self._replayed(pieces, steps, counts, 1.0 if scaler is None else scaler.scale, changing)
        finally:
            if result is None:  # an id that the model does not have, or an interrupt between two parts
                before.set_counts(self.optimizer)
        if result is None:
            return None
        self.optimizer.end_step()
        if scaler is not None:
            scaler.update(overflowed=False)
        return Launched(batch, before, None if scaler is None else scaler.scale, result)

    def record(self, batch: Batch, parts: int, max_norm: float | None, scaler: LossScaler | None) -> bool:
        """Record the step of a batch, when no step is on its way.

        False where it cannot be done, which the log says, or is of no use, since it has been done.
        """
        _, pieces = self._recordings.pieces(batch, parts, True, max_norm, scaler is not None)
        return bool(pieces) and self._recordings.record(pieces)

    def resume(self) -> None:
        """Launched steps count again, after one that was not finite and those behind it, which are over."""
        self._recordings.restart()

    def _replayed(
        self, pieces: Pieces, steps: Sequence[RecordedStep], counts: Sequence[float], factor: float, changing: Sequence[Sequence[float]]
    ) -> Callable[[], tuple[float, float]] | None:
        """Launches a step; returns what waits for its loss and norm.

        counts: what the sums of losses are divided by. factor: what the loss is multiplied by for its backward pass. changing: of the
        update. None without steps, and if an id is none that the model has: the step is not ended then.
        """
        if not steps:
            return None
        with self._recordings.recorder.entered():
            for (part, _), step in zip(pieces, steps, strict=True):
                buffer = _written(step, part, counts, factor)
                if buffer is None:
                    return None
                if changing and step is steps[-1]:
                    buffer["changing"][: len(changing)] = changing
                step.feed.send()
                step.replay()
            self._results.rotate()
            slot = self._results[0]
            slot.arrived = transfers.fetch(steps[-1].numbers, slot.numbers, slot.arrived)

        def result() -> tuple[float, float]:
            slot.arrived.synchronize()
            return float(slot.numbers[0]), sqrt(slot.numbers[1])

        return result


def _written(step: RecordedStep, part: Batch | None, counts: Sequence[float], factor: float) -> dict[str, np.ndarray[Any, Any]] | None:
    """What is read next, written where it is sent from. None if an id is none that the model has."""
    buffer = step.feed.buffer()
    write(part, counts, random.current().step, factor, buffer, step.ignored)
    return buffer if part is None or all_below(buffer, step.rows) else None
