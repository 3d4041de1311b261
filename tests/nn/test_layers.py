"""Each layer's forward pass against its formula in NumPy, padded against packed, and invalid arguments."""

from __future__ import annotations

from math import erf, pi, sqrt
from typing import Any

import numpy as np
import pytest
import scipy.special
from support import absolute_error, gradient_errors, gradients_of

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.backend import random
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.packing import PackedTokens, Packing

EXACT = 1e-13
"""Float64 rounding of the same few sums in another order."""

MASKS = {
    "none": None,
    "ragged": np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]),
    "holes": np.array([[1, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]]),
    "masked first": np.array([[0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]]),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ready(layer: Any, seed: int = 5) -> Any:
    """In float64, every parameter random: no term is hidden behind a zero bias or a weight of one."""
    for parameter in layer.to("float64").parameters():
        parameter.assign(0.5 * rng(seed).standard_normal(parameter.shape) + 0.2)
        seed += 1
    return layer


def array(parameter: mg.Tensor) -> np.ndarray:
    return np.array(parameter.numpy())


# ---------------------------------------------------------------- the formulas
def numpy_linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return np.einsum("...k,mk->...m", x, array(layer.weight)) + (0.0 if layer.bias is None else array(layer.bias))


def numpy_norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + layer.eps) * array(layer.weight) + array(layer.bias)


def numpy_attention(layer: nn.MultiHeadAttention, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Padded attention, sequence by sequence, head by head, query by query; zeros at the pads."""
    d = x.shape[2] // layer.heads
    out = np.zeros_like(x)
    q, k, v = (numpy_linear(part, x) for part in (layer.query, layer.key, layer.value))
    for b, i in zip(*np.nonzero(mask), strict=True):
        keys = np.flatnonzero(mask[b])
        mixed = []
        for h in range(layer.heads):
            part = slice(h * d, (h + 1) * d)
            scores = np.array([q[b, i, part] @ k[b, j, part] / sqrt(d) for j in keys])
            weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            mixed.append(sum(w * v[b, j, part] for w, j in zip(weights, keys, strict=True)))
        out[b, i] = numpy_linear(layer.output, np.concatenate(mixed))
    return out


def numpy_gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(sqrt(2.0 / pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1.0 + np.vectorize(erf)(x / sqrt(2.0)))


FUNCTIONS = {"gelu": numpy_gelu, "gelu_new": lambda x: numpy_gelu(x, "tanh"), "relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}


def numpy_encoder_layer(layer: nn.TransformerEncoderLayer, x: np.ndarray, mask: np.ndarray, activation: str) -> np.ndarray:
    def feed_forward(y: np.ndarray) -> np.ndarray:
        return numpy_linear(layer.linear2, FUNCTIONS[activation](numpy_linear(layer.linear1, y)))

    if layer.norm_first:
        x = x + numpy_attention(layer.attention, numpy_norm(layer.norm1, x), mask)
        x = x + feed_forward(numpy_norm(layer.norm2, x))
    else:
        x = numpy_norm(layer.norm1, x + numpy_attention(layer.attention, x, mask))
        x = numpy_norm(layer.norm2, x + feed_forward(x))
    return x * (mask[:, :, None] != 0)


# ---------------------------------------------------------------- layers one by one
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    layer, x = ready(nn.Linear(3, 4, bias)), rng().standard_normal((*lead, 3))
    assert absolute_error(layer(mg.Tensor(x)).numpy(), numpy_linear(layer, x)) < EXACT


@pytest.mark.parametrize("ids", [3, [0, 4, 4], [[1, 2], [3, 0]], np.zeros((2, 0), np.int64)])
def test_embedding(ids: Any) -> None:
    layer = ready(nn.Embedding(5, 2))
    np.testing.assert_array_equal(layer(ids).numpy(), array(layer.weight)[np.asarray(ids)])


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.5])
def test_layer_norm(lead: tuple[int, ...], eps: float) -> None:
    layer, x = ready(nn.LayerNorm(4, eps)), rng().standard_normal((*lead, 4))
    assert absolute_error(layer(mg.Tensor(x)).numpy(), numpy_norm(layer, x)) < EXACT


def test_activations() -> None:
    x = np.linspace(-6.0, 6.0, 40).reshape(4, 10)
    layers = {nn.GELU(): "gelu", nn.GELU("tanh"): "gelu_new", nn.ReLU(): "relu", nn.Tanh(): "tanh"}
    for layer, name in layers.items():
        assert absolute_error(layer(mg.Tensor(x)).numpy(), FUNCTIONS[name](x)) < EXACT, layer


def test_activations_against_scipy() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 4.0
    gate = scipy.special.expit(x)
    for layer, expected in (
        (nn.Sigmoid(), gate),
        (nn.SiLU(), x * gate),
        (nn.activation.activation("swish"), x * gate),
        (nn.Softplus(), np.logaddexp(0.0, x)),
        (nn.LeakyReLU(0.2), np.where(x > 0, x, 0.2 * x)),
        (nn.Softmax(), scipy.special.softmax(x, axis=-1)),
        (nn.Softmax(1), scipy.special.softmax(x, axis=1)),
        (nn.LogSoftmax(0), scipy.special.log_softmax(x, axis=0)),
    ):
        np.testing.assert_allclose(layer(mg.Tensor(x)).numpy(), expected, rtol=1e-13, atol=1e-15)


def test_losses() -> None:
    logits, labels = rng().standard_normal((4, 3)), np.array([0, 2, -7, 1])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kept = [0, 1, 3]
    picked = -logs[kept, labels[kept]]
    assert nn.CrossEntropyLoss(ignore_index=-7)(mg.Tensor(logits), labels).item() == pytest.approx(picked.mean(), rel=1e-14)
    smoothed = 0.9 * picked - 0.1 * logs[kept].mean(axis=1)
    loss = nn.CrossEntropyLoss(ignore_index=-7, label_smoothing=0.1)(mg.Tensor(logits), labels)
    assert loss.item() == pytest.approx(smoothed.mean(), rel=1e-14)
    targets = rng(1).standard_normal((4, 3))
    assert nn.MSELoss()(mg.Tensor(logits), targets).item() == pytest.approx(((logits - targets) ** 2).mean(), rel=1e-14)


def test_sequential_takes_layers_and_functions() -> None:
    first, last, x = ready(nn.Linear(3, 2)), ready(nn.Linear(2, 1), 9), rng().standard_normal((4, 3))
    chain = nn.Sequential(first, lambda y: y * 2.0, nn.Tanh(), last)
    expected = numpy_linear(last, np.tanh(2.0 * numpy_linear(first, x)))
    assert absolute_error(chain(mg.Tensor(x)).numpy(), expected) < EXACT
    assert [name for name, _ in chain.named_parameters()] == ["layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias"]
    assert nn.Sequential()(x) is x


def test_sequential_is_indexed_as_a_list() -> None:
    layers = [nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)]
    model = nn.Sequential(*layers)
    assert len(model) == 3 and list(model) == layers and layers[1] in model and len(nn.Sequential()) == 0
    assert model[0] is layers[0] and model[-1] is layers[2] and model[np.int64(1)] is layers[1]
    assert list(model.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (3, IndexRangeError, "there is no layer 3, it has 2"),
        (-3, IndexRangeError, "there is no layer -3, it has 2"),
        ("0", DTypeError, "an index is an integer, got '0'"),
        (1.0, DTypeError, "an index is an integer, got 1.0"),
        (slice(1), DTypeError, r"a part is nn.Sequential\(\*list\(model\)\[a:b\]\)"),
    ],
)
def test_layers_that_a_sequential_lacks(index: Any, error: type[MinigradError], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Sequential(nn.Tanh(), nn.Tanh())[index]


# ---------------------------------------------------------------- dropout
def test_dropout_drops_and_scales() -> None:
    x = np.arange(1.0, 20_001.0).reshape(200, 100)
    layer = nn.Dropout(0.25)
    y = layer(mg.Tensor(x)).numpy()
    scale = 65536 / (65536 - 16384)  # the exact inverse of the probability in steps of 1/65536
    np.testing.assert_array_equal(y, np.where(y == 0, 0.0, x * scale))
    assert abs((y == 0).mean() - 0.25) < 0.02  # six standard deviations of 20000 draws
    assert (layer(mg.Tensor(x)).numpy() != y).any()  # the next draw is another one
    layer.eval()
    tensor = mg.Tensor(x)
    assert layer(tensor) is tensor


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3), (0, 3)])
def test_dropout_at_the_ends_of_its_range(shape: tuple[int, ...]) -> None:
    x = mg.Tensor(np.ones(shape))
    assert nn.Dropout(0.0)(x) is x
    np.testing.assert_array_equal(nn.Dropout(1.0)(x).numpy(), np.zeros(shape))


def test_dropout_of_packed_rows_does_not_depend_on_the_batch() -> None:
    layer, x = nn.Dropout(0.5), rng().standard_normal((7, 5))

    def drop(rows: Any, lengths: list[int], numbers: list[int]) -> np.ndarray:
        with random.at(seed=3, step=9):
            return np.array(layer(mg.Tensor(x[rows]), Packing(lengths, numbers)).numpy())

    whole = drop(slice(None), [4, 1, 2], [0, 1, 2])
    np.testing.assert_array_equal(drop([5, 6, 0, 1, 2, 3], [2, 4], [2, 0]), whole[[5, 6, 0, 1, 2, 3]])
    np.testing.assert_array_equal(drop([4], [1], [1]), whole[[4]])


# ---------------------------------------------------------------- attention and encoders
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_attention(heads: int, mask: str) -> None:
    layer, x = ready(nn.MultiHeadAttention(6, heads)), rng().standard_normal((3, 4, 6))
    dense = np.ones((3, 4)) if MASKS[mask] is None else MASKS[mask]
    assert absolute_error(layer(mg.Tensor(x), attention_mask=MASKS[mask]).numpy(), numpy_attention(layer, x, dense)) < EXACT


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_encoder_layer(mask: str, norm_first: bool, activation: str) -> None:
    layer = ready(nn.TransformerEncoderLayer(6, 2, 5, 0.0, activation, norm_first))
    x = rng().standard_normal((3, 4, 6))
    dense = np.ones((3, 4)) if MASKS[mask] is None else MASKS[mask]
    expected = numpy_encoder_layer(layer, x, dense, activation)
    assert absolute_error(layer(mg.Tensor(x), attention_mask=MASKS[mask]).numpy(), expected) < 1e-12  # outputs of order 10


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_its_layers_and_for_pre_norm_a_last_norm(norm_first: bool) -> None:
    encoder = ready(nn.TransformerEncoder(3, 6, 2, 5, 0.0, norm_first=norm_first))
    x, mask = rng().standard_normal((3, 4, 6)), MASKS["holes"]
    expected = x
    for layer in encoder.layers:
        expected = numpy_encoder_layer(layer, expected, mask, "gelu")
    if encoder.norm is not None:
        expected = numpy_norm(encoder.norm, expected) * mask[:, :, None]
    assert (encoder.norm is not None) == norm_first
    assert absolute_error(encoder(mg.Tensor(x), attention_mask=mask).numpy(), expected) < 1e-12


def test_an_activation_may_be_a_function_or_a_layer() -> None:
    x, mask = rng().standard_normal((3, 4, 6)), MASKS["ragged"]
    for given in (F.tanh, nn.Tanh(), lambda y: F.tanh(y)):
        layer = ready(nn.TransformerEncoderLayer(6, 2, 5, 0.0, activation=given))
        expected = numpy_encoder_layer(layer, x, mask, "tanh")
        assert absolute_error(layer(mg.Tensor(x), attention_mask=mask).numpy(), expected) < 1e-12  # outputs of order 10


ENCODERS = {
    "attention": lambda p: nn.MultiHeadAttention(6, 2, p),
    "layer": lambda p: nn.TransformerEncoderLayer(6, 2, 5, p),
    "pre-norm encoder": lambda p: nn.TransformerEncoder(2, 6, 3, 5, p, norm_first=True),
}


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("mask", ["ragged", "holes", "masked first"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_packed_equals_padded(kind: str, mask: str, dropout: float) -> None:
    """Values at real tokens, the gradient of x (zeros at the pads) and of every parameter, with the same dropout units."""
    layer, x, real = ready(ENCODERS[kind](dropout)), rng().standard_normal((3, 4, 6)), MASKS[mask]
    seed = rng(1).standard_normal((3, 4, 6)) * real[:, :, None]
    kept = real.copy()
    kept[:, 0] = 1  # a masked first token is computed too; see `pack`
    packing = Packing(kept.sum(axis=1), masked_first=(real[:, 0] == 0).tolist())
    found = []
    for packed in (False, True):
        leaf = mg.Tensor(x[kept == 1] if packed else x, requires_grad=True)
        with random.at(seed=2, step=1):
            y = layer(leaf, packing) if packed else layer(leaf, attention_mask=real)
        y.backward(seed[kept == 1] if packed else seed)
        values, slopes = np.array(y.numpy()), leaf.grad.numpy()
        if packed:
            values = values[real[kept == 1] == 1]
        else:
            assert not values[real == 0].any()
            assert not slopes[real == 0].any()
            values, slopes = values[real == 1], slopes[kept == 1]
        found.append((values, slopes, gradients_of(layer)))
    assert absolute_error(found[0][0], found[1][0]) < 1e-12
    assert absolute_error(found[0][1], found[1][1]) < 1e-12
    assert max(gradient_errors(found[0][2], found[1][2]).values()) < 1e-12


# ---------------------------------------------------------------- initial values
def test_initial_values() -> None:
    mg.manual_seed(0)
    linear = nn.Linear(100, 300)
    bound = linear.weight.numpy()
    assert 0.099 < np.abs(bound).max() <= 0.1
    assert abs(bound.std() - 0.1 / sqrt(3)) < 1e-3
    assert 0.09 < np.abs(linear.bias.numpy()).max() <= 0.1
    bert = nn.Linear(100, 300, std=0.02)
    assert abs(bert.weight.numpy().std() - 0.02) < 5e-4
    assert not bert.bias.numpy().any()
    assert abs(nn.Embedding(300, 100).weight.numpy().std() - 1.0) < 0.02
    assert abs(nn.init.xavier_uniform((30, 1000)).numpy().std() - sqrt(2.0 / 1030)) < 1e-3
    assert {p.dtype for p in linear.parameters()} == {np.dtype(np.float32)}
    mg.manual_seed(0)
    np.testing.assert_array_equal(nn.Linear(100, 300).weight.numpy(), bound)


def test_skipped_initialisation_draws_nothing() -> None:
    mg.manual_seed(0)
    with nn.init.skipped():
        assert not any(p.numpy().any() for p in nn.Linear(3, 3).parameters())
        assert nn.LayerNorm(3).weight.numpy().all()
    after = nn.Linear(3, 3).weight.numpy()
    mg.manual_seed(0)
    np.testing.assert_array_equal(nn.Linear(3, 3).weight.numpy(), after)


# ---------------------------------------------------------------- errors
X2, X3 = mg.Tensor(np.zeros((4, 6))), mg.Tensor(np.zeros((2, 3, 6)))
FOUR, TOKENS = Packing([1, 3]), PackedTokens.of([[1], [1, 2, 3]])


def called(kind: str, *args: Any) -> mg.Tensor:
    layers = {
        "attention": nn.MultiHeadAttention(6, 2),
        "layer": nn.TransformerEncoderLayer(6, 2, 5),
        "encoder": nn.TransformerEncoder(1, 6, 2, 5),
    }
    return ready(layers[kind])(*args)


INVALID = {
    "heads do not divide": (lambda: nn.MultiHeadAttention(6, 4), ArgumentError, "6 channels do not divide among 4 heads"),
    "no heads": (lambda: nn.MultiHeadAttention(6, 0), ArgumentError, "heads must be an integer of at least 1, got 0"),
    "dropout above 1": (lambda: nn.Dropout(1.5), ArgumentError, "p lies between 0 and 1, got 1.5"),
    "dropout below 0": (lambda: nn.TransformerEncoderLayer(6, 2, 5, -0.1), ArgumentError, "p lies between 0 and 1"),
    "dropout that is no number": (lambda: nn.Dropout(float("nan")), ArgumentError, "got nan"),
    "slope": (lambda: nn.LeakyReLU(-0.1), ArgumentError, "LeakyReLU: negative_slope is a number >= 0, got -0.1"),
    "gelu": (lambda: nn.GELU("sigmoid"), ArgumentError, 'approximate is "none" or "tanh"'),
    "activation": (lambda: nn.TransformerEncoderLayer(6, 2, 5, activation="mish"), ArgumentError, "unknown activation 'mish'"),
    "no layers": (lambda: nn.TransformerEncoder(0, 6, 2, 5), ArgumentError, "num_layers must be an integer of at least 1, got 0"),
    "no packing": (lambda: nn.MultiHeadAttention(6, 2)(X2), ShapeError, "expected padded rows (batch, longest, d)"),
    "too few rows": (lambda: ready(nn.MultiHeadAttention(6, 2))(X2, Packing([2, 3])), ShapeError, "5 rows"),
    "too many rows": (lambda: ready(nn.MultiHeadAttention(6, 2))(X2, Packing([2, 1])), ShapeError, "3 rows"),
    "too many rows, float32": (lambda: nn.MultiHeadAttention(6, 2)(X2.to("float32"), Packing([2, 1])), ShapeError, "3 rows"),
    "too few rows, float32": (lambda: nn.MultiHeadAttention(6, 2)(X2.to("float32"), Packing([2, 3])), ShapeError, "5 rows"),
    "dropout of too many rows": (lambda: nn.Dropout(0.5)(X2, Packing([2, 1])), ShapeError, "the packing has 3 rows"),
    "dropout of too few rows, float32": (lambda: nn.Dropout(0.5)(X2.to("float32"), Packing([2, 3])), ShapeError, "the packing has 5 rows"),
    "width": (lambda: ready(nn.Linear(5, 2))(X2), ShapeError, "linear: weight (2, 5) (outputs, inputs) does not fit x (4, 6)"),
    "norm width": (lambda: ready(nn.LayerNorm(5))(X2), ShapeError, "layer_norm"),
    "one weight for all": (lambda: nn.LayerNorm(1)(X2.to("float32")), ShapeError, "layer_norm"),
    "mask shape": (lambda: nn.MultiHeadAttention(6, 2)(X3, attention_mask=np.ones((2, 4))), ShapeError, "attention_mask has shape (2, 4)"),
    "empty row": (lambda: nn.MultiHeadAttention(6, 2)(X3, attention_mask=[[1, 1, 1], [0, 0, 0]]), ArgumentError, "row 1"),
    "id out of range": (lambda: nn.Embedding(5, 2)([0, 5]), IndexRangeError, "value 5 at place 1 is outside 0..4"),
    "negative id": (lambda: nn.Embedding(5, 2)([[0, -1]]), IndexRangeError, "value -1 at place 1"),
    "float ids": (lambda: nn.Embedding(5, 2)([0.0]), DTypeError, "ids must be integers"),
    "labels": (lambda: nn.CrossEntropyLoss()(X2, [0, 1, 2, 6]), IndexRangeError, "value 6 at place 3"),
    "targets": (lambda: nn.MSELoss()(X2, np.zeros(4)), ShapeError, "they must be equal"),
    "no integers": (lambda: nn.Linear(3, 2.0), ArgumentError, "Linear: out_features must be an integer of at least 1, got 2.0"),
    "negative width": (lambda: nn.Linear(-3, 2), ArgumentError, "in_features must be an integer of at least 1, got -3"),
    "no rows": (lambda: nn.Embedding(0, 2), ArgumentError, "Embedding: rows must be an integer of at least 1, got 0"),
    "a boolean": (lambda: nn.Linear(True, 2), ArgumentError, "in_features must be an integer of at least 1, got True"),
    "deviation": (lambda: nn.Linear(3, 2, std=-1), ArgumentError, "Linear: std is a number >= 0, got -1"),
    "deviation that is a word": (lambda: nn.Linear(3, 2, std="a"), ArgumentError, "Linear: std is a number >= 0, got 'a'"),
    "deviation of a table": (lambda: nn.Embedding(3, 2, std=None), ArgumentError, "Embedding: std is a number >= 0, got None"),
    "eps": (lambda: nn.LayerNorm(3, eps=-5), ArgumentError, "LayerNorm: eps is a number >= 0, got -5"),
    "infinite eps": (lambda: nn.LayerNorm(3, eps=float("inf")), ArgumentError, "LayerNorm: eps is a number >= 0, got inf"),
    "dropout that is a word": (lambda: nn.Dropout("a"), ArgumentError, "Dropout: p lies between 0 and 1, got 'a'"),
    "dropout in a layer": (lambda: nn.TransformerEncoderLayer(6, 2, 5, "a"), ArgumentError, "p lies between 0 and 1, got 'a'"),
    "heads that are a word": (lambda: nn.MultiHeadAttention(4, "a"), ArgumentError, "heads must be an integer of at least 1, got 'a'"),
    "heads that are floats": (lambda: nn.MultiHeadAttention(4, 2.0), ArgumentError, "heads must be an integer of at least 1, got 2.0"),
    "layers that are a word": (lambda: nn.TransformerEncoder("a", 6, 2, 5), ArgumentError, "num_layers must be an integer of at least 1"),
    "width of a layer": (lambda: nn.TransformerEncoderLayer(None, 2, 5), ArgumentError, "TransformerEncoderLayer: dim must be an integer"),
    "activation that is a list": (lambda: nn.TransformerEncoderLayer(6, 2, 5, activation=["gelu"]), ArgumentError, "activation ['gelu']"),
    "vector for xavier": (lambda: nn.init.xavier_uniform((3,)), ArgumentError, "(fan_out, fan_in), got (3,)"),
    "number for xavier": (lambda: nn.init.xavier_uniform(3), ArgumentError, "(fan_out, fan_in), got 3"),
    "nothing for xavier": (lambda: nn.init.xavier_uniform((3, 0)), ArgumentError, "fan_in must be an integer of at least 1, got 0"),
    "shape": (lambda: nn.init.normal((3, "a"), 0.1), ArgumentError, "cannot make a parameter of shape (3, 'a')"),
    "bound": (lambda: nn.init.uniform((3,), -1.0), ArgumentError, "uniform: bound is a number >= 0, got -1.0"),
    "mask beside the packing": (lambda: called("layer", X2, FOUR, np.ones((2, 2))), ArgumentError, "an attention_mask beside a packing"),
    "mask beside the packing, stack": (lambda: called("encoder", X2, FOUR, [[1]]), ArgumentError, "an attention_mask beside a packing"),
    "mask for attention": (lambda: called("attention", X2, FOUR, False), ArgumentError, "an attention_mask beside a packing"),
    "mask in place of the packing": (lambda: called("layer", X3, np.ones((2, 3))), ArgumentError, "a mask is passed as attention_mask="),
    "mask for the stack": (lambda: called("encoder", X3, np.ones((2, 3))), ArgumentError, "TransformerEncoder: packing must be a Packing"),
    "a list for the packing": (lambda: called("attention", X3, [[1]]), ArgumentError, "must be a Packing, got list"),
    "tokens for the packing": (lambda: called("encoder", X2, TOKENS), ArgumentError, "got PackedTokens; pass its .packing"),
    "padded rows with a packing": (lambda: called("encoder", X3, FOUR), ShapeError, "x must have shape (4, d); got (2, 3, 6)"),
    "a mask for dropout": (lambda: nn.Dropout(0.5)(X3, np.ones((2, 3))), ArgumentError, "Dropout: packing must be a Packing, got ndarray"),
    "rows for dropout at rest": (lambda: nn.Dropout(0.0)(X2, Packing([3])), ShapeError, "the packing has 3 rows"),
    "no width": (lambda: nn.LayerNorm(0), ArgumentError, "LayerNorm: dim must be an integer of at least 1, got 0"),
}


@pytest.mark.parametrize("what", INVALID)
def test_bad_arguments_are_refused_by_name(what: str) -> None:
    call, kind, words = INVALID[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
