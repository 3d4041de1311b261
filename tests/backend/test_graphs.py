"""What CUDA graphs need of the host: arrays that are filled by one copy, and no copies in between."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from minigrad.backend import transfers
from minigrad.backend.graphs import ALIGNMENT, Feed
from minigrad.errors import DeviceError


class OnGpu(np.ndarray):
    def set(self, host: np.ndarray, stream: str) -> None:
        assert stream == "the current one"
        self[...] = host


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(get_current_stream=lambda: "the current one")
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, array=lambda host: np.array(host).view(OnGpu)))


HOST = {
    "ids": np.arange(7),
    "pairs": np.arange(6, dtype=np.int32).reshape(3, 2)[:, ::-1],
    "none": np.zeros((0, 8), np.int32),
    "factor": np.array(0.5, np.float32),
    "clock": np.array(2**63, np.uint64),
}


def test_arrays_are_filled_together(cupy: None) -> None:
    with transfers.counting() as counts:
        feed = Feed(HOST)
        held = dict(feed.arrays)
        again = {name: array + array.dtype.type(1) for name, array in HOST.items()}
        feed.fill(again)
    assert counts.to_gpu == 2
    start = feed.arrays["ids"].ctypes.data
    for name, array in again.items():
        assert held[name].dtype == array.dtype
        np.testing.assert_array_equal(held[name], array)
        assert held[name].shape == array.shape
        assert not array.size or (held[name].ctypes.data - start) % ALIGNMENT == 0


def test_nothing_is_copied_while_launches_are_recorded(cupy: None) -> None:
    feed = Feed(HOST)
    with transfers.recording():
        for copy in (lambda: transfers.to_gpu(np.zeros(3)), lambda: feed.fill(HOST), lambda: transfers.to_host(feed.arrays["ids"])):
            with pytest.raises(DeviceError, match=r"while launches are recorded for a CUDA graph") as caught:
                copy()
            assert caught.value.code == "captured-copy" and "test_graphs.py" in str(caught.value)
    feed.fill(HOST)


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed (the `gpu` extra)")
def test_cupy_has_what_is_called() -> None:
    import cupy

    for name in ("begin_capture", "end_capture", "record", "wait_event", "__enter__"):
        assert callable(getattr(cupy.cuda.Stream, name)), name
    for name in ("get_current_stream", "using_allocator", "MemoryPool"):
        assert callable(getattr(cupy.cuda, name)), name
    assert callable(cupy.cuda.MemoryPool.malloc) and callable(cupy.cuda.Graph.launch)
    assert "stream=None" in cupy.ndarray.set.__doc__
