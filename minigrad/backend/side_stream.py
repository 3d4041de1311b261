"""A side stream in a captured CUDA graph, for work whose result is not needed soon.

Such work is computing the gradients of parameters, beside the rest of the backward pass, and, in the forward pass, whatever only the
backward pass reads: small launches leave most of a GPU idle. The side stream forks from the main stream when work is handed over and joins
it when the main stream waits. Until then everything it reads is kept alive: memory freed on the main stream would be overwritten while the
side stream still reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from minigrad.backend.gradients import LazyGradient
from minigrad.modes import Mode

MAX_HELD = 128 << 20
"""At most this many bytes of operands are kept alive for the side stream. A gradient that reads over a quarter of this fills a GPU
alone."""


class SideStream:
    """A pair of streams. main, side: the streams. forked, joined: an event for each direction, without timing."""

    def __init__(self, main: Any, side: Any, forked: Any, joined: Any) -> None:
        self._main, self._side, self._forked, self._joined = main, side, forked, joined
        self._held: list[Any] = []
        self._bytes = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside: gradients accumulated into an optimizer's buffer may be computed on the side stream. On leaving it is joined."""
        try:
            with Mode(current_side_stream, self):
                yield
        except BaseException:
            with suppress(Exception):  # the first error is the one to report, and the capture may be invalid by then
                self.join()
            raise
        self.join()

    def offload(self, gradient: Any, out: Any, accumulate: bool) -> bool:
        """Compute a gradient on the side stream, `into` an array. False if the caller should compute it, on the main stream, which is safe
        then."""
        operands = gradient.operands() if isinstance(gradient, LazyGradient) else None
        size = 0 if operands is None else sum(operand.nbytes for operand in operands)
        if operands is None or size > MAX_HELD // 4:
            if accumulate:
                self.join()  # the earlier sum in `out` may have been computed on the side stream
            return False
        self.run(lambda: gradient.into(out, accumulate), gradient, size)
        return True

    def run(self, work: Callable[[], object], holder: Any, size: int) -> None:
        """Do `work` on the side stream. It reads `size` bytes, which stay allocated as long as `holder` lives."""
        self._held.append(holder)  # before the work, so that the main stream waits even for work that fails half-way
        self._bytes += size
        self._side.wait_event(self._main.record(self._forked))
        with self._side:
            work()
        if self._bytes > MAX_HELD:
            self.join()

    def finish(self, holder: Any) -> None:
        """Have the main stream wait for the side stream, unless it has done so since `holder` was handed over."""
        if any(held is holder for held in self._held):
            self.join()

    def join(self) -> None:
        """Have the main stream wait for everything computed on the side stream."""
        held, self._held, self._bytes = self._held, [], 0
        if held:
            self._main.wait_event(self._side.record(self._joined))


current_side_stream: ContextVar[SideStream | None] = ContextVar("minigrad_side_stream", default=None)
"""The side stream open in this context."""
