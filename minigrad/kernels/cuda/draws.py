"""A `Draw` as kernels take it: the recipe as numbers, and where each row lies in its sequence as an array on the GPU."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minigrad.backend.random import Draw
from minigrad.packing import Packing

clock: ContextVar[Any] = ContextVar("minigrad_clock", default=None)
"""Where the step stands in device memory, as one uint64: set while launches are captured whose replays are to draw anew. None: every
launch is told the step of its draw."""

_places: WeakKeyDictionary[Packing, Any] = WeakKeyDictionary()


def recipe(draw: Draw | None) -> tuple[Any, ...]:
    """clock, seed, site, step, threshold and scale: the arguments of every kernel that draws. Nothing drops without a draw."""
    if draw is None:
        return None, 0, 0, 0, 0, 1.0
    return clock.get(), draw.seed, draw.site, draw.step, draw.threshold, draw.scale


def row_draw(xp: Any, draw: Draw | None) -> tuple[Any, ...]:
    """The arguments `table.DRAW` of a kernel that drops units of rows; the places are null without a draw."""
    return None if draw is None else places(xp, draw.packing), *recipe(draw)


def places(xp: Any, packing: Packing) -> Any:
    """Sequence number and place in the sequence of each row, on the GPU: copied once. Shapes: (rows, 2) int32."""
    found = _places.get(packing)
    if found is None:
        found = _places[packing] = xp.like(host_places(packing), None)
    return found


def host_places(packing: Packing) -> np.ndarray[Any, np.dtype[np.int32]]:
    """As `places`, on the host."""
    return np.stack([np.repeat(packing.numbers, packing.lengths), packing.positions], axis=1).astype(np.int32)


def place(packing: Packing, array: Any) -> None:
    """Have `places` find an array that is on the GPU already."""
    _places[packing] = array
