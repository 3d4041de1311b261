"""Compiles functions on float32 arrays by Numba (the `fast` extra), each at its first call and for one set of types.

Importing this module imports Numba. Nothing is cached on disk: Numba's cache would be a pickle. Floating-point freedom (fastmath) is
granted function by function, and stays with a function's instructions wherever they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit, types

Function = TypeVar("Function", bound=Callable[..., Any])


class _Array(NamedTuple):
    """The type of an argument, the axes of the first argument that it shares, and the stand-in for None if that is allowed."""

    type: Any
    axes: slice
    nothing: Any = None


def _array(axes: str, dtype: Any = types.float32, *, layout: str = "C", written: bool = False) -> _Array:
    """axes: of (n rows, d wide) or (h heads, q queries, k keys). May be unaligned; an argument that is not written to may be read-only."""
    start = max("nd".find(axes), "hqk".find(axes))
    return _Array(types.Array(dtype, len(axes), layout, readonly=not written, aligned=False), slice(start, start + len(axes)))


def optional(array: _Array) -> _Array:
    """An argument that may be None: compiled code gets an empty array instead, so that one set of types serves both."""
    return array._replace(nothing=np.empty((0,) * array.type.ndim, array.type.dtype.name))


N, D, ND, HQK = (_array(axes) for axes in ("n", "d", "nd", "hqk"))
N_OUT, D_OUT, ND_OUT, HQK_OUT = (_array(axes, written=True) for axes in ("n", "d", "nd", "hqk"))
SURVIVES, SURVIVES_PAIRS = _array("nd", types.bool_), _array("hqk", types.bool_, layout="A")
DELTA = _array("hq", layout="A")
NUMBER, DOUBLE = types.float32, types.float64

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

inner: Callable[[Function], Function] = njit(fastmath={"contract"}, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for the building blocks of passes, which the compiler inlines."""


@njit(fastmath={"contract", "reassoc"}, no_cpython_wrapper=True, **_OPTIONS)  # type: ignore[untyped-decorator]
def plus(total: Any, x: Any) -> Any:
    """total + x, as one of many additions that may be reordered."""
    return total + x


def at_first_call(*signature: Any, exact: bool = False) -> Callable[[Function], Function]:
    """Decorator: compile for these types at the first call, or by calling its `compile_now`. exact: every operation is rounded separately.

    Compiled code checks no bounds, so shapes are checked here. Inputs may have any strides: they are made contiguous, since loops over
    strided float32 are not vectorised.
    Raises: ValueError for arrays that do not fit together, as NumPy does.
    """
    arrays = [(i, *argument) for i, argument in enumerate(signature) if isinstance(argument, _Array)]
    kinds = [argument.type if isinstance(argument, _Array) else argument for argument in signature]
    fastmath = set() if exact else {"contract"}

    def decorate(function: Function) -> Function:
        @cache
        def machine_code() -> Any:
            return njit([types.void(*kinds)], fastmath=fastmath, **_OPTIONS)(function)

        @wraps(function)
        def call(*given: Any) -> None:
            arguments = list(given)
            shape = given[0].shape
            for i, kind, axes, nothing in arrays:
                array = given[i]
                if array is None and nothing is not None:
                    arguments[i] = nothing
                elif array.shape != shape[axes]:
                    name = function.__code__.co_varnames[i]
                    raise ValueError(f"{function.__name__}: {name} has shape {array.shape}, needed is {shape[axes]}")
                elif kind.layout == "C" and not kind.mutable and not array.flags.c_contiguous:
                    arguments[i] = np.ascontiguousarray(array)
            machine_code()(*arguments)

        call.compile_now = machine_code  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate
