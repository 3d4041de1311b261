"""LSTM, GRU and RNN against loops over sequences and steps in NumPy; padded against packed; dropout, states, invalid arguments."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from support import absolute_error

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.backend import random
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.packing import Packing

EXACT = 1e-13
"""Float64 rounding of the same few sums in another order; gates are computed by tanh here and by exp there."""

LENGTHS = {"several": [2, 5, 1, 5, 3], "ones": [1, 1], "one sequence": [4], "one row": [1]}
LAYERS = ["LSTM", "GRU", "RNN", "RNN relu"]


def layer_of(kind: str, *sizes: int, **how: Any) -> Any:
    """A layer in float64 with every parameter random."""
    if kind == "RNN relu":
        how["nonlinearity"] = "relu"
    layer: Any = getattr(nn, kind.split()[0])(*sizes, **how)
    rng = np.random.default_rng(3)
    for parameter in layer.to("float64").parameters():
        parameter.assign(0.5 * rng.standard_normal(parameter.shape))
    return layer


def sigma(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def cell(kind: str, a: np.ndarray, b: np.ndarray, state: list[np.ndarray]) -> list[np.ndarray]:
    """One step of one sequence: the gates' parts from the input and from the state → the new states."""
    h = state[0]
    if kind == "LSTM":
        i, f, g, o = np.split(a + b, 4)
        c = sigma(f) * state[1] + sigma(i) * np.tanh(g)
        return [sigma(o) * np.tanh(c), c]
    if kind == "GRU":
        (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
        z = sigma(az + bz)
        return [(1.0 - z) * np.tanh(an + sigma(ar + br) * bn) + z * h]
    return [np.tanh(a + b) if kind == "RNN" else np.maximum(a + b, 0.0)]


def by_loops(kind: str, layer: Any, sequences: list[np.ndarray], initial: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs of each sequence, and the last states. Shapes: initial and last states (states, layers · directions, sequences, hidden)."""
    last = np.empty_like(initial)
    outputs = []
    for s, x in enumerate(sequences):
        for depth in range(layer.num_layers):
            sides = []
            for d, end in enumerate(layer.directions):
                place = depth * len(layer.directions) + d
                w = {n: getattr(layer, f"{n}_l{depth}{end}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
                w_ih, w_hh, b_ih, b_hh = (0.0 if p is None else np.array(p.numpy()) for p in w.values())
                state = list(initial[:, place, s])
                steps = []
                for row in x[::-1] if end else x:
                    state = cell(kind, w_ih @ row + b_ih, w_hh @ state[0] + b_hh, state)
                    steps.append(state[0])
                last[:, place, s] = state
                sides.append(np.array(steps[::-1] if end else steps))
            x = np.concatenate(sides, axis=1)
        outputs.append(x)
    return outputs, last


def states_of(state: Any) -> list[mg.Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from states"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("depth", "both"), [(1, False), (1, True), (2, False), (2, True), (3, True)])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_is_its_loop(kind: str, lengths: str, depth: int, both: bool, bias: bool, given: bool) -> None:
    rng, packing = np.random.default_rng(0), Packing(LENGTHS[lengths])
    layer = layer_of(kind, 3, 4, depth, bias=bias, bidirectional=both)
    x = rng.standard_normal((packing.rows, 3))
    initial = rng.standard_normal((layer.states, depth * (1 + both), len(packing), 4)) * float(given)
    state = None if not given else tuple(map(mg.Tensor, initial)) if kind == "LSTM" else mg.Tensor(initial[0])
    y, last = layer(mg.Tensor(x), packing, state=state)
    outputs, expected = by_loops(kind, layer, [x[a:b] for a, b in packing.spans], initial)
    assert absolute_error(y.numpy(), np.concatenate(outputs)) < EXACT
    assert len(states_of(last)) == len(expected)
    for ours, theirs in zip(states_of(last), expected, strict=True):
        assert absolute_error(ours.numpy(), theirs) < EXACT


def test_parameters_are_named_and_shaped_as_in_pytorch() -> None:
    shapes = {n: p.shape for n, p in nn.LSTM(3, 4, num_layers=2, bidirectional=True).named_parameters()}
    assert list(shapes)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]
    assert len(shapes) == 16
    assert (shapes["weight_ih_l0"], shapes["weight_ih_l1_reverse"], shapes["weight_hh_l1"]) == ((16, 3), (16, 8), (16, 4))
    assert [n for n, _ in nn.GRU(3, 4, bias=False).named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]
    bound = max(float(np.abs(p.numpy()).max()) for p in nn.RNN(2, 100).parameters())
    assert 0.09 < bound <= 0.1  # uniform in ±1/√hidden


# ---------------------------------------------------------------- padded and packed
MASKS = {
    "none": None,
    "right": np.array([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]),
    "left": np.array([[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]),
    "holes": np.array([[1, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]]),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_padded_rows_are_left_out(kind: str, mask: str) -> None:
    """Whatever the pattern, the state passes through real rows alone, the outputs are zero at the pads, and pads get the gradient 0."""
    layer, x = layer_of(kind, 3, 2, bidirectional=True), np.random.default_rng(0).standard_normal((3, 4, 3))
    real = np.ones((3, 4), bool) if MASKS[mask] is None else MASKS[mask] != 0
    x[~real] = 1e6
    leaf = mg.Tensor(x, requires_grad=True)
    y, last = layer(leaf, attention_mask=MASKS[mask])
    outputs, expected = by_loops(kind, layer, [row[keep] for row, keep in zip(x, real, strict=True)], np.zeros((layer.states, 2, 3, 2)))
    padded = np.zeros((3, 4, 4))
    padded[real] = np.concatenate(outputs)
    assert absolute_error(y.numpy(), padded) < EXACT
    assert all(absolute_error(a.numpy(), b) < EXACT for a, b in zip(states_of(last), expected, strict=True))
    y.sum().backward()
    assert leaf.grad is not None and np.all(leaf.grad.numpy()[~real] == 0) and np.all(leaf.grad.numpy()[real] != 0)


def test_masked_first_rows_of_a_packing_are_left_out() -> None:
    layer, x = layer_of("GRU", 2, 3), np.random.default_rng(0).standard_normal((5, 2))
    y, last = layer(mg.Tensor(x), Packing([3, 2], masked_first=[True, False]))
    expected, final = layer(mg.Tensor(x[1:]), Packing([2, 2]))
    np.testing.assert_array_equal(y.numpy(), np.concatenate([np.zeros((1, 3)), expected.numpy()]))
    np.testing.assert_array_equal(last.numpy(), final.numpy())


def test_a_sequence_does_not_depend_on_the_others() -> None:
    layer, rng = layer_of("LSTM", 2, 3, 2, bidirectional=True), np.random.default_rng(0)
    parts = [rng.standard_normal((n, 2)) for n in (4, 1, 6, 2)]
    y, (h, c) = layer(mg.Tensor(np.concatenate(parts)), Packing([4, 1, 6, 2]))
    for order in ([2, 0, 3, 1], [1], [3, 2]):
        packing = Packing([len(parts[i]) for i in order])
        z, (h2, c2) = layer(mg.Tensor(np.concatenate([parts[i] for i in order])), packing)
        expected = np.concatenate([y.numpy()[a : a + len(parts[i])] for i in order for a in [[0, 4, 5, 11][i]]])
        for ours, theirs in ((z.numpy(), expected), (h2.numpy(), h.numpy()[:, order]), (c2.numpy(), c.numpy()[:, order])):
            assert absolute_error(ours, theirs) < EXACT


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sequence_can_be_read_in_two_parts(kind: str) -> None:
    layer, x = layer_of(kind, 2, 3, 2), mg.Tensor(np.random.default_rng(0).standard_normal((2, 7, 2)))
    whole, last = layer(x)
    first, state = layer(x[:, :3])
    second, end = layer(x[:, 3:], state=state)
    assert absolute_error(np.concatenate([first.numpy(), second.numpy()], axis=1), whole.numpy()) < EXACT
    assert all(absolute_error(a.numpy(), b.numpy()) < EXACT for a, b in zip(states_of(end), states_of(last), strict=True))


# ---------------------------------------------------------------- numbers
@pytest.mark.parametrize("kind", LAYERS)
def test_recording_changes_nothing_and_float32_stays(kind: str) -> None:
    layer: Any = getattr(nn, kind.split()[0])(3, 4, 2, bidirectional=True)
    x = mg.Tensor(np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32))
    y, last = layer(x)
    with mg.no_grad():
        z, _ = layer(x)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    assert {t.dtype for t in (y, *states_of(last))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_saturated_gates_have_no_overflow_and_finite_gradients(kind: str) -> None:
    layer: Any = getattr(nn, kind)(1, 2)
    x = mg.Tensor(np.array([[1e30], [-1e30], [1e30]], np.float32), requires_grad=True)
    y, _ = layer(x, Packing([3]))
    y.sum().backward()
    assert x.grad is not None and np.isfinite(y.numpy()).all() and np.isfinite(x.grad.numpy()).all()


def test_a_last_state_alone_carries_a_gradient() -> None:
    """Only c is used: no gradient arrives at the outputs or at h."""
    layer, x = layer_of("LSTM", 2, 2), np.random.default_rng(0).standard_normal((3, 2))
    assert mg.gradcheck(lambda x: layer(x, Packing([2, 1]))[1][1], mg.Tensor(x, requires_grad=True), order=2)


# ---------------------------------------------------------------- dropout
def test_dropout_lies_between_the_layers_only() -> None:
    packing, x = Packing([4, 3]), mg.Tensor(np.random.default_rng(0).standard_normal((7, 3)))
    one, two = layer_of("GRU", 3, 5, 1, dropout=0.5), layer_of("GRU", 3, 5, 2, dropout=0.5)
    with random.at(0, 0):
        y, _ = one(x, packing)
        dropped, _ = two(x, packing)
    np.testing.assert_array_equal(y.numpy(), one.eval()(x, packing)[0].numpy())
    with random.at(0, 0):
        first = F.gru(x, two.weight_ih_l0, two.weight_hh_l0, two.bias_ih_l0, two.bias_hh_l0, None, packing=packing)[0]
        between = two.dropout(first, packing)
        expected = F.gru(between, two.weight_ih_l1, two.weight_hh_l1, two.bias_ih_l1, two.bias_hh_l1, None, packing=packing)[0]
    np.testing.assert_array_equal(dropped.numpy(), expected.numpy())
    assert absolute_error(dropped.numpy(), two.eval()(x, packing)[0].numpy()) > 1e-3


def test_padded_and_packed_drop_the_same_units() -> None:
    layer, x = layer_of("LSTM", 2, 3, 3, dropout=0.4), np.random.default_rng(0).standard_normal((2, 3, 2))
    mask = np.array([[0, 1, 1], [1, 1, 1]])
    with random.at(1, 2):
        padded, _ = layer(mg.Tensor(x), attention_mask=mask)
    with random.at(1, 2):
        packed, _ = layer(mg.Tensor(x[mask != 0]), Packing([2, 3]))
    np.testing.assert_array_equal(padded.numpy()[mask != 0], packed.numpy())


# ---------------------------------------------------------------- what is refused
def test_layers_refuse() -> None:
    x, packing = mg.Tensor(np.zeros((3, 2), np.float32)), Packing([2, 1])
    for layer, arguments in ((nn.LSTM, (0, 2)), (nn.GRU, (2, 2, 0)), (nn.RNN, (2, 2, 1, "sine")), (nn.GRU, (2, 2, 1, True, 2.0))):
        with pytest.raises(ArgumentError):
            layer(*arguments)  # type: ignore[operator]
    with pytest.raises(ArgumentError, match="state is the pair"):
        nn.LSTM(2, 2)(x, packing, state=mg.Tensor(np.zeros((1, 2, 2))))
    with pytest.raises(ShapeError, match=r"= \(1, 2, 2\), got \(2, 2\)"):
        nn.GRU(2, 2)(x, packing, state=np.zeros((2, 2)))
    with pytest.raises(ShapeError, match="must have shape"):
        nn.GRU(2, 2)(x, Packing([2]))
    for shape in ((3, 2), (1, 3, 2)):  # packed, padded
        with pytest.raises(ShapeError, match=re.escape(f"GRU: x has shape {shape}, its last axis must have length 3")):
            nn.GRU(3, 2)(np.zeros(shape), packing if len(shape) == 2 else None)
    with pytest.raises(ArgumentError, match="no meaning"):
        nn.GRU(2, 2)(x, packing, attention_mask=np.ones((1, 3)))


def test_operations_refuse() -> None:
    x, w, u = np.zeros((3, 2)), np.zeros((4, 2)), np.zeros((4, 1))
    with pytest.raises(ShapeError, match=r"weight_hh must have shape \(1, 1\)"):
        F.rnn(x, w[:1], u, None, None, None, packing=Packing([3]))
    with pytest.raises(ShapeError, match=r"c0 must have shape \(1, 1\)"):
        F.lstm(x, w, u, None, None, None, np.zeros((2, 1)), packing=Packing([3]))
    with pytest.raises(ShapeError, match=r"x has shape \(2, d\)"):
        F.lstm(x, w, u, None, None, None, None, packing=Packing([2]))
    with pytest.raises(ArgumentError, match="masked first"):
        F.lstm(x, w, u, None, None, None, None, packing=Packing([3], masked_first=[True]))
    with pytest.raises(ArgumentError, match="nonlinearity"):
        F.rnn(x, w[:1], u[:1], None, None, None, packing=Packing([3]), nonlinearity="sine")
    with pytest.raises(DTypeError, match="h0"):
        F.gru(x, w, u, None, None, packing=Packing([3]))  # type: ignore[call-arg]
