"""A step of an optimizer as a list of updates, which one process can carry out or several can share.

An update is all that a worker needs to know besides the arrays, and holds only plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Update:
    """A range of elements that are updated with the same constants and moments.

    table: None for the arena, else the number of a table. start, stop: the range, of the arena's elements or the table's slots. width:
    elements per slot, 1 in the arena. moments: their names in the kernel's order. constants: the kernel's.
    """

    table: int | None
    start: int
    stop: int
    width: int
    moments: tuple[str, ...]
    constants: dict[str, Any]


def divide(updates: Sequence[Update], parts: int, block: int) -> list[list[Update]]:
    """Cut the updates and share them out to `parts` workers, about equally many elements to each.

    block: elements that are updated at a time; no cut is made inside a block, so that the blocks are those of one process.
    """
    total = sum((update.stop - update.start) * update.width for update in updates)
    shares: list[list[Update]] = [[] for _ in range(parts)]
    done = 0
    for update in updates:
        step = max(1, block // max(1, update.width))
        start = update.start
        while start < update.stop:
            part = min(done * parts // max(total, 1), parts - 1)
            wanted = -(-((part + 1) * total) // parts) - done  # elements until the next part begins
            stop = min(update.stop, start + -(-max(1, wanted) // (step * update.width)) * step)
            shares[part].append(replace(update, start=start, stop=stop))
            done += (stop - start) * update.width
            start = stop
    return shares
