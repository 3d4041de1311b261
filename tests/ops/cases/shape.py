"""Rows of `ops/shape.py` and `ops/padding.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, axes, broadcastable, generator, shapes


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
    places = draw(st.lists(st.integers(-5, 5), max_size=3))
    constants = {"sections": places if draw(st.booleans()) else sections, "axis": axis - len(shape) if draw(st.booleans()) else axis}
    return Sample((draw(arrays(whole)),), constants)


@case
def expand_dims(draw: Any) -> Sample:
    x = draw(arrays(shapes(max_dims=3)))
    return Sample((x,), {"axis": draw(st.integers(-x.ndim - 1, x.ndim))})


@case
def squeeze(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    ones = [a - x.ndim if draw(st.booleans()) else a for a, n in enumerate(x.shape) if n == 1]
    choices: list[Any] = [None, tuple(ones), *ones]
    return Sample((x,), {"axis": draw(st.sampled_from(choices))})


@case
def moveaxis(draw: Any) -> Sample:
    x = draw(arrays(shapes(min_dims=1)))
    count = draw(st.integers(0, x.ndim))
    sides = [tuple(draw(st.permutations(range(-x.ndim, 0)))[:count]) for _ in range(2)]
    return Sample((x,), dict(zip(("source", "destination"), [s[0] for s in sides] if count == 1 else sides, strict=True)))


@case
def flip(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    return Sample((x,), {"axis": draw(axes(x.ndim))})


@case
def repeat(draw: Any) -> Sample:
    x = draw(arrays(shapes(max_size=8)))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    length = x.size if axis is None else x.shape[axis]
    each: Any = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length)) if length else 2
    return Sample((x,), {"repeats": each if draw(st.booleans()) else draw(st.integers(0, 3)), "axis": axis})


@case
def tile(draw: Any) -> Sample:
    x = draw(arrays(shapes(max_size=6)))
    several = tuple(draw(st.lists(st.integers(0, 2), max_size=4)))
    return Sample((x,), {"reps": several if draw(st.booleans()) else draw(st.integers(0, 3))})


@case
def tril(draw: Any) -> Sample:
    return Sample((draw(arrays(shapes(min_dims=2))),), {"k": draw(st.integers(-3, 3))})


@case
def triu(draw: Any) -> Sample:
    return Sample((draw(arrays(shapes(min_dims=2))),), {"k": draw(st.integers(-3, 3))})


@case
def pad(draw: Any) -> Sample:
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "wrap"]))
    x = draw(arrays(shapes(max_dims=3, max_size=6, min_side=int(mode != "constant"))))
    side = st.integers(0, 2 if x.ndim > 2 else 3)
    pairs = [(draw(side), draw(side)) for _ in range(x.ndim)]
    constants: dict[str, Any] = {"pad_width": draw(st.sampled_from([pairs, (2, 1), 1])) if pairs else 1, "mode": mode}
    if mode == "constant":
        constants["constant_values"] = draw(st.sampled_from([0, 1.5, (1, -2)]))
    return Sample((x,), constants)


@case
def masked_fill(draw: Any) -> Sample:
    whole = draw(shapes())
    mask, fill = (whole[draw(st.integers(0, len(whole))) :] for _ in range(2))
    value = draw(arrays(fill)) if draw(st.booleans()) else draw(st.sampled_from([0, 1.5, -1e9]))
    return Sample((draw(arrays(whole)), generator(draw).random(mask) < 0.5, value), {})
