"""CUDA graphs: the launches of a function recorded once, and made again by one call, without its Python.

A replay reads and writes the memory that was recorded, so everything that changes from one to the next lies in arrays that stay where they
are (`Feed`), and what a recording allocates comes from a pool that nobody else takes from. While something is recorded nothing can be
copied between host and GPU: `transfers` refuses it then, also in the runs before that fill the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np

from minigrad.backend import transfers

T = TypeVar("T")

HostArrays = Mapping[str, np.ndarray[Any, Any]]

WARM_UPS = 2
"""Runs before a recording: in them kernels are compiled, cuBLAS begins, and the pool gets its memory."""

ALIGNMENT = 256
"""Bytes to a multiple of which every array of a feed begins, as those that CuPy allocates."""


class Feed:
    """Arrays on the GPU that are filled together, by one copy. host: their first numbers; later ones have the same shapes and dtypes."""

    def __init__(self, host: HostArrays) -> None:
        self._flat = transfers.to_gpu(_joined(host))
        self.arrays: dict[str, Any] = {}
        start = 0
        for name, array in host.items():
            self.arrays[name] = self._flat[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            start += _room(array)

    def fill(self, host: HostArrays) -> None:
        """New numbers for all of the arrays."""
        transfers.refill(self._flat, _joined(host))


def _room(array: np.ndarray[Any, Any]) -> int:
    return -(-array.nbytes // ALIGNMENT) * ALIGNMENT


def _joined(host: HostArrays) -> np.ndarray[Any, Any]:
    flat = np.zeros(sum(_room(array) for array in host.values()), np.uint8)
    start = 0
    for array in host.values():
        flat[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start += _room(array)
    return flat


class Recorder:
    """A stream on which functions are recorded and replayed.

    Every recording has a pool of its own. In one pool for all, memory that a graph uses counts as free after its recording, and CuPy gives
    free memory back to the system, without a word, when a later recording finds too little.
    """

    def __init__(self) -> None:
        import cupy

        self._stream = cupy.cuda.Stream(non_blocking=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside: launches and copies go to the recorder's stream, after all that were made before, and before those that come later."""
        import cupy

        outside = cupy.cuda.get_current_stream()
        self._stream.wait_event(outside.record())
        try:
            with self._stream:
                yield
        finally:
            outside.wait_event(self._stream.record())

    def recorded(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What `function` returns, which may be arrays, and what makes its launches again. Nothing is computed before that is called.

        Called inside of `entered`. Raises: what the function raises, DeviceError (captured-copy) where it copies between host and GPU,
        and CuPy's errors for what a graph cannot hold.
        """
        import cupy

        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(pool.malloc), transfers.recording():
            for _ in range(WARM_UPS):
                function()
            self._stream.begin_capture()
            try:
                result = function()
            except BaseException:
                with suppress(Exception):  # it must be ended, or the stream is of no use; why it failed is known
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()

        def replay(pool: Any = pool) -> None:  # which lives as long as this
            graph.launch(self._stream)

        return result, replay
