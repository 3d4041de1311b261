"""Kernels for NVIDIA GPUs, as far as they can be checked without one: compiled for real, run on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kernels.cuda.emulation import RACES, Emulator

from minigrad.kernels.cuda import launch


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Once, not for each kind of passes on the CPU, as the other tests of kernels run."""


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulated"), flags=RACES if "EMULATED_RACES" in os.environ else ())


@pytest.fixture
def emulator(_compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Inside: `launch.launch` runs kernels on the CPU, on NumPy arrays."""
    monkeypatch.setattr(launch, "kernel_of", _compiled.kernel)
    yield _compiled
    _compiled.backwards = False
