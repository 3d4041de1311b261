"""Runs tests that ask for a GPU on the stand-in: `PYTHONPATH=tests python -m pytest -p stand_in.plugin tests/gpu`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from stand_in.build import UnavailableError
from stand_in.install import install, problems

SKIPPED = {
    r"test_sanitizer\.py": "compute-sanitizer watches machine code",
    r"test_batches_are_prepared_while_the_gpu_computes": "who is sooner is a matter of time, and the model is large for the emulator",
}
"""Tests that cannot run here, as patterns of their names, and why."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before any test asks whether there is a GPU."""
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
