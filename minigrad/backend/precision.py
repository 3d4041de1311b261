"""The precision of float32 matrix products: full, or with operands rounded to a shorter format.

Parameters, tensors and sums stay float32. Only the operands of a product are rounded, once, on their way into it: tensor cores multiply
short numbers many times as fast, and accumulate the products in float32. (On a GPU a block of BERT that runs as one operation stores in two
bytes what passes between its products: `kernels/cuda/blocks.py`.) `matmul` of each namespace reads the setting; NumPy's rounds the operands
explicitly, so that a program computes on a CPU what it will on a GPU, up to the order of sums (and no faster).

Formats: tf32 is float32 with 10 fraction bits in place of 23; bf16 (bfloat16) has 7. fp16 (IEEE binary16) has 10 and a shorter exponent
too: from 65520 on it is infinite, below 6e-5 it loses digits, below 3e-8 it is zero.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from minigrad.backend.probe import PRECISIONS_SINCE, probe
from minigrad.errors import ArgumentError, DeviceError
from minigrad.modes import Mode

PRECISIONS = tuple(PRECISIONS_SINCE)

product_precision: ContextVar[str] = ContextVar("precision", default="float32")

_DROPPED_BITS = {"tf32": 13, "bf16": 16}
"""How many of float32's 23 fraction bits these formats lack; their exponents are float32's."""


def precision(name: str) -> Mode[str]:
    """Context manager or decorator: products of float32 arrays inside round their operands to `name`: "tf32", "bf16", "fp16" or "float32".

    It applies when a product is computed, so run the backward pass inside, too. Products of float64 are never rounded. Derivatives are
    those of unrounded products, computed by rounded ones.

    Raises: ArgumentError for another name.
    """
    if name not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r:.80}")
    return Mode(product_precision, name)


def gpu_precision() -> str:
    """The precision in force, for a product on the GPU. Raises: as `check_gpu`."""
    name = product_precision.get()
    check_gpu(name)
    return name


def check_gpu(name: str) -> None:
    """Raises: DeviceError (gpu-precision) if there is a GPU whose tensor cores do not support this precision."""
    if name != "float32" and (found := probe()).usable and name not in found.precisions:
        gpu, (major, minor) = found.gpus[0], PRECISIONS_SINCE[name]
        raise DeviceError(
            f"precision {name!r}: {gpu.name} has no tensor cores for it, which begin with compute capability {major}.{minor}; "
            f"it computes in {' and '.join(found.precisions)}",
            code="gpu-precision",
        )


def rounded(x: Any, name: str) -> Any:
    """A float32 array with each number rounded to the nearest of a shorter format, ties to even.

    Overflow gives infinity, silently as on a GPU; NaN stays NaN.
    """
    if name == "fp16":
        with np.errstate(over="ignore", under="ignore"):
            return x.astype(np.float16).astype(np.float32)
    dropped = _DROPPED_BITS[name]
    bits = x.view(np.uint32)
    last_kept = (bits >> dropped) & 1
    below_half = (1 << (dropped - 1)) - 1  # with the last kept bit added, a tie carries exactly if that bit is odd
    kept = (bits + (last_kept + below_half)) & (0x100000000 - (1 << dropped))
    return np.where(np.isnan(x), x, kept.view(np.float32))
