"""A block equals the sequence of its operations bit for bit: rows, gradients and dropped units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import CASES, Sample
from support import cpu_kernels, without_kernels

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import REGISTRY
from minigrad.packing import Packing


def attention_block(
    x: mg.Tensor, *parameters: mg.Tensor, first_only: bool, mixing: Any, draw: Any, eps: float, packing: Packing, **asked: Any
) -> mg.Tensor:
    asked |= {"packing": packing, "draw": mixing}
    if first_only:
        wq, wk, wv, bq, bk, bv = parameters[:6]
        first = F.take_rows(x, packing.first_rows)
        mixed = F.attention(F.linear(first, wq, bq), F.linears(x, wk, wv, bk, bv), queries=packing.first, **asked)
        return F.dense_add_norm(mixed, *parameters[6:8], first, *parameters[8:], draw=draw, eps=eps)
    mixed = F.attention(None, F.linears(x, *parameters[:6]), **asked)
    return F.dense_add_norm(mixed, *parameters[6:8], x, *parameters[8:], draw=draw, eps=eps)


def feed_forward(x: mg.Tensor, *parameters: mg.Tensor, approximate: str, draw: Any, eps: float) -> mg.Tensor:
    h = F.dense_gelu(x, *parameters[:2], approximate=approximate)
    return F.dense_add_norm(h, *parameters[2:4], x, *parameters[4:], draw=draw, eps=eps)


PARTS = {"attention_block": attention_block, "feed_forward": feed_forward}

each = pytest.mark.parametrize("name", PARTS)


def evaluated(function: Any, sample: Sample, recorded: bool = True) -> list[np.ndarray]:
    """The resulting rows, and the gradient of each argument."""
    inputs = [mg.Tensor(a, requires_grad=recorded) for a in sample.args]
    y = function(*inputs, **sample.constants)
    if not recorded:
        return [y.numpy()]
    g = mg.Tensor(np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype))
    (y * g).sum().backward()
    return [y.numpy(), *[x.grad.numpy() for x in inputs if x.grad is not None]]


@each
@given(data=st.data())
def test_a_block_is_its_parts_bit_for_bit(name: str, data: st.DataObject) -> None:
    cpu_kernels()
    sample = data.draw(CASES[name])
    single = sample.in_float32()
    for given_, same in ((sample, evaluated), (single, evaluated), (single, lambda f, s: evaluated(f, s, recorded=False))):
        ours, parts = same(REGISTRY[name], given_), same(PARTS[name], given_)
        assert len(ours) == len(parts)
        for mine, theirs in zip(ours, parts, strict=True):
            np.testing.assert_array_equal(mine, theirs, strict=True)


@each
@given(data=st.data())
def test_second_derivatives_are_those_of_its_parts(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])

    def twice(function: Any) -> list[np.ndarray]:
        inputs = [mg.Tensor(a, requires_grad=True) for a in sample.args]
        with mg.higher_order():
            first = mg.grad((function(*inputs, **sample.constants) ** 2).sum(), inputs[0], create_graph=True)
            found = mg.grad((first**2).sum(), inputs)
        return [x.numpy() for x in found if x is not None]

    for mine, theirs in zip(twice(REGISTRY[name]), twice(PARTS[name]), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(np.abs(theirs).max(initial=1.0)))


@each
def test_a_block_whose_input_and_most_weights_are_frozen(name: str) -> None:
    """The gradients of the others do not change."""
    rng = np.random.default_rng(0)
    packing = Packing([3, 2])
    shapes = {
        "attention_block": [(5, 4), *[(4, 4)] * 3, *[(4,)] * 3, (4, 4), *[(4,)] * 3],
        "feed_forward": [(5, 4), (6, 4), (6,), (4, 6), *[(4,)] * 3],
    }
    constants = {"packing": packing, "heads": 2} if name == "attention_block" else {}
    arrays = [rng.standard_normal(shape) for shape in shapes[name]]

    def gradients(wanted: set[int]) -> dict[int, np.ndarray]:
        inputs = [mg.Tensor(a, requires_grad=i in wanted) for i, a in enumerate(arrays)]
        (REGISTRY[name](*inputs, **constants) ** 3).sum().backward()
        return {i: x.grad.numpy() for i, x in enumerate(inputs) if x.grad is not None}

    everything = gradients(set(range(len(arrays))))
    for i in range(len(arrays)):
        [(place, found)] = gradients({i}).items()
        assert place == i
        np.testing.assert_array_equal(found, everything[i])


def test_first_rows_of_a_causal_model_are_refused() -> None:
    """They would attend to the rows that follow them."""
    parameters = [*[np.ones((2, 2))] * 3, *[np.ones(2)] * 3, np.ones((2, 2)), *[np.ones(2)] * 3]
    with pytest.raises(ArgumentError, match="compute all rows"):
        F.attention_block(np.ones((3, 2)), *parameters, packing=Packing([3]), first_only=True, heads=1, causal=True)


@each
def test_rows_that_cannot_be_added_to_the_input_are_refused(name: str) -> None:
    x = np.ones((2, 1))
    args = {
        "attention_block": [*[np.ones((3, 1))] * 3, *[np.ones(3)] * 3, np.ones((3, 3))],
        "feed_forward": [np.ones((3, 1)), np.ones(3), np.ones((3, 3))],
    }
    constants = {"packing": Packing([2]), "heads": 1} if name == "attention_block" else {}
    with pytest.raises(ShapeError, match=rf"{name}: weight \(3, 3\) .* gives no rows like those of x \(2, 1\)"):
        REGISTRY[name](x, *args[name], np.ones(3), np.ones(3), np.ones(3), **constants)
    with without_kernels(), pytest.raises(ShapeError, match=name):
        REGISTRY[name](x[None], *args[name], np.ones(3), np.ones(3), np.ones(3), **constants)
