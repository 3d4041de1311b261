"""Rows of `ops/reduce.py` and `ops/softmax.py`."""

from __future__ import annotations

from math import inf, prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import CASES, Sample, case
from strategies import arrays, axes, generator, shapes


def _reduction(name: str, domain: str, least: int) -> None:
    """Axes over which at least `least` elements are reduced."""

    @st.composite
    def sample(draw: Any) -> Sample:
        size = 12 if name == "prod" else 32  # products of many numbers up to 2 leave the range that finite differences resolve
        shape = draw(shapes(max_size=size) if draw(st.booleans()) or not least else shapes(min_side=1))
        axis = draw(axes(len(shape), lambda reduced: prod(shape[i] for i in reduced) >= least))
        constants = {"axis": axis, "keepdims": draw(st.booleans())}
        if name == "var":
            count = prod(shape) if axis is None else prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
            constants["ddof"] = draw(st.integers(0, min(count - 1, 2)))
        return Sample((draw(arrays(shape, domain)),), constants)

    CASES[name] = sample()


_reduction("sum", "real", 0)
_reduction("prod", "real", 0)
_reduction("mean", "real", 1)
_reduction("var", "real", 1)
_reduction("max", "distinct", 1)
_reduction("min", "distinct", 1)


@st.composite
def _along_axis(draw: Any, empty: bool = False) -> tuple[np.ndarray, int]:
    """An array and one of its axes, which is not empty unless `empty` allows it."""
    shape = draw(shapes(min_dims=1).filter(lambda sides: empty or any(sides)))
    axis = draw(st.sampled_from([i for i, n in enumerate(shape) if n or empty]))
    return draw(arrays(shape)), axis - len(shape) if draw(st.booleans()) else axis


@case
def logsumexp(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis, "keepdims": draw(st.booleans())})


@case
def log_softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis(empty=True))
    return Sample((x,), {"axis": axis})


@case
def softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis(empty=True))
    mask = generator(draw).random(x.shape) < draw(st.sampled_from([0.3, 0.8])) if draw(st.booleans()) else None
    return Sample((x, mask), {"axis": axis})


@case
def cumsum(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis})


@case
def norm(draw: Any) -> Sample:
    ord = draw(st.sampled_from([1, 2, inf]))
    shape = draw(shapes(min_side=1) if ord == inf else shapes())
    x = np.asarray(draw(arrays(shape, "distinct")) + 0.1)  # no zero, and no two of equal size
    return Sample((x,), {"ord": ord, "axis": draw(axes(len(shape))), "keepdims": draw(st.booleans())})


@case
def std(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=2))
    axis = draw(axes(len(shape), lambda reduced: prod(shape[i] for i in reduced) >= 2))
    ddof = draw(st.integers(0, 1))
    return Sample((draw(arrays(shape, "distinct")),), {"axis": axis, "ddof": ddof, "keepdims": draw(st.booleans())})
