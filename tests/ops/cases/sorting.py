"""Rows of `ops/sorting.py`. No two numbers are equal: the order jumps at ties, which have tests of their own."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, shapes


@case
def sort(draw: Any) -> Sample:
    x = draw(arrays(shapes(min_dims=1), "distinct"))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    return Sample((x,), {"axis": axis, "descending": draw(st.booleans())})


@case
def topk(draw: Any) -> Sample:
    x = draw(arrays(shapes(min_dims=1), "distinct"))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    return Sample((x,), {"k": draw(st.integers(0, x.shape[axis])), "axis": axis, "largest": draw(st.booleans())})
