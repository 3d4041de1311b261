"""A step of an optimizer as a list of stretches, so that one process can work it off or several can share it.

What a stretch says is all that a worker needs to know besides the arrays: numbers, no objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Update:
    """Elements that are updated alike: the same constants, the same moments.

    table: None for elements of the arena, else the number of a table, whose slots are counted. start, stop: the stretch. width: elements
    per unit counted, 1 in the arena. moments: their names in the kernel's order. constants: the kernel's.
    """

    table: int | None
    start: int
    stop: int
    width: int
    moments: tuple[str, ...]
    constants: dict[str, Any]


def divide(updates: Sequence[Update], parts: int, block: int) -> list[list[Update]]:
    """The same stretches, cut and dealt out so that each of the parts has about as many elements as the others.

    block: elements that are updated at a time; no cut is made within one, so that the blocks are those of one process.
    """
    total = sum((update.stop - update.start) * update.width for update in updates)
    shares: list[list[Update]] = [[] for _ in range(parts)]
    done = 0
    for update in updates:
        step = max(1, block // max(1, update.width))
        start = update.start
        while start < update.stop:
            part = min(done * parts // max(total, 1), parts - 1)
            wanted = -(-((part + 1) * total) // parts) - done  # elements until the next part's begin
            stop = min(update.stop, start + -(-max(1, wanted) // (step * update.width)) * step)
            shares[part].append(replace(update, start=start, stop=stop))
            done += (stop - start) * update.width
            start = stop
    return shares
