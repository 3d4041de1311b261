"""Whether an NVIDIA GPU can be used here, and if not, why not: one sentence that also says what to do about it.

A usable GPU needs CuPy, a driver, CUDA's libraries and the GPU itself, and failures tend to show late, with a message that names none of
them. So everything is checked once, from the bottom up, and the first thing missing gives the sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

INSTALL = '`pip install "minigrad-nn[gpu]"` (CUDA 12) or `pip install "minigrad-nn[gpu13]"` (CUDA 13)'
PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
"""The distributions that contain the module `cupy`. They install the same files, so only one may be installed."""

OLDEST_CUPY = (14, 1)  # as in setup.py

NO_DEVICE = 100  # cudaErrorNoDevice

PRECISIONS_SINCE = {"float32": (0, 0), "tf32": (8, 0), "bf16": (8, 0), "fp16": (7, 5)}
"""For each precision, the lowest compute capability whose tensor cores multiply it as our kernels do: Ampere's, for fp16 Turing's."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU that the process sees. Memory is in bytes."""

    name: str
    compute_capability: tuple[int, int]
    memory_total: int
    memory_free: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The findings. A GPU is usable if `reason` is empty; otherwise `reason` is the sentence.

    cupy: CuPy's version, None if it is not installed or cannot be imported. installed: whether it is installed at all. driver, runtime: the
    newest CUDA version that the driver supports (0 without a driver) and the one CuPy was built for, as CUDA encodes them (12090 is 12.9),
    None if unknown. gpus: the visible ones; "cuda" is the first.
    """

    reason: str = ""
    installed: bool = True
    cupy: str | None = None
    driver: int | None = None
    runtime: int | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def usable(self) -> bool:
        return not self.reason

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which the GPU computes; empty without a usable GPU."""
        return tuple(name for name, since in PRECISIONS_SINCE.items() if self.usable and self.gpus[0].compute_capability >= since)


def probe(*, refresh: bool = False) -> Probe:
    """Whether this process can use a GPU, determined once. refresh: check again.

    Imports CuPy if it is installed, and computes a little on the GPU if there is one. Never raises.
    """
    if refresh:
        _probe.cache_clear()
    return _probe()


@cache
def _probe() -> Probe:
    found: dict[str, Any] = {}
    try:
        _look(found)
    except _Obstacle as obstacle:
        found["reason"] = str(obstacle)
    except Exception as error:  # a broken installation fails in its own ways
        found["reason"] = f"looking for a GPU failed ({error_text(error)}): `python -m minigrad doctor` says what is installed"
    return Probe(**found)


class _Obstacle(Exception):
    """Why no GPU can be used."""


def _look(found: dict[str, Any]) -> None:
    """Fill in a Probe's fields, from the bottom up. Raises: _Obstacle at the first thing missing."""
    packages = Queries.packages()
    if len(packages) > 1:
        raise _Obstacle(
            f"several CuPy packages are installed ({', '.join(packages)}), of which only one may be: uninstall them all, then {INSTALL}"
        )
    try:
        found["cupy"] = Queries.cupy()
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            found["installed"] = False
            raise _Obstacle(f"CuPy is not installed: {INSTALL}") from error
        again = f"uninstall {' and '.join(packages) or 'it'}, then {INSTALL}"
        if isinstance(error, OSError):  # CuPy 14.2 creates its kernel cache folder on import
            again = f"let the environment variable CUPY_CACHE_DIR name a folder that CuPy can write to. If it does, {again}"
        raise _Obstacle(f"CuPy is installed but cannot be imported ({error_text(error)}): {again}") from error
    if (numbers := re.match(r"(\d+)\.(\d+)", found["cupy"])) and tuple(map(int, numbers.groups())) < OLDEST_CUPY:
        oldest = ".".join(map(str, OLDEST_CUPY))
        raise _Obstacle(f"CuPy {found['cupy']} is too old, {oldest} is the first that serves: uninstall it, then {INSTALL}")
    found["driver"] = _asked("CuPy does not reach CUDA", Queries.driver)
    found["runtime"] = _asked("CuPy does not reach CUDA", Queries.runtime)
    if found["driver"] == 0:
        raise _Obstacle("no NVIDIA driver was found: install it, or start the container with the machine's GPUs (`--gpus all`)")
    try:
        count = Queries.gpus()
    except Exception as error:
        if found["driver"] < found["runtime"]:
            raise _Obstacle(
                f"the NVIDIA driver serves CUDA up to {version_text(found['driver'])} and CuPy was built for "
                f"{version_text(found['runtime'])}: update the driver, or install a CuPy for an older CUDA"
            ) from error
        raise _Obstacle(f"the NVIDIA driver does not answer ({error_text(error)}): see what `nvidia-smi` says") from error
    if count == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        stated = "is not set" if hidden is None else f"is {hidden[:80]!r}"
        raise _Obstacle(
            f"there is an NVIDIA driver, but no GPU is visible: see what `nvidia-smi` lists; CUDA_VISIBLE_DEVICES, which chooses, {stated}"
        )
    found["gpus"] = _asked("a GPU is visible but tells nothing about itself", lambda: tuple(map(Queries.gpu, range(count))))
    gpu, known = found["gpus"][0], _library("NVRTC, which compiles kernels,", Queries.architectures)
    if (asked := gpu.compute_capability) not in known:
        first, last = (".".join(map(str, end)) for end in (min(known), max(known)))
        raise _Obstacle(
            f"the installed CUDA compiles for compute capability {first} to {last}, and the GPU ({gpu.name}) has {asked[0]}.{asked[1]}: "
            f"install the other one of {INSTALL}, or a newer CuPy"
        )
    _library("cuBLAS, which multiplies matrices,", Queries.cublas)
    _asked(f"the GPU ({found['gpus'][0].name}) is present but cannot be used", Queries.compute)


def _asked(failure: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:
        raise _Obstacle(f"{failure} ({error_text(error)}): see what `nvidia-smi` says, and who else computes there") from error


def _library(name: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:
        raise _Obstacle(f"CUDA's library {name} cannot be loaded ({error_text(error)}): {INSTALL} brings it along") from error


def error_text(error: Exception) -> str:
    """Type and message of an error, on one line of bounded length."""
    text = " ".join(str(error).replace("=" * 8, " ").split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def version_text(version: int) -> str:
    """CUDA's version as people write it: 12.9 for 12090."""
    return f"{version // 1000}.{version % 1000 // 10}"


class Queries:
    """All queries to CuPy, in one place, where tests substitute other answers."""

    @staticmethod
    def packages() -> list[str]:
        """The installed packages among those that contain CuPy."""
        from importlib.metadata import PackageNotFoundError, distribution  # here, because importing it is slow

        found = []
        for name in PACKAGES:
            try:
                distribution(name)
            except PackageNotFoundError:
                continue
            found.append(name)
        return found

    @staticmethod
    def cupy() -> str:
        import cupy

        return str(cupy.__version__)

    @staticmethod
    def driver() -> int:
        from cupy.cuda import runtime

        return int(runtime.driverGetVersion())

    @staticmethod
    def runtime() -> int:
        from cupy.cuda import runtime

        return int(runtime.runtimeGetVersion())

    @staticmethod
    def gpus() -> int:
        """How many GPUs are visible."""
        from cupy.cuda import runtime

        try:
            return int(runtime.getDeviceCount())
        except runtime.CUDARuntimeError as error:
            if error.status == NO_DEVICE:
                return 0
            raise

    @staticmethod
    def gpu(index: int) -> Gpu:
        from cupy.cuda import Device, runtime

        properties = runtime.getDeviceProperties(index)
        free, total = Device(index).mem_info
        capability = (int(properties["major"]), int(properties["minor"]))
        return Gpu(name=properties["name"].decode(), compute_capability=capability, memory_total=int(total), memory_free=int(free))

    @staticmethod
    def nvrtc() -> tuple[int, int]:
        from cupy.cuda import nvrtc

        major, minor = nvrtc.getVersion()
        return int(major), int(minor)

    @staticmethod
    def architectures() -> list[tuple[int, int]]:
        """The compute capabilities that NVRTC compiles for."""
        from cupy.cuda import nvrtc

        return [divmod(number, 10) for number in nvrtc.getSupportedArchs()]

    @staticmethod
    def cublas() -> None:
        from cupy.cuda import cublas  # noqa: F401 - importing it loads the library

    @staticmethod
    def compute() -> None:
        """A small array, a product and a synchronisation. Raises: whatever fails; ArithmeticError for a wrong result."""
        import cupy

        ones = cupy.ones((16, 16), cupy.float32)
        product = ones @ ones
        cupy.cuda.get_current_stream().synchronize()
        if not (product.get() == 16).all():
            raise ArithmeticError("the product of two small matrices is wrong")
