"""The two ways an operation runs: outside of `higher_order` its fast kernel where there is one, inside its readable body."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

import minigrad as mg

both_forms = pytest.mark.parametrize("form", [nullcontext, mg.higher_order], ids=["kernel", "body"])
