"""Rows of `ops/linalg.py`, and of the linear layers of `ops/dense.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, broadcastable, shapes


@case
def matmul(draw: Any) -> Sample:
    m, k, n = (draw(st.integers(0, 3)) for _ in range(3))
    left, right = draw(broadcastable(2, max_dims=2, max_side=3))
    a = (k,) if draw(st.booleans()) and draw(st.booleans()) else (*left, m, k)
    b = (k,) if draw(st.booleans()) and draw(st.booleans()) else (*right, k, n)
    return Sample((draw(arrays(a)), draw(arrays(b))), {})


@case
def linear(draw: Any) -> Sample:
    k, m = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    lead = draw(shapes(max_dims=3, max_size=8))
    bias = draw(arrays((m,))) if draw(st.booleans()) else None
    return Sample((draw(arrays((*lead, k))), draw(arrays((m, k))), bias), {})


@case
def linears(draw: Any) -> Sample:
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    sides = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return Sample((draw(arrays((n, k))), *[draw(arrays((m, k))) for m in sides], *[draw(arrays((m,))) for m in sides]), {})
