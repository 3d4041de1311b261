"""Settings and fixtures of the whole suite: the Hypothesis profiles, and the locations of real data and weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from kernels.cuda.emulation import RACES, Emulator

REPOSITORY = Path(__file__).resolve().parents[1]

# No deadline in any profile: on a shared machine it would measure the neighbours, not the code.
settings.register_profile("dev", max_examples=15, deadline=None)
settings.register_profile("ci", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and small checkpoints: `shared/data` next to the checkout, or MINIGRAD_SHARED_DATA."""
    configured = os.environ.get("MINIGRAD_SHARED_DATA")
    folder = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} is not a directory (set MINIGRAD_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A directory with the MiniLM-L6 checkpoint: MINIGRAD_MINILM, or the user's cache, which may download about 90 MB once."""
    configured = os.environ.get("MINIGRAD_MINILM")
    if configured:
        return Path(configured)
    from minigrad.errors import CheckpointUnavailableError
    from minigrad.io import find_checkpoint

    try:
        return Path(find_checkpoint("minilm-l6"))
    except CheckpointUnavailableError as error:
        pytest.skip(f"MiniLM checkpoint not available (set MINIGRAD_MINILM): {error}")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """The kernels for NVIDIA GPUs, compiled for the CPU."""
    return Emulator(tmp_path_factory.mktemp("emulated"), flags=RACES if "EMULATED_RACES" in os.environ else ())
