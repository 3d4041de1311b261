"""Installs the stand-in: from then on CuPy's CUDA calls in this process go to it."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import struct
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stand_in import build
from stand_in.build import UnavailableError

RUNTIME = r"[tTwW] (cuda[A-Z]\w*)"
"""Pattern for the runtime's functions in the symbol list of a library that it is linked into."""


@cache
def install() -> ctypes.CDLL:
    """The library in place of the driver, installed once. Raises: UnavailableError with the reason if it cannot work here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"the stand-in for a GPU needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
    for command in ("g++", "nm"):
        if shutil.which(command) is None:
            raise UnavailableError(f"the stand-in for a GPU needs {command}, which is not installed here")
    if find_spec("cupy") is None:
        raise UnavailableError("the stand-in for a GPU needs CuPy: `pip install cupy-cuda12x`")
    os.environ["CUPY_ACCELERATORS"] = ""  # no kernels of CUB if CuPy has others
    os.environ["CUPY_CACHE_DIR"] = str(build.cache_folder() / "cupy")
    from cupy_backends.cuda.api import runtime

    functions = build.symbols(runtime.__file__, RUNTIME)
    if "cudaMalloc" not in functions:
        raise UnavailableError("the stand-in for a GPU needs a CuPy of NVIDIA's wheels: in this one, CUDA's runtime has no names")
    module = next(Path(runtime.__file__).parents[1].glob("libs/cublas.*.so"))
    wanted = build.symbols(str(module), rf" +U (cublas\w+)@{build.CUBLAS}", "--dynamic")
    if not wanted:
        raise UnavailableError(f"the stand-in for a GPU needs a CuPy for CUDA 12: this one does not look for {build.CUBLAS}")
    path = build.driver(functions)
    driver = ctypes.CDLL(str(path))
    driver.stand_in_problems.restype = ctypes.c_char_p
    _take_cublas(build.cublas(wanted, path))
    _redirect(runtime.__file__, driver)
    for name in ("cub", "thrust"):
        _redirect(import_module(f"cupy.cuda.{name}").__file__, driver)
    _take_kernels()
    return driver


def problems() -> str:
    """Problems found since the last call, other than the errors that calls returned."""
    return install().stand_in_problems().decode()


def _redirect(library: str, driver: ctypes.CDLL) -> None:
    """Overwrite the beginning of each function of CUDA's runtime with a jump to the driver's function of the same name."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        base = next(int(line.split("-")[0], 16) for line in file if line.rstrip().endswith(library))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for name, (at, size) in build.symbols(library, RUNTIME).items():
        target = getattr(driver, name, None)
        if target is None:
            continue  # CUB's or Thrust's module has a runtime with more functions
        jump = b"\x48\xb8" + struct.pack("<Q", ctypes.cast(target, ctypes.c_void_p).value or 0) + b"\xff\xe0"  # movabs rax, target; jmp rax
        start = base + at
        page = start & -mmap.PAGESIZE
        if size < len(jump) or protect(page, start + len(jump) - page, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
            raise UnavailableError(f"the stand-in for a GPU cannot write over {name} of {library}: {os.strerror(ctypes.get_errno())}")
        ctypes.memmove(start, jump, len(jump))


def _take_cublas(path: Path) -> None:
    """Make this the cuBLAS that CuPy and minigrad find."""
    ctypes.CDLL(str(path))
    pathfinder = import_module("cuda.pathfinder")  # comes with CuPy
    find = pathfinder.load_nvidia_dynamic_lib
    pathfinder.load_nvidia_dynamic_lib = lambda name: SimpleNamespace(abs_path=str(path)) if name == "cublas" else find(name)


def _take_kernels() -> None:
    """Have g++ compile kernels: CuPy's in place of NVRTC, ours by the emulator."""
    from cupy.cuda import compiler, function

    from minigrad.backend import cupy as namespace
    from minigrad.kernels.cuda import build as ours
    from minigrad.kernels.cuda.table import TABLE

    def compiled(source: str, options: Sequence[str] = (), *_: Any, **__: Any) -> Any:
        for name, instruction in namespace.ROUNDING.items():
            source = source.replace(namespace.PAIR % instruction, f"#define pair {name}_pair\n")
        module = function.Module()
        module.load(str(build.cupy_kernels(source, [option for option in options if option.startswith("-D")])).encode())
        return module

    def cubin(source: str, architecture: int) -> Path:
        return build.our_kernels(source, [name for name, entry in TABLE.items() if entry.source == source])

    compiler._compile_with_cache_cuda = compiled
    ours.cubin = cubin
