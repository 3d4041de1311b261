"""Every operation and composite passes `minigrad.check_op` on samples of its row; a public name without a row fails.

`python -m pytest tests/ops/test_contract.py -s` prints the figures at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import MinigradError
from minigrad.gradcheck import GradientCheck
from minigrad.op import COMPOSITES, REGISTRY

SEEN: dict[str, list[GradientCheck]] = {}
"""Every passed check of this run, by operation."""


@pytest.fixture(scope="module", autouse=True)
def summary() -> Iterator[None]:
    yield
    checks = [check for found in SEEN.values() for check in found]
    if checks:
        where = max(SEEN, key=lambda name: max(c.max_error for c in SEEN[name]))
        print(
            f"\n{len(REGISTRY)} operations and {len(COMPOSITES)} composites, {len(checks)} calls, {sum(c.comparisons for c in checks)} "
            f"comparisons of first and second derivatives, largest error {max(c.max_error for c in checks):.2e} ({where})"
        )


def test_every_operation_has_a_row() -> None:
    assert set(CASES) == set(PUBLIC)


def test_every_public_function_is_an_operation_or_declared_to_have_no_gradient() -> None:
    """`functional` holds operations, composites, functions of the same names that check arguments first, and NON_DIFFERENTIABLE."""
    assert set(F.__all__) - set(PUBLIC) - set(ops.NON_DIFFERENTIABLE) == {"as_tensor"}


@pytest.mark.parametrize("name", sorted(CASES))
@given(data=st.data())
def test_contract(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])

    def call(*args: Any) -> Any:
        return sample.call(PUBLIC[name], args)

    passed = mg.check_op(call, sample.args, seed=data.draw(st.integers(0, 2**16)), same_dtype=name != "astype")
    SEEN.setdefault(name, []).append(passed)


ELEMENTWISE = sorted(name for name, operation in REGISTRY.items() if operation.spec.endswith("*s -> *s") and name != "astype")


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_zero_dimensions_and_no_elements(name: str, shape: tuple[int, ...]) -> None:
    count = REGISTRY[name].spec.split("->")[0].count("*s")
    constants: dict[str, Any] = {"transfer": {"device": "cpu"}, "clip": {"min": 0.0, "max": 1.0}}.get(name, {})
    args = [np.full(shape, 0.5 + i) for i in range(count)]
    if name == "where":
        args[0] = args[0] > 0.2
    leaves = [mg.Tensor(a, requires_grad=a.dtype.kind == "f") for a in args]
    out = REGISTRY[name](*leaves, **constants)
    assert out.shape == shape
    for found in mg.grad(out, [leaf for leaf in leaves if leaf.requires_grad], np.ones(shape)):
        assert found is not None and found.shape == shape


# ---------------------------------------------------------------- messages
def test_a_shape_error_names_operation_shapes_and_rule() -> None:
    with pytest.raises(MinigradError, match=r"add\(float64\[2\], float64\[3\]\).*\*s, \*s -> \*s"):
        REGISTRY["add"](np.zeros(2), mg.Tensor(np.zeros(3)))
