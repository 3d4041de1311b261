"""The memory that a team's processes share.

It holds everything that an optimizer's step touches: parameters, gradients, moments. Each worker writes its gradients to an outbox of its
own, so no locks are needed. They are added up in a fixed order, each process summing one range over all outboxes, and the update is divided
in the same way. Everything else in a worker is a copy made by the fork (`workers/snapshot.py`).
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
    """Zeros in memory that is shared by this process and its later forks.

    The memory has no name and is freed with the last process. Pages take up memory only once written, so room for the worst case is free.
    """
    size = prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize)), dtype, size).reshape(shape)


Stretch: TypeAlias = tuple[int, int, list[int]]
"""A range of the arena's gradients (start, stop), and the numbers of the processes (0: the parent) that have computed a share of it."""


class Outbox:
    """Shared memory for one worker's gradients: a flat buffer like the arena's, and for each table room for all its rows."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.places = optimizer.arena.places
        self.gradients = shared_zeros(optimizer.arena.gradients.shape, optimizer.arena.gradients.dtype)
        self.tables = [(p, shared_zeros(p.shape[:1], np.int64), shared_zeros(p.shape, p.dtype)) for p in optimizer.tables]

    def attach(self) -> None:
        """In the worker: have the arena's gradients computed straight into this memory."""
        for place in self.places:
            place.parameter.leaf.view = place.of(self.gradients)

    def publish(self) -> dict[str, list[Any]]:
        """In the worker: copy the tables' gradients here. Returns which arena parameters have a gradient, and of each table how many rows
        (null: no gradient, -1: a dense one)."""
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
        """In the parent: add the rows that `publish` left to the tables' gradients."""
        for (p, ids, values), count in zip(self.tables, counts, strict=True):
            if count is not None:
                p.leaf.accumulate(values if count < 0 else RowSparse(ids[:count], values[:count], (len(ids), p.shape[1]), coalesced=True))


class WorkersLedger:
    """A worker's stand-in for a table's ledger of owed decay. Only the parent applies decay; this notes in `missed` whether a row was read
    that owes some."""

    def __init__(self, debt: Debt) -> None:
        self.paid = debt.paid
        self.begin(0)

    def begin(self, factors: int) -> None:
        """Begin a step, in which a row owes decay if it has paid fewer factors than this."""
        self.factors, self.missed = factors, False

    def settle(self) -> None:
        """The whole table is read."""
        if self.factors:
            self.missed |= bool((self.paid < self.factors).any())

    def settle_rows(self, ids: Any) -> None:
        """The rows `ids` are read. Invalid ids are left to the operation that reads them."""
        ids = np.asarray(ids)
        if self.factors and ids.dtype.kind in "iu":
            self.missed |= bool((self.paid.take(ids, mode="clip") < self.factors).any())


class SharedOptimizer:
    """An optimizer whose parameters, gradients and moments are in shared memory, with one outbox for each worker.

    The record of which rows of a table owe decay is shared too, so that a worker sees what the parent has paid.
    """

    def __init__(self, optimizer: Optimizer, workers: int) -> None:
        self.optimizer = optimizer
        self._move(shared_zeros)
        self.outboxes = [Outbox(optimizer) for _ in range(workers)]
        arena = optimizer.arena
        self.squares = shared_zeros((arena.data.size // arena.block + len(arena.places) + 1,), np.float64)
        self.note_arrays()

    def undo(self) -> None:
        """Move everything back into private memory, of which processes forked later get a copy."""
        self._move(np.zeros)

    def _move(self, allocate: Allocate) -> None:
        optimizer = self.optimizer
        optimizer.arena.move(allocate)
        optimizer.moments = {name: copied(moment, allocate) for name, moment in optimizer.moments.items()}
        for table in optimizer.tables.values():
            table.move(allocate)

    def note_arrays(self) -> None:
        """Note the arrays that a fork made now would have."""
        self._known = self.optimizer.arrays()

    def has_other_arrays(self) -> bool:
        """Whether the optimizer has arrays that earlier forks do not have: after loading its state, or with new options."""
        return [id(array) for array in self._known] != [id(array) for array in self.optimizer.arrays()]

    # ---------------------------------------------------------------- the sum of all gradients
    def stretches(self, touched: list[list[bool]]) -> list[Stretch]:
        """The ranges to add up, of at most a block each. touched: for each process (0: the parent), which parameters have a gradient."""
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
        """Add up the stretches first to past (exclusive) into the arena's gradients; with `measure`, note each one's sum of squares."""
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
        """Replace every table's ledger by a `WorkersLedger`."""
        ledgers = [WorkersLedger(table.debt) for table in self.optimizer.tables.values()]
        for p, ledger in zip(self.optimizer.tables, ledgers, strict=True):
            p.ledger = ledger
        return ledgers
