"""Every operation's first and second derivative against central differences, in float64, with gradcheck's own tolerances.

Inputs come in every memory layout and are read-only, so an operation that writes to them fails here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC, Sample

import minigrad as mg
from minigrad.contract import LAYOUTS, Layout
from minigrad.gradcheck import GradientCheck
from minigrad.op import Composite, Op

SEEN: list[GradientCheck] = []
"""Every passed check of this run."""


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    """`python -m pytest tests/ops/test_gradients.py -s` prints the figures at its end."""
    yield
    if SEEN:
        worst = max(c.max_error for c in SEEN)
        print(f"\n{len(SEEN)} gradchecks, {sum(c.comparisons for c in SEEN)} comparisons, largest error {worst:.2e}")


def check(operation: Op[Any] | Composite, sample: Sample, layouts: dict[int, Layout], order: int) -> GradientCheck:
    """gradcheck of one call whose floating inputs are read through `layouts`."""

    def call(*stored: Any) -> Any:
        return sample.call(operation, [_seen(a, layouts[i]) if i in layouts else a for i, a in enumerate(stored)])

    stored = [mg.Tensor(layouts[i].store(a), requires_grad=True) if i in layouts else a for i, a in enumerate(sample.args)]
    return mg.gradcheck(call, stored, order=order)


def _seen(tensor: mg.Tensor, layout: Layout) -> mg.Tensor:
    view = layout.view(tensor)
    view.array.flags.writeable = False
    return view


def test_every_operation_has_a_row() -> None:
    assert set(CASES) == set(PUBLIC)


@pytest.mark.parametrize("name", sorted(CASES))
@given(data=st.data())
def test_gradients(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])
    layouts = {i: data.draw(st.sampled_from(LAYOUTS)) for i in sample.floating}
    passed = check(PUBLIC[name], sample, layouts, order=2)
    assert passed
    SEEN.append(passed)
