"""Checks of the layers' arguments, so that a mistake is reported where it is made and not inside a matrix product."""

from __future__ import annotations

from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

from minigrad.errors import ArgumentError, ShapeError
from minigrad.packing import PackedTokens, Packing
from minigrad.tensor import Tensor


def check_sizes(layer: str, **sizes: Any) -> None:
    """Raises: ArgumentError unless every size is an integer of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ArgumentError(f"{layer}: {name} must be an integer of at least 1, got {size!r:.80}")


def check_number(layer: str, name: str, value: Any, most: float = inf) -> None:
    """Raises: ArgumentError unless `value` is a finite number from 0 to `most`."""
    if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value) or not 0.0 <= value <= most:  # type: ignore[operator]
        raise ArgumentError(f"{layer}: {name} {f'lies between 0 and {most:g}' if most < inf else 'is a number >= 0'}, got {value!r:.80}")


def check_packing(layer: str, x: Tensor, packing: Any, attention_mask: Any = None) -> Packing | None:
    """Check the packing of x's rows that a layer was called with, and return it; None if there is none, so that x is padded.

    Shapes: x (rows, d) with the packing of that many rows.
    Raises: ArgumentError for a mask in addition to or in place of the packing; ShapeError for another number of rows.
    """
    if packing is None:
        return None
    if not isinstance(packing, Packing):
        hint = "pass its .packing" if isinstance(packing, PackedTokens) else "a mask is passed as attention_mask="
        raise ArgumentError(f"{layer}: packing must be a Packing, got {type(packing).__name__}; {hint}")
    if attention_mask is not None:
        raise ArgumentError(f"{layer}: packed rows hold no padding, so an attention_mask beside a packing has no meaning; pass one of them")
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 2 or shape[0] != packing.rows:
        raise ShapeError(f"{layer}: the packing has {packing.rows} rows, so x must have shape ({packing.rows}, d); got {shape}")
    return packing
