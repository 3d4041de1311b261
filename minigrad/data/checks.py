"""What loading, windows and pipelines ask of the numbers they are given, so that an impossible one is named where it is given."""

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
