"""The parent's side of a team with several processes: each computes a share of a step, adds up a part of all gradients, and updates a part
of the arrays.
"""

from __future__ import annotations

from dataclasses import astuple
from functools import partial
from math import sqrt
from typing import Any
from weakref import finalize

from minigrad import kernels
from minigrad.anomaly import detecting
from minigrad.backend import random
from minigrad.backend.precision import product_precision
from minigrad.backend.threads import blas_threads
from minigrad.data.loader import Batch
from minigrad.errors import MinigradError
from minigrad.optim import Optimizer
from minigrad.optim.clip import squared_norm
from minigrad.optim.updates import Update, divide
from minigrad.parameter import Parameter
from minigrad.train.processes.handler import LossFunction, StepHandler, batch_arrays, share_of
from minigrad.train.processes.shared import SharedOptimizer
from minigrad.workers.process import Worker, stop_all
from minigrad.workers.snapshot import ModelSnapshot


class WorkerPool:
    """This process and its workers, which are forked at the first step, and again when their copy of the model is out of date.

    processes: how many compute, including this one.
    """

    def __init__(self, loss_of: LossFunction, optimizer: Optimizer, processes: int) -> None:
        self.loss_of, self.optimizer, self.processes = loss_of, optimizer, processes
        self.workers: list[Worker] = []
        self._shared: SharedOptimizer | None = None
        self._snapshot: ModelSnapshot | None = None
        self._read_whole: set[Parameter] = set()
        finalize(self, stop_all, self.workers)

    def stop(self) -> None:
        """End the workers; the next step starts new ones."""
        stop_all(self.workers)

    def close(self) -> None:
        """End the workers and take the parameters out of shared memory."""
        self.stop()
        if self._shared is not None:
            self._shared.undo()
            self._shared = None

    def backward(self, batch: Batch, parts: int, loss_scale: float, measure: bool) -> tuple[float, float | None]:
        """(loss, norm of the gradient of loss_scale times the loss, or None without `measure`).

        The step starts again if a worker read a row that still owed weight decay, which happens once for each table that is read whole.
        """
        self.optimizer.arena.check_ownership()
        with blas_threads(1):
            while (found := self._tried(batch, parts, loss_scale, measure)) is None:
                self.optimizer.zero_grad()
        return found

    def _tried(self, batch: Batch, parts: int, loss_scale: float, measure: bool) -> tuple[float, float | None] | None:
        shared = self._start()
        pieces = batch.split(self.processes * parts)
        stream = random.current()
        step: dict[str, Any] = {"seed": stream.seed, "step": stream.step, "factors": self._settle(batch)}
        step |= {"pieces": self.processes * parts, "stride": self.processes}
        step |= {"anomaly": detecting.get(), "precision": product_precision.get(), "loss_scale": loss_scale}
        arrays = batch_arrays(batch)
        busy = self.workers[: len(pieces) - 1]
        for worker in busy:
            worker.ask({"task": "share", **step, "first": worker.number}, arrays)
        with random.at(stream.seed, stream.step):
            loss = share_of(self.loss_of, pieces[:: self.processes], batch, loss_scale)
        missed: set[Parameter] = set()
        touched = [[place.parameter.leaf.grad is not None for place in self.optimizer.arena.places]]
        for worker, outbox in zip(busy, shared.outboxes, strict=False):
            reply, _ = worker.answer()
            loss += reply["loss"]
            touched.append(reply["gradients"]["touched"])
            outbox.collect_rows(reply["gradients"]["rows"])
            missed |= {p for p, owed in zip(self.optimizer.tables, reply["missed"], strict=True) if owed}
        self._read_whole |= missed
        if missed:
            return None
        return loss, self._add_up(shared, touched, measure)

    def _add_up(self, shared: SharedOptimizer, touched: list[list[bool]], measure: bool) -> float | None:
        """Add the workers' gradients to those of this process, each process a range of them. Returns the norm of the sum if measured."""
        stretches = shared.stretches(touched)
        edges = [len(stretches) * number // self.processes for number in range(self.processes + 1)]
        for worker in self.workers:
            stretch = {"first": edges[worker.number], "past": edges[worker.number + 1]}
            worker.ask({"task": "add up", "touched": touched, "measure": measure, **stretch})
        shared.add_up(stretches, 0, edges[1], measure)
        for worker in self.workers:
            worker.answer()
        for place, flags in zip(self.optimizer.arena.places, zip(*touched, strict=True), strict=True):
            place.parameter.leaf.grad = place.parameter.leaf.view if any(flags) else None
        if not measure:
            return None
        rows = sum(squared_norm(p.leaf) for p in self.optimizer.tables if p.leaf.grad is not None)
        return sqrt(float(shared.squares[: len(stretches)].sum() + rows))

    def update(self, updates: list[Update], scale: float) -> None:
        """Apply the updates of a step, each process some of them."""
        if self._shared is not None and self._shared.has_other_arrays():
            self.stop()
        mine, *shares = divide(updates, 1 + len(self.workers), self.optimizer.arena.block)
        due = [table.count for table in self.optimizer.tables.values()]
        asked = []
        for worker, share in zip(self.workers, shares, strict=True):
            try:
                worker.ask({"task": "update", "updates": [astuple(update) for update in share], "scale": scale, "due": due})
                asked.append(worker)
            except MinigradError:  # it died before it began, so its share can be done here
                mine += share
        for update in mine:
            self.optimizer.apply(update, scale)
        for worker in asked:
            worker.answer()
        if len(asked) < len(self.workers):
            self.stop()

    def _start(self) -> SharedOptimizer:
        """Start workers if there are none, or if the model or the optimizer has changed since they were forked."""
        if self._shared is None:
            self._shared = SharedOptimizer(self.optimizer, self.processes - 1)
        elif self._shared.has_other_arrays():
            self.stop()
            self._shared.note_arrays()
        if self._snapshot is not None and self._snapshot.changed():
            self.stop()
        if not self.workers:
            if self.optimizer.arena.data.dtype == "float32":  # the kernels' only dtype
                kernels.prepare(training=True)
            self._snapshot = ModelSnapshot(self.optimizer.steps)
            for number, outbox in enumerate(self._shared.outboxes, 1):
                self.workers.append(Worker(number, partial(StepHandler, self.loss_of, self._shared, self._snapshot, outbox)))
        return self._shared

    def _settle(self, batch: Batch) -> list[int]:
        """Apply the decay owed by the rows that the batch will read, which workers cannot. Returns the number of factors of each table."""
        for p in self.optimizer.tables:
            if p in self._read_whole:
                p.array  # noqa: B018
            else:
                p.array_for_rows(batch.tokens.input_ids)
        return [len(table.debt.factors) for table in self.optimizer.tables.values()]
