"""Numbers that are not finite, which JSON does not have: by name where a program reads them back, null where people look."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

NAMES = ("nan", "inf", "-inf")


def named(value: Any) -> Any:
    """The same with the name of each number that is not finite, in dicts and lists too: for logs and files of predictions."""
    return _replaced(value, lambda number: str(float(number)))


def number(value: object) -> float | None:
    """What `named` made a number of; None for anything else, also for a whole number that no float holds."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in NAMES):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def nulled(value: Any) -> Any:
    """The same with null for each number that is not finite, in dicts and lists too: for reports."""
    return _replaced(value, lambda number: None)


def _replaced(value: Any, other: Callable[[float], str | None]) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return other(value)
    if isinstance(value, dict):
        return {key: _replaced(inner, other) for key, inner in value.items()}
    return [_replaced(inner, other) for inner in value] if isinstance(value, list | tuple) else value
