"""How many CPUs this process may use, and how many threads NumPy's BLAS runs.

Several processes that each let BLAS use every core slow each other down, and the environment variables that limit it are read once, when
NumPy is imported. OpenBLAS, which NumPy's wheels include, can be changed at any time.
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
"""Prefixes and suffixes of OpenBLAS's function names, which depend on its build options; NumPy's wheels have the first pair."""


class Library(NamedTuple):
    """The two functions of one loaded OpenBLAS."""

    get: Callable[[], int]
    set: Callable[[int], object]


def usable_cpus() -> int:
    """How many CPUs this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Inside: every loaded OpenBLAS uses `count` threads; afterwards as many as before.

    Another BLAS is changed if `threadpoolctl` is installed; otherwise it keeps its own number.
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
    """Every OpenBLAS loaded at the first call; NumPy's is by then."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a system without /proc
        return ()
    paths = dict.fromkeys(fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6)
    found = [_functions(path) for path in paths if "openblas" in Path(path).name]
    return tuple([library for library in found if library is not None])


def _functions(path: str) -> Library | None:
    """The functions of the library, None if it is not OpenBLAS after all. Opening a loaded library only raises its reference count."""
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
