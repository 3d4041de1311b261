"""Every test in this folder runs twice: with NumPy's passes, and with those compiled by Numba if it is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import PASSES, passes_by


@pytest.fixture(autouse=True, params=PASSES)
def passes_used(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the passes in use."""
    with passes_by(request.param):
        yield request.param
