"""A GPU of NumPy arrays, for steps that are captured there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels.cuda import recording, streams
from kernels.cuda.emulation import Emulator

from minigrad.train.captured import graph_cache
from minigrad.workers.graphs import captured


@pytest.fixture
def gpu(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[recording.Recorder]]:
    recording.install(compiled.kernel, monkeypatch)
    for module in (graph_cache, captured):
        monkeypatch.setattr(module, "Recorder", recording.Recorder)
    yield recording.Recorder
    assert not streams.SecondStream.disturbed
