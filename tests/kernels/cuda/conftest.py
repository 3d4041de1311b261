"""Tests of the kernels for NVIDIA GPUs, as far as possible without one: they are compiled by NVRTC, and run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels.cuda.emulation import Emulator

from minigrad.kernels.cuda import launch


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Run each test once, not for each kind of CPU passes as the other tests of kernels."""


@pytest.fixture
def emulator(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Inside: `launch.launch` runs kernels on the CPU, on NumPy arrays."""
    monkeypatch.setattr(launch, "kernel_of", compiled.kernel)
    yield compiled
    compiled.backwards = False
