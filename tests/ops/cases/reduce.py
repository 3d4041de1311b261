"""Rows of `ops/reduce.py` and `ops/softmax.py`."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import CASES, Sample, case
from strategies import arrays, axes, generator, shapes


def _reduction(name: str, domain: str, least: int) -> None:
    """Axes over which at least `least` elements are reduced."""

    @st.composite
    def sample(draw: Any) -> Sample:
        shape = draw(shapes() if draw(st.booleans()) or not least else shapes(min_side=1))
        axis = draw(axes(len(shape), lambda reduced: prod(shape[i] for i in reduced) >= least))
        constants = {"axis": axis, "keepdims": draw(st.booleans())}
        if name == "var":
            count = prod(shape) if axis is None else prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
            constants["ddof"] = draw(st.integers(0, min(count - 1, 2)))
        return Sample((draw(arrays(shape, domain)),), constants)

    CASES[name] = sample()


_reduction("sum", "real", 0)
_reduction("mean", "real", 1)
_reduction("var", "real", 1)
_reduction("max", "distinct", 1)
_reduction("min", "distinct", 1)


@st.composite
def _along_axis(draw: Any) -> tuple[np.ndarray, int]:
    """An array and one of its axes that is not empty."""
    shape = draw(shapes(min_dims=1).filter(any))
    axis = draw(st.sampled_from([i for i, n in enumerate(shape) if n]))
    return draw(arrays(shape)), axis - len(shape) if draw(st.booleans()) else axis


@case
def logsumexp(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis, "keepdims": draw(st.booleans())})


@case
def log_softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis})


@case
def softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    mask = generator(draw).random(x.shape) < draw(st.sampled_from([0.3, 0.8])) if draw(st.booleans()) else None
    return Sample((x, mask), {"axis": axis})


@case
def std(draw: Any) -> Sample:
    shape = draw(shapes(min_side=2))
    axis = draw(axes(len(shape), lambda reduced: prod(shape[i] for i in reduced) >= 2))
    ddof = draw(st.integers(0, 1))
    return Sample((draw(arrays(shape, "distinct")),), {"axis": axis, "ddof": ddof, "keepdims": draw(st.booleans())})
