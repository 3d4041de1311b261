"""Every test of this folder runs twice: on NumPy's passes, and on those that Numba compiles where it is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import PASSES, passes_by


@pytest.fixture(autouse=True, params=PASSES)
def passes_used(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of who makes the passes."""
    with passes_by(request.param):
        yield request.param
