"""A kernel on a device, called at little cost to the host, which is what small batches wait for.

CuPy looks at each argument of a launch and makes an object of it. Here all are put side by side in memory by one call of `struct`, and CuPy
gets the places, which stay the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import Struct
from struct import error as StructError
from threading import Lock
from typing import Any

import numpy as np

from minigrad.errors import ContractError

PLACE = 8
"""Bytes for each parameter: the largest is a pointer or a number of 64 bits."""


class Loaded:
    """`function` of CuPy with parameters of these kinds: the NumPy type of a number, None for a pointer."""

    def __init__(self, function: Any, kinds: Sequence[type[np.generic] | None]) -> None:
        from cupy import ndarray
        from cupy.cuda.function import CPointer

        letters = [np.dtype(kind or np.uint64) for kind in kinds]  # those of NumPy are those of `struct`
        self._layout = Struct("".join(f"{letter.char}{PLACE - letter.itemsize}x" for letter in letters))
        self._memory = ctypes.create_string_buffer(self._layout.size)
        start = ctypes.addressof(self._memory)
        self._places = tuple(CPointer(start + PLACE * i) for i in range(len(kinds)))
        self._function, self._array, self._lock = function, ndarray, Lock()

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared_mem: int = 0) -> None:
        """Launch on the current stream. arguments: arrays, None for a null pointer, and numbers.

        Raises: ContractError for a number that its parameter cannot hold.
        """
        array = self._array
        values = [value.data.ptr if isinstance(value, array) else 0 if value is None else value for value in arguments]
        with self._lock:  # until the driver has read the memory
            try:
                self._layout.pack_into(self._memory, 0, *values)
            except StructError as error:
                raise ContractError(f"a kernel's parameters cannot hold {values}: {error}") from error
            self._function(grid, block, self._places, shared_mem)
