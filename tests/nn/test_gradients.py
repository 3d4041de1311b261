"""Every layer's first and second derivative, by its inputs and by each parameter, against central differences in float64.

The table must hold every public layer of `minigrad.nn`: a new layer without a row fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DOMAINS, arrays, packings, shapes

import minigrad as mg
from minigrad import nn, ops
from minigrad.errors import GradientCheckError

BROAD = settings().max_examples
FEW = max(3, BROAD // 20)
"""Examples for blocks of several layers: each checks some hundred derivatives, and what they are made of is checked broadly."""

smooth = st.sampled_from(["gelu", "gelu_new", "tanh", "sigmoid"])  # relu has a kink, where differences cannot judge
rates = st.sampled_from([0.0, 0.4])


@dataclass(frozen=True)
class Sample:
    """A layer, its floating inputs, and how to call it with them."""

    layer: nn.Module
    inputs: tuple[np.ndarray, ...]
    call: Callable[..., mg.Tensor] = lambda layer, *inputs: layer(*inputs)


ROWS: dict[str, tuple[Callable[..., Sample], int]] = {}


def row(*, examples: int = BROAD) -> Callable[..., Any]:
    """Register a function from Hypothesis' draw to a sample as the row of the layer it is named after."""

    def register(function: Callable[..., Sample]) -> Callable[..., Sample]:
        ROWS[function.__name__] = (st.composite(function), examples)
        return function

    return register


@row()
def Linear(draw: Any) -> Sample:
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    lead = draw(shapes(max_dims=2, max_size=6))
    return Sample(nn.Linear(n, m, draw(st.booleans())), (draw(arrays((*lead, n))),))


@row()
def Embedding(draw: Any) -> Sample:
    rows = draw(st.integers(1, 5))
    ids = draw(st.lists(st.integers(0, rows - 1), max_size=6))
    return Sample(nn.Embedding(rows, draw(st.integers(1, 3))), (), lambda layer: layer(np.array(ids, np.int64)))


@row()
def LayerNorm(draw: Any) -> Sample:
    d = draw(st.integers(2, 5))
    lead = draw(shapes(max_dims=2, max_size=6))
    return Sample(nn.LayerNorm(d, draw(st.sampled_from([1e-12, 1e-5, 0.1]))), (draw(arrays((*lead, d), "distinct")),))


@row()
def Dropout(draw: Any) -> Sample:
    if draw(st.booleans()):
        return Sample(nn.Dropout(draw(st.sampled_from([0.0, 0.3, 1.0]))), (draw(arrays(shapes())),))
    packing = draw(packings())
    x = draw(arrays((packing.rows, draw(st.integers(1, 4)))))
    return Sample(nn.Dropout(draw(st.sampled_from([0.3, 0.9]))), (x,), lambda layer, x: layer(x, packing))


@row()
def GELU(draw: Any) -> Sample:
    return Sample(nn.GELU(draw(st.sampled_from(["none", "tanh"]))), (draw(arrays(shapes())),))


@row()
def Tanh(draw: Any) -> Sample:
    return Sample(nn.Tanh(), (draw(arrays(shapes())),))


@row()
def ReLU(draw: Any) -> Sample:
    return Sample(nn.ReLU(), (draw(arrays(shapes(), "nonzero")),))


@row()
def Sequential(draw: Any) -> Sample:
    n, m = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Sample(nn.Sequential(nn.Linear(n, m), nn.Tanh(), nn.Linear(m, 2, bias=False)), (draw(arrays((2, n))),))


@row()
def CrossEntropyLoss(draw: Any) -> Sample:
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    labels[1:] = np.where(draw(st.booleans()), -100, labels[1:])
    layer = nn.CrossEntropyLoss(label_smoothing=draw(st.sampled_from([0.0, 0.1])))
    return Sample(layer, (draw(arrays((n, classes))),), lambda layer, x: layer(x, labels))


@row()
def MSELoss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1))
    return Sample(nn.MSELoss(), (draw(arrays(shape)), draw(arrays(shape))))


def packed_or_padded(draw: Any, layer: nn.Module, dim: int) -> Sample:
    """The layer on packed rows, or on a padded array with holes and masked first columns in its mask."""
    if draw(st.booleans()):
        packing = draw(packings(max_sequences=2, max_length=3))
        return Sample(layer, (draw(arrays((packing.rows, dim), "distinct")) / 2.0,), lambda layer, x: layer(x, packing))
    batch, longest = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    mask = np.array(draw(st.lists(st.lists(st.integers(0, 1), min_size=longest, max_size=longest), min_size=batch, max_size=batch)))
    mask[~mask.any(axis=1), -1] = 1
    return Sample(layer, (draw(arrays((batch, longest, dim), "distinct")) / 2.0,), lambda layer, x: layer(x, attention_mask=mask))


@row(examples=FEW)
def MultiHeadAttention(draw: Any) -> Sample:
    heads, bias = draw(st.sampled_from([1, 2, 4])), draw(st.booleans())
    return packed_or_padded(draw, nn.MultiHeadAttention(4, heads, draw(rates), bias), 4)


@row(examples=FEW)
def TransformerEncoderLayer(draw: Any) -> Sample:
    layer = nn.TransformerEncoderLayer(3, draw(st.sampled_from([1, 3])), 2, draw(rates), draw(smooth), draw(st.booleans()), 1e-2)
    return packed_or_padded(draw, layer, 3)


@row(examples=max(2, FEW // 2))
def TransformerEncoder(draw: Any) -> Sample:
    layers, heads = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3]))
    encoder = nn.TransformerEncoder(layers, 3, heads, 2, draw(rates), draw(smooth), draw(st.booleans()), 1e-2)
    return packed_or_padded(draw, encoder, 3)


LAYERS = {
    name
    for name in nn.__all__
    if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module) and name != "Module"  # the base computes nothing
}


def test_every_public_layer_has_a_row() -> None:
    assert ROWS.keys() == LAYERS


def check(sample: Sample, order: int) -> Any:
    """gradcheck of one call as a function of the inputs and of all parameters, which are put in place of the layer's own."""
    sample.layer.to("float64")
    named = sample.layer.named_parameters()
    generator = np.random.default_rng(0)
    points = [DOMAINS["real"](generator, p.shape) / 2.0 for _, p in named]

    def function(*args: mg.Tensor) -> mg.Tensor:
        for (name, _), tensor in zip(named, args, strict=False):
            put(sample.layer, name, tensor)
        return sample.call(sample.layer, *args[len(named) :])

    return mg.gradcheck(function, [mg.Tensor(x, requires_grad=True) for x in (*points, *sample.inputs)], order=order)


def put(module: Any, name: str, tensor: mg.Tensor) -> None:
    """Set the attribute at a dotted path."""
    *way, last = name.split(".")
    for part in way:
        module = module[int(part)] if isinstance(module, list) else getattr(module, part)
    setattr(module, last, tensor)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_first_and_second_derivatives(name: str) -> None:
    samples, examples = ROWS[name]

    @settings(max_examples=examples)
    @given(sample=samples())
    def run(sample: Sample) -> None:
        check(sample, order=2)

    run()


def test_a_wrong_derivative_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: one percent too much on the way back through the linear layers inside an encoder is noticed."""
    real = ops.linear.body

    def wrong(xp: Any, *arrays: Any) -> Any:
        y, (by_x, by_weight, by_bias) = real(xp, *arrays)
        return y, (lambda g: by_x(g) * 1.01, by_weight, by_bias)

    monkeypatch.setattr(ops.linear, "body", wrong)
    monkeypatch.setitem(ops.linear._asks_keep, wrong, False)
    x = DOMAINS["distinct"](np.random.default_rng(0), (2, 2, 3))
    with pytest.raises(GradientCheckError, match="gradient of input"):
        check(Sample(nn.TransformerEncoder(1, 3, 1, 2, 0.0), (x,)), order=1)
