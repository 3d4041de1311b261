"""Runs tests that need a GPU on the stand-in: `PYTHONPATH=tests python -m pytest -p stand_in.plugin tests/gpu`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from stand_in.build import UnavailableError
from stand_in.install import install, problems

SKIPPED = {
    r"test_sanitizer\.py": "compute-sanitizer watches machine code",
    r"test_operation\[(sort|topk)-": "Thrust sorts there",
    r"test_operation\[(embedding|embed_norm)-float64": "Thrust sorts there",  # in float32 our own kernels do
    r"test_operation\[(cumsum|prod)-": "CuPy's scan takes shared memory at its launch, which the emulator has not got",
    r"test_kernels\.py.*(many_sequences|4097|20000|70000|30522|3000000|base)": "it takes the emulator minutes",
    r"test_batches_are_prepared_while_the_gpu_computes": "it asks who is sooner, of a model that is large for the emulator",
}
"""Tests that cannot run here, by patterns of their names, with the reason."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Runs before any test checks for a GPU."""
    try:
        install()
    except UnavailableError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for pattern, reason in SKIPPED.items():
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.skip(reason=f"not on the stand-in for a GPU: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    problems()
    yield
    if found := problems():
        pytest.fail(f"the stand-in for a GPU found: {found}")
