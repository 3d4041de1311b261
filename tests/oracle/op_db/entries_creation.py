"""Adapters for what makes tensors from nothing."""

from __future__ import annotations

from typing import Any

from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import NotThere

import minigrad as mg
from minigrad.tensor import Tensor


def creation(name: str) -> Any:
    """minigrad's function, or what says that there is none."""

    def adapter(*args: Any, **kwargs: Any) -> Tensor:
        if not hasattr(mg, name):
            raise NotThere(f"minigrad.{name}")
        return getattr(mg, name)(*args, **kwargs)  # type: ignore[no-any-return]

    return adapter


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None) -> Tensor:
    return mg.arange(start, end, step, dtype=dtype)


def eye(n: int, m: Any = None, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    return creation("eye")(n, m, dtype=dtype, requires_grad=requires_grad)  # type: ignore[no-any-return]


BOOK = Book(
    {
        "zeros": mg.zeros,
        "ones": mg.ones,
        "full": mg.full,
        "arange": arange,
        "eye": eye,
        "scalar_tensor": lambda value, *, dtype=None, requires_grad=False: mg.tensor(value, requires_grad, dtype),
        "zeros_like": lambda x: mg.zeros(x.shape, x.dtype),
        "ones_like": lambda x: mg.ones(x.shape, x.dtype),
        "full_like": lambda x, value: mg.full(x.shape, value, x.dtype),
        "new_zeros": lambda x, size: mg.zeros(size, x.dtype),
        "new_ones": lambda x, size: mg.ones(size, x.dtype),
        "new_full": lambda x, size, value: mg.full(size, value, x.dtype),
    },
    accepted={
        "arange": {"inconsistent with step sign": "a step away from the end gives no numbers, as in NumPy"},
    },
)
