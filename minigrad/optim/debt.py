"""What the rows of a table owe: weight decay of the steps in which nobody looked at them.

Decay multiplies a row that no batch has ever touched by one factor per step and does nothing else to it. The factors are only noted, and
a row is multiplied when somebody is about to read it: by each factor in turn, so that the numbers are, to the last bit, those of the
dense rule, and do not depend on when the row was read. A parameter knows its debt as `ledger`. Reading pays, so readers in several
threads write; a lock makes sure that each debt is paid once.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from minigrad.backend import Array, namespace_of

EXEMPT = 2**62
"""In `paid`: a row that owes nothing, however many steps pass, because the optimizer updates it itself."""

BLOCK = 1 << 15
"""Elements multiplied at a stretch: they stay in cache while many factors pass over them."""


class Debt:
    """The noted factors of one table, and for each row how many of them it has been multiplied by.

    Shapes: data (rows, d).
    """

    def __init__(self, data: Array) -> None:
        self.data = data
        self.xp = namespace_of(data)
        self.factors: list[float] = []  # one per step since everything was settled last
        self.paid = self.xp.zeros(len(data), "int64")
        self._lock = Lock()

    def move(self, data: Array, paid: Array) -> None:
        """Keep both arrays elsewhere from now on: in `data` and `paid`, which are like the old ones."""
        with self._lock:
            data[...], paid[...] = self.data, self.paid
            self.data, self.paid = data, paid

    def charge(self, factor: float) -> None:
        """Every row that is not exempt owes one more multiplication."""
        if self.data.dtype.type(factor) != 1:  # multiplying by what rounds to 1 changes nothing
            with self._lock:
                self.factors.append(factor)

    def exempt(self, rows: Array) -> None:
        """Settle these rows, and charge them no more."""
        with self._lock:
            self._pay(rows)
            self.paid[rows] = EXEMPT

    def include(self, rows: Array) -> None:
        """Charge these rows (which were exempt) again, from the next step on."""
        with self._lock:
            self.paid[rows] = len(self.factors)

    def settle(self) -> None:
        """Pay everything: the whole table may be read."""
        if not self.factors:
            return
        with self._lock:
            self._pay(self.xp.flatnonzero(self.paid < len(self.factors)))  # none, if another thread paid first
            self.paid[self.paid != EXEMPT] = 0
            self.factors.clear()  # last, because whoever finds it empty reads without the lock

    def settle_rows(self, ids: Any) -> None:
        """Pay for the rows `ids`. Ids that no table can have are left to the operation that reads them, which explains them."""
        if not self.factors:
            return
        ids = self.xp.asarray(ids).reshape(-1)
        if ids.dtype.kind in "iu" and ids.size and int(ids.min()) >= 0 and int(ids.max()) < len(self.data):
            with self._lock:
                self._pay(self.xp.unique(ids[self.paid[ids] < len(self.factors)]))

    def _pay(self, rows: Array) -> None:
        """Multiply distinct rows by what they owe; the caller holds the lock.

        Ordered by how much they have paid, the rows that owe factor k are a prefix.
        """
        xp, total = self.xp, len(self.factors)
        order = xp.argsort(self.paid[rows])
        rows = rows[order]
        paid = self.paid[rows]
        step = max(1, BLOCK // max(1, self.data.shape[1]))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            first = int(paid[start])
            owing = xp.searchsorted(paid[start : start + step], xp.arange(first, total), side="right").tolist()
            values = xp.take(self.data, block, axis=0)
            for factor, stop in zip(self.factors[first:], owing, strict=True):
                values[:stop] *= factor
            self.data[block] = values
            self.paid[block] = total
