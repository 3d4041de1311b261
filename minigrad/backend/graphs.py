"""CUDA graphs: the kernel launches of a function, captured once and replayed by one call that runs none of its Python.

A replay reads and writes the memory of the capture. So everything that changes between replays lives in arrays that stay in place (`Feed`),
and what is allocated during a capture comes from memory reserved for graphs (`graph_memory`). Nothing can be copied between host and GPU
during a capture: `transfers` refuses it then, and in the trial runs before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from math import prod
from typing import Any, TypeVar
from weakref import finalize, ref

import numpy as np

from minigrad.backend import transfers
from minigrad.backend.graph_memory import GraphMemory, give_back
from minigrad.backend.side_stream import SideStream

T = TypeVar("T", bound="tuple[Any, ...]")

Layout = Mapping[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of arrays, by name."""

MAX_GRAPHS = 32
"""At most this many graphs are kept; the least recently used goes first. From one number of tokens to twice as many there are eight bucket
sizes, and batches of long and short texts differ by more. Steps computed in parts have two graphs for a size."""

ALIGNMENT = 256
"""Every array of a feed begins at a multiple of this many bytes, as arrays allocated by CuPy do."""

BUFFERS = 3
"""Pinned buffers of a feed: the program fills the next one while the GPU has not yet copied the last."""


class Feed:
    """Arrays on the GPU that are filled together, by one copy.

    `arrays` holds them by name. Write their next values into the arrays that `buffer` returns; `send` then has the GPU copy them.
    """

    def __init__(self, layout: Layout) -> None:
        size = sum(_aligned_size(*described) for described in layout.values())
        self._flat = transfers.to_gpu(np.zeros(size, np.uint8))
        self.arrays: dict[str, Any] = _views(self._flat, layout)
        self._buffers = [transfers.pinned((size,), np.uint8) for _ in range(BUFFERS)]
        for buffer in self._buffers:
            buffer.fill(0)  # the gaps between the arrays, too
        self._views = [_views(buffer, layout) for buffer in self._buffers]
        self._copied: list[Any] = [None] * BUFFERS
        self._next = 0

    def buffer(self) -> dict[str, np.ndarray[Any, Any]]:
        """Host arrays to be written. Waits until their previous contents have been copied."""
        if self._copied[self._next] is not None:
            self._copied[self._next].synchronize()
        return self._views[self._next]

    def send(self) -> None:
        """Have the GPU copy the values in the last `buffer` to all of the arrays."""
        self._copied[self._next] = transfers.refill(self._flat, self._buffers[self._next], self._copied[self._next])
        self._next = (self._next + 1) % BUFFERS


def _aligned_size(shape: tuple[int, ...], dtype: Any) -> int:
    return -(-_size(shape, dtype) // ALIGNMENT) * ALIGNMENT


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return int(prod(shape) * np.dtype(dtype).itemsize)


def _views(flat: Any, layout: Layout) -> dict[str, Any]:
    found, start = {}, 0
    for name, (shape, dtype) in layout.items():
        found[name] = flat[start : start + _size(shape, dtype)].view(dtype).reshape(shape)
        start += _aligned_size(shape, dtype)
    return found


_idle_streams: list[Any] = []
"""Streams of recorders that no longer exist. They are reused, because cuBLAS keeps a workspace for every stream it has computed on."""


def _reserved_stream(owner: Any) -> Any:
    """A stream reserved for `owner` as long as that lives."""
    import cupy

    try:
        stream = _idle_streams.pop()
    except IndexError:
        stream = cupy.cuda.Stream(non_blocking=True)
    finalize(owner, _idle_streams.append, stream)
    return stream


def _new_event() -> Any:
    """An event without timing; waiting for it waits for its most recent record."""
    import cupy

    return cupy.cuda.Event(disable_timing=True)


class Recorder:
    """A stream on which functions are captured and replayed, and the memory that all of its graphs share."""

    def __init__(self) -> None:
        self._stream, self._before, self._after = _reserved_stream(self), _new_event(), _new_event()
        self._memory: Callable[[], GraphMemory | None] = lambda: None
        """The memory of the graphs that still exist, or None."""

    @cached_property
    def side_stream(self) -> SideStream:
        """The side stream for gradients; the captured function opens it."""
        return SideStream(self._stream, _reserved_stream(self), _new_event(), _new_event())

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside: launches and copies go to the recorder's stream, after everything launched before and ahead of later launches."""
        import cupy

        outside = cupy.cuda.get_current_stream()
        self._stream.wait_event(outside.record(self._before))
        try:
            with self._stream:
                yield
        finally:
            outside.wait_event(self._stream.record(self._after))
            give_back()

    def free_unused(self) -> None:
        """Return the unused memory of CuPy's own pool to the system; a capture cannot take any from there."""
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()

    def capture(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Capture `function`. Returns its result, which has no values before the first replay, and a function that replays its launches.

        It runs twice before the capture: kernels are compiled then, cuBLAS is initialised, and the graph's memory is allocated.

        function: returns a tuple that begins with an array. The result is valid until another graph of this recorder is replayed. Call this
        inside `entered`.
        Raises: whatever the function raises, DeviceError (captured-copy) if it copies between host and GPU, and CuPy's errors for what a
        graph cannot hold.
        """
        import cupy

        with transfers.recording(), suppress(MemoryError):  # there may be no room for this run beside the other graphs
            function()  # allocating from CuPy's own pool: whatever it creates once and keeps stays there
        self.free_unused()
        memory = self._memory() or GraphMemory()
        memory.begin()
        pool = cupy.cuda.MemoryPool(memory.allocate)
        with cupy.cuda.using_allocator(pool.malloc), transfers.recording():
            function()
            result, graph = self._captured(function)
        pool.free_all_blocks()
        self._memory = ref(memory)
        if pool.used_bytes() > result[0].data.mem.size:
            gc.collect()
        if pool.used_bytes() > result[0].data.mem.size:  # the function keeps some of what it computes, on every run
            memory.keep()
            self._memory = lambda: None
        return result, partial(_launch, graph, self._stream, memory)

    def _captured(self, function: Callable[[], T]) -> tuple[T, Any]:
        self._stream.begin_capture()
        try:
            result = function()
        except BaseException:
            with suppress(Exception):  # an unfinished capture leaves the stream unusable; the first error is the one to report
                self._stream.end_capture()
            raise
        return result, self._stream.end_capture()


def _launch(graph: Any, stream: Any, memory: GraphMemory) -> None:
    """memory: where the graph computes; the replay function keeps it alive."""
    graph.launch(stream)
