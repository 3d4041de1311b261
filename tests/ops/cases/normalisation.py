"""Rows of `ops/normalisation.py`; that of layer_norm is in `blocks.py`, with the blocks that contain it.

The numbers are far enough apart that no normalised row is nearly constant, where the derivative explodes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, shapes

epsilons = st.sampled_from([1e-12, 1e-5, 0.1])


def _or_none(draw: Any, shape: tuple[int, ...]) -> Any:
    return draw(arrays(shape)) if draw(st.booleans()) else None


@case
def standardise(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, max_size=12))
    axes = tuple(draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
    factors = [tuple(n if draw(st.booleans()) else 1 for n in shape) for _ in range(2)]
    weight, bias = (_or_none(draw, factor[draw(st.integers(0, len(shape))) :]) for factor in factors)
    return Sample((draw(arrays(shape, "distinct")), weight, bias), {"axes": axes, "eps": draw(epsilons)})


@case
def rms_norm(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, max_size=12))
    return Sample((draw(arrays(shape, "nonzero")), _or_none(draw, shape[-1:])), {"eps": draw(epsilons)})


@case
def group_norm(draw: Any) -> Sample:
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = draw(arrays((draw(st.integers(0, 2)), groups * per_group, *draw(shapes(max_dims=2, max_side=2, max_size=3))), "distinct"))
    return Sample((x, groups, _or_none(draw, x.shape[1:2]), _or_none(draw, x.shape[1:2])), {"eps": draw(epsilons)})


@case
def batch_norm(draw: Any) -> Sample:
    space = draw(shapes(max_dims=2, min_side=1, max_side=2, max_size=2))
    least = 1 if max((1, *space)) > 1 else 2
    x = draw(arrays((draw(st.integers(least, 3)), draw(st.integers(1, 2)), *space), "distinct"))
    channels = x.shape[1:2]
    given = (draw(arrays(channels)), draw(arrays(channels, "positive"))) if draw(st.booleans()) else (None, None)
    return Sample((x, *given, _or_none(draw, channels), _or_none(draw, channels)), {"eps": draw(epsilons)})
