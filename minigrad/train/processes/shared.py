"""The memory that a team's processes share.

Everything an optimizer's step touches lies there once: parameters, gradients, moments. Each worker has an outbox of its own for the
gradients it computes; so nobody ever waits for a lock. They are added up in a fixed order, each process taking a stretch of all of them,
and updated in the same way. What else a worker knows is a copy made by the fork (`workers/surroundings.py`).
"""

from __future__ import annotations

import mmap
from math import prod
from typing import Any, TypeAlias

import numpy as np

from minigrad.backend import Array
from minigrad.backend.gradients import RowSparse
from minigrad.optim import Optimizer
from minigrad.optim.arena import Allocate, copied
from minigrad.optim.clip import sum_of_squares
from minigrad.optim.debt import Debt


def shared_zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros in memory that this process and its later forks write to together.

    It has no name and ends with the last process. Pages are occupied when they are first written, so room for the rarest case is free.
    """
    size = prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize)), dtype, size).reshape(shape)


Stretch: TypeAlias = tuple[int, int, list[int]]
"""Elements of the arena's gradients, and the numbers of the processes (0: the parent) that have computed a share of them."""


class Outbox:
    """Where one worker leaves its gradients: a copy of the arena's gradients, and for each table room for all its rows."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.places = optimizer.arena.places
        self.gradients = shared_zeros(optimizer.arena.gradients.shape, optimizer.arena.gradients.dtype)
        self.tables = [(p, shared_zeros(p.shape[:1], np.int64), shared_zeros(p.shape, p.dtype)) for p in optimizer.tables]

    def attach(self) -> None:
        """In the worker: gradients of the arena are computed straight into this memory."""
        for place in self.places:
            place.parameter.leaf.view = place.of(self.gradients)

    def publish(self) -> dict[str, list[Any]]:
        """In the worker: leave the tables' gradients here; returns what has a gradient, and by how many rows (null: none, -1: all)."""
        rows: list[int | None] = []
        for p, ids, values in self.tables:
            gradient = p.leaf.grad
            if gradient is None:
                rows.append(None)
            elif isinstance(gradient, RowSparse):
                distinct = gradient.coalesce()
                count = len(distinct.ids)
                ids[:count], values[:count] = distinct.ids, distinct.values
                rows.append(count)
            else:
                values[...] = gradient
                rows.append(-1)
        return {"touched": [place.parameter.leaf.grad is not None for place in self.places], "rows": rows}

    def collect_rows(self, counts: list[int | None]) -> None:
        """In the parent: add what `publish` left of the tables to their gradients."""
        for (p, ids, values), count in zip(self.tables, counts, strict=True):
            if count is not None:
                p.leaf.accumulate(values if count < 0 else RowSparse(ids[:count], values[:count], (len(ids), p.shape[1]), coalesced=True))


class WorkersLedger:
    """A worker's stand-in for the debts of a table. Only the parent pays; this notes, in `missed`, whether a row that owes was read."""

    def __init__(self, debt: Debt) -> None:
        self.paid = debt.paid
        self.begin(0)

    def begin(self, factors: int) -> None:
        """Begin a step, in which every row that has paid fewer than so many factors is in debt."""
        self.factors, self.missed = factors, False

    def settle(self) -> None:
        """Somebody reads the whole table."""
        if self.factors:
            self.missed |= bool((self.paid < self.factors).any())

    def settle_rows(self, ids: Any) -> None:
        """Somebody reads the rows `ids`; ids that no table can have are left to the operation that reads them."""
        ids = np.asarray(ids)
        if self.factors and ids.dtype.kind in "iu":
            self.missed |= bool((self.paid.take(ids, mode="clip") < self.factors).any())


class Shared:
    """An optimizer whose parameters, gradients and moments lie in shared memory, with one outbox for each worker.

    What tells which rows of a table owe decay is shared too, so that a worker sees what the parent has paid.
    """

    def __init__(self, optimizer: Optimizer, workers: int) -> None:
        self.optimizer = optimizer
        self._move(shared_zeros)
        self.outboxes = [Outbox(optimizer) for _ in range(workers)]
        arena = optimizer.arena
        self.squares = shared_zeros((arena.data.size // arena.block + len(arena.places) + 1,), np.float64)
        self.note_arrays()

    def undo(self) -> None:
        """Move everything back into memory of this process alone: a process forked later gets a copy again."""
        self._move(np.zeros)

    def _move(self, allocate: Allocate) -> None:
        optimizer = self.optimizer
        optimizer.arena.move(allocate)
        optimizer.moments = {name: copied(moment, allocate) for name, moment in optimizer.moments.items()}
        for table in optimizer.tables.values():
            table.move(allocate)

    def note_arrays(self) -> None:
        """A fork made now knows these arrays."""
        self._known = self.optimizer.arrays()

    def has_other_arrays(self) -> bool:
        """Whether the optimizer works on arrays that a fork made earlier does not know: after loading its state, with new options."""
        return [id(array) for array in self._known] != [id(array) for array in self.optimizer.arrays()]

    # ---------------------------------------------------------------- the sum of everybody's gradients
    def stretches(self, touched: list[list[bool]]) -> list[Stretch]:
        """What is to be added up, at most a block at a time, from who has a gradient of which parameter (touched[0]: the parent)."""
        joined: list[Stretch] = []
        for place, flags in zip(self.optimizer.arena.places, zip(*touched, strict=True), strict=True):
            sources = [number for number, flag in enumerate(flags) if flag]
            if joined and joined[-1][1:] == (place.start, sources):
                joined[-1] = joined[-1][0], place.stop, sources
            elif sources:
                joined.append((place.start, place.stop, sources))
        block = self.optimizer.arena.block
        return [(start, min(start + block, stop), sources) for first, stop, sources in joined for start in range(first, stop, block)]

    def add_up(self, stretches: list[Stretch], first: int, past: int, measure: bool) -> None:
        """Add up stretches first to past of all, into the arena's gradients; with `measure`, note the sum of each one's squares."""
        ours = self.optimizer.arena.gradients
        theirs = [ours, *(outbox.gradients for outbox in self.outboxes)]
        for number in range(first, past):
            start, stop, sources = stretches[number]
            total = ours[start:stop]
            if sources[0] != 0:
                total[...] = theirs[sources[0]][start:stop]
            for source in sources[1:]:
                total += theirs[source][start:stop]
            if measure:
                self.squares[number] = sum_of_squares(total)

    # ---------------------------------------------------------------- in a worker
    def watch_tables(self) -> list[WorkersLedger]:
        """Put a `WorkersLedger` in the place of every table's debts."""
        ledgers = [WorkersLedger(table.debt) for table in self.optimizer.tables.values()]
        for p, ledger in zip(self.optimizer.tables, ledgers, strict=True):
            p.ledger = ledger
        return ledgers
