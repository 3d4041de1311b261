"""Where arrays lie in memory: whether several can be read as one.

An optimizer lays parameters out one after another, so that query|key|value weights (and their biases) are neighbours and a kernel
multiplies by all three at once. Nothing here relies on that layout: it is looked at, each time, and anybody's arrays will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any


def address(array: Any) -> int:
    """The place of the array's first element in the memory of its device."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def neighbours(arrays: Sequence[Any]) -> Any | None:
    """The arrays stacked along their first axis, as a view; None unless they are adjacent pieces, in this order, of one flat buffer.

    Shapes: arrays (n_i, *rest) → (sum n_i, *rest).
    """
    first = arrays[0]
    flat = first.base
    if type(flat) is not type(first) or flat.ndim != 1 or flat.dtype != first.dtype or not flat.flags.c_contiguous or first.ndim == 0:
        return None
    rest = first.shape[1:]
    begin = end = address(first)
    for array in arrays:
        if array.base is not flat or array.dtype != flat.dtype or array.ndim == 0 or array.shape[1:] != rest:
            return None
        if not array.flags.c_contiguous or address(array) != end:
            return None
        end += array.nbytes
    rows = sum(len(array) for array in arrays)
    start = (begin - address(flat)) // flat.itemsize
    return flat[start : start + rows * prod(rest)].reshape((rows, *rest))
