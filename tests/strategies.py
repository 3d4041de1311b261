"""Hypothesis strategies of the property tests: shapes, numbers away from kinks, memory layouts, packings and dropout recipes.

Hypothesis draws shapes, layouts, constants and a seed; the numbers themselves are generated from the seed. Errors in derivatives depend
on shape, layout and domain, whereas numbers drawn one by one would take most of the time and cluster at kinks, where finite differences
are of no use (kinks have tests of their own in `edge_cases/`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minigrad.backend.random import Draw
from minigrad.packing import Packing

Shape = tuple[int, ...]

SPACING = 0.25
"""Smallest distance between two numbers of the domain "distinct": thousands of finite-difference steps."""

DOMAINS: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "real": lambda rng, shape: rng.uniform(-2.0, 2.0, shape),
    "grid": lambda rng, shape: rng.integers(-4, 5, shape) / 2.0,  # zeros and equal numbers, for functions without kinks
    "positive": lambda rng, shape: rng.uniform(0.5, 2.0, shape),
    "nonzero": lambda rng, shape: rng.uniform(0.3, 2.0, shape) * rng.choice([-1.0, 1.0], shape),
    "small": lambda rng, shape: rng.uniform(-0.3, 0.3, shape),
    "distinct": lambda rng, shape: (rng.permutation(prod(shape)).reshape(shape) - prod(shape) / 2.0) * SPACING,
    "tenths": lambda rng, shape: rng.integers(-20, 21, shape) / 10.0,
    "between tenths": lambda rng, shape: rng.integers(-20, 21, shape) / 10.0 + 0.05,  # never equal to one of "tenths"
}


@st.composite
def shapes(draw: Any, min_dims: int = 0, max_dims: int = 4, min_side: int = 0, max_side: int = 4, max_size: int = 12) -> Shape:
    """Shapes with so few elements that every one of them can be checked."""
    sides = draw(st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims))
    while prod(sides) > max_size:
        sides[sides.index(max(sides))] -= 1
    return tuple(sides)


@st.composite
def broadcastable(draw: Any, count: int, **limits: Any) -> list[Shape]:
    """Shapes that broadcast together: a common shape with leading axes left out, or axes of length 1."""
    whole = draw(shapes(**limits))
    found = []
    for _ in range(count):
        part = whole[draw(st.integers(0, len(whole))) if draw(st.booleans()) else 0 :]
        found.append(tuple(1 if draw(st.booleans()) and draw(st.booleans()) else n for n in part))
    return found


@st.composite
def arrays(draw: Any, shape: Shape | st.SearchStrategy[Shape], domain: str = "real") -> np.ndarray:
    """A float64 array with numbers from `domain`."""
    sides = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    if domain == "real" and draw(st.booleans()):
        domain = "grid"
    return np.asarray(DOMAINS[domain](generator(draw), sides), dtype=np.float64)


def generator(draw: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def axes(draw: Any, ndim: int, allow: Callable[[tuple[int, ...]], bool] = lambda axes: True) -> Any:
    """None, one axis or several, counted from either end."""
    several = draw(st.lists(st.integers(0, ndim - 1), unique=True)) if ndim else []
    signed = tuple(a - ndim if draw(st.booleans()) else a for a in several)
    choices = [None] if allow(tuple(range(ndim))) else []
    if allow(tuple(several)):
        choices += [signed] + ([signed[0]] if len(signed) == 1 else [])
    return draw(st.sampled_from(choices)) if choices else ()


@st.composite
def packings(draw: Any, max_sequences: int = 3, max_length: int = 4, masked_first: bool | None = None) -> Packing:
    """Packings with arbitrary sequence numbers; some first tokens are masked (and then followed by a real token)."""
    masked = draw(st.booleans()) if masked_first is None else masked_first
    lengths = draw(st.lists(st.integers(1, max_length), min_size=1, max_size=max_sequences))
    numbers = draw(st.lists(st.integers(0, 50), min_size=len(lengths), max_size=len(lengths), unique=True))
    return Packing(lengths, numbers, [n > 1 and draw(st.booleans()) for n in lengths] if masked else None)


rates = st.sampled_from([0.1, 0.3, 0.5, 0.75])


@st.composite
def row_draws(draw: Any, packing: Packing, width: int) -> Draw:
    """A dropout recipe for rows."""
    return Draw(draw(st.sampled_from(["a", "encoder.layer.0"])), draw(rates), packing, width)


@st.composite
def pair_draws(draw: Any, queries: Packing, keys: Packing, heads: int) -> Draw:
    """A dropout recipe for attention weights."""
    return Draw(draw(st.sampled_from(["a", "encoder.layer.0"])), draw(rates), queries, heads, keys)
