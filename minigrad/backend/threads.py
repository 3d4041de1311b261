"""How many processors this process may use, and how many of them the library behind NumPy's matrix products takes.

Several processes that each let BLAS use every core only get into each other's way, and the environment variables that limit it are read
once, before NumPy is imported. OpenBLAS, which NumPy's wheels bring along, can be told at any time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

SPELLINGS = [(prefix, suffix) for prefix in ("scipy_", "") for suffix in ("64_", "_64", "")]
"""What stands before and after OpenBLAS's own name of a function, by the options it was built with; NumPy's wheels have the first."""


class Library(NamedTuple):
    """The two functions of one loaded OpenBLAS."""

    get: Callable[[], int]
    set: Callable[[int], object]


def usable_cpus() -> int:
    """How many processors this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Inside: every loaded OpenBLAS uses `count` threads; afterwards as many as before.

    Another BLAS is told if `threadpoolctl` is installed, and otherwise keeps its own number.
    """
    libraries = openblas_libraries()
    if not libraries:
        with _by_threadpoolctl(count):
            yield
        return
    before = [library.get() for library in libraries]
    try:
        for library in libraries:
            library.set(count)
        yield
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set(threads)


@cache
def openblas_libraries() -> tuple[Library, ...]:
    """Every OpenBLAS that was loaded when this was first asked; NumPy's is by then."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a system without /proc
        return ()
    paths = dict.fromkeys(fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6)
    found = [_functions(path) for path in paths if "openblas" in Path(path).name]
    return tuple([library for library in found if library is not None])


def _functions(path: str) -> Library | None:
    """None for a file that is no OpenBLAS after all. Opening a library that is loaded already only counts one more user."""
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    for prefix, suffix in SPELLINGS:
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        change = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if get is not None and change is not None:
            change.argtypes, change.restype = [ctypes.c_int], None
            return Library(get, change)
    return None


@contextmanager
def _by_threadpoolctl(count: int) -> Iterator[None]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(limits=count, user_api="blas"):
        yield
