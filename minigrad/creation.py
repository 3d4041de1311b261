"""Tensors from nothing: zeros, ones, full, arange, and `tensor` for data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigrad.backend.dtypes import as_dtype
from minigrad.errors import ArgumentError
from minigrad.tensor import Tensor

DEFAULT = "float32"


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Tensor:
    """A Tensor of `data`; see `Tensor`."""
    return Tensor(data, requires_grad, dtype, device)


def zeros(shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return Tensor(_made(np.zeros, shape, dtype), requires_grad, device=device)


def ones(shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return Tensor(_made(np.ones, shape, dtype), requires_grad, device=device)


def full(shape: int | Sequence[int], value: float, dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value."""
    return Tensor(_made(partial(np.full, fill_value=value), shape, dtype), requires_grad, device=device)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str | None = None) -> Tensor:
    """start, start + step, … before stop (0 … start if stop is None). Integers give int64, floats float32."""
    try:
        numbers = np.arange(start) if stop is None else np.arange(start, stop, step)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ArgumentError(f"arange({start!r}, {stop!r}, {step!r}): {error}") from error
    return Tensor(numbers, dtype=dtype or (DEFAULT if numbers.dtype.kind == "f" else None), device=device)


def _made(make: Callable[..., Any], shape: Any, dtype: Any) -> Any:
    known = as_dtype(DEFAULT if dtype is None else dtype)
    try:
        return make(shape, dtype=known)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"cannot make a tensor of shape {shape!r}: {error}; a shape is an integer or a tuple of them") from error
