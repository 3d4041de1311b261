"""Updates and norms over the flat arena on a GPU: each one pass over memory.

An update inside a captured graph, which `train/captured.py` does not record yet, takes `adam_now` and `adam_captured` instead: the same
update, with the numbers that change from step to step read from device memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backend import Array
from minigrad.kernels.cuda.blocks import all_float32
from minigrad.kernels.cuda.launch import launch, squares


def adam(
    xp: Any,
    p: Array,
    g: Array,
    moments: Sequence[Array],
    *,
    beta1: float,
    beta2: float,
    size: float,
    eps: float,
    l2: float,
    decay: float,
    factor: float = 1.0,
) -> Any:
    """One step of `optim.adam.adam`, which says what is computed, to the last bit."""
    if not all_float32(p, g, *moments):
        return NotImplemented
    largest = moments[2] if len(moments) > 2 else None
    launch("adam", (p.size,), p, g, *moments[:2], largest, p.size, beta1, 1 - beta1, beta2, 1 - beta2, size, eps, l2, decay, factor)
    return None


def sum_of_squares(xp: Any, array: Array) -> Any:
    """`optim.clip.squares`, always added up in the same order. Shapes: any → (), float64, on the GPU."""
    if not all_float32(array) or not array.flags.c_contiguous:
        return NotImplemented
    partial, total = xp.empty(squares(array.size)[0], "float64"), xp.empty((), "float64")
    launch("sum_of_squares", (array.size,), array, partial, array.size)
    launch("sum_doubles", (partial.size,), partial, total, partial.size)
    return total
