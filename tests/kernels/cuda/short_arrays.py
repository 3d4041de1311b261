"""The functions of the GPU namespace for bf16 and fp16 arrays, implemented in NumPy: bf16 as its bits in uint16, fp16 as float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import Product
from minigrad.backend.precision import rounded


def shortened(x: np.ndarray, name: str) -> np.ndarray:
    """float32 rounded to nearest, ties to even; NaN stays NaN."""
    assert x.dtype == np.float32 and x.flags.c_contiguous
    if name == "fp16":
        with np.errstate(over="ignore", under="ignore"):
            return x.astype(np.float16)
    bits = (rounded(x, "bf16").view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), bits | np.uint16(0x40), bits)  # a NaN with payload in the lower half only would become infinite


def widened(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.float16:
        return x.astype(np.float32)
    assert x.dtype == np.uint16
    return (x.astype(np.uint32) << 16).view(np.float32)


def matmul_stored(a: np.ndarray, b: np.ndarray, out: Any = None, accumulate: bool = False, alike: bool = False) -> np.ndarray:
    if a.dtype == np.float32:
        return numpy_namespace.matmul(a, b, out, accumulate)
    assert a.dtype == b.dtype and (out is None or out.dtype in (a.dtype, np.float32))
    assert not accumulate or (out is not None and out.dtype == np.float32)
    with np.errstate(all="ignore"):
        total = np.matmul(widened(a), widened(b))
        if accumulate:
            total += out
    found = shortened(total, "fp16" if a.dtype == np.float16 else "bf16") if (alike if out is None else out.dtype == a.dtype) else total
    if out is None:
        return found
    out[...] = found
    return out


def product_stored(a: np.ndarray, b: np.ndarray) -> Product:
    return Product(a, b, matmul_stored, np.dtype(np.float32))
