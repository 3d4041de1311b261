"""Every layer's first and second derivatives with respect to inputs and parameters, against central differences in float64.

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
from minigrad.gradcheck import FULL
from minigrad.packing import Packing

BROAD = max(10, settings().max_examples // 4)
"""Examples for layers around one operation, which has a whole row of samples of its own."""
FEW = max(3, BROAD // 5)
"""Examples for blocks of several layers: each checks some hundred derivatives, and what they are made of is checked broadly."""

smooth = st.sampled_from(["gelu", "gelu_new", "tanh", "sigmoid", "silu"])  # relu has a kink, where differences cannot judge
rates = st.sampled_from([0.0, 0.4])
EPS = 0.1
"""Of the norms of encoders and decoders. Rows of three numbers may be nearly constant, and a row's third derivative, which spoils
differences, is about eps^(-3/2) for each norm it passes through."""


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
    padded = draw(st.booleans())  # by a row that no id names: differences see its value, of which the gradient says nothing
    layer = nn.Embedding(rows + padded, draw(st.integers(1, 3)), rows if padded else None)
    return Sample(layer, (), lambda layer: layer(np.array(ids, np.int64)))


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
def LeakyReLU(draw: Any) -> Sample:
    return Sample(nn.LeakyReLU(draw(st.sampled_from([0.0, 0.01, 0.5]))), (draw(arrays(shapes(), "nonzero")),))


@row()
def Sigmoid(draw: Any) -> Sample:
    return Sample(nn.Sigmoid(), (draw(arrays(shapes())),))


@row()
def SiLU(draw: Any) -> Sample:
    return Sample(nn.SiLU(), (draw(arrays(shapes())),))


@row()
def Softplus(draw: Any) -> Sample:
    return Sample(nn.Softplus(), (draw(arrays(shapes(), "nonzero")),))


@row()
def Softmax(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=1))
    return Sample(nn.Softmax(draw(st.integers(-len(shape), len(shape) - 1))), (draw(arrays(shape)),))


@row()
def LogSoftmax(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=1))
    return Sample(nn.LogSoftmax(draw(st.integers(-len(shape), len(shape) - 1))), (draw(arrays(shape)),))


@row()
def Sequential(draw: Any) -> Sample:
    n, m = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Sample(nn.Sequential(nn.Linear(n, m), nn.Tanh(), nn.Linear(m, 2, bias=False)), (draw(arrays((2, n))),))


reductions = st.sampled_from(["mean", "sum", "none"])


def classified(draw: Any) -> tuple[np.ndarray, int, Any]:
    """Labels of which the first counts, the number of classes, and class weights or None."""
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    labels[1:] = np.where(draw(st.booleans()), -100, labels[1:])
    return labels, classes, draw(arrays((classes,), "positive")) if draw(st.booleans()) else None


def spatial(draw: Any, channels: int, sides: tuple[int, ...]) -> np.ndarray:
    """A batch with these channels and sides; numbers far enough apart for maxima and variances."""
    return np.asarray(draw(arrays((draw(st.integers(1, 2)), channels, *sides), "distinct")))


@row()
def Conv1d(draw: Any) -> Sample:
    groups = draw(st.integers(1, 2))
    layer = nn.Conv1d(2, 2, 2, draw(st.integers(1, 2)), draw(st.integers(0, 1)), draw(st.integers(1, 2)), groups, draw(st.booleans()))
    return Sample(layer, (spatial(draw, 2, (draw(st.integers(3, 4)),)),))


@row()
def Conv2d(draw: Any) -> Sample:
    layer = nn.Conv2d(1, 2, (2, 1), padding=draw(st.sampled_from([0, 1, "same"])), bias=draw(st.booleans()))
    return Sample(layer, (spatial(draw, 1, (draw(st.integers(2, 3)), 2)),))


@row()
def MaxPool1d(draw: Any) -> Sample:
    return Sample(nn.MaxPool1d(2, draw(st.sampled_from([None, 1])), draw(st.integers(0, 1))), (spatial(draw, 1, (4,)),))


@row()
def MaxPool2d(draw: Any) -> Sample:
    return Sample(nn.MaxPool2d(2, draw(st.sampled_from([None, 1])), draw(st.integers(0, 1))), (spatial(draw, 1, (2, 3)),))


@row()
def AvgPool1d(draw: Any) -> Sample:
    layer = nn.AvgPool1d(2, draw(st.sampled_from([None, 1])), draw(st.integers(0, 1)), draw(st.booleans()))
    return Sample(layer, (spatial(draw, 1, (4,)),))


@row()
def AvgPool2d(draw: Any) -> Sample:
    layer = nn.AvgPool2d(2, draw(st.sampled_from([None, 1])), draw(st.integers(0, 1)), draw(st.booleans()))
    return Sample(layer, (spatial(draw, 1, (2, 3)),))


def batch_norm(draw: Any, build: Any, sides: tuple[int, ...]) -> Sample:
    """Training, or evaluation with running statistics; a training pass moves those, on which its own result does not depend."""
    layer = build(2, draw(st.sampled_from([1e-5, 0.1])), affine=draw(st.booleans())).train(draw(st.booleans()))
    layer.running_mean.assign([0.5, -1.0])
    layer.running_var.assign([0.5, 2.0])
    return Sample(layer, (np.asarray(draw(arrays((draw(st.integers(2, 3)), 2, *sides), "distinct"))),))


@row()
def BatchNorm1d(draw: Any) -> Sample:
    return batch_norm(draw, nn.BatchNorm1d, draw(st.sampled_from([(), (2,)])))


@row()
def BatchNorm2d(draw: Any) -> Sample:
    return batch_norm(draw, nn.BatchNorm2d, draw(st.sampled_from([(1, 1), (1, 2)])))


@row()
def GroupNorm(draw: Any) -> Sample:
    layer = nn.GroupNorm(draw(st.sampled_from([1, 2, 4])), 4, draw(st.sampled_from([1e-5, 0.1])), draw(st.booleans()))
    return Sample(layer, (spatial(draw, 4, draw(shapes(max_dims=2, min_side=1, max_side=2))),))


@row()
def RMSNorm(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=1, max_size=12))
    return Sample(nn.RMSNorm(shape[-1], draw(st.sampled_from([1e-6, 0.1])), draw(st.booleans())), (draw(arrays(shape, "nonzero")),))


@row()
def Flatten(draw: Any) -> Sample:
    return Sample(nn.Flatten(draw(st.integers(0, 1))), (draw(arrays(shapes(min_dims=2))),))


@row()
def Identity(draw: Any) -> Sample:
    return Sample(nn.Identity(), (draw(arrays(shapes())),))


@row()
def CrossEntropyLoss(draw: Any) -> Sample:
    labels, classes, weight = classified(draw)
    layer = nn.CrossEntropyLoss(weight, reduction=draw(reductions), label_smoothing=draw(st.sampled_from([0.0, 0.1])))
    return Sample(layer, (draw(arrays((len(labels), classes))),), lambda layer, x: layer(x, labels))


@row()
def NLLLoss(draw: Any) -> Sample:
    labels, classes, weight = classified(draw)
    layer = nn.NLLLoss(weight, reduction=draw(reductions))
    return Sample(layer, (draw(arrays((len(labels), classes))),), lambda layer, x: layer(x, labels))


@row()
def BCEWithLogitsLoss(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=1))
    weight, pos_weight = (draw(arrays(shape[-1:], "positive")) if draw(st.booleans()) else None for _ in range(2))
    layer = nn.BCEWithLogitsLoss(weight, pos_weight, draw(reductions))
    return Sample(layer, (draw(arrays(shape)), draw(arrays(shape, "positive")) / 2.0))


@row()
def MSELoss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1))
    return Sample(nn.MSELoss(draw(reductions)), (draw(arrays(shape)), draw(arrays(shape))))


@row()
def L1Loss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1))
    return Sample(nn.L1Loss(draw(reductions)), (draw(arrays(shape, "tenths")), draw(arrays(shape, "between tenths"))))


@row()
def HuberLoss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1))
    layer = nn.HuberLoss(draw(reductions), delta=draw(st.sampled_from([0.5, 1.0])))  # never the difference of the two domains
    return Sample(layer, (draw(arrays(shape, "tenths")), draw(arrays(shape, "between tenths"))))


@row()
def SmoothL1Loss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1))
    layer = nn.SmoothL1Loss(draw(reductions), beta=draw(st.sampled_from([0.5, 1.0])))
    return Sample(layer, (draw(arrays(shape, "tenths")), draw(arrays(shape, "between tenths"))))


@row()
def KLDivLoss(draw: Any) -> Sample:
    shape, log_target = draw(shapes(min_dims=1, min_side=1)), draw(st.booleans())
    layer = nn.KLDivLoss(draw(st.sampled_from(["mean", "sum", "none", "batchmean"])), log_target)
    return Sample(layer, (draw(arrays(shape)), draw(arrays(shape, "real" if log_target else "positive"))))


@row()
def CosineSimilarity(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, min_side=1, max_size=16))
    layer = nn.CosineSimilarity(draw(st.integers(-len(shape), len(shape) - 1)))
    return Sample(layer, (draw(arrays(shape, "nonzero")), draw(arrays(shape, "nonzero"))))


def packed_or_padded(draw: Any, layer: nn.Module, dim: int) -> Sample:
    """The layer on packed rows, or on a padded array with holes and masked first columns in its mask."""
    if draw(st.booleans()):
        packing = draw(packings(max_sequences=2, max_length=3))
        return Sample(layer, (draw(arrays((packing.rows, dim), "distinct")) / 2.0,), lambda layer, x: layer(x, packing))
    batch, longest = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    mask = np.array(draw(st.lists(st.lists(st.integers(0, 1), min_size=longest, max_size=longest), min_size=batch, max_size=batch)))
    mask[~mask.any(axis=1), -1] = 1
    return Sample(layer, (draw(arrays((batch, longest, dim), "distinct")) / 2.0,), lambda layer, x: layer(x, attention_mask=mask))


def beside_a_memory(draw: Any, layer: nn.Module, dim: int) -> Sample:
    """The layer with a memory of as many sequences of other lengths, each of the two packed or padded."""
    batch, how = draw(st.integers(1, 2)), {}

    def rows(packing: str, mask: str) -> np.ndarray:
        lengths = draw(st.lists(st.integers(1, 3), min_size=batch, max_size=batch))
        if draw(st.booleans()):
            how[packing] = Packing(lengths)
            return draw(arrays((sum(lengths), dim), "distinct")) / 2.0
        how[mask] = np.array([[max(lengths) - n <= i for i in range(max(lengths))] for n in lengths])  # padded on the left
        return draw(arrays((batch, max(lengths), dim), "distinct")) / 2.0

    inputs = rows("packing", "attention_mask"), rows("memory_packing", "memory_mask")
    return Sample(layer, inputs, lambda layer, x, memory: layer(x, memory=memory, **how))


@row(examples=FEW)
def MultiHeadAttention(draw: Any) -> Sample:
    heads, bias, causal = draw(st.sampled_from([1, 2, 4])), draw(st.booleans()), draw(st.booleans())
    layer = nn.MultiHeadAttention(4, heads, draw(rates), bias, causal)
    return beside_a_memory(draw, layer, 4) if draw(st.booleans()) else packed_or_padded(draw, layer, 4)


@row(examples=FEW)
def TransformerEncoderLayer(draw: Any) -> Sample:
    heads, first, causal = draw(st.sampled_from([1, 3])), draw(st.booleans()), draw(st.booleans())
    return packed_or_padded(draw, nn.TransformerEncoderLayer(3, heads, 2, draw(rates), draw(smooth), first, EPS, causal), 3)


@row(examples=max(2, FEW // 2))
def TransformerEncoder(draw: Any) -> Sample:
    layers, heads = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3]))
    encoder = nn.TransformerEncoder(layers, 3, heads, 2, draw(rates), draw(smooth), draw(st.booleans()), EPS, draw(st.booleans()))
    return packed_or_padded(draw, encoder, 3)


@row(examples=FEW)
def TransformerDecoderLayer(draw: Any) -> Sample:
    layer = nn.TransformerDecoderLayer(3, draw(st.sampled_from([1, 3])), 2, draw(rates), draw(smooth), draw(st.booleans()), EPS)
    return beside_a_memory(draw, layer, 3)


@row(examples=max(2, FEW // 2))
def TransformerDecoder(draw: Any) -> Sample:
    layers, heads = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3]))
    decoder = nn.TransformerDecoder(layers, 3, heads, 2, draw(rates), draw(smooth), draw(st.booleans()), EPS)
    return beside_a_memory(draw, decoder, 3)


def recurrent(draw: Any, make: Callable[..., nn.Module]) -> Sample:
    """Packed or padded, from zeros or given first states; the last states are outputs too."""
    layer = make(2, 1, draw(st.integers(1, 2)), bias=draw(st.booleans()), dropout=draw(rates), bidirectional=draw(st.booleans()))
    sample = packed_or_padded(draw, layer, 2)
    _, last = sample.call(layer, mg.Tensor(sample.inputs[0]))
    pair = isinstance(last, tuple)
    shapes_of_states = [s.shape for s in (last if pair else [last])]
    initial = [draw(arrays(shape)) for shape in shapes_of_states] if draw(st.booleans()) else []

    def call(layer: Any, x: mg.Tensor, *state: mg.Tensor) -> Any:
        start = None if not state else state if pair else state[0]
        y, last = sample.call(lambda *args, **how: layer(*args, **how, state=start), x)
        return (y, *last) if pair else (y, last)

    return Sample(layer, (*sample.inputs, *initial), call)


@row(examples=FEW)
def LSTM(draw: Any) -> Sample:
    return recurrent(draw, nn.LSTM)


@row(examples=FEW)
def GRU(draw: Any) -> Sample:
    return recurrent(draw, nn.GRU)


@row(examples=FEW)
def RNN(draw: Any) -> Sample:
    return recurrent(draw, nn.RNN)  # with tanh: relu has a kink


LAYERS = {
    name
    for name in nn.__all__
    if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module) and name != "Module"  # the base computes nothing
}


def test_every_public_layer_has_a_row() -> None:
    assert ROWS.keys() == LAYERS


def check(sample: Sample, order: int) -> Any:
    """gradcheck of one call as a function of the inputs and of all parameters, which are put in place of the layer's own.

    More than 64 parameters go in as one vector, which is moved along random directions: each operation's derivative is checked number by
    number elsewhere, here it is whether the layer has put them together.
    """
    sample.layer.to("float64")
    named = sample.layer.named_parameters()
    generator = np.random.default_rng(0)
    points = [DOMAINS["real"](generator, p.shape) / 2.0 for _, p in named]
    edges = np.cumsum([0, *(point.size for point in points)])
    together = edges[-1] > FULL

    def function(*args: mg.Tensor) -> mg.Tensor:
        for k, (name, p) in enumerate(named):
            put(sample.layer, name, args[0][edges[k] : edges[k + 1]].reshape(p.shape) if together else args[k])
        return sample.call(sample.layer, *args[1 if together else len(named) :])

    if together:
        points = [np.concatenate([point.reshape(-1) for point in points])]
    return mg.gradcheck(function, [mg.Tensor(x, requires_grad=True) for x in (*points, *sample.inputs)], order=order)


def put(module: Any, name: str, tensor: mg.Tensor) -> None:
    """Set the attribute at a dotted path, past the check that nothing else takes a parameter's place."""
    *way, last = name.split(".")
    for part in way:
        module = module[int(part)] if isinstance(module, list) else getattr(module, part)
    vars(module)[last] = tensor


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
