"""The state of one large gathered table (a word embedding): work and memory only for rows that some batch has touched.

A row gets the next slot when its first gradient arrives, and its moments are stored at that slot. From then on it is updated in every
step, with a zero gradient if the batch does not touch it (momentum continues). The other rows have zero moments: an update only decays
them, which is deferred (`debt.py`). So the result equals that of the dense rule to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

from minigrad.backend import Array
from minigrad.backend.gradients import RowSparse
from minigrad.optim.arena import Allocate, Arena, Block, copied
from minigrad.optim.debt import Debt
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter


class Table:
    """Slots and moments of one parameter outside the arena.

    Arrays are allocated for all rows even if few are in use: the system provides zeroed memory page by page on the first write, so that
    the memory in use grows with the slots in use, and nothing is ever moved.

    Shapes: the parameter (rows, d); `row[:used]` is the row of each slot, `slot[row]` is -1 for a row never touched. Within a step,
    `due[:count]` are the slots that have a gradient, ascending, and `gradients[:count]` (count, d) are these gradients.
    """

    def __init__(self, parameter: Parameter, arena: Arena) -> None:
        self.parameter, self.arena = parameter, arena
        self.data, self.xp = parameter.array, arena.xp
        self.debt = parameter.ledger = Debt(self.data)
        self.moments: dict[str, Array] = {}
        rows = len(self.data)
        self.slot = self.xp.full(rows, -1, "int64")
        self.row, self.due = arena.allocate((rows,), "int64"), arena.allocate((rows,), "int64")
        self.gradients = arena.allocate(self.data.shape, self.data.dtype)
        self.used = self.count = 0
        self._idle: float | None = None
        self._begun = False

    def move(self, allocate: Allocate) -> None:
        """Move everything that a step reads or writes into arrays made by `allocate`; see `Arena.move`."""
        data = allocate(self.data.shape, self.data.dtype)
        self.debt.move(data, allocate(self.debt.paid.shape, self.debt.paid.dtype))
        if self.parameter.ledger is self.debt:  # unless another optimizer has taken the parameter over
            self.parameter.replace_storage(data)
        self.data = data
        self.row, self.due = copied(self.row, allocate, self.used), allocate(self.due.shape, self.due.dtype)
        self.gradients = allocate(self.gradients.shape, self.gradients.dtype)
        self.moments = {name: copied(moment, allocate, self.used) for name, moment in self.moments.items()}

    def attach(self) -> None:
        """Give the parameter this table's array and debt again, after it was moved elsewhere."""
        self.parameter.replace_storage(self.data)
        self.parameter.ledger = self.debt

    def arrays(self) -> list[Array]:
        """All arrays that workers read or write."""
        return [self.data, self.debt.paid, self.row, self.due, self.gradients, *self.moments.values()]

    def forget(self) -> None:
        """Free all slots, as if no row had been touched."""
        self.slot[self.row[: self.used]] = -1
        self.used = 0

    def moment(self, name: str) -> Array:
        """A moment of all slots, zeros until written."""
        if name not in self.moments:
            self.moments[name] = self.arena.allocate(self.data.shape, self.data.dtype)
        return self.moments[name]

    def admit(self, rows: Array) -> None:
        """Assign the next slots to those of the distinct `rows` that have none."""
        new = rows[self.slot[rows] < 0]
        stop = self.used + len(new)
        self.debt.exempt(new)
        self.slot[new] = self.xp.arange(self.used, stop)
        self.row[self.used : stop] = new
        self.used = stop

    # ---------------------------------------------------------------- a step
    def begin(self, gradient: RowSparse | Array, idle: float | None) -> None:
        """Sort the gradient by slot. idle: the rule's `idle_factor`, by which rows never touched are multiplied; None makes all rows count
        as touched."""
        every_row = self.xp.arange(len(self.data))
        if isinstance(gradient, RowSparse):
            distinct = gradient.coalesce()
            ids, values = distinct.ids, distinct.values
        else:
            ids, values = every_row, gradient
        self.admit(ids if idle is not None else every_row)
        slots = self.slot[ids]
        order = self.xp.argsort(slots)
        self.count, self._idle, self._begun = len(order), idle, True
        self.due[: self.count] = slots[order]
        self.gradients[: self.count] = values[order]

    def blocks(self, update: Update) -> Iterator[Block]:
        """The blocks of one update: rows are gathered, and written back when the caller has updated them."""
        xp, due, moments = self.xp, self.due[: self.count], [self.moment(name) for name in update.moments]
        step = max(1, self.arena.block // max(1, update.width))
        for start in range(update.start, update.stop, step):
            stop = min(start + step, update.stop)
            rows = self.row[start:stop]
            first, last = xp.searchsorted(due, xp.asarray([start, stop])).tolist()
            p = xp.take(self.data, rows, axis=0)
            g = xp.zeros_like(p)
            g[due[first:last] - start] = self.gradients[first:last]
            yield p.reshape(-1), g.reshape(-1), tuple([m[start:stop].reshape(-1) for m in moments])
            self.data[rows] = p

    def end(self) -> None:
        """End a step that `begin` began, if there was one: charge the rows that it did not update."""
        if not self._begun:
            return
        self._begun = False
        if self._idle is not None:
            self.debt.charge(self._idle)
        if not self.moments:  # without moments, the rows just touched are charged again like all others
            self.debt.include(self.row[: self.used])
            self.forget()

    def state(self) -> dict[str, Array]:
        """The touched rows in slot order, and their moments."""
        return {"rows": self.row[: self.used], **{name: m[: self.used] for name, m in self.moments.items()}}

    def load(self, rows: Array, moments: dict[str, Array]) -> None:
        """Replace slots and moments by those that `state` returned."""
        self.debt.include(self.row[: self.used])
        self.forget()
        self.admit(rows)
        self.moments.clear()
        for name, values in moments.items():
            self.moment(name)[: self.used] = values
