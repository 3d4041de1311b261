"""Functions that create tensors: zeros, ones, full, eye, arange, random numbers, and `tensor` for data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from minigrad.backend import FLOAT_DTYPES
from minigrad.backend.dtypes import as_dtype
from minigrad.backend.random import current
from minigrad.errors import ArgumentError
from minigrad.tensor import Tensor

DEFAULT = "float32"


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Tensor:
    """A Tensor from `data`; see `Tensor`."""
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


def eye(n: int, m: int | None = None, dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """The identity matrix: ones on the diagonal, zeros elsewhere. Shapes: (n, m), square if m is None."""
    return Tensor(_made(lambda shape, dtype: np.eye(*shape, dtype=dtype), (n, n if m is None else m), dtype), requires_grad, device=device)


def randn(*shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Standard normal numbers from the context's seed (`manual_seed`). The shape is one tuple or several integers."""
    return Tensor(_drawn(current().init.standard_normal, shape, dtype), requires_grad, device=device)


def rand(*shape: int | Sequence[int], dtype: Any = DEFAULT, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Uniform numbers in [0, 1) from the context's seed (`manual_seed`). The shape is one tuple or several integers."""
    return Tensor(_drawn(current().init.random, shape, dtype), requires_grad, device=device)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str | None = None) -> Tensor:
    """start, start + step, … before stop (0 … start if stop is None). Integers give int64, floats float32."""
    try:
        numbers = np.arange(start) if stop is None else np.arange(start, stop, step)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ArgumentError(f"arange({start!r}, {stop!r}, {step!r}): {error}") from error
    return Tensor(numbers, dtype=dtype or (DEFAULT if numbers.dtype.kind == "f" else None), device=device)


def _drawn(draw: Callable[..., Any], shape: tuple[Any, ...], dtype: Any) -> Any:
    if dtype is not None and as_dtype(dtype) not in FLOAT_DTYPES:
        raise ArgumentError(f"random numbers are drawn as {' or '.join(FLOAT_DTYPES)}, not {dtype}")
    return _made(draw, shape[0] if len(shape) == 1 else shape, dtype)


def _made(make: Callable[..., Any], shape: Any, dtype: Any) -> Any:
    if isinstance(dtype, Integral):  # zeros(2, 3)
        raise ArgumentError(f"dtype = {dtype!r} is a number: the sides of a shape are given as one tuple, as in zeros((2, 3))")
    known = as_dtype(DEFAULT if dtype is None else dtype)
    try:
        return make(shape, dtype=known)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"cannot make a tensor of shape {shape!r}: {error}; a shape is an integer or a tuple of them") from error
