"""Optimizer updates and norms over the flat arena on a GPU: one pass over memory each.

In a captured graph `begin_captured` and `adam_captured` make the same update, reading the numbers that change from step to step from device
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backend import Array
from minigrad.kernels.coverage import all_float32
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.table import SQUARES, ceil_div


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
    """One step of `optim.adam.adam`, with bit-identical results."""
    if not all_float32(p, g, *moments):
        return NotImplemented
    largest = moments[2] if len(moments) > 2 else None
    launch("adam", (p.size,), p, g, *moments[:2], largest, p.size, beta1, 1 - beta1, beta2, 1 - beta2, size, eps, l2, decay, factor)
    return None


def begin_captured(
    loss: Array | None,
    losses: Array | None,
    squares: Array,
    max_norm: float,
    numbers: Array,
    scale: Array | None,
    stopped: Array | None,
) -> None:
    """What a captured step computes once its gradients are complete, for the host and for `adam_captured`: see the source.

    loss: that of the whole step; otherwise losses: the sum over its micro-batches. squares: numbers whose sum is the squared norm of the
    gradient.
    Shapes: loss () float32, losses () float64, squares any float64, numbers (2,) float64, scale () float32, stopped () int32.
    """
    launch("begin_captured", (), loss, losses, squares, squares.size, max_norm, numbers, scale, stopped)


def adam_captured(
    p: Array,
    g: Array,
    moments: Sequence[Array],
    changing: Array,
    scale: Array,
    stopped: Array,
    *,
    beta1: float,
    beta2: float,
    l2: float,
) -> None:
    """`adam` in a captured graph; a no-op once `stopped` is set.

    Shapes: p, g, moments (n,) float32; changing (3,) float32: size, eps and decay; scale, stopped as in `begin_captured`.
    """
    largest = moments[2] if len(moments) > 2 else None
    arrays, betas = (p, g, *moments[:2], largest), (beta1, 1 - beta1, beta2, 1 - beta2)
    launch("adam_captured", (p.size,), *arrays, p.size, *betas, l2, changing, scale, stopped)


def average_captured(weights: Array, average: Array, rate: float, stopped: Array) -> None:
    """average ← average + rate · (weights - average) in a captured graph, rounded as NumPy rounds it; a no-op once `stopped` is set.

    Shapes: weights, average (n,) float32; stopped as in `begin_captured`.
    """
    launch("average_captured", (weights.size,), weights, average, weights.size, rate, stopped)


def sum_of_squares(xp: Any, array: Array) -> Any:
    """`optim.clip.squares`, always added in the same order. Shapes: any → (), float64, on the GPU."""
    if not all_float32(array) or not array.flags.c_contiguous:
        return NotImplemented
    partial, total = sums_of_squares(xp, array), xp.empty((), "float64")
    launch("sum_doubles", (), partial, total, partial.size)
    return total


def sums_of_squares(xp: Any, array: Array) -> Array:
    """The sum of squares of each piece of a contiguous float32 array, on the GPU. Shapes: any → (pieces,), float64."""
    partial = xp.empty(ceil_div(array.size, SQUARES), "float64")
    launch("sum_of_squares", (array.size,), array, partial, array.size)
    return partial
