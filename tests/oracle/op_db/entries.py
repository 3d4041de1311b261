"""All adapters together, and the report of each entry."""

from __future__ import annotations

from functools import cache, reduce
from operator import or_

from oracle.op_db import entries_creation, entries_elementwise, entries_index, entries_layers, entries_reduce, entries_shape
from oracle.op_db.driver import Report, run

BOOK = reduce(or_, (m.BOOK for m in (entries_elementwise, entries_reduce, entries_shape, entries_index, entries_layers, entries_creation)))


@cache
def report_of(key: str) -> Report:
    """The report of one entry, computed once."""
    return run(key, BOOK)
