"""Everything in this folder runs on an NVIDIA GPU; without one it is skipped with the reason.

MINIGRAD_GPU_TESTS=cpu runs the comparisons on the CPU instead, against itself: that tries the tests, and says nothing about a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minigrad.backend.probe import probe

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def device() -> str:
    """Where the tests compute what they compare with the CPU."""
    if os.environ.get("MINIGRAD_GPU_TESTS") == "cpu":
        return "cpu"
    found = probe()
    if not found.usable:
        pytest.skip(found.reason)
    return "cuda"
