"""How exactly float32 matrices are multiplied: as they are, or with operands rounded to a shorter format.

Parameters, what tensors hold and sums stay float32. Only the numbers that a product multiplies are rounded, once, on their way into it:
tensor cores multiply short numbers many times as fast, and add the products in float32. (On a GPU a block of BERT that runs as one
operation keeps in two bytes what goes from one of its products to the next: `kernels/cuda/blocks.py`.) `matmul` of each namespace
asks here; NumPy's rounds the operands by itself, so that a program computes on a CPU what it will on a GPU, up to the order of sums (and
not faster).

Formats: tf32 is float32 with 10 bits of fraction in place of 23; bf16 (bfloat16) with 7; fp16 (IEEE binary16) has 10 and a shorter
exponent too: from 65520 on it is infinite, below 6e-5 it loses digits, below 3e-8 it is zero.
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
"""How many of float32's 23 bits of fraction these formats do without; their exponents are float32's."""


def precision(name: str) -> Mode[str]:
    """Context manager or decorator: products of float32 arrays inside round their operands to `name`: "tf32", "bf16", "fp16" or "float32".

    It counts when a product is computed, so run the backward pass inside, too. Products of float64 are never rounded. Derivatives are those
    of products without rounding, computed by products that round.

    Raises: ArgumentError for another name.
    """
    if name not in PRECISIONS:
        raise ArgumentError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r:.80}")
    return Mode(product_precision, name)


def gpu_precision() -> str:
    """The precision in which the GPU is to compute. Raises: as `check_gpu`."""
    name = product_precision.get()
    check_gpu(name)
    return name


def check_gpu(name: str) -> None:
    """Raises: DeviceError (gpu-precision) if there is a GPU whose tensor cores do not take this precision."""
    if name != "float32" and (found := probe()).usable and name not in found.precisions:
        gpu, (major, minor) = found.gpus[0], PRECISIONS_SINCE[name]
        raise DeviceError(
            f"precision {name!r}: {gpu.name} has no tensor cores for it, which begin with compute capability {major}.{minor}; "
            f"it computes in {' and '.join(found.precisions)}",
            code="gpu-precision",
        )


def rounded(x: Any, name: str) -> Any:
    """A float32 array with each number rounded to the nearest of a shorter format, of two equally near ones to the even one.

    What is too large becomes infinite, silently as on a GPU; NaN stays NaN.
    """
    if name == "fp16":
        with np.errstate(over="ignore", under="ignore"):
            return x.astype(np.float16).astype(np.float32)
    dropped = _DROPPED_BITS[name]
    bits = x.view(np.uint32)
    last_kept = (bits >> dropped) & 1
    below_half = (1 << (dropped - 1)) - 1  # with the last kept bit added, a tie is carried upwards exactly if that bit is odd
    kept = (bits + (last_kept + below_half)) & (0x100000000 - (1 << dropped))
    return np.where(np.isnan(x), x, kept.view(np.float32))
