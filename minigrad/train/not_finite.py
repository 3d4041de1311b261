"""Numbers that are not finite, which JSON lacks: written by name where a program reads them back, as null where people read them."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

NAMES = ("nan", "inf", "-inf")


def named(value: Any) -> Any:
    """The value with each number that is not finite replaced by its name, nested ones too: for logs and files of predictions."""
    return _replaced(value, lambda number: str(float(number)))


def number(value: object) -> float | None:
    """The number that `named` wrote; None for anything else, also for an integer too large for a float."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in NAMES):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def nulled(value: Any) -> Any:
    """The value with each number that is not finite replaced by null, nested ones too: for reports."""
    return _replaced(value, lambda number: None)


def _replaced(value: Any, other: Callable[[float], str | None]) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return other(value)
    if isinstance(value, dict):
        return {key: _replaced(inner, other) for key, inner in value.items()}
    return [_replaced(inner, other) for inner in value] if isinstance(value, list | tuple) else value
