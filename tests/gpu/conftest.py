"""Everything in this folder runs on an NVIDIA GPU; without one it is skipped with the reason.

MINIGRAD_GPU_TESTS=cpu compares the CPU with itself instead: this exercises the tests, and says nothing about a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minigrad.backend.precision import PRECISIONS
from minigrad.backend.probe import probe

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def device() -> str:
    """The device whose results the tests compare with the CPU's."""
    if os.environ.get("MINIGRAD_GPU_TESTS") == "cpu":
        return "cpu"
    found = probe()
    if not found.usable:
        pytest.skip(found.reason)
    return "cuda"


@pytest.fixture(autouse=True)
def precision_of_the_gpu(device: str, request: pytest.FixtureRequest) -> None:
    """Skip a test whose parameters name a precision that the GPU does not support."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    given = [one for one in parameters.values() if isinstance(one, str)]
    missing = [name for name in PRECISIONS if name in given and device == "cuda" and name not in probe().precisions]
    if missing:
        pytest.skip(f"this GPU has no tensor cores for {missing[0]}")
