"""Sums over rows: when they are launched. What they compute is tested with the kernels (`test_rows.py`, `test_blocks.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigrad.backend import numpy as xp
from minigrad.backend.side_stream import SideStream, current_side_stream
from minigrad.kernels.cuda import sums
from minigrad.kernels.cuda.sums import Sums
from minigrad.modes import Mode

ROWS, WIDTH = 40, 3


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were launched. Those that sum columns add 1 to the sums of the first block."""
    names: list[str] = []

    def launch(name: str, shape: Any, *arguments: Any) -> None:
        names.append(name)
        if name.startswith("column_sums"):
            arguments[1][:WIDTH] += 1
        if name == "total_rows":
            partial, out = arguments[:2]
            out[...] = partial.sum(axis=0)

    monkeypatch.setattr(sums, "launch", launch)
    return names


def added(zeroed: bool = False) -> Sums:
    made = Sums(xp, ROWS, 2 * WIDTH, zeroed)
    made.partial.fill(7)
    for place in (0, WIDTH):
        made.add(f"column_sums_{place}", (np.ones((ROWS, WIDTH), np.float32),), place)
    return made


def test_without_a_branch_they_do_not_wait(launched: list[str]) -> None:
    """What they read would be held."""
    made = added()
    assert launched == ["column_sums_0", f"column_sums_{WIDTH}"]
    assert all(part.operands() is None for part in made.parts(WIDTH, WIDTH))  # of a whole, which alone can be computed elsewhere
    assert len(made.parts(2 * WIDTH)[0].operands() or ()) == 1


def test_with_a_side_stream_open_they_wait_until_somebody_wants_them(launched: list[str]) -> None:
    with Mode(current_side_stream, SideStream(None, None, None, None)):
        (part,) = added().parts(2 * WIDTH)
        assert not launched and len(part.operands() or ()) == 3
        for _ in range(2):
            part.into(np.empty(2 * WIDTH, np.float32), accumulate=False)
    assert launched == ["column_sums_0", f"column_sums_{WIDTH}", "total_rows", "total_rows"]


@pytest.mark.parametrize("waiting", [False, True])
def test_zeros_are_written_once_and_before_all_kernels(waiting: bool, launched: list[str]) -> None:
    with Mode(current_side_stream, SideStream(None, None, None, None) if waiting else None):
        (part,) = added(zeroed=True).parts(2 * WIDTH)
        np.testing.assert_array_equal(part.into(np.empty(2 * WIDTH, np.float32), accumulate=False), np.ones(2 * WIDTH))
