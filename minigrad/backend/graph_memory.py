"""The memory in which captured CUDA graphs compute, shared by graphs of many sizes.

A graph reads and writes the addresses of its capture for as long as it is replayed. Thirty graphs with memory of their own would need
thirty times the memory of a step, and hold it while idle. But graphs replayed on one stream run one after the other, and none relies on
what it left in memory. So each allocates from the beginning of the same few blocks, and there are as many as the largest graph needs. What
a graph returns is valid until the next one is replayed.
"""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import Any
from weakref import WeakSet, finalize

from minigrad.backend import transfers

BLOCK_ARRAYS, MIN_BLOCK, MAX_BLOCK = 8, 32 << 20, 256 << 20
"""A new block has room for BLOCK_ARRAYS arrays like the one that fits in no other, but for at least MIN_BLOCK and at most MAX_BLOCK bytes,
unless the array is larger: so little is wasted at its end, where the next array does not fit."""

NO_MEMORY = 2
"""cudaErrorMemoryAllocation of CUDA's runtime, for which CuPy has no name."""

_in_use: WeakSet[GraphMemory] = WeakSet()
_lock = Lock()  # other threads may capture at the same time

_kept: list[GraphMemory] = []
"""Memory in which a result of a capture is still in use: never given back."""

_unused: list[list[Any]] = []
"""Blocks no longer in use that cannot be given back yet."""


class GraphMemory:
    """Blocks of GPU memory, allocated as needed and given back when this object is garbage."""

    def __init__(self) -> None:
        self._blocks: list[Any] = []
        self._used: list[int] = []
        """How many bytes of each block the graph being captured has taken."""
        with _lock:
            _in_use.add(self)
        finalize(self, _give_back, self._blocks).atexit = False

    def begin(self) -> None:
        """Start a new graph, which allocates from the beginning."""
        self._used = [0] * len(self._blocks)

    def allocate(self, size: int) -> Any:
        """The allocator of a CuPy pool, which asks for multiples of 512 bytes. Raises: MemoryError if the GPU has no more."""
        from cupy.cuda import MemoryPointer, UnownedMemory

        place = next((i for i, block in enumerate(self._blocks) if self._used[i] + size <= block.size), len(self._blocks))
        if place == len(self._blocks):
            self._blocks.append(_new_block(size))
            self._used.append(0)
        block, start = self._blocks[place], self._used[place]
        self._used[place] += size
        return MemoryPointer(UnownedMemory(block.ptr + start, size, None, block.device_id), 0)

    def keep(self) -> None:
        """Never give it back."""
        _kept.append(self)

    @property
    def bytes(self) -> int:
        return sum(block.size for block in self._blocks)


def _new_block(size: int) -> Any:
    """A block of at least `size` bytes, more if available. CuPy's memory limit (`CUPY_GPU_MEMORY_LIMIT`) covers both its pool and these
    blocks.

    Raises MemoryError, not a CUDA error, if there is too little: CuPy would react to the latter by freeing memory of its pool, which the
    captured launches use.
    """
    from cupy import get_default_memory_pool
    from cupy.cuda import Memory
    from cupy.cuda.runtime import CUDARuntimeError

    limit = get_default_memory_pool().get_limit()
    room = limit - gpu_memory() if limit else inf
    if size > room:
        raise MemoryError(f"the limit of {limit} bytes of the GPU's memory leaves no {size} bytes for a CUDA graph")
    wanted = min(room, max(size, MIN_BLOCK, min(BLOCK_ARRAYS * size, MAX_BLOCK)))
    while True:
        try:
            return Memory(wanted)
        except CUDARuntimeError as error:  # the only name: a cycle with its traceback would keep alive everything computed so far
            if error.status != NO_MEMORY:
                raise
            if wanted == size:
                raise MemoryError(f"the GPU has no {size} bytes for a CUDA graph: {error}") from error
        wanted = size


def _give_back(blocks: list[Any]) -> None:
    _unused.append(blocks)
    give_back()


def give_back() -> None:
    """Return unused blocks to the system. Not during a capture, when the garbage collector may destroy a graph."""
    if not transfers.is_recording():
        _unused.clear()


def gpu_memory() -> int:
    """Bytes of GPU memory that this process holds for arrays and graphs, in use or not; CUDA itself takes some hundred MiB more."""
    import cupy

    with _lock:
        recordings = sum(memory.bytes for memory in _in_use)
    return int(cupy.get_default_memory_pool().total_bytes()) + recordings
