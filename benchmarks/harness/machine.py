"""The machine that a figure was measured on: processor, memory, and the versions of all packages involved."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import __version__
from minigrad.backend.probe import Probe, version_text
from minigrad.backend.threads import usable_cpus

PACKAGES = ("numba", "tokenizers", "torch", "transformers")


def machine() -> dict[str, Any]:
    """Its properties by name. Packages that are not installed are left out; none is imported."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {
        "processor": _processor(),
        "cores": usable_cpus(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "Python": platform.python_version(),
        "minigrad": __version__,
        "NumPy": np.__version__,
        "BLAS": f"{blas['name']} {blas['version']}",
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpu_of(found: Probe) -> dict[str, Any]:
    """The GPU, and the versions of CuPy and CUDA."""
    versions = {
        name: f"CUDA {version_text(version)}" for name, version in (("driver", found.driver), ("runtime", found.runtime)) if version
    }
    return {"GPU": found.gpus[0].name, "CuPy": found.cupy, **versions}


def machine_line(found: dict[str, Any]) -> str:
    """The same in a sentence."""
    hardware = f"{found['processor']}, {found['cores']} usable cores, {found['memory']}, {found['system']}"
    versions = [f"{name} {version}" for name, version in found.items() if name not in ("processor", "cores", "memory", "system", "load")]
    return f"{hardware}; load at the start {found['load']}. {', '.join(versions)}."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
