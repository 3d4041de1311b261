"""Helpers of all metrics: argument checks, quotients whose divisor may be zero, ranks with ties."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.files import listing, quoted

AVERAGES = ("micro", "macro", "weighted")
"""How scores of classes are averaged: over pooled counts, the plain mean, the mean weighted by support."""


def class_ids(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and predictions as two equally long, non-empty rows. Raises: DTypeError, ShapeError, ArgumentError."""
    true, predicted = row_of_ids("labels", labels), row_of_ids("predictions", predictions)
    require_equal_lengths("labels", true, "predictions", predicted)
    return true, predicted


def row_of_ids(what: str, values: ArrayLike) -> NDArray[np.int64]:
    """A non-empty row of integers. Raises: DTypeError, ShapeError, ArgumentError."""
    hint = "; take argmax over the classes of logits first"
    array = _row(what, "class ids", values, hint)
    if not np.issubdtype(array.dtype, np.integer):
        raise DTypeError(f"{what} must be integer class ids, got {array.dtype}")
    return array.astype(np.int64)


def row_of_numbers(what: str, values: ArrayLike) -> NDArray[np.float64]:
    """A non-empty row of finite numbers. Raises: DTypeError, ShapeError, ArgumentError."""
    return _finite(what, _row(what, "numbers", values, ""))


def table_of_numbers(what: str, values: ArrayLike) -> NDArray[np.float64]:
    """A table (n, classes) of finite numbers, neither side empty. Raises: DTypeError, ShapeError, ArgumentError."""
    return _finite(what, _table(what, as_array(what, values)))


def table_of_flags(what: str, values: ArrayLike) -> NDArray[np.bool_]:
    """A table (n, classes) of 0 and 1 or of booleans. Raises: DTypeError, ShapeError, ArgumentError."""
    array = _table(what, as_array(what, values))
    if array.dtype == np.bool_:
        return array
    numbers = _finite(what, array)
    if not np.isin(numbers, (0, 1)).all():
        raise ArgumentError(f"{what} must be 0 or 1; compare probabilities with a threshold first")
    flags: NDArray[np.bool_] = numbers == 1
    return flags


def as_array(what: str, values: ArrayLike) -> NDArray[Any]:
    """Raises: ShapeError for rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ShapeError(f"{what} must be an array, got rows of different lengths") from None


def require_equal_lengths(first: str, one: Collection[Any], second: str, other: Collection[Any]) -> None:
    """Raises: ShapeError."""
    if len(one) != len(other):
        raise ShapeError(f"{first} and {second} must have equal lengths, got {len(one)} and {len(other)}")


def require_ids_below(what: str, ids: NDArray[np.int64], count: int) -> None:
    """Raises: IndexRangeError, naming the first id outside of [0, count)."""
    outside = np.flatnonzero((ids < 0) | (ids >= count))
    if outside.size:
        position = int(outside[0])
        raise IndexRangeError(f"{what} {ids[position]} at position {position} has no name: there are {count} names, for 0 to {count - 1}")


def require_names(names: Sequence[str]) -> None:
    """Raises: DTypeError, ArgumentError, if they are not distinct strings."""
    if isinstance(names, str) or not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise DTypeError(f"names must be a sequence of strings, one per class, got {quoted(names)}")
    if len(set(names)) != len(names):
        raise ArgumentError(f"class names must differ from each other, got {listing(names)}")


def require_average(average: str, allowed: Sequence[str] = AVERAGES) -> None:
    """Raises: ArgumentError."""
    if average not in allowed:
        raise ArgumentError(f"average must be one of {listing(allowed)}, got {quoted(average)}")


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, or 0 where `whole` is 0."""
    quotient: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return quotient


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, where equal values share the mean of the ranks they take up."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks


def _row(what: str, kind: str, values: ArrayLike, hint: str) -> NDArray[Any]:
    array = as_array(what, values)
    if array.ndim != 1:
        raise ShapeError(f"{what} must be a row of {kind}, got the shape {array.shape}{hint if array.ndim == 2 else ''}")
    if array.size == 0:
        raise ArgumentError(f"{what} are empty: no score can be computed")
    return array


def _table(what: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2:
        raise ShapeError(f"{what} must be a table (records, classes), got the shape {array.shape}")
    if array.size == 0:
        raise ArgumentError(f"{what} are empty: no score can be computed")
    return array


def _finite(what: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise DTypeError(f"{what} must be numbers, got {array.dtype}")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        place = np.argwhere(~np.isfinite(numbers))[0]
        raise ArgumentError(f"{what} must be finite, got {numbers[tuple(place)]} at position {place[0]}", code="non-finite")
    return numbers
