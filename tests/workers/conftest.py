"""A GPU of NumPy arrays, for functions that are captured there."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from kernels.cuda import recording
from kernels.cuda.emulation import Emulator

from minigrad.kernels import register_cuda
from minigrad.workers import captured

register_cuda()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def gpu(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[recording.Recorder]]:
    gc.collect()  # parameters of earlier tests that die during this one would let graphs be recorded anew
    recording.install(compiled.kernel, monkeypatch)
    monkeypatch.setattr(captured, "Recorder", recording.Recorder)
    yield recording.Recorder
