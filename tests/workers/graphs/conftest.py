"""A GPU of NumPy arrays, for functions that are captured there."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from kernels.cuda import recording, streams
from kernels.cuda.emulation import Emulator

from minigrad.workers.graphs import captured


@pytest.fixture
def gpu(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[recording.Recorder]]:
    gc.collect()  # parameters of earlier tests that die during this one would let graphs be recorded anew
    recording.install(compiled.kernel, monkeypatch)
    monkeypatch.setattr(captured, "Recorder", recording.Recorder)
    yield recording.Recorder
    assert not streams.SecondStream.disturbed
