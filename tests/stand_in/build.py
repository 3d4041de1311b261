"""Compiles the parts of the stand-in with g++: libraries in place of the driver and of cuBLAS, and kernels on demand.

Results are kept in a folder named by a digest of their inputs.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from kernels.cuda import emulation

HERE = Path(__file__).parent
EMULATOR = Path(emulation.__file__).parent

FLAGS = ("-std=c++20", "-O2", "-fPIC", "-ffp-contract=off")

CUBLAS = "libcublas.so.12"
"""The name under which CuPy's module looks for cuBLAS, and the symbol version of each of its functions."""


class UnavailableError(Exception):
    """The reason why the stand-in cannot work here."""


def cache_folder() -> Path:
    return Path(os.environ.get("STAND_IN_CACHE") or Path(gettempdir()) / f"stand-in-{os.getuid()}")


def made(name: str, parts: Iterable[str | bytes], make: Callable[[Path], object]) -> Path:
    """The file that `make` writes to the path it is given, or an earlier one made from the same parts."""
    digest = sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    folder = cache_folder() / digest.hexdigest()[:32]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as new:
            make(Path(new) / name)
            with suppress(OSError):  # another process was faster
                os.rename(new, folder)
    return folder / name


def run(*command: str) -> str:
    """The output of a command. Raises: CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compiled(path: Path, *options: str) -> None:
    """Compile with g++. Raises: RuntimeError with the beginning of its message."""
    try:
        run("g++", *FLAGS, *options, "-o", str(path))
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"g++ cannot make {path.name}: {error.stderr[:2000]}") from None


@cache
def headers() -> Path:
    """The folder of CUDA's headers. Raises: UnavailableError."""
    found = find_spec("nvidia")
    for folder in found.submodule_search_locations or () if found else ():
        if (path := Path(folder) / "cuda_runtime" / "include").is_dir():
            return path
    raise UnavailableError("CUDA's headers are missing, which the stand-in for a GPU needs: `pip install nvidia-cuda-runtime-cu12`")


def symbols(library: str, pattern: str, *options: str) -> dict[str, tuple[int, int]]:
    """Addresses and sizes, by name, of a library's symbols in lines of `nm` that match; the pattern's last group is the name."""
    lines = re.findall(rf"^(?:([0-9a-f]+) ([0-9a-f]+) )?{pattern}$", run("nm", "-S", *options, library), re.MULTILINE)
    return {name: (int(at or "0", 16), int(size or "0", 16)) for at, size, name in lines}


def stubs(names: Iterable[str]) -> str:
    """C++ that reports calls of functions the stand-in does not define; its own definitions take precedence when linked."""
    lines = [f'__attribute__((weak)) int {name}(...) {{ return stand_in_unknown("{name}"); }}' for name in sorted(names)]
    return "\n".join(['extern "C" {', "int stand_in_unknown(const char*);", *lines, "}", ""])


def driver(functions: Iterable[str]) -> Path:
    """The library in place of the driver, with at least these functions."""
    sources = [HERE / f"{name}.cpp" for name in ("device", "memory", "streams", "graphs", "kernels")]
    return _library("libcuda.so.1", sources, stubs(functions), [])


def cublas(functions: Iterable[str], driver: Path) -> Path:
    """The library in place of cuBLAS. Load it after the driver's."""
    return _library(CUBLAS, [HERE / "cublas.cpp"], stubs(functions), [str(driver)])


def _library(name: str, sources: Sequence[Path], stubs: str, options: Sequence[str]) -> Path:
    def make(path: Path) -> None:
        (path.parent / "stubs.cpp").write_text(stubs, encoding="utf-8")
        (path.parent / "versions").write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
        linked = [f"-Wl,-soname,{name}", "-Wl,-Bsymbolic", f"-Wl,--version-script={path.parent / 'versions'}"]
        compiled(
            path,
            "-shared",
            f"-I{HERE / 'include'}",
            f"-I{headers()}",
            *map(str, sources),
            str(path.parent / "stubs.cpp"),
            *options,
            *linked,
        )

    texts = [path.read_bytes() for path in (HERE / "device.h", *sources)]
    return made(name, [stubs, *texts, *FLAGS, *options, str(headers())], make)


# ---------------------------------------------------------------- kernels
def our_kernels(source: str, names: list[str]) -> Path:
    """The library of one of our sources, compiled by the emulator."""

    def make(path: Path) -> None:
        emulation.Emulator(path.parent).library(source, names)

    texts = [path.read_bytes() for path in sorted([*emulation.SOURCES.iterdir(), *EMULATOR.glob("*.h")]) if path.is_file()]
    return made(f"{source}.so", [*texts, *names, *emulation.FLAGS], make)


KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')


@cache
def front() -> tuple[Path, list[str]]:
    """The precompiled header for CuPy's kernels, and the options to compile it and them with."""
    import cupy

    includes = [HERE / "include", Path(cupy.__file__).parent / "_core" / "include"]
    options = ["-w", "-fpermissive", *(f"-I{path}" for path in includes)]
    headers = [EMULATOR / "emulator.h", HERE / "cupy_kernels.h", includes[0] / "cupy" / "complex.cuh", includes[1] / "cupy" / "carray.cuh"]

    def make(path: Path) -> None:
        path.write_text("".join(f'#include "{header}"\n' for header in headers), encoding="utf-8")
        compiled(path.with_name("front.h.gch"), "-x", "c++-header", *options, str(path))

    texts = [path.read_bytes() for path in sorted([*headers, *EMULATOR.glob("*.h"), *includes[0].rglob("*.cuh")])]
    return made("front.h", [*texts, *map(str, headers), *FLAGS], make), options


def cupy_kernels(text: str, definitions: Sequence[str]) -> Path:
    """The library of one of CuPy's sources. Raises: RuntimeError if g++ rejects it."""
    names = KERNEL.findall(text)
    together = any(word in text for word in ("__syncthreads", "__shfl", "__syncwarp")) or "CUPY_FOR" not in text
    text += "".join(f"\n{'EMULATE' if together else 'RUN_BY_ONE_THREAD'}({name})" for name in names) + "\n"
    header, options = front()

    def make(path: Path) -> None:
        path.with_suffix(".cpp").write_text(text, encoding="utf-8")
        compiled(path, "-shared", "-include", str(header), *options, *definitions, str(path.with_suffix(".cpp")))

    return made("kernels.so", [text, *definitions, str(header)], make)
