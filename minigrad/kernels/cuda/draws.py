"""A `Draw` as kernels take it: the recipe as numbers, and each row's position in its sequence as an array on the GPU."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minigrad.backend.random import Draw
from minigrad.packing import Packing

clock: ContextVar[Any] = ContextVar("minigrad_clock", default=None)
"""The step's number in device memory, one uint64, during a capture whose replays must draw anew. None: launches get their draw's step."""

_places: WeakKeyDictionary[Packing, Any] = WeakKeyDictionary()


def recipe(draw: Draw | None) -> tuple[Any, ...]:
    """clock, seed, site, step, threshold and scale: the arguments of every kernel that draws. Without a draw nothing is dropped."""
    if draw is None:
        return None, 0, 0, 0, 0, 1.0
    return clock.get(), draw.seed, draw.site, draw.step, draw.threshold, draw.scale


def row_draw(xp: Any, draw: Draw | None) -> tuple[Any, ...]:
    """The arguments `table.DRAW` of a kernel that drops units of rows; without a draw, places is None."""
    return None if draw is None else places(xp, draw.packing), *recipe(draw)


def places(xp: Any, packing: Packing) -> Any:
    """Sequence number and position in the sequence of each row, on the GPU: copied once per packing. Shapes: (rows, 2) int32."""
    found = _places.get(packing)
    if found is None:
        found = _places[packing] = xp.like(host_places(packing), None)
    return found


def host_places(packing: Packing) -> np.ndarray[Any, np.dtype[np.int32]]:
    """As `places`, on the host."""
    return np.stack([np.repeat(packing.numbers, packing.lengths), packing.positions], axis=1).astype(np.int32)


def register_places(packing: Packing, array: Any) -> None:
    """Register an array already on the GPU as the `places` of a packing."""
    _places[packing] = array
