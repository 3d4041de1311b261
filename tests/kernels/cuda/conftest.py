"""Kernels for NVIDIA GPUs, as far as they can be checked without one: compiled for real, run on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernels.cuda.emulation import Emulator

from minigrad.kernels.cuda import launch


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Once, not for each kind of passes on the CPU, as the other tests of kernels run."""


@pytest.fixture
def emulator(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Inside: `launch.launch` runs kernels on the CPU, on NumPy arrays."""
    monkeypatch.setattr(launch, "kernel_of", compiled.kernel)
    yield compiled
    compiled.backwards = False
