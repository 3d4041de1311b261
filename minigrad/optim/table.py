"""The state of one large gathered table (a word embedding): work and memory only for rows that some batch has touched.

A row gets the next slot when its first gradient arrives, and its moments live at that slot. From then on it is updated in every step,
with gradient zero where a batch does not touch it (momentum goes on). The other rows have zero moments: all that an update does to them
is weight decay, which they owe (`debt.py`). So the result is that of the dense rule, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import RowSparse
from minigrad.optim.arena import block_length
from minigrad.optim.debt import Debt
from minigrad.parameter import Parameter

Apply: TypeAlias = Callable[[Array, Array, tuple[Array, ...]], None]
"""The update rule in place on one flat block: parameter, gradient, moments."""


class Table:
    """Slots and moments of one parameter that stands apart from the arena.

    Shapes: the parameter (rows, d); `row[:used]` names the row of each slot, `slot[row]` is -1 for a row never touched.
    """

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.data = parameter.array
        self.xp = namespace_of(self.data)
        self.debt = parameter.ledger = Debt(self.data)
        self.moments: dict[str, Array] = {}
        self.forget()

    def move(self, data: Array, paid: Array) -> None:
        """Keep the rows, and what they have paid, in these arrays from now on; see `Arena.move`."""
        self.debt.move(data, paid)
        if self.parameter.ledger is self.debt:  # else another optimizer has taken it over
            self.parameter.replace_storage(data)
        self.data = data

    def forget(self) -> None:
        """Begin anew: no row has been touched."""
        rows = len(self.data)
        self.slot = self.xp.full(rows, -1, "int64")
        self.row = self.xp.zeros(rows, "int64")
        self.used = 0

    def moment(self, name: str) -> Array:
        """Zeros until written, indexed by slot. Reserved for all rows: the system gives zeroed memory page by page when it is first
        written, so that what is occupied grows with the slots in use, and nothing is ever moved."""
        if name not in self.moments:
            self.moments[name] = self.xp.zeros(self.data.shape, self.data.dtype)
        return self.moments[name]

    def admit(self, rows: Array) -> None:
        """Give those of the distinct `rows` that have no slot the next ones."""
        new = rows[self.slot[rows] < 0]
        stop = self.used + len(new)
        self.debt.exempt(new)
        self.slot[new] = self.xp.arange(self.used, stop)
        self.row[self.used : stop] = new
        self.used = stop

    def update(self, gradient: RowSparse | Array, names: Sequence[str], idle: float | None, apply: Apply) -> None:
        """One step. `idle` is what the rule multiplies a never-touched row by; None if it does more, so that all rows count as touched."""
        xp = self.xp
        every_row = xp.arange(len(self.data))
        if isinstance(gradient, RowSparse):
            distinct = gradient.coalesce()
            ids, values = distinct.ids, distinct.values
        else:
            ids, values = every_row, gradient
        self.admit(ids if idle is not None else every_row)
        moments = [self.moment(name) for name in names]
        slots = self.slot[ids]
        order = xp.argsort(slots)
        slots = slots[order]
        step = max(1, block_length(self.data) // max(1, self.data.shape[1]))
        for start in range(0, self.used, step):
            stop = min(start + step, self.used)
            rows = self.row[start:stop]
            first, last = xp.searchsorted(slots, xp.asarray([start, stop])).tolist()
            p = xp.take(self.data, rows, axis=0)
            g = xp.zeros_like(p)
            g[slots[first:last] - start] = values[order[first:last]]
            apply(p.reshape(-1), g.reshape(-1), tuple([m[start:stop].reshape(-1) for m in moments]))
            self.data[rows] = p
        if idle is not None:
            self.debt.charge(idle)
        if not self.moments:  # a rule without memory: the touched rows are as idle as any other from here on
            self.debt.include(self.row[: self.used])
            self.forget()

    def state(self) -> dict[str, Array]:
        """The touched rows in slot order, and their moments."""
        return {"rows": self.row[: self.used], **{name: m[: self.used] for name, m in self.moments.items()}}

    def load(self, rows: Array, moments: dict[str, Array]) -> None:
        """Take over what `state` returned, and forget everything else."""
        self.debt.include(self.row[: self.used])
        self.forget()
        self.admit(rows)
        self.moments.clear()
        for name, values in moments.items():
            self.moment(name)[: self.used] = values
