"""Checks of the options of optimizers and schedules, so that an impossible one is reported where it is given."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError


def is_number(value: Any) -> bool:
    """Whether `value` is a Python or NumPy number, and not a boolean."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_number(name: str, value: Any, *, above: float | None = None, below: float | None = None, most: float | None = None) -> None:
    """Raises: ArgumentError unless `value` is a finite number >= 0 (and greater than `above`, less than `below`, at most `most`)."""
    if not is_number(value) or not isfinite(value) or value < 0:
        raise ArgumentError(f"{name} must be a number >= 0, got {value!r:.80}")
    if above is not None and value <= above:
        raise ArgumentError(f"{name} must be above {above:g}, got {value!r}")
    if below is not None and value >= below:
        raise ArgumentError(f"{name} must be below {below:g}, got {value!r}")
    if most is not None and value > most:
        raise ArgumentError(f"{name} must be at most {most:g}, got {value!r}")


def check_betas(betas: Any) -> None:
    """Raises: ArgumentError unless `betas` is a pair of numbers in [0, 1)."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ArgumentError(f"betas must be two numbers, got {betas!r:.80}")
    for number, beta in enumerate(betas):
        check_number(f"betas[{number}]", beta, below=1)


def check_flag(name: str, value: Any) -> None:
    """Raises: ArgumentError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {value!r:.80}")


def check_count(name: str, value: Any, least: int = 0) -> None:
    """Raises: ArgumentError unless `value` is an integer of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r:.80}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises: ArgumentError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r:.80}")
