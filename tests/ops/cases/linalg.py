"""Rows of `ops/linalg.py` and `ops/einsum.py`, and of the linear layers of `ops/dense.py`."""

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


@case
def outer(draw: Any) -> Sample:
    sides = shapes(max_dims=2, max_size=4)
    return Sample((draw(arrays(sides)), draw(arrays(sides))), {})


SPECS = (
    "ij,jk->ik", "ij,kj->ik", "ji,jk", "ij,ij->", "i,i", "i,j", "i,j->ji", "ij,j->i", "bij,bjk->bik", "ibj,kbj->bki", "ij,k->k", "ij,jk->",
    "ij,ik->i", "bhqd,bhkd->bhqk", "ab,bc->b", "ijk,kj->i", "...ij,...jk->...ik", "...i,i", "i...,i...->...", "...,...", "...a,...b->b...a",
    "ij->ji", "ij->", "ij->j", "ba", "ii", "ii->i", "iji->ji", "iij,jk->ik", "...ii->...", "i...->...i", ",i->i", "->", "i,->",
)  # fmt: skip


@case
def einsum(draw: Any) -> Sample:
    """Lengths by label; now and then an axis of length 1 that broadcasts, and ellipses of different rank."""
    spec = draw(st.sampled_from(SPECS))
    lengths = {label: draw(st.integers(0, 2 if len(spec) > 12 else 3)) for label in sorted(set(spec)) if label.isalpha()}
    hidden = draw(shapes(max_dims=2, max_side=2))
    operands = []
    for term in spec.partition("->")[0].split(","):
        head, dots, tail = term.partition("...")
        kept = {a: 1 if "," in spec and term.count(a) == 1 and draw(st.integers(0, 9)) == 0 else n for a, n in lengths.items()}
        under = hidden[draw(st.integers(0, len(hidden))) :] if dots else ()
        under = tuple(1 if draw(st.integers(0, 4)) == 0 else n for n in under)
        operands.append(draw(arrays((*(kept[a] for a in head), *under, *(kept[a] for a in tail)))))
    return Sample((spec, *operands), {})
