"""The memory that graphs share: chunks of a few blocks, used from the start by each graph, and freed with the last graph."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from math import inf
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.backend import graph_memory, graphs, transfers
from minigrad.backend.graph_memory import BLOCK_ARRAYS, MAX_BLOCK, MIN_BLOCK, GraphMemory

BETWEEN = 1 << 40
"""Bytes from the beginning of one block to that of the next."""


class CudaError(Exception):
    """An error of the runtime, as CuPy raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Block:
    """What the system gives. limit: the most bytes that a GPU has; status: of the error where it has no more."""

    made: ClassVar[int] = 0
    alive: ClassVar[WeakSet[Block]] = WeakSet()
    limit: ClassVar[float] = inf
    status: ClassVar[int] = graph_memory.NO_MEMORY

    def __init__(self, size: int) -> None:
        if sum(block.size for block in Block.alive) + size > Block.limit:
            raise CudaError(Block.status)
        Block.made += 1
        self.size, self.ptr, self.device_id = size, Block.made * BETWEEN, 0
        Block.alive.add(self)


class Pool:
    """The part of CuPy's that a capture uses. kept: bytes of results that are still referenced."""

    kept: ClassVar[int] = 512
    limit: ClassVar[int] = 0

    def __init__(self, allocate: Any) -> None:
        self.malloc = allocate

    def free_all_blocks(self) -> None:
        pass

    def used_bytes(self) -> int:
        return Pool.kept

    def total_bytes(self) -> int:
        return 1000

    def get_limit(self) -> int:
        return Pool.limit


class Stream:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, event: object) -> None:
        pass

    wait_event = record

    def begin_capture(self) -> None:
        pass

    def end_capture(self) -> SimpleNamespace:
        return SimpleNamespace(launch=lambda stream: None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in place of a GPU's memory. Of what a capture computes, only what it returns is kept."""
    cuda, runtime = ModuleType("cupy.cuda"), ModuleType("cupy.cuda.runtime")
    parts: dict[str, Any] = {
        "Memory": Block,
        "MemoryPool": Pool,
        "UnownedMemory": lambda ptr, size, owner, device: SimpleNamespace(ptr=ptr, size=size, owner=owner),
        "MemoryPointer": lambda memory, offset: memory,
        "Stream": lambda non_blocking: Stream(),
        "Event": lambda disable_timing: None,
        "get_current_stream": Stream,
        "using_allocator": lambda allocator: nullcontext(),
    }
    for name, part in parts.items():
        monkeypatch.setattr(cuda, name, part, raising=False)
    monkeypatch.setattr(runtime, "CUDARuntimeError", CudaError, raising=False)
    cupy = ModuleType("cupy")
    monkeypatch.setattr(cupy, "cuda", cuda, raising=False)
    monkeypatch.setattr(cupy, "get_default_memory_pool", lambda: Pool(None), raising=False)
    for module in (cupy, cuda, runtime):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    gc.collect()
    monkeypatch.setattr(graphs, "_idle_streams", [])
    for owner, name, value in ((graph_memory, "_in_use", WeakSet()), (Block, "alive", WeakSet()), (Block, "limit", inf)):
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(Block, "status", graph_memory.NO_MEMORY)
    monkeypatch.setattr(Pool, "kept", 512)
    monkeypatch.setattr(graph_memory, "_kept", [])


def taken(memory: GraphMemory, sizes: list[int]) -> list[tuple[int, int]]:
    """Where the pieces of a graph lie."""
    memory.begin()
    pieces = [memory.allocate(size) for size in sizes]
    return [(piece.ptr, piece.ptr + size) for piece, size in zip(pieces, sizes, strict=True)]


sizes = st.lists(st.integers(1, 4 * MIN_BLOCK // 512).map(lambda n: 512 * n), max_size=30)


@given(st.lists(sizes, max_size=5))
@pytest.mark.usefixtures("gpu")
def test_the_pieces_of_a_graph_lie_apart_inside_of_the_blocks(graphs_sizes: list[list[int]]) -> None:
    memory = GraphMemory()
    for one in graphs_sizes:
        spans = sorted(taken(memory, one))
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        blocks = {block.ptr: block.ptr + block.size for block in Block.alive}
        assert all(end <= blocks[start // BETWEEN * BETWEEN] for start, end in spans)


@pytest.mark.parametrize("order", [1, -1], ids=["ever larger", "ever smaller"])
@pytest.mark.usefixtures("gpu")
def test_graphs_of_many_sizes_need_little_more_than_the_largest(order: int) -> None:
    memory, wanted = GraphMemory(), [[512 * (4 + n) * part for part in (1, 3, 3, 8, 8, 40, 40, 40, 160) * 20] for n in range(16)]
    for one in wanted[::order]:
        taken(memory, one)
    largest = sum(wanted[-1])
    assert largest <= memory.bytes == sum(block.size for block in Block.alive) < 1.25 * largest + MIN_BLOCK
    assert sum(map(sum, wanted)) > 9 * largest


@pytest.mark.usefixtures("gpu")
def test_the_same_graph_takes_the_same_memory_again() -> None:
    memory = GraphMemory()
    assert taken(memory, [512, MIN_BLOCK, 1024]) == taken(memory, [512, MIN_BLOCK, 1024])
    assert memory.bytes == MIN_BLOCK + BLOCK_ARRAYS * MIN_BLOCK and len(Block.alive) == 2


@pytest.mark.usefixtures("gpu")
def test_where_there_is_little_left_it_is_taken_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "limit", 3 * MIN_BLOCK)
    memory = GraphMemory()
    taken(memory, [MIN_BLOCK, MIN_BLOCK, MIN_BLOCK])
    assert memory.bytes == 3 * MIN_BLOCK
    with pytest.raises(MemoryError, match="the GPU has no 512 bytes for a CUDA graph"):
        memory.allocate(512)
    monkeypatch.setattr(Block, "status", 700)  # an illegal address, long ago
    with pytest.raises(CudaError):
        memory.allocate(512)


@pytest.mark.usefixtures("gpu")
def test_cupys_memory_limit_bounds_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "limit", 1000 + 3 * MIN_BLOCK)
    memory = GraphMemory()
    memory.begin()
    memory.allocate(MIN_BLOCK)
    assert memory.bytes == 3 * MIN_BLOCK  # all that the limit leaves, and less than it would take without
    memory.allocate(MIN_BLOCK)
    memory.allocate(MIN_BLOCK)
    with pytest.raises(MemoryError, match=f"limit of {Pool.limit} bytes of the GPU's memory leaves no 512 bytes"):
        memory.allocate(512)
    assert Block.made and memory.bytes == 3 * MIN_BLOCK


@pytest.mark.usefixtures("gpu")
def test_memory_is_given_back_when_nothing_is_recorded() -> None:
    memory = GraphMemory()
    taken(memory, [512])
    assert graph_memory.gpu_memory() == 1000 + MIN_BLOCK
    with transfers.recording():
        del memory
        assert len(Block.alive) == 1
    graph_memory.give_back()
    assert not Block.alive and graph_memory.gpu_memory() == 1000


# ---------------------------------------------------------------- a recorder's
@pytest.fixture
def recorder(gpu: None) -> Iterator[graphs.Recorder]:
    yield graphs.Recorder()


def recorded(recorder: graphs.Recorder, size: int) -> Any:
    """The replay of what computes so many bytes."""
    array = SimpleNamespace(data=SimpleNamespace(mem=SimpleNamespace(size=512)))

    def allocate(pool: Any) -> Pool:
        pool(size)
        return Pool(pool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["cupy.cuda"], "MemoryPool", allocate)
        return recorder.capture(lambda: (array,))[1]


def test_graphs_of_a_recorder_share_memory_until_none_is_left(recorder: graphs.Recorder) -> None:
    replays = [recorded(recorder, size) for size in (MAX_BLOCK, MAX_BLOCK)]  # either fills a block
    assert len(Block.alive) == 1
    del replays[0]
    assert len(Block.alive) == 1
    replays.clear()
    assert not Block.alive


def test_what_somebody_keeps_is_not_written_over(recorder: graphs.Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recorded(recorder, 512)
    monkeypatch.setattr(Pool, "kept", 1024)
    second = recorded(recorder, 512)
    monkeypatch.setattr(Pool, "kept", 512)
    third = recorded(recorder, 512)
    assert len(Block.alive) == 2
    del third
    assert len(Block.alive) == 1
    del first, second
    assert len(Block.alive) == 1, "who keeps it may read it for ever"


def test_what_is_made_once_is_made_in_cupys_own_memory(recorder: graphs.Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there is no room for that run, the two others do."""
    inside: list[int] = []
    monkeypatch.setattr(sys.modules["cupy.cuda"], "using_allocator", lambda allocator: nullcontext(inside.append(len(inside))))
    runs: list[bool] = []

    def function() -> tuple[Any, ...]:
        runs.append(bool(inside))
        if len(runs) == 4:
            raise MemoryError
        return (SimpleNamespace(data=SimpleNamespace(mem=SimpleNamespace(size=512))),)

    recorder.capture(function)
    assert runs == [False, True, True]
    recorder.capture(function)
    assert len(runs) == 6


def test_an_error_of_the_system_holds_nothing(monkeypatch: pytest.MonkeyPatch, gpu: None) -> None:
    """Until garbage is collected, a cycle of the error and its traceback would keep everything that a failed capture had computed."""
    monkeypatch.setattr(Block, "limit", 0)

    class Held:
        pass

    def failing() -> None:
        held.add(one := Held())
        GraphMemory().allocate(512)
        assert one

    held: WeakSet[Held] = WeakSet()
    gc.disable()
    try:
        with pytest.raises(MemoryError):
            failing()
        assert not held
    finally:
        gc.enable()


@pytest.mark.parametrize("run", [2, 3], ids=["a run before", "what is recorded"])
def test_a_failed_capture_leaves_nothing(run: int, recorder: graphs.Recorder) -> None:
    runs: list[int] = []

    def function() -> tuple[Any, ...]:
        runs.append(run)
        if len(runs) == run:
            raise MemoryError
        return (SimpleNamespace(data=SimpleNamespace(mem=SimpleNamespace(size=512))),)

    with recorder.entered():
        with pytest.raises(MemoryError):
            recorder.capture(function)
        recorder.capture(function)  # the stream is of use still
    gc.collect()
    assert not Block.alive
