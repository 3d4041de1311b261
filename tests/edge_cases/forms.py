"""The ways an operation runs: outside of `higher_order` its fast kernel where there is one, inside its readable body."""

from __future__ import annotations

from functools import partial

import pytest
from support import needs_numba, passes_by

import minigrad as mg

both_forms = pytest.mark.parametrize(
    "form",
    [
        pytest.param(partial(passes_by, "numpy"), id="kernel"),
        pytest.param(partial(passes_by, "numba"), id="compiled kernel", marks=needs_numba),
        pytest.param(mg.higher_order, id="body"),
    ],
)
