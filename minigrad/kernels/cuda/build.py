"""Compiles CUDA C++ to machine code for one GPU architecture with NVRTC, and caches it on disk as long as nothing has changed.

NVRTC is NVIDIA's compiler as a library; it needs no GPU and no driver. The name of a machine code file ("cubin") contains a hash of what it
was made from and a digest of its content, so that no other file can be taken for it and damage is noticed. Folders are searched in this
order: the one named by the environment variable MINIGRAD_CUBINS, for machines without a compiler, then the cache, which MINIGRAD_CACHE
moves elsewhere.

`python -m minigrad.kernels.cuda.build` lists the kernels, or with `--output` writes their machine code to a folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from minigrad.backend.probe import PRECISIONS_SINCE
from minigrad.errors import ArgumentError, DeviceError, MinigradError, MissingExtraError
from minigrad.files import replacing
from minigrad.kernels.cuda.table import TABLE

logger = logging.getLogger("minigrad")

SOURCES = Path(__file__).parent / "sources"

OPTIONS = ("--std=c++17", "--ptxas-options=-v")
"""Compiler options besides the architecture; the last makes it report the resources of each kernel."""

TUNED = (80, 90)
"""The architectures for which register use is tuned: Ampere (A100) and Hopper (H100, H200)."""


# ---------------------------------------------------------------- compiling
def headers(text: str) -> dict[str, str]:
    """The texts, by name, of the files in `sources/` that a text includes, directly or indirectly."""
    found: dict[str, str] = {}
    for name in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE):
        if (SOURCES / name).is_file():  # the compiler reports any other
            body = (SOURCES / name).read_text(encoding="utf-8")
            found.update({name: body, **headers(body)})
    return found


def compile_source(name: str, text: str, architecture: int) -> tuple[bytes, str]:
    """Machine code, and the compiler's log.

    name: for messages. text: CUDA C++. architecture: compute capability without its dot, 90 for 9.0.
    Raises: MissingExtraError without CuPy or NVRTC; DeviceError (cuda-build) with the compiler's message if it rejects the text.
    """
    nvrtc = _nvrtc()
    included = headers(text)
    program = nvrtc.createProgram(text, name, [body.encode() for body in included.values()], [header.encode() for header in included])
    try:
        try:
            nvrtc.compileProgram(program, [*OPTIONS, f"--gpu-architecture=sm_{architecture}"])
        except nvrtc.NVRTCError as error:
            said = nvrtc.getProgramLog(program).strip() or str(error)
            raise DeviceError(f"{name} does not compile for sm_{architecture}:\n{said}", code="cuda-build") from error
        # CuPy (14.2) takes the last byte, a zero, for a string terminator and drops it
        return bytes(nvrtc.getCUBIN(program)) + b"\0", str(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _nvrtc() -> Any:
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()  # loads the library
    except Exception as error:  # NVRTC's loader has exceptions of its own
        raise MissingExtraError(
            'compiling kernels needs CuPy and NVRTC: install `pip install "minigrad-nn[gpu]"`, or let the environment variable '
            f"MINIGRAD_CUBINS name a folder of compiled kernels ({type(error).__name__}: {error})"
        ) from error
    return nvrtc


def architecture() -> int:
    """The current GPU's compute capability without its dot: 90 for 9.0."""
    import cupy

    return int(cupy.cuda.Device().compute_capability)


# ---------------------------------------------------------------- cache
def cubin(source: str, architecture: int) -> Path:
    """The machine code file for one source, compiled now if there is none yet.

    source: a file in `sources/`. architecture: as for `compile_source`.
    Raises: as `compile_source`; DeviceError (cuda-cache) if the cache cannot be written.
    """
    text = (SOURCES / source).read_text(encoding="utf-8")
    if prebuilt := os.environ.get("MINIGRAD_CUBINS"):
        for lower in range(architecture, architecture // 10 * 10 - 1, -1):  # a GPU also runs code for lower versions of its generation
            if found := _find_intact(Path(prebuilt), f"{_stem(source, text, lower)}-*.cubin"):
                return found
        logger.warning("MINIGRAD_CUBINS: %s has no %s of this version for sm_%d, so it is compiled", prebuilt, source, architecture)
    folder = cache_folder()
    stem = f"{_stem(source, text, architecture)}-nvrtc{compiler_version()}"
    if found := _find_intact(folder, f"{stem}-*.cubin"):
        return found
    logger.info("%s is compiled for sm_%d: a second or two, once, since it is kept in %s", source, architecture, folder)
    return _store(folder, stem, compile_source(source, text, architecture)[0])


def cache_folder() -> Path:
    """The folder of compiled kernels: MINIGRAD_CACHE, else ~/.cache/minigrad."""
    return Path(os.environ.get("MINIGRAD_CACHE") or Path.home() / ".cache" / "minigrad") / "kernels"


def compiler_version() -> str:
    """NVRTC's version. Raises: as `compile_source`."""
    return ".".join(str(part) for part in _nvrtc().getVersion())


def _stem(source: str, text: str, architecture: int) -> str:
    """A file name stem that depends on everything that goes into the machine code."""
    material = "\0".join([*OPTIONS, text, *(part for header in headers(text).items() for part in header)])
    return f"{source.removesuffix('.cu')}-sm_{architecture}-{_digest(material.encode())}"


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]


def _find_intact(folder: Path, pattern: str) -> Path | None:
    """A file whose name ends in the digest of its content."""
    for path in sorted(folder.glob(pattern)):
        if path.stem.endswith("-" + _digest(path.read_bytes())):
            return path
    return None


def _store(folder: Path, stem: str, content: bytes) -> Path:
    path = folder / f"{stem}-{_digest(content)}.cubin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise DeviceError(
            f"compiled kernels cannot be kept in {folder} ({error}): let the environment variable MINIGRAD_CACHE name a folder",
            code="cuda-cache",
        ) from error
    return path


# ---------------------------------------------------------------- resources
@dataclass(frozen=True)
class Resources:
    """What one kernel needs of a multiprocessor. stack, spills (stores + loads) and shared (static shared memory) in bytes."""

    kernel: str
    registers: int
    stack: int
    spills: int
    shared: int


def resources(said: str) -> list[Resources]:
    """Parsed from the compiler's log (`ptxas -v`)."""
    found = []
    for part in re.split(r"Compiling entry function '", said)[1:]:

        def number(pattern: str, part: str = part) -> int:
            return sum(int(n) for n in re.findall(pattern, part))

        found.append(
            Resources(
                part.partition("'")[0],
                number(r"Used (\d+) registers"),
                number(r"(\d+) bytes stack frame"),
                number(r"(\d+) bytes spill (?:stores|loads)"),
                number(r"(\d+) bytes smem"),
            )
        )
    return found


def sources(architecture: int | None = None) -> list[str]:
    """The files that contain kernels, in the order of the launch table; only those this architecture can run, if one is given."""
    found = dict.fromkeys(entry.source for entry in TABLE.values())
    return [source for source in found if architecture is None or supports(architecture, source.removesuffix(".cu").rpartition("_")[2])]


def supports(architecture: int, precision: str) -> bool:
    """Whether a GPU of this architecture computes in a precision; any word that is not a precision counts as float32."""
    return divmod(architecture, 10) >= PRECISIONS_SINCE.get(precision, (0, 0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.kernels.cuda.build",
        description="List the GPU kernels with what they need, or write their machine code to a folder for MINIGRAD_CUBINS.",
    )
    parser.add_argument("--arch", default=",".join(map(str, TUNED)), help="compute capabilities, by default %(default)s")
    parser.add_argument("--output", type=Path, help="the folder to write to")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"\d+(,\d+)*", options.arch):
        raise ArgumentError(f"--arch takes numbers such as 80,90, got {options.arch!r}")
    for number in map(int, options.arch.split(",")):
        for source in sources(number):
            text = (SOURCES / source).read_text(encoding="utf-8")
            content, said = compile_source(source, text, number)
            for needed in resources(said):
                print(
                    f"sm_{number} {source:<20} {needed.kernel:<30} {needed.registers:>4} registers {needed.stack:>4} stack "
                    f"{needed.spills:>4} spilled {needed.shared:>6} shared"
                )
            if options.output is not None:
                _store(options.output, f"{_stem(source, text, number)}-nvrtc{compiler_version()}", content)


if __name__ == "__main__":
    try:
        main()
    except MinigradError as wrong:
        sys.exit(f"error: {wrong}")
