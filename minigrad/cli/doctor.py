"""`python -m minigrad doctor`: what this installation is made of, and whether a GPU can be used.

It is run when something is broken, so the answers are independent: one that cannot be found is replaced by its error, and the next follows.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from minigrad import __version__, kernels
from minigrad.backend.precision import PRECISIONS, precision
from minigrad.backend.probe import Probe, Queries, error_text, probe, version_text
from minigrad.backend.threads import openblas_libraries, usable_cpus
from minigrad.creation import ones

DESCRIPTION = (
    "Prints versions, processors, which kernels run, and whether a GPU can be used: which one and what it computes with, or why not and "
    "what to do."
)
STATUS = "Always 0: what is missing is in what it prints."

SIZE = 64
"""Rows and columns of the matrices multiplied as a test; every format holds the result exactly."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    found = examination()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in found.items():
        print(f"{name:<12}{_text(name, value)}")
    return 0


def examination() -> dict[str, Any]:
    """All answers by name, as values that JSON can hold. Raises nothing."""
    found = probe()
    return {
        "minigrad": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": _answer(platform.platform),
        "processors": _answer(usable_cpus),
        "numpy": np.__version__,
        "blas": _answer(_blas),
        "numba": _answer(lambda: _installed("numba")),
        "kernels": _answer(kernels.in_use),
        "cupy": _answer(lambda: _cupy(found)),
        "driver": _cuda(found.driver, "none"),
        "runtime": _cuda(found.runtime, "unknown"),
        "nvrtc": _answer(lambda: _library(found, lambda: ".".join(map(str, Queries.nvrtc())))),
        "cublas": _answer(lambda: _library(found, lambda: Queries.cublas() or "found")),
        "gpu": "usable" if found.usable else found.reason,
        "gpus": [
            {
                "name": gpu.name,
                "compute_capability": ".".join(map(str, gpu.compute_capability)),
                "memory_total": gpu.memory_total,
                "memory_free": gpu.memory_free,
            }
            for gpu in found.gpus
        ],
        "precisions": {name: _answer(partial(_multiplies, name, found)) for name in PRECISIONS} if found.usable else {},
    }


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:  # whatever is broken is what the user wants to see
        return f"failed: {error_text(error)}"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    """The BLAS library that NumPy was built with, and its number of threads if it can be queried."""
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    threads = [library.get() for library in openblas_libraries()]
    counted = f", {threads[0]} thread{'s' * (threads[0] != 1)}" if threads else ""
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip() + counted


def _cupy(found: Probe) -> str:
    if not found.installed:
        return "not installed"
    return f"{found.cupy or 'cannot be used'} ({', '.join(Queries.packages()) or 'of no known package'})"


def _library(found: Probe, question: Callable[[], str]) -> str:
    return question() if found.installed else "not installed"


def _cuda(version: int | None, absent: str) -> str:
    return f"CUDA {version_text(version)}" if version else absent


def _multiplies(name: str, found: Probe) -> str:
    """Whether the first GPU gives the right product in this precision."""
    if name not in found.precisions:
        return "this GPU has no tensor cores for it"
    with precision(name):
        a = ones((SIZE, SIZE), device="cuda")
        return "works" if bool((((a + a) @ a).numpy() == 2 * SIZE).all()) else "gives a wrong product"


def _text(name: str, value: Any) -> str:
    if name == "gpus":
        return "; ".join(map(_gpu, value)) or "none"
    if name == "precisions":
        return ", ".join(f"{precision} {result}" for precision, result in value.items()) or "none"
    return str(value)


def _gpu(gpu: dict[str, Any]) -> str:
    free, total = (gpu[name] / 2**30 for name in ("memory_free", "memory_total"))
    return f"{gpu['name']}, compute capability {gpu['compute_capability']}, {free:.1f} of {total:.1f} GiB free"
