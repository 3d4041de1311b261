"""Checks of numbers and separators given by callers, so that an impossible one is reported where it is given."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.files import quoted


def check_count(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int. Raises: ArgumentError for anything but an integer from `least` to 2**63 - 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be an integer of at least {least}, got {quoted(value)}")
    if (number := int(value)) >= 2**63:
        raise ArgumentError(f"{name} must be an integer below 2**63, got {quoted(value)}")
    return number


def check_separator(label_separator: object) -> None:
    """Raises: ArgumentError for anything that cannot separate labels. None, for one label per record, is allowed."""
    if label_separator is not None and (not isinstance(label_separator, str) or not label_separator.strip()):
        raise ArgumentError(f"label_separator must be a string of more than white space, such as ',', got {quoted(label_separator)}")
