"""Tensors from nothing: zeros, ones, full, arange, and `tensor` for data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.tensor import Tensor, as_dtype

DEFAULT = "float32"


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Tensor:
    """A Tensor of `data`; see `Tensor`."""
    return Tensor(data, requires_grad, dtype, device)


def zeros(shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return Tensor(np.zeros(shape, as_dtype(dtype)), requires_grad, device=device)


def ones(shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return Tensor(np.ones(shape, as_dtype(dtype)), requires_grad, device=device)


def full(shape: int | Sequence[int], value: float, dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value."""
    return Tensor(np.full(shape, value, as_dtype(dtype)), requires_grad, device=device)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str | None = None) -> Tensor:
    """start, start + step, … before stop (0 … start if stop is None). Integers give int64, floats float32."""
    numbers = np.arange(start) if stop is None else np.arange(start, stop, step)
    return Tensor(numbers, dtype=dtype or (DEFAULT if numbers.dtype.kind == "f" else None), device=device)
