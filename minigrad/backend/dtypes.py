"""Which numbers tensors hold, and how what a user passes becomes an array of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, DTypeError

KINDS = "fiub"
"""The kinds of numbers that tensors hold, as NumPy abbreviates them: floats, integers, unsigned integers, booleans."""


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype from its name or object.

    Raises: ArgumentError for an unknown name, None, or a dtype that tensors do not hold.
    """
    try:
        known: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise ArgumentError(
            f'unknown dtype or device {dtype!r}: use "float32", "float64", another NumPy dtype, "cpu", "cuda" or "auto"'
        ) from error
    if dtype is None or known.kind not in KINDS or known.itemsize > 8:
        raise ArgumentError(f"tensors hold floats (up to float64), integers or booleans, not {dtype}")
    return known


def refuse_masked(data: Any) -> None:
    """Raises: DTypeError for a masked array of which not every number counts: what lies below a mask would be taken for a number."""
    if isinstance(data, np.ndarray) and type(data) is not np.ndarray and np.ma.is_masked(data):  # NumPy loads `ma` when it is first named
        raise DTypeError("a tensor has no mask: say what stands in place of the masked numbers, by .filled(0) for example")


def numbers(data: Any, dtype: np.dtype[Any] | None = None) -> np.ndarray[Any, Any]:
    """A new NumPy array of nested numbers or an array.

    Raises: DTypeError for what holds no numbers, is ragged, or is a masked array of which not every number counts.
    """
    refuse_masked(data)
    if isinstance(data, np.ndarray | np.generic):  # before a conversion drops the imaginary parts, or reads texts and dates as numbers
        _check_held(data.dtype)
    try:
        array = np.array(data, dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise DTypeError(f"cannot make a tensor of {type(data).__name__}: {error}") from error
    _check_held(array.dtype)
    return array


def _check_held(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in KINDS or dtype.itemsize > 8:
        raise DTypeError(f"a tensor holds floats (up to float64), integers or booleans, not {dtype}")
