"""A branch of what is recorded: a second stream, on which is computed what nobody reads for a while.

Such are gradients of parameters, beside the walk back that finds them, and on the way forward what only the way back reads. Small launches
leave most of a GPU idle. A branch begins where work is handed over, and ends where the first stream waits for it. Until then all that it
reads is held: memory that is free on the first stream would be written again while the second one still reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from minigrad.backend.gradients import Divisible
from minigrad.modes import Mode

HELD = 128 << 20
"""Bytes that are held for a branch at most. A gradient that reads more than a quarter of them fills a GPU by itself."""


class Branch:
    """main, side: the two streams. forked, joined: events of theirs, without times."""

    def __init__(self, main: Any, side: Any, forked: Any, joined: Any) -> None:
        self._main, self._side, self._forked, self._joined = main, side, forked, joined
        self._held: list[Any] = []
        self._bytes = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside: gradients that are accumulated in an optimizer's buffer may be computed here. Afterwards they all are."""
        try:
            with Mode(branch, self):
                yield
        except BaseException:
            with suppress(Exception):  # why the walk failed is known, and a recording may be of no use by then
                self.join()
            raise
        self.join()

    def takes(self, gradient: Any, out: Any, accumulate: bool) -> bool:
        """Compute a gradient here, `into` an array. False if it is to be computed where it was found, which can then be done at once."""
        operands = gradient.operands() if isinstance(gradient, Divisible) else None
        size = 0 if operands is None else sum(operand.nbytes for operand in operands)
        if operands is None or size > HELD // 4:
            if accumulate:
                self.join()  # what is there may have been computed here
            return False
        self.run(lambda: gradient.into(out, accumulate), gradient, size)
        return True

    def run(self, work: Callable[[], object], holder: Any, size: int) -> None:
        """Have something done here that reads `size` bytes, which lie in memory for as long as their holder lives."""
        self._held.append(holder)  # first, so that the first stream waits even for what fails half-way
        self._bytes += size
        self._side.wait_event(self._main.record(self._forked))
        with self._side:
            work()
        if self._bytes > HELD:
            self.join()

    def finish(self, holder: Any) -> None:
        """Have the first stream wait for what this one holds, unless it has."""
        if any(held is holder for held in self._held):
            self.join()

    def join(self) -> None:
        """Have the first stream wait for all that was computed here."""
        held, self._held, self._bytes = self._held, [], 0
        if held:
            self._main.wait_event(self._side.record(self._joined))


branch: ContextVar[Branch | None] = ContextVar("minigrad_branch", default=None)
"""The branch that is open."""
