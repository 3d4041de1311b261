"""Captured steps: training steps as CUDA graphs, one for each bucket of batches, replayed without running their Python code.

A small model's step is hundreds of kernel launches, each of which takes Python longer than the GPU takes to compute it. A graph launches
them all by one call. `step_graph` says what a graph computes, `graph_cache` how long it is kept. Inputs that change from step to step are
arrays that are written before each replay (`inputs`): tokens and labels, the packing as kernels read it, the step number for dropout, the
divisors of the loss sums, the update's step-dependent constants.

A step in parts replays one graph for each part and one for its end, which clips and updates once all gradients are added up. There the norm
is always measured.

Steps run in one of two ways. `backward` replays forward and backward pass, and the caller makes the update. `launch` replays the update
too, and does not wait: the GPU clips, and decides whether to update at all. If a loss is not finite, or the norm of a gradient where it is
measured, the GPU sets a flag, and no step launched after it changes anything until `resume`. An id out of range would show in neither if
the norm is not measured and its sequence has no label, so the host checks the ids.
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
from minigrad.train.captured.graph_cache import GraphCache, Pieces
from minigrad.train.captured.host_state import HostState
from minigrad.train.captured.inputs import write
from minigrad.train.captured.step_graph import CHANGING, StepGraph, fixed_part
from minigrad.train.loss_scale import LossScaler
from minigrad.workers.graphs.ids import all_below

AHEAD = 2
"""At most this many steps are in flight besides the one whose result is waited for."""


@dataclass
class _Slot:
    """Pinned host memory for a step's loss and squared norm, and the event of their copy."""

    numbers: np.ndarray[Any, Any]
    arrived: Any = None


@dataclass(frozen=True)
class LaunchedStep:
    """A step in flight. before: the host's state before its launch."""

    batch: Batch
    before: HostState
    loss_scale: float | None
    """The scale with which the next step is launched."""
    result: Callable[[], tuple[float, float]]
    """(loss, norm of the gradient), once the GPU has computed them."""

    def is_finite(self) -> bool:
        """Whether the GPU made the update: loss and norm are finite. Waits for them."""
        return all(map(isfinite, self.result()))


class CapturedSteps:
    """The captured steps of one team. loss_of: a `LossOf` whose objective can ignore items; for others nothing is captured. average: takes
    in the weights after each replayed update."""

    def __init__(self, loss_of: Any, optimizer: Optimizer, average: Average | None = None) -> None:
        self.optimizer = optimizer
        self.can_update = optimizer.kernel is adam
        """Whether the update can be captured: only Adam's has a kernel for that."""
        self._cache = GraphCache(loss_of, optimizer, average)
        self._results = deque(_Slot(transfers.pinned((2,), np.float64)) for _ in range(AHEAD + 1))

    def backward(self, batch: Batch, parts: int, scale: float) -> tuple[float, float] | None:
        """(loss, norm of the gradient of scale times the loss); the gradients are where `Team.backward` leaves them.

        None if this step must run eagerly: there are no gradients then.
        Raises: GraphError (graph-owner) as the optimizer's step.
        """
        counts, pieces = self._cache.plan(batch, parts, False, inf, False)
        if not pieces:
            return None
        self.optimizer.arena.check_ownership()
        graphs = self._cache.find(pieces)
        if not graphs and self._cache.capture(pieces):
            graphs = self._cache.find(pieces)
        result = self._replay(pieces, graphs, counts, scale, [])
        if result is None:
            return None
        loss, norm = result()
        if not isfinite(loss) or not (isfinite(norm) or scale > 1):
            return None  # an id out of range may be the reason, which an eager step reports
        for p in graphs[-1].touched:
            p.leaf.grad = p.leaf.view
        return loss, norm

    def launch(self, batch: Batch, parts: int, max_norm: float | None, scaler: LossScaler | None) -> LaunchedStep | None:
        """Launch a whole step. The host, and the scaler, count it as made at once.

        None if the step is not captured, or an id is out of range: nothing has changed then, except that there are no gradients.
        Raises: as `Optimizer.begin_step`, before anything changes.
        """
        counts, pieces = self._cache.plan(batch, parts, True, max_norm, scaler is not None)
        graphs = self._cache.find(pieces)
        if not graphs:
            return None
        last, before = graphs[-1], HostState.of(self.optimizer, scaler)
        try:
            for p in last.touched:
                p.leaf.grad = p.leaf.view
            updates = self.optimizer.begin_step()
        finally:
            self.optimizer.zero_grad()
        same = list(map(id, last.moments.values())) == list(map(id, self.optimizer.moments.values()))  # loading a state replaces them
        if not same or last.stretches != list(map(fixed_part, updates)):
            before.restore_counts(self.optimizer)
            self._cache.drop(pieces[-1][1])
            return None
        changing, result = [[update.constants[name] for name in CHANGING] for update in updates], None
        try:
            result = self._replay(pieces, graphs, counts, 1.0 if scaler is None else scaler.scale, changing)
        finally:
            if result is None:  # an id out of range, or an interrupt between two parts
                before.restore_counts(self.optimizer)
        if result is None:
            return None
        self.optimizer.end_step()
        if scaler is not None:
            scaler.update(overflowed=False)
        return LaunchedStep(batch, before, None if scaler is None else scaler.scale, result)

    def capture(self, batch: Batch, parts: int, max_norm: float | None, scaler: LossScaler | None) -> bool:
        """Capture the step of a batch, while no step is in flight. False if that fails, which is logged, or if it is captured already."""
        _, pieces = self._cache.plan(batch, parts, True, max_norm, scaler is not None)
        return bool(pieces) and self._cache.capture(pieces)

    def resume(self) -> None:
        """Let launched steps update again, once one that was not finite and all those behind it have finished."""
        self._cache.clear_stop()

    def _replay(
        self, pieces: Pieces, graphs: Sequence[StepGraph], counts: Sequence[float], factor: float, changing: Sequence[Sequence[float]]
    ) -> Callable[[], tuple[float, float]] | None:
        """Launch a step; returns a function that waits for its loss and norm.

        counts: the divisors of the loss sums. factor: the loss scale for the backward pass. changing: the update's constants of this step.
        None without graphs, and if an id is out of range: the end of the step is not launched then.
        """
        if not graphs:
            return None
        with self._cache.recorder.entered():
            for (part, _), graph in zip(pieces, graphs, strict=True):
                buffer = _write_inputs(graph, part, counts, factor)
                if buffer is None:
                    return None
                if changing and graph is graphs[-1]:
                    buffer["changing"][: len(changing)] = changing
                graph.feed.send()
                graph.replay()
            self._results.rotate()
            slot = self._results[0]
            slot.arrived = transfers.fetch(graphs[-1].numbers, slot.numbers, slot.arrived)

        def result() -> tuple[float, float]:
            slot.arrived.synchronize()
            return float(slot.numbers[0]), sqrt(slot.numbers[1])

        return result


def _write_inputs(graph: StepGraph, part: Batch | None, counts: Sequence[float], factor: float) -> dict[str, np.ndarray[Any, Any]] | None:
    """Write the inputs of the next replay into the feed's buffer, and return it. None if an id is out of range."""
    buffer = graph.feed.buffer()
    write(part, counts, random.current().step, factor, buffer, graph.ignored)
    return buffer if part is None or all_below(buffer, graph.rows) else None
