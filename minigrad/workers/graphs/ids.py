"""Range checks of ids: kernels in a graph index by them unchecked, so the host checks them before each replay.

The host cannot see ids that the GPU computes. For some of these an upper bound is known from ids that the host can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.backend.layout import address
from minigrad.backend.transfers import UncheckedIds

IDS = ("input_ids", "token_type_ids", "positions")
"""The id arrays of packed tokens."""


def ids_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The ids among a graph's inputs, which the host can check: those of the tokens, and each row's place in its sequence."""
    return {"places": arrays["all_places"][:, 1], **{name: arrays[name] for name in IDS}}


def rows_by_name(arrays: Mapping[str, Any], noted: UncheckedIds) -> tuple[dict[str, int], bool]:
    """The number of rows that each of `ids_of` may index, and whether rows are read by ids without a known bound."""
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
    """Whether all ids are below the limits that `rows_by_name` found."""
    ids = ids_of(arrays)
    return all(are_below(ids[name], count) for name, count in rows.items())


def are_below(ids: np.ndarray[Any, Any], rows: int) -> bool:
    """Whether all ids are in 0..rows-1. Viewed as unsigned, a negative number is larger than any table has rows."""
    return bool(np.maximum.reduce(ids.view(f"u{ids.itemsize}")) < rows)
