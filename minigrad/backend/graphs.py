"""CUDA graphs: the launches of a function recorded once, and made again by one call, without its Python.

A replay reads and writes the memory that was recorded, so everything that changes from one to the next lies in arrays that stay where they
are (`Feed`), and what a recording allocates comes from memory that only recordings have (`graph_memory`). While something is recorded
nothing can be copied between host and GPU: `transfers` refuses it then, also in the runs before.
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
from minigrad.backend.branch import Branch
from minigrad.backend.graph_memory import GraphMemory, give_back

T = TypeVar("T", bound="tuple[Any, ...]")

Layout = Mapping[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of arrays, by name."""

KEPT = 32
"""Graphs that are kept; the one used longest ago goes first. There are eight sizes of batches from one number of tokens to twice as many,
and batches of long and short texts differ by more. Steps in parts have two for a size."""

ALIGNMENT = 256
"""Bytes to a multiple of which every array of a feed begins, as those that CuPy allocates."""

BUFFERS = 3
"""Of a feed on the host: the program writes the next ones while the GPU has not copied the last."""


class Feed:
    """Arrays on the GPU that are filled together, by one copy.

    `arrays` holds them by name. Their next numbers are written into those that `buffer` returns, and `send` has the GPU copy them.
    """

    def __init__(self, layout: Layout) -> None:
        size = sum(_room(*described) for described in layout.values())
        self._flat = transfers.to_gpu(np.zeros(size, np.uint8))
        self.arrays: dict[str, Any] = _views(self._flat, layout)
        self._buffers = [transfers.pinned((size,), np.uint8) for _ in range(BUFFERS)]
        for buffer in self._buffers:
            buffer.fill(0)  # between the arrays, too
        self._views = [_views(buffer, layout) for buffer in self._buffers]
        self._copied: list[Any] = [None] * BUFFERS
        self._next = 0

    def buffer(self) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays of the host, to be written. Waits until the copy of what was in them is over."""
        if self._copied[self._next] is not None:
            self._copied[self._next].synchronize()
        return self._views[self._next]

    def send(self) -> None:
        """New numbers for all of the arrays: those that stand in the last `buffer`."""
        self._copied[self._next] = transfers.refill(self._flat, self._buffers[self._next], self._copied[self._next])
        self._next = (self._next + 1) % BUFFERS


def _room(shape: tuple[int, ...], dtype: Any) -> int:
    return -(-_size(shape, dtype) // ALIGNMENT) * ALIGNMENT


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return int(prod(shape) * np.dtype(dtype).itemsize)


def _views(flat: Any, layout: Layout) -> dict[str, Any]:
    found, start = {}, 0
    for name, (shape, dtype) in layout.items():
        found[name] = flat[start : start + _size(shape, dtype)].view(dtype).reshape(shape)
        start += _room(shape, dtype)
    return found


_idle: list[Any] = []
"""Streams of recorders that are gone. cuBLAS keeps memory for every stream that it has computed on, so they are used again."""


def _stream_of(owner: Any) -> Any:
    """A stream that is its owner's for as long as that lives."""
    import cupy

    try:
        stream = _idle.pop()
    except IndexError:
        stream = cupy.cuda.Stream(non_blocking=True)
    finalize(owner, _idle.append, stream)
    return stream


def _event() -> Any:
    """Who waits for it, waits for the last record."""
    import cupy

    return cupy.cuda.Event(disable_timing=True)


class Recorder:
    """A stream on which functions are recorded and replayed, in memory that all of these graphs have together."""

    def __init__(self) -> None:
        self._stream, self._before, self._after = _stream_of(self), _event(), _event()
        self._memory: Callable[[], GraphMemory | None] = lambda: None
        """That of the graphs which are still there."""

    @cached_property
    def branch(self) -> Branch:
        """For gradients in what is recorded, which opens it."""
        return Branch(self._stream, _stream_of(self), _event(), _event())

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside: launches and copies go to the recorder's stream, after all that were made before, and before those that come later."""
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
        """Give the memory back that CuPy's own pool keeps and nobody uses, which no recording can take from there."""
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()

    def recorded(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What `function` returns, and what makes its launches again. Nothing is computed before that is called.

        It runs twice before it is recorded: kernels are compiled then, cuBLAS begins, and the recording gets its memory.

        function: gives a tuple, first an array. What that holds is there until another recording of this recorder is replayed. Called
        inside of `entered`. Raises: what the function raises, DeviceError (captured-copy) where it copies between host and GPU, and
        CuPy's errors for what a graph cannot hold.
        """
        import cupy

        with transfers.recording(), suppress(MemoryError):  # where there is no room for it, beside what other graphs compute in
            function()  # in CuPy's own memory: what is made once and kept stays there
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
        if pool.used_bytes() > result[0].data.mem.size:  # somebody keeps what is computed, every time
            memory.keep()
            self._memory = lambda: None
        return result, partial(_launch, graph, self._stream, memory)

    def _captured(self, function: Callable[[], T]) -> tuple[T, Any]:
        self._stream.begin_capture()
        try:
            result = function()
        except BaseException:
            with suppress(Exception):  # it must be ended, or the stream is of no use; why it failed is known
                self._stream.end_capture()
            raise
        return result, self._stream.end_capture()


def _launch(graph: Any, stream: Any, memory: GraphMemory) -> None:
    """memory: where the graph computes; it stays as long as somebody can do this."""
    graph.launch(stream)
