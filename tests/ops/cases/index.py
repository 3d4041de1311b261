"""Rows of `ops/index.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ops.cases.base import Sample, case
from strategies import arrays, generator, shapes


@st.composite
def _keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Basic indices, integer arrays with repeated and negative indices, masks, and mixtures of them."""
    kinds = ["basic", "mask"]
    if shape and all(shape):
        kinds += ["integers", "first axis", "mixed"]
    kind = draw(st.sampled_from(kinds))
    if kind == "basic":
        return draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    if kind == "mask":
        return generator(draw).random(shape[: draw(st.integers(0, len(shape)))]) < 0.5
    if kind == "integers":
        return draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
    rows = generator(draw).integers(-shape[0], shape[0], draw(st.integers(0, 4)))
    if kind == "first axis":
        return rows
    return draw(
        st.sampled_from(
            [(rows, None), (rows, ...), (..., rows % shape[-1]), (slice(None, None, -1), ..., rows % shape[-1])][
                : 4 if len(shape) > 1 else 3
            ]
        )
    )


@case
def getitem(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    return Sample((x,), {"key": draw(_keys(x.shape))})


@case
def zeros_at(draw: Any) -> Sample:
    shape = draw(shapes())
    key = draw(_keys(shape))
    return Sample((draw(arrays(np.zeros(shape)[key].shape)),), {"key": key, "shape": shape})


@case
def embedding(draw: Any) -> Sample:
    rows, width = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    ids = generator(draw).integers(0, rows, draw(shapes(max_dims=3, max_size=8)))
    unused = sorted(set(range(rows)) - set(ids.reshape(-1).tolist()))  # the gradient 0 of a padding row in use is not its derivative
    return Sample((draw(arrays((rows, width))), ids), {"padding_idx": draw(st.sampled_from([None, *unused]))})


@case
def take_rows(draw: Any) -> Sample:
    count, width = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    return Sample((draw(arrays((count, width))), generator(draw).permutation(count)[: draw(st.integers(0, count))]), {})


@case
def put_rows(draw: Any) -> Sample:
    count, width = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    rows = generator(draw).permutation(count)[: draw(st.integers(0, count))]
    return Sample((draw(arrays((len(rows), width))), rows), {"count": count})


@case
def take_along_axis(draw: Any) -> Sample:
    """The lengths of the other axes are x's, or 1 in one of the two."""
    shape = draw(shapes(min_dims=1))
    if draw(st.integers(0, 4)) == 0:
        x = draw(arrays(shape))
        return Sample((x, generator(draw).integers(-x.size, x.size, draw(st.integers(0, 4)) if x.size else 0)), {"axis": None})
    axis = draw(st.integers(0, len(shape) - 1))
    count = draw(st.integers(0, 3)) if shape[axis] else 0
    sides = [(n, n) if draw(st.booleans()) else draw(st.sampled_from([(1, n), (n, 1)])) for n in shape]
    indices = generator(draw).integers(-shape[axis], max(shape[axis], 1), [count if d == axis else m for d, (_, m) in enumerate(sides)])
    x = draw(arrays(tuple(shape[axis] if d == axis else n for d, (n, _) in enumerate(sides))))
    return Sample((x, indices), {"axis": axis - len(shape) if draw(st.booleans()) else axis})


@case
def scatter_add(draw: Any) -> Sample:
    """Indices cover a part of the other axes of x; values are at least as large as the indices."""
    shape = draw(shapes(min_dims=1))
    axis = draw(st.integers(0, len(shape) - 1))
    count = draw(st.integers(0, 4)) if shape[axis] else 0
    sides = [count if d == axis else draw(st.integers(0, n)) for d, n in enumerate(shape)]
    beyond = [n + draw(st.integers(0, 1)) for n in sides]
    indices = generator(draw).integers(0, max(shape[axis], 1), sides)
    return Sample((draw(arrays(shape)), indices, draw(arrays(tuple(beyond)))), {"axis": axis - len(shape) if draw(st.booleans()) else axis})
