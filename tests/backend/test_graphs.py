"""What CUDA graphs need of the host: arrays that are filled by one copy, and no copies in between."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad.backend import transfers
from minigrad.backend.graphs import ALIGNMENT, BUFFERS, Feed
from minigrad.errors import DeviceError


class Stream:
    """Does what it is given when somebody waits for it."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.waits = 0

    def record(self, event: SimpleNamespace | None = None) -> SimpleNamespace:
        return SimpleNamespace(synchronize=partial(self._until, len(self.queue)))

    def _until(self, past: int) -> None:
        self.waits += 1
        for number, work in enumerate(self.queue[:past]):
            work()
            self.queue[number] = lambda: None


class OnGpu(np.ndarray):
    def set(self, host: np.ndarray, stream: Stream) -> None:
        stream.queue.append(lambda: np.copyto(self, host))

    def get(self, stream: Stream, out: np.ndarray, blocking: bool) -> None:
        assert not blocking
        stream.queue.append(lambda: np.copyto(out, self))


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    cuda = SimpleNamespace(get_current_stream=lambda: stream)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, array=lambda host: np.array(host).view(OnGpu)))
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))
    return stream


HOST = {
    "ids": np.arange(7),
    "pairs": np.arange(6, dtype=np.int32).reshape(3, 2)[:, ::-1],
    "none": np.zeros((0, 8), np.int32),
    "factor": np.array(0.5, np.float32),
    "clock": np.array(2**63, np.uint64),
}


LAYOUT = {name: (array.shape, array.dtype) for name, array in HOST.items()}


def fill(feed: Feed, host: dict[str, np.ndarray]) -> None:
    for name, array in feed.buffer().items():
        array[...] = host[name]
    feed.send()


def test_arrays_are_filled_together(stream: Stream) -> None:
    with transfers.counting() as counts:
        feed = Feed(LAYOUT)
        held = dict(feed.arrays)
        again = {name: array + array.dtype.type(1) for name, array in HOST.items()}
        fill(feed, HOST)
        fill(feed, again)
    assert counts.to_gpu == 3 and stream.waits == 0
    stream.record().synchronize()
    start = feed.arrays["ids"].ctypes.data
    for name, array in again.items():
        assert held[name].dtype == array.dtype
        np.testing.assert_array_equal(held[name], array)
        assert held[name].shape == array.shape
        assert not array.size or (held[name].ctypes.data - start) % ALIGNMENT == 0


def test_numbers_are_overwritten_only_when_they_have_been_copied(stream: Stream) -> None:
    """Each fill is followed by work that reads the numbers of its own, however late the GPU is."""
    feed, seen = Feed(LAYOUT), []
    for number in range(3 * BUFFERS):
        fill(feed, {name: np.full_like(array, number) for name, array in HOST.items()})
        stream.queue.append(lambda: seen.append(int(feed.arrays["ids"][-1])))
    assert 0 < stream.waits <= 2 * BUFFERS
    stream.record().synchronize()
    assert seen == list(range(3 * BUFFERS))


def test_numbers_come_back_when_they_are_there(stream: Stream) -> None:
    feed, host = Feed(LAYOUT), transfers.pinned((7,), np.int64)
    with transfers.counting() as counts:
        fill(feed, HOST)
        host.fill(-1)
        arrived = transfers.fetch(feed.arrays["ids"], host)
        assert (host == -1).all()
        arrived.synchronize()
    np.testing.assert_array_equal(host, HOST["ids"])
    assert (counts.to_host, counts.bytes_to_host) == (1, 56)


def test_nothing_is_copied_while_launches_are_recorded(stream: Stream) -> None:
    feed = Feed(LAYOUT)
    ids = feed.arrays["ids"]
    copies: list[Callable[[], object]] = [
        lambda: transfers.to_gpu(np.zeros(3)),
        lambda: fill(feed, HOST),
        lambda: transfers.to_host(ids),
        lambda: transfers.fetch(ids, np.zeros(7, np.int64)),
    ]
    with transfers.recording():
        for copy in copies:
            with pytest.raises(DeviceError, match=r"while launches are recorded for a CUDA graph") as caught:
                copy()
            assert caught.value.code == "captured-copy" and "test_graphs.py" in str(caught.value)
    fill(feed, HOST)


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed (the `gpu` extra)")
def test_cupy_has_what_is_called() -> None:
    import cupy
    import cupyx

    for name in ("begin_capture", "end_capture", "record", "wait_event", "__enter__"):
        assert callable(getattr(cupy.cuda.Stream, name)), name
    for name in ("get_current_stream", "using_allocator", "MemoryPool"):
        assert callable(getattr(cupy.cuda, name)), name
    for name in ("malloc", "free_all_blocks", "used_bytes", "total_bytes"):
        assert callable(getattr(cupy.cuda.MemoryPool, name)), name
    assert callable(cupy.cuda.Graph.launch) and callable(cupy.cuda.Memory)
    piece = cupy.cuda.UnownedMemory(512, 1024, None, 0)
    assert cupy.cuda.MemoryPointer(piece, 0).mem.size == 1024
    assert callable(cupy.cuda.Event.synchronize)
    assert "stream=None" in cupy.ndarray.set.__doc__
    assert "stream=None" in cupy.ndarray.get.__doc__ and "out=None, blocking=True" in cupy.ndarray.get.__doc__
    assert "dtype" in signature(cupyx.empty_pinned).parameters
