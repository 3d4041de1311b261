"""Kernel launches: runs a kernel of the table on the current stream, compiled and loaded at first use."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from struct import Struct
from struct import error as StructError
from threading import Lock
from typing import Any

import numpy as np

from minigrad.backend.layout import is_contiguous
from minigrad.errors import ContractError
from minigrad.kernels.cuda import build
from minigrad.kernels.cuda.table import TABLE, Grid

MAX_GRID = (2**31 - 1, 65535, 65535)
"""The largest grid, along each axis."""


def launch(name: str, sizes: tuple[int, ...], *arguments: Any) -> None:
    """Run a kernel on the current stream. sizes: the arguments of the entry's `grid`. arguments: arrays, None for a null pointer, and
    numbers.

    Raises: ContractError for arguments that do not fit the table, an array that is not C-contiguous, or a grid that is too large.
    """
    entry = TABLE[name]
    if len(arguments) != len(entry.types):
        raise ContractError(f"kernel {name} takes {len(entry.types)} arguments ({entry.arguments}), got {len(arguments)}")
    grid = entry.grid(*sizes)
    if 0 in grid:
        return
    if grid[0] > MAX_GRID[0] or grid[1] > MAX_GRID[1] or grid[2] > MAX_GRID[2]:
        raise ContractError(f"kernel {name} would need a grid of {grid} blocks for the sizes {sizes}; the most is {MAX_GRID}")
    for i in entry.pointers:
        if arguments[i] is not None and not is_contiguous(arguments[i]):
            raise ContractError(f"kernel {name}: {entry.types[i][0]} is not C-contiguous")
    kernel_of(name)(grid, entry.block, arguments)


_kernels: dict[tuple[str, int], Callable[..., None]] = {}


def kernel_of(name: str) -> Callable[..., None]:
    """The kernel on the current device, compiled and loaded at first use."""
    import cupy

    device = cupy.cuda.runtime.getDevice()
    kernel = _kernels.get((name, device))
    if kernel is None:
        entry = TABLE[name]
        function = _module(entry.source, device).get_function(name)
        kernel = _kernels[name, device] = LoadedKernel(function.kernel, [kind for _, kind in entry.types])
    return kernel


@cache
def _module(source: str, device: int) -> Any:
    """All kernels of one source, loaded on one device."""
    import cupy

    return cupy.RawModule(path=str(build.cubin(source, build.architecture())))


SLOT = 8
"""Bytes per parameter: the largest are pointers and 64-bit numbers."""


class LoadedKernel:
    """A CuPy `function` with parameters of these kinds: the NumPy type of a number, None for a pointer.

    A call costs the host little, which matters for small batches. CuPy inspects each argument of a launch and wraps it in an object. Here
    all are packed into memory by one call of `struct`, and CuPy gets their addresses, which stay the same.
    """

    def __init__(self, function: Any, kinds: Sequence[type[np.generic] | None]) -> None:
        from cupy import ndarray
        from cupy.cuda.function import CPointer

        letters = [np.dtype(kind or np.uint64) for kind in kinds]  # NumPy's type characters are those of `struct`
        self._layout = Struct("".join(f"{letter.char}{SLOT - letter.itemsize}x" for letter in letters))
        self._memory = ctypes.create_string_buffer(self._layout.size)
        start = ctypes.addressof(self._memory)
        self._places = tuple(CPointer(start + SLOT * i) for i in range(len(kinds)))
        self._function, self._array, self._lock = function, ndarray, Lock()

    def __call__(self, grid: Grid, block: Grid, arguments: Sequence[Any]) -> None:
        """Launch on the current stream. arguments: arrays, None for a null pointer, and numbers.

        Raises: ContractError for a number that its parameter cannot hold.
        """
        array = self._array
        values = [value.data.ptr if isinstance(value, array) else 0 if value is None else value for value in arguments]
        with self._lock:  # until the driver has read the arguments
            try:
                self._layout.pack_into(self._memory, 0, *values)
            except StructError as error:
                raise ContractError(f"a kernel's parameters cannot hold {values}: {error}") from error
            self._function(grid, block, self._places)
