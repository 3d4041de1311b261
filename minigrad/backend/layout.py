"""Where arrays lie in memory: whether several can be read as one.

An optimizer lays out parameters one after another, so that query|key|value weights (and their biases) are neighbours and a kernel
multiplies by all three at once. Nothing here relies on that layout: it is checked each time, and works for any arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def address(array: Any) -> int:
    """The address of the array's first element, in the memory of its device."""
    return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr  # type: ignore[no-any-return]


def is_contiguous(array: Any) -> bool:
    """Whether the array is C-contiguous."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return array._c_contiguous  # type: ignore[no-any-return]  # CuPy's `flags` builds an object on each access


def neighbours(arrays: Sequence[Any]) -> Any | None:
    """The arrays stacked along their first axis, as a view; None unless they are adjacent pieces of one buffer, in this order.

    Shapes: arrays (n_i, *rest) → (sum n_i, *rest).
    """
    first = arrays[0]
    flat, dtype, rest = first.base, first.dtype, first.shape[1:]
    if type(flat) is not type(first) or flat.dtype != dtype or not is_contiguous(flat):
        return None
    begin = end = address(first)
    rows = 0
    for array in arrays:
        shape = array.shape
        if array.base is not flat or not shape or shape[1:] != rest or array.dtype != dtype or not is_contiguous(array):
            return None
        if address(array) != end:
            return None
        rows += shape[0]
        end += array.nbytes
    start = (begin - address(flat)) // dtype.itemsize
    joined = (flat if flat.ndim == 1 else flat.reshape(-1))[start : start + (end - begin) // dtype.itemsize]
    return joined.reshape((rows, *rest)) if rest else joined


def stacked(xp: Any, arrays: Sequence[Any]) -> Any:
    """The arrays stacked along their first axis: a view if they are neighbours, else a copy. xp: their namespace."""
    joined = neighbours(arrays)
    return xp.concatenate(arrays) if joined is None else joined


def runs(arrays: Sequence[Any]) -> list[list[int]]:
    """The indices of the arrays in the order of their addresses, grouped: arrays that lie one after another in one buffer are together."""
    found: list[list[int]] = []
    for i in sorted(range(len(arrays)), key=lambda i: address(arrays[i])):
        if found and neighbours([arrays[j].reshape(-1) for j in (found[-1][-1], i)]) is not None:
            found[-1].append(i)
        else:
            found.append([i])
    return found
