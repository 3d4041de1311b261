"""Segment reductions: the rows of each sequence of a packing pooled to one row.

The bodies run the operations of `ops/reduce.py` on one sequence after the other; conventions are the same.
"""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.errors import ShapeError
from minigrad.op import Op, op
from minigrad.ops.reduce import max, mean
from minigrad.packing import Packing


def _reduce_each(reduction: Op[Any], xp: Any, x: Array, packing: Packing, keep: bool) -> Any:
    if x.ndim != 2 or x.shape[0] != packing.rows:
        raise ShapeError(f"rows of shape {tuple(x.shape)} do not fit {packing}")
    outputs, pullbacks = [], []
    for first, last in packing.spans:
        output, (back,) = reduction.body(xp, x[first:last], axis=0)
        outputs.append(output[None])
        if keep:
            pullbacks.append(back)

    def pullback(g: Array) -> Array:
        return xp.concatenate([back(g[i]) for i, back in enumerate(pullbacks)], axis=0)

    return xp.concatenate(outputs, axis=0), (pullback,)


@op("rows d -> sequences d", promotes="float")
def segment_mean(xp: Any, x: Array, *, packing: Packing, keep: bool = True) -> Any:
    """The mean of the rows of each sequence."""
    return _reduce_each(mean, xp, x, packing, keep)


@op("rows d -> sequences d", promotes="float")
def segment_max(xp: Any, x: Array, *, packing: Packing, keep: bool = True) -> Any:
    """The column-wise maximum of the rows of each sequence; equal maxima share the gradient evenly."""
    return _reduce_each(max, xp, x, packing, keep)
