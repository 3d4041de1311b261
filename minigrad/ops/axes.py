"""Reading axes and counts from arguments: integers of any type, axes counted from either end, uniform error messages."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from minigrad.errors import DTypeError, ShapeError


def as_integer(what: str, value: Any) -> int:
    """`value` as a Python integer.

    Raises: DTypeError for anything that is not an integer.
    """
    try:
        return index(value)
    except TypeError as error:
        raise DTypeError(f"{what} must be an integer, got {value!r:.60}") from error


def is_sequence(values: Any) -> bool:
    """Whether `values` is a list, a tuple or a 1-D array."""
    return isinstance(values, list | tuple) or getattr(values, "ndim", 0) == 1


def as_integers(what: str, values: Any) -> tuple[int, ...]:
    """One integer or a sequence of them, as a tuple.

    Raises: DTypeError for anything else.
    """
    return tuple(as_integer(what, v) for v in values) if is_sequence(values) else (as_integer(what, values),)


def normalise_axis(what: str, axis: Any, shape: Sequence[int], more: int = 0) -> int:
    """One axis of `shape` (extended by `more` axes), counted from the front.

    Raises: DTypeError; ShapeError if there is no such axis.
    """
    place, ndim = as_integer(f"{what}: an axis", axis), len(shape) + more
    if not -ndim <= place < ndim:
        longer = f" with {more} more axis" if more else ""
        raise ShapeError(f"{what}: axis {place} is out of bounds for shape {tuple(shape)}{longer}")
    return place % ndim


def normalise_axes(what: str, axis: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Several distinct axes, counted from the front; all of them if `axis` is None.

    Raises: DTypeError; ShapeError if there is no such axis, or one is named twice.
    """
    if axis is None:
        return tuple(range(len(shape)))
    places = tuple(normalise_axis(what, a, shape) for a in as_integers(f"{what}: an axis", axis))
    if len(set(places)) < len(places):
        raise ShapeError(f"{what}: axis {axis} names one axis twice")
    return places
