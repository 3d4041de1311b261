"""The dtypes that tensors hold, and the conversion of what a user passes to arrays of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, DTypeError

KINDS = "fiub"
"""The kinds of dtypes that tensors hold, in NumPy's letters: floats, integers, unsigned integers, booleans."""


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
    """Raises: DTypeError for a masked array with masked elements: the values below the mask would be taken as valid."""
    if isinstance(data, np.ndarray) and type(data) is not np.ndarray and np.ma.is_masked(data):  # NumPy loads `ma` on first access
        raise DTypeError("a tensor has no mask: say what stands in place of the masked numbers, by .filled(0) for example")


def numbers(data: Any, dtype: np.dtype[Any] | None = None) -> np.ndarray[Any, Any]:
    """A new NumPy array from nested numbers or an array.

    Raises: DTypeError for data that is not numeric, is ragged, or is a masked array with masked elements.
    """
    refuse_masked(data)
    if isinstance(data, np.ndarray | np.generic):  # before a conversion drops imaginary parts, or reads text and dates as numbers
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
