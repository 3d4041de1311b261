"""The memory that recorded launches compute in, which graphs of many sizes have together.

A graph reads and writes where it was recorded, for as long as it is replayed. Thirty of them would need thirty times the memory of a
step, and hold it while they wait. But graphs that are replayed on one stream run one after the other, and none counts on what it left
behind. So each takes its memory from the beginning of the same few blocks, of which there are as many as the largest needs. What a graph
returns is there until the next one is replayed.
"""

from __future__ import annotations

from math import inf
from threading import Lock
from typing import Any
from weakref import WeakSet, finalize

from minigrad.backend import transfers

ROOM, LEAST, MOST = 8, 32 << 20, 256 << 20
"""A new block has room for so many arrays like the one that finds no place in the others, but at least and at most so many bytes, unless
the array is larger: what is left at its end, where the next array is too large, is little then."""

NO_MEMORY = 2
"""The runtime's cudaErrorMemoryAllocation, which CuPy has no name for."""

_in_use: WeakSet[GraphMemory] = WeakSet()
_lock = Lock()  # other threads may record

_kept: list[GraphMemory] = []
"""Where somebody keeps what was computed in a recording: it is not given back."""

_left: list[list[Any]] = []
"""Blocks of which nobody makes use any more, as long as they cannot be given back."""


class GraphMemory:
    """Blocks of the GPU's memory, as large as they have to be. They are given back when this is gone."""

    def __init__(self) -> None:
        self._blocks: list[Any] = []
        self._taken: list[int] = []
        """Bytes of each block that the graph which is recorded has."""
        with _lock:
            _in_use.add(self)
        finalize(self, _give_back, self._blocks).atexit = False

    def begin(self) -> None:
        """The next graph takes its memory from the beginning."""
        self._taken = [0] * len(self._blocks)

    def allocate(self, size: int) -> Any:
        """For a pool of CuPy, which asks for multiples of 512 bytes. Raises: MemoryError if the GPU has no more."""
        from cupy.cuda import MemoryPointer, UnownedMemory

        place = next((i for i, block in enumerate(self._blocks) if self._taken[i] + size <= block.size), len(self._blocks))
        if place == len(self._blocks):
            self._blocks.append(_from_system(size))
            self._taken.append(0)
        block, start = self._blocks[place], self._taken[place]
        self._taken[place] += size
        return MemoryPointer(UnownedMemory(block.ptr + start, size, None, block.device_id), 0)

    def keep(self) -> None:
        """Never give it back."""
        _kept.append(self)

    @property
    def bytes(self) -> int:
        return sum(block.size for block in self._blocks)


def _from_system(size: int) -> Any:
    """A block that holds so many bytes, and more if there are more. What limits CuPy's own memory (`CUPY_GPU_MEMORY_LIMIT`) limits both.

    Not an error of CUDA where there are too few: CuPy would answer that with memory of its pool, which the launches that are captured use.
    """
    from cupy import get_default_memory_pool
    from cupy.cuda import Memory
    from cupy.cuda.runtime import CUDARuntimeError

    limit = get_default_memory_pool().get_limit()
    room = limit - gpu_memory() if limit else inf
    if size > room:
        raise MemoryError(f"the limit of {limit} bytes of the GPU's memory leaves no {size} bytes for a recording")
    wanted = min(room, max(size, LEAST, min(ROOM * size, MOST)))
    while True:
        try:
            return Memory(wanted)
        except CUDARuntimeError as error:  # of no other name: in a cycle with its traceback it would hold all that has been computed
            if error.status != NO_MEMORY:
                raise
            if wanted == size:
                raise MemoryError(f"the GPU has no {size} bytes for a recording: {error}") from error
        wanted = size


def _give_back(blocks: list[Any]) -> None:
    _left.append(blocks)
    give_back()


def give_back() -> None:
    """To the system, the blocks of which nobody makes use any more. Not while something is recorded, where a graph may end as garbage."""
    if not transfers.is_recording():
        _left.clear()


def gpu_memory() -> int:
    """Bytes of the GPU's memory that this process keeps for arrays and recordings, in use or not; CUDA's own are some hundred MiB more."""
    import cupy

    with _lock:
        recordings = sum(memory.bytes for memory in _in_use)
    return int(cupy.get_default_memory_pool().total_bytes()) + recordings
