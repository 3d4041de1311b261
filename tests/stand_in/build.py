"""Compiles what the stand-in consists of, by g++: libraries in place of the driver and of cuBLAS, and kernels when they are wanted.

What is made is kept in a folder under a digest of what it was made from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from kernels.cuda import emulation

HERE = Path(__file__).parent
EMULATOR = Path(emulation.__file__).parent

FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-ffp-contract=off")

CUBLAS = "libcublas.so.12"
"""The name under which CuPy's module looks for it, also that of the version of each of its functions."""


class UnavailableError(Exception):
    """Why the stand-in cannot work here."""


def cache_folder() -> Path:
    return Path(os.environ.get("STAND_IN_CACHE") or Path(gettempdir()) / f"stand-in-{os.getuid()}")


def made(name: str, parts: Iterable[str | bytes], make: Callable[[Path], object]) -> Path:
    """The file that `make` makes at the path it gets, or made before from the same parts."""
    digest = sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    path = cache_folder() / digest.hexdigest()[:32] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:
            make(Path(folder) / name)
            os.replace(Path(folder) / name, path)  # at once, if several processes make it
    return path


def run(*command: str) -> str:
    """What a command prints. Raises: UnavailableError if there is no such command; CalledProcessError if it fails."""
    if shutil.which(command[0]) is None:
        raise UnavailableError(f"there is no {command[0]} here, which the stand-in for a GPU needs")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compiled(path: Path, *options: str) -> None:
    """Raises: RuntimeError with the compiler's first words."""
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
    """Addresses and sizes by name of what `nm` lists in a library, as far as its lines match; the pattern's last group is the name."""
    lines = re.findall(rf"^(?:([0-9a-f]+) ([0-9a-f]+) )?{pattern}$", run("nm", "-S", *options, library), re.MULTILINE)
    return {name: (int(at or "0", 16), int(size or "0", 16)) for at, size, name in lines}


def stubs(names: Iterable[str]) -> str:
    """C++ that tells calls of functions the stand-in does not define; where it does, the linker takes its own."""
    lines = [f'__attribute__((weak)) int {name}(...) {{ return stand_in_unknown("{name}"); }}' for name in sorted(names)]
    return "\n".join(['extern "C" {', "int stand_in_unknown(const char*);", *lines, "}", ""])


def driver(functions: Iterable[str]) -> Path:
    """The library in place of the driver, with functions of these names at least."""
    sources = [HERE / f"{name}.cpp" for name in ("device", "memory", "streams", "graphs", "kernels")]
    return _library("libcuda.so.1", sources, stubs(functions), [])


def cublas(functions: Iterable[str], driver: Path) -> Path:
    """The library in place of cuBLAS. It is to be loaded after the driver's."""
    return _library(CUBLAS, [HERE / "cublas.cpp"], stubs(functions), [str(driver)])


def _library(name: str, sources: Sequence[Path], stubs: str, options: Sequence[str]) -> Path:
    def make(path: Path) -> None:
        (path.parent / "stubs.cpp").write_text(stubs, encoding="utf-8")
        (path.parent / "versions").write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
        linked = [f"-Wl,-soname,{name}", "-Wl,-Bsymbolic", f"-Wl,--version-script={path.parent / 'versions'}"]
        compiled(path, f"-I{HERE / 'include'}", f"-I{headers()}", *map(str, sources), str(path.parent / "stubs.cpp"), *options, *linked)

    texts = [path.read_bytes() for path in (HERE / "device.h", *sources)]
    return made(name, [stubs, *texts, *FLAGS, *options, str(headers())], make)


# ---------------------------------------------------------------- kernels
def our_kernels(source: str, names: list[str]) -> Path:
    """The library of one of our sources, from the emulator."""

    def make(path: Path) -> None:
        emulation.Emulator(path.parent).library(source, names)

    texts = [path.read_bytes() for path in sorted([*emulation.SOURCES.iterdir(), *EMULATOR.glob("*.h")]) if path.is_file()]
    return made(f"{source}.so", [*texts, *names, *emulation.FLAGS], make)


KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')


def cupy_kernels(text: str, definitions: Sequence[str]) -> Path:
    """The library of one of CuPy's sources. Raises: RuntimeError if g++ refuses it."""
    import cupy

    names = KERNEL.findall(text)
    together = any(word in text for word in ("__syncthreads", "__shfl", "__syncwarp")) or "CUPY_FOR" not in text
    text += "".join(f"\n{'EMULATE' if together else 'RUN_BY_ONE_THREAD'}({name})" for name in names) + "\n"
    includes = [HERE / "include", Path(cupy.__file__).parent / "_core" / "include"]
    front = [EMULATOR / "emulator.h", HERE / "cupy_kernels.h"]

    def make(path: Path) -> None:
        source = path.with_suffix(".cpp")
        source.write_text(text, encoding="utf-8")
        before = [option for path in front for option in ("-include", str(path))]
        compiled(path, "-w", "-fpermissive", *before, *(f"-I{path}" for path in includes), *definitions, str(source))

    texts = [path.read_bytes() for path in sorted([*front, *EMULATOR.glob("*.h"), *includes[0].rglob("*.cuh")])]
    return made("kernels.so", [text, *definitions, *texts, cupy.__version__, *FLAGS], make)
