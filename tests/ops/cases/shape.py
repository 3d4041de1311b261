"""Rows of `ops/shape.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, broadcastable, shapes


@case
def reshape(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    sides = list(draw(st.permutations(x.shape)))
    if len(sides) > 1 and draw(st.booleans()):
        sides[:2] = [sides[0] * sides[1]]
    if x.size and sides and draw(st.booleans()):
        sides[draw(st.integers(0, len(sides) - 1))] = -1
    return Sample((x,), {"shape": tuple(sides)})


@case
def transpose(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    order = draw(st.permutations(range(x.ndim)))
    return Sample((x,), {"axes": tuple(i - x.ndim if draw(st.booleans()) else i for i in order)})


@case
def swapaxes(draw: Any) -> Sample:
    x = draw(arrays(shapes(min_dims=1)))
    axis = st.integers(-x.ndim, x.ndim - 1)
    return Sample((x,), {"a": draw(axis), "b": draw(axis)})


@case
def broadcast_to(draw: Any) -> Sample:
    part, whole = draw(broadcastable(2))
    return Sample((draw(arrays(part)),), {"shape": np.broadcast_shapes(part, whole)})


@case
def concatenate(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, max_size=12))
    axis = draw(st.integers(0, len(shape) - 1))
    sides = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [draw(arrays((*shape[:axis], n, *shape[axis + 1 :]))) for n in sides]
    return Sample(tuple(parts), {"axis": axis - len(shape) if draw(st.booleans()) else axis})


@case
def stack(draw: Any) -> Sample:
    shape = draw(shapes(max_dims=3, max_size=8))
    parts = [draw(arrays(shape)) for _ in range(draw(st.integers(1, 3)))]
    return Sample(tuple(parts), {"axis": draw(st.integers(-len(shape) - 1, len(shape)))}, gathered=True)


@case
def split(draw: Any) -> Sample:
    shape, sections = draw(shapes(min_dims=1, max_size=12)), draw(st.integers(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    whole = (*shape[:axis], shape[axis] * sections, *shape[axis + 1 :])
    return Sample((draw(arrays(whole)),), {"sections": sections, "axis": axis - len(shape) if draw(st.booleans()) else axis})


@case
def expand_dims(draw: Any) -> Sample:
    x = draw(arrays(shapes(max_dims=3)))
    return Sample((x,), {"axis": draw(st.integers(-x.ndim - 1, x.ndim))})
