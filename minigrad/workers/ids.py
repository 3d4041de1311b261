"""Ids of which some may be none that the model has: a graph reads by them unchecked, so the host looks at them before each replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.backend.layout import address

IDS = ("input_ids", "token_type_ids", "positions")
"""The arrays of ids that tokens have."""


def rows_by_name(arrays: Mapping[str, Any], noted: Iterable[tuple[Any, int]]) -> tuple[dict[str, int], bool]:
    """How many rows there are to read by each of some arrays of ids, as `transfers.noting_ids` has noted it, and whether rows are read by
    others too."""
    names = {address(array): name for name, array in arrays.items()}
    found: dict[str, int] = {}
    others = False
    for ids, rows in noted:
        name = names.get(address(ids))
        if name is None:
            others = True
        else:
            found[name] = min(rows, found.get(name, rows))
    return found, others


def are_below(ids: np.ndarray[Any, Any], rows: int) -> bool:
    """Whether all ids lie in 0..rows-1. Seen as unsigned, a negative number is larger than any table has rows."""
    return bool(np.maximum.reduce(ids.view(f"u{ids.itemsize}")) < rows)
