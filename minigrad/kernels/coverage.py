"""Conditions that fast versions of operations share on every device. Arguments that one does not cover are left to the operation's body."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.backend.random import Draw
from minigrad.packing import Packing


def all_float32(*arrays: Any) -> bool:
    return all(array.dtype == np.float32 for array in arrays)


def covers_rows(draw: Draw | None, shape: tuple[int, ...]) -> bool:
    """Whether a draw, if any, is for units of rows of this shape."""
    return draw is None or shape == (draw.packing.rows, draw.width)


def covers_weights(draw: Draw | None, queries: Packing, keys: Packing, heads: int) -> bool:
    """Whether a draw, if any, is for the attention weights of these packings."""
    return draw is None or (draw.packing is queries and draw.keys is keys and draw.width == heads)
