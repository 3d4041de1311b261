"""Runs the kernels on the CPU: compiles the sources with `emulator.h` included first, and replaces CuPy's loaded kernels."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from kernels.cuda import short_arrays

from minigrad.backend import numpy as numpy_namespace
from minigrad.kernels.cuda.build import SOURCES
from minigrad.kernels.cuda.table import TABLE, Grid

HERE = Path(__file__).parent

FLAGS = (
    "-std=c++17",  # as NVRTC compiles them
    "-O1",
    "-U_FORTIFY_SOURCE",
    "-fPIC",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-fsanitize=alignment",
)

RACES = ("-DRACES", "-fsanitize=thread", "-fno-gnu-unique", "-g1")
"""Flags with which a run stops at a race in a kernel: see races.cpp. They make it slower."""

GUARD = 64
"""Elements before and after every array of `guarded`."""


class EmulationError(AssertionError):
    """An action that would hang or be undefined on a GPU."""


def compiled(compiler: str, made: Path, *command: str) -> str:
    done = subprocess.run([compiler, *command, "-o", str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(made)


@cache
def finder_of_races(compiler: str) -> str:
    return compiled(compiler, Path(mkdtemp()) / "races.o", "-c", *FLAGS, "-O2", "-DRACES", str(HERE / "races.cpp"))


class Emulator:
    """Compiled sources, one library each, built at first use.

    flags: further compiler flags: "-DTURING" for a GPU before Ampere, `RACES`. backwards: threads run in descending order. left_out: a
    barrier that is ignored, as "/strips.cuh:45".
    """

    def __init__(self, folder: Path, sources: Path = SOURCES, flags: Sequence[str] = ()) -> None:
        self.folder, self.sources, self.flags, self.backwards, self.left_out = folder, sources, flags, False, ""
        self._libraries: dict[str, ctypes.CDLL] = {}

    def changed(self, source: str, right: str, wrong: str) -> Emulator:
        """An emulator of a copy of the sources in which `right` is replaced by `wrong` in one file."""
        folder = Path(mkdtemp(dir=self.folder))
        for path in SOURCES.iterdir():
            shutil.copy(path, folder)
        text = (folder / source).read_text(encoding="utf-8")
        assert right in text
        (folder / source).write_text(text.replace(right, wrong), encoding="utf-8")
        return Emulator(folder, folder, self.flags or ["-O0"])  # optimising would cost more time than it saves

    def library(self, source: str, names: list[str]) -> ctypes.CDLL:
        """The library of one source, with the kernels `names` callable."""
        if source not in self._libraries:
            compiler = shutil.which("g++")
            if compiler is None:
                pytest.skip("no g++ here: kernels cannot be run on the CPU")
            lines = [f'#include "{self.sources / source}"', *(f"EMULATE({name})" for name in names)]
            (self.folder / f"{source}.cpp").write_text("\n".join(lines) + "\n", encoding="utf-8")
            kernels = ["-include", str(HERE / "emulator.h"), f"-I{self.sources}", str(self.folder / f"{source}.cpp")]
            objects = [compiled(compiler, self.folder / f"{source}.o", "-c", *FLAGS, *self.flags, *kernels)]
            if self.flags == RACES:
                objects.append(finder_of_races(compiler))
            made = compiled(compiler, self.folder / f"{source}.so", "-shared", *objects)  # without the runtime libraries of -fsanitize
            library = ctypes.CDLL(made)
            library.emulator_failure.restype = ctypes.c_char_p
            self._libraries[source] = library
        return self._libraries[source]

    def kernel(self, name: str) -> Callable[..., None]:
        """The equivalent of `launch.kernel_of` on a GPU."""
        source, kinds = TABLE[name].source, [kind for _, kind in TABLE[name].types]
        run = self.kernel_in(self.library(source, [other for other, entry in TABLE.items() if entry.source == source]), name)

        def typed(grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None:
            given = zip(kinds, arguments, strict=True)
            run(grid, block, tuple((np.uint64(0) if x is None else x) if kind is None else kind(x) for kind, x in given))

        return typed

    def kernel_in(self, library: ctypes.CDLL, name: str) -> Callable[..., None]:
        def run(grid: Grid, block: Grid, arguments: tuple[Any, ...]) -> None:
            held = [np.array(np.uint64(value.ctypes.data) if isinstance(value, np.ndarray) else value) for value in arguments]
            pointers = (ctypes.c_void_p * len(held))(*[value.ctypes.data for value in held])
            library.emulator_run_backwards(int(self.backwards))
            library.emulator_leave_out(self.left_out.encode())
            if library[f"emulate_{name}"]((ctypes.c_uint * 6)(*grid, *block), pointers):
                raise EmulationError(f"{name}: {with_lines(library.emulator_failure().decode(), library._name)}")

        return run

    def parameter_sizes(self, name: str) -> list[int]:
        """Bytes of each parameter according to the C++ compiler."""
        self.kernel(name)
        function = self._libraries[TABLE[name].source][f"parameters_of_{name}"]
        function.restype = ctypes.POINTER(ctypes.c_int)
        sizes = function()
        found = []
        while sizes[len(found)]:
            found.append(sizes[len(found)])
        return found


def with_lines(message: str, library: str) -> str:
    """The message with code addresses of a library (@0x…) translated to source lines."""
    command = ["addr2line", "--basenames", "--exe", library]
    return re.sub("@(0x[0-9a-f]+)", lambda found: subprocess.check_output([*command, found[1]], text=True).strip(), message)


class Namespace:
    """NumPy as the GPU overrides see it. What they allocate is poisoned and guarded, and remembered until `check`."""

    NAME = "cupy"
    shortened, widened = staticmethod(short_arrays.shortened), staticmethod(short_arrays.widened)
    matmul_stored, product_stored = staticmethod(short_arrays.matmul_stored), staticmethod(short_arrays.product_stored)

    def __init__(self) -> None:
        self._made: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy_namespace, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        self._made.append(guarded(shape=(shape,) if isinstance(shape, int) else tuple(shape), dtype=dtype))
        return self._made[-1]

    def empty_like(self, x: np.ndarray) -> np.ndarray:
        return self.empty(x.shape, x.dtype)

    def check(self) -> None:
        """Fails if a kernel wrote outside an array, or left part of one unwritten."""
        check_guards(*self._made)


# ---------------------------------------------------------------- poisoned and guarded arrays
POISON = {
    "f2": 0x7EAD,
    "u2": 0x7FED,  # bf16
    "f4": 0x7FC0DEAD,
    "f8": 0x7FF80000DEADDEAD,
    "i4": 0x7EADDEAD,
    "i8": 0x7EADDEAD7EADDEAD,
    "u8": 0x7EADDEAD7EADDEAD,
}
"""Bits that no computation produces by itself: for floats a marked NaN, which propagates to everything computed from it."""


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")


def _poison(array: np.ndarray) -> int:
    return POISON[array.dtype.str[1:]]


def guarded(values: Any = None, *, shape: tuple[int, ...] = (), dtype: Any = np.float32, offset: int = 0) -> np.ndarray:
    """A copy of `values`, or an output full of poison, in memory with poison around it.

    offset: elements by which the start is shifted from a multiple of 256 bytes.
    """
    source = None if values is None else np.asarray(values)
    shape, dtype = (shape, np.dtype(dtype)) if source is None else (source.shape, source.dtype)
    size = int(np.prod(shape))
    room = np.empty(size + 2 * GUARD + offset + 256, dtype)
    _bits(room)[...] = _poison(room)
    start = GUARD + (-(room.ctypes.data + GUARD * dtype.itemsize) % 256) // dtype.itemsize + offset
    array = room[start : start + size].reshape(shape)
    if source is not None:
        array[...] = source
    return array


def check_guards(*arrays: np.ndarray) -> None:
    """Fails if memory around arrays of `guarded` was written, or if an output still contains poison."""
    for array in arrays:
        room = array.base
        start = (array.ctypes.data - room.ctypes.data) // array.itemsize
        outside = np.concatenate([_bits(room[:start]), _bits(room[start + array.size :])])
        assert (outside == _poison(array)).all(), "written outside of an array"
        left = int((_bits(array) == _poison(array)).sum())
        assert not left, f"{left} elements were never written, or computed from some that were not"
