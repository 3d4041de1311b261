"""Rows of `ops/segments.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, packings


@case
def segment_mean(draw: Any) -> Sample:
    packing = draw(packings())
    return Sample((draw(arrays((packing.rows, draw(st.integers(0, 4))))),), {"packing": packing})


@case
def segment_max(draw: Any) -> Sample:
    packing = draw(packings())
    return Sample((draw(arrays((packing.rows, draw(st.integers(0, 4))), "distinct")),), {"packing": packing})
