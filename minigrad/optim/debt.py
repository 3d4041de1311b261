"""Deferred weight decay: the factors that rows of a table still owe for the steps since they were last read.

A step multiplies a row that no batch has ever touched by one factor, and does nothing else to it. The factors are only recorded, and a
row is multiplied when it is about to be read: by each factor in turn, so that the result equals the dense rule's to the last bit, and
does not depend on when the row is read. A parameter's `ledger` is its `Debt`. Since reading pays, readers in several threads write; a
lock makes sure that each factor is paid once.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from minigrad.backend import Array, namespace_of

EXEMPT = 2**62
"""The value in `paid` of a row that owes nothing, because the optimizer updates it in every step."""

BLOCK = 1 << 15
"""Elements multiplied at a time: they stay in cache while they are multiplied by many factors."""


class Debt:
    """The recorded factors of one table, and for each row how many of them it has been multiplied by.

    Shapes: data (rows, d).
    """

    def __init__(self, data: Array) -> None:
        self.data = data
        self.xp = namespace_of(data)
        self.factors: list[float] = []  # one per step since all rows were last settled
        self.paid = self.xp.zeros(len(data), "int64")
        self._lock = Lock()

    def move(self, data: Array, paid: Array) -> None:
        """Move both arrays into `data` and `paid`, which have the same shapes and dtypes."""
        with self._lock:
            data[...], paid[...] = self.data, self.paid
            self.data, self.paid = data, paid

    def charge(self, factor: float) -> None:
        """Record one more factor for every row that is not exempt."""
        if self.data.dtype.type(factor) != 1:  # a factor that rounds to 1 changes nothing
            with self._lock:
                self.factors.append(factor)

    def exempt(self, rows: Array) -> None:
        """Settle these rows, and stop charging them."""
        with self._lock:
            self._pay(rows)
            self.paid[rows] = EXEMPT

    def include(self, rows: Array) -> None:
        """Charge these rows (which were exempt) again, starting with the next step."""
        with self._lock:
            self.paid[rows] = len(self.factors)

    def settle(self) -> None:
        """Settle all rows, so that the whole table can be read."""
        if not self.factors:
            return
        with self._lock:
            self._pay(self.xp.flatnonzero(self.paid < len(self.factors)))  # none, if another thread paid first
            self.paid[self.paid != EXEMPT] = 0
            self.factors.clear()  # last, because a thread that finds it empty reads without the lock

    def settle_rows(self, ids: Any) -> None:
        """Settle the rows `ids`. Invalid ids are left to the operation that reads them, which raises a clear error."""
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
