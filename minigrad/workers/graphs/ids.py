"""Ids of which some may be none that the model has: a graph reads by them unchecked, so the host looks at them before each replay.

Ids that the GPU computes are none that the host can look at. Of some it is known how large they are at most, from others that it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.backend.layout import address
from minigrad.backend.transfers import Noted

IDS = ("input_ids", "token_type_ids", "positions")
"""The arrays of ids that tokens have."""


def ids_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arrays that a graph reads, those that the host looks at: ids of tokens, and each row's place in its sequence."""
    return {"places": arrays["all_places"][:, 1], **{name: arrays[name] for name in IDS}}


def rows_by_name(arrays: Mapping[str, Any], noted: Noted) -> tuple[dict[str, int], bool]:
    """How many rows there are to read by which of `ids_of`, and whether rows are read by ids of which nothing is known."""
    known = {address(ids): (name, 0) for name, ids in ids_of(arrays).items()}
    for ids, by, above in noted.bounds:
        if address(by) in known:
            name, more = known[address(by)]
            known[address(ids)] = name, more + above
    found: dict[str, int] = {}
    others = False
    for ids, rows in noted.read:
        if address(ids) in known:
            name, more = known[address(ids)]
            found[name] = min(rows - more, found.get(name, rows))
        else:
            others = True
    return found, others


def all_below(arrays: Mapping[str, Any], rows: Mapping[str, int]) -> bool:
    """Whether all ids lie below what `rows_by_name` has found for them."""
    ids = ids_of(arrays)
    return all(are_below(ids[name], count) for name, count in rows.items())


def are_below(ids: np.ndarray[Any, Any], rows: int) -> bool:
    """Whether all ids lie in 0..rows-1. Seen as unsigned, a negative number is larger than any table has rows."""
    return bool(np.maximum.reduce(ids.view(f"u{ids.itemsize}")) < rows)
