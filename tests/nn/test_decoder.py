"""Causal attention, cross-attention, and the layers made of them, against loops in NumPy; padded against packed."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays, packings, pair_draws
from support import absolute_error

import minigrad as mg
from minigrad import functional as F
from minigrad import nn, ops
from minigrad.backend import random
from minigrad.errors import ArgumentError, ShapeError
from minigrad.packing import Packing

EXACT = 1e-12
"""Float64 rounding of the same few sums in another order, through up to three layer norms."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ready(layer: Any) -> Any:
    """In float64, every parameter random."""
    generator = rng(3)
    for parameter in layer.to("float64").parameters():
        parameter.assign(0.5 * generator.standard_normal(parameter.shape) + 0.1)
    return layer


# ---------------------------------------------------------------- the operation
@st.composite
def causal_calls(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Causal attention where the queries are all rows, or rows of sequences of other lengths; some first rows masked; some dropout."""
    packing, heads, d = draw(packings(max_length=3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    form = draw(st.sampled_from(["q in kv", "all rows", "other rows"]))
    asking = packing
    if form == "other rows":
        asking = Packing(draw(st.lists(st.integers(1, 4), min_size=len(packing), max_size=len(packing))), packing.numbers)
    recipe = draw(pair_draws(asking, packing, heads)) if draw(st.booleans()) else None
    constants = {"packing": packing, "queries": asking, "heads": heads, "draw": recipe, "causal": True}
    if form == "q in kv":
        return (None, draw(arrays((packing.rows, 3 * heads * d)))), constants
    return (draw(arrays((asking.rows, heads * d))), draw(arrays((packing.rows, 2 * heads * d)))), constants


def causal_by_loops(args: tuple[Any, ...], packing: Packing, queries: Packing, heads: int, draw: Any, causal: bool) -> np.ndarray:
    """Query by query: t from its sequence's end sees the keys at least t from theirs."""
    q, kv = args
    d = kv.shape[1] // heads // (3 if q is None else 2)
    q, kv = (kv[:, : heads * d], kv[:, heads * d :]) if q is None else (q, kv)
    out = np.zeros((queries.rows, heads * d))
    for i, h in product(range(len(packing)), range(heads)):
        part = slice(h * d, (h + 1) * d)
        (first, last), (a, b) = queries.spans[i], packing.key_spans[i]
        for row in range(first, last):
            keys = [key for key in range(a, b) if b - key >= last - row]
            if keys:
                scores = np.array([q[row, part] @ kv[key, part] for key in keys]) / np.sqrt(d)
                weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                if draw is not None:
                    weights = weights * draw.pairs(i)[h, row - first, [key - a for key in keys]] * draw.scale
                out[row, part] = weights @ kv[keys, heads * d :][:, part]
    return out


@given(causal_calls())
def test_causal_attention_is_its_loop(call: Any) -> None:
    args, constants = call
    assert absolute_error(ops.attention(*args, **constants).numpy(), causal_by_loops(args, **constants)) < EXACT


@settings(max_examples=max(5, settings().max_examples // 4))  # one call checks a thousand derivatives
@given(causal_calls(), st.integers(0, 2**16))
def test_causal_attention_keeps_the_contract(call: Any, seed: int) -> None:
    args, constants = call
    assert mg.check_op(ops.attention, args, constants, seed=seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])  # the fast version and the body
def test_what_comes_later_changes_nothing_before_it(dtype: Any) -> None:
    """Masked weights are exactly 0: not one bit of the earlier rows moves, and no gradient reaches the later ones."""
    packing, x = Packing([5]), rng().standard_normal((5, 12)).astype(dtype)
    other = np.concatenate([x[:3], 50.0 * rng(1).standard_normal((2, 12)).astype(dtype)])
    leaf = mg.Tensor(other, requires_grad=True)
    y, z = (ops.attention(None, t, packing=packing, heads=2, causal=True) for t in (mg.Tensor(x), leaf))
    np.testing.assert_array_equal(y.numpy()[:3], z.numpy()[:3])
    assert np.abs(y.numpy()[3:] - z.numpy()[3:]).max() > 1.0
    z[:3].sum().backward()
    assert leaf.grad is not None and np.all(leaf.grad.numpy()[3:] == 0) and np.any(leaf.grad.numpy()[:3] != 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_causal_queries_without_keys_give_zeros_and_finite_gradients(dtype: Any) -> None:
    """More queries than keys, so that the first see none; a masked first row, which sees nobody; a sequence without a single key."""
    keys = Packing([2, 3, 1], masked_first=[False, True, True])
    asking = Packing([4, 3, 2])
    q, kv = (mg.Tensor(rng(i).standard_normal((n, 4 * (1 + i))).astype(dtype), requires_grad=True) for i, n in enumerate((9, 6)))
    y = ops.attention(q, kv, packing=keys, queries=asking, heads=2, causal=True)
    np.testing.assert_array_equal(np.abs(y.numpy()).max(axis=1) > 0, [False, False, True, True, False, True, True, False, False])
    y.sum().backward()
    assert q.grad is not None and kv.grad is not None
    assert np.isfinite(q.grad.numpy()).all() and np.isfinite(kv.grad.numpy()).all() and kv.grad.numpy().any()


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 3), (2, 4), (4, 2), (1, 5), (3, 0), (0, 3)])
def test_causal_scaled_dot_product_attention_aligns_the_ends(queries: int, keys: int) -> None:
    q, k, v = rng(0).standard_normal((queries, 2)), rng(1).standard_normal((keys, 2)), rng(2).standard_normal((keys, 3))
    expected = np.zeros((queries, 3))
    for t in range(queries):
        seen = keys - queries + t + 1
        if seen > 0:
            weights = np.exp(q[t] @ k[:seen].T / np.sqrt(2))
            expected[t] = weights / weights.sum() @ v[:seen]
    assert absolute_error(F.scaled_dot_product_attention(q, k, v, causal=True).numpy(), expected) < EXACT


def test_scaled_dot_product_attention_without_channels_is_the_mean_of_the_values() -> None:
    values = np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(F.scaled_dot_product_attention(np.zeros((1, 0)), np.zeros((3, 0)), values).numpy(), [[2.0, 3.0]])


def test_scaled_dot_product_attention_refuses_vectors() -> None:
    with pytest.raises(ShapeError, match="needs axes"):
        F.scaled_dot_product_attention(np.zeros(2), np.zeros((3, 2)), np.zeros((3, 2)))


# ---------------------------------------------------------------- layers against their formulas
def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    assert layer.bias is not None
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + layer.eps) * layer.weight.numpy() + layer.bias.numpy()


def attend(layer: nn.MultiHeadAttention, x: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """One sequence. Shapes: x (queries, dim), memory (keys, dim)."""
    d = x.shape[1] // layer.heads
    q, k, v = linear(layer.query, x), linear(layer.key, memory), linear(layer.value, memory)
    out = np.zeros_like(x)
    for h, t in product(range(layer.heads), range(len(x))):
        part = slice(h * d, (h + 1) * d)
        seen = len(memory) - len(x) + t + 1 if layer.causal else len(memory)
        weights = np.exp(q[t, part] @ k[:seen, part].T / np.sqrt(d))
        out[t, part] = weights / weights.sum() @ v[:seen, part]
    return linear(layer.output, out)


def decode(layer: nn.TransformerDecoderLayer, x: np.ndarray, memory: np.ndarray) -> np.ndarray:
    blocks = [
        (layer.norm1, lambda y: attend(layer.attention, y, y)),
        (layer.norm2, lambda y: attend(layer.cross_attention, y, memory)),
        (layer.norm3, lambda y: linear(layer.linear2, np.tanh(linear(layer.linear1, y)))),
    ]
    for after, block in blocks:
        x = x + block(norm(after, x)) if layer.norm_first else norm(after, x + block(x))
    return x


TARGET, MEMORY = Packing([3, 1, 4]), Packing([2, 5, 1])


def sequences(packing: Packing, seed: int, dim: int = 4) -> list[np.ndarray]:
    return [rng(seed + i).standard_normal((n, dim)) for i, n in enumerate(packing.lengths.tolist())]


def padded(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Padded on the right with numbers that must not matter, and the mask."""
    longest = max(map(len, parts))
    x, mask = np.full((len(parts), longest, parts[0].shape[1]), 1e3), np.zeros((len(parts), longest), np.int64)
    for i, part in enumerate(parts):
        x[i, : len(part)], mask[i, : len(part)] = part, 1
    return x, mask


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_layer_is_its_formula_packed_and_padded(norm_first: bool) -> None:
    layer = ready(nn.TransformerDecoderLayer(4, 2, 3, 0.0, "tanh", norm_first))
    xs, ms = sequences(TARGET, 0), sequences(MEMORY, 10)
    expected = [decode(layer, x, m) for x, m in zip(xs, ms, strict=True)]
    flat, memory = mg.Tensor(np.concatenate(xs)), mg.Tensor(np.concatenate(ms))
    (wide, mask), (wide_memory, memory_mask) = padded(xs), padded(ms)
    packed = {"packing": TARGET, "memory_packing": MEMORY}
    assert absolute_error(layer(flat, memory, **packed).numpy(), np.concatenate(expected)) < EXACT
    y = layer(flat, mg.Tensor(wide_memory), packing=TARGET, memory_mask=memory_mask)
    assert absolute_error(y.numpy(), np.concatenate(expected)) < EXACT
    zeros = padded(expected)[0] * mask[:, :, None]
    for m, how in ((mg.Tensor(wide_memory), {"memory_mask": memory_mask}), (memory, {"memory_packing": MEMORY})):
        assert absolute_error(layer(mg.Tensor(wide), m, attention_mask=mask, **how).numpy(), zeros) < EXACT


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_is_its_layers(norm_first: bool) -> None:
    decoder = ready(nn.TransformerDecoder(2, 4, 2, 3, 0.0, "tanh", norm_first))
    assert (decoder.norm is None) != norm_first
    xs, ms = sequences(TARGET, 0), sequences(MEMORY, 10)
    expected = []
    for x, m in zip(xs, ms, strict=True):
        for layer in decoder.layers:
            x = decode(layer, x, m)
        expected.append(x if decoder.norm is None else norm(decoder.norm, x))
    y = decoder(mg.Tensor(np.concatenate(xs)), mg.Tensor(np.concatenate(ms)), TARGET, MEMORY)
    assert absolute_error(y.numpy(), np.concatenate(expected)) < EXACT
    (wide, mask), (memory, memory_mask) = padded(xs), padded(ms)
    z = decoder(mg.Tensor(wide), mg.Tensor(memory), attention_mask=mask, memory_mask=memory_mask)
    assert absolute_error(z.numpy()[mask != 0], y.numpy()) < EXACT


def test_causal_attention_layer_and_memory() -> None:
    layer = ready(nn.MultiHeadAttention(4, 2, causal=True))
    xs = sequences(TARGET, 0)
    y = layer(mg.Tensor(np.concatenate(xs)), TARGET)
    assert absolute_error(y.numpy(), np.concatenate([attend(layer, x, x) for x in xs])) < EXACT
    longer = sequences(Packing([4, 2, 4]), 10)
    y = layer(mg.Tensor(np.concatenate(xs)), TARGET, memory=mg.Tensor(np.concatenate(longer)), memory_packing=Packing([4, 2, 4]))
    assert absolute_error(y.numpy(), np.concatenate([attend(layer, x, m) for x, m in zip(xs, longer, strict=True)])) < EXACT


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_causal_encoder_reads_prefixes(norm_first: bool) -> None:
    """The rows of a prefix are what they are in the whole: that is what lets a GPT be trained on every position at once."""
    encoder = ready(nn.TransformerEncoder(2, 4, 2, 3, 0.0, norm_first=norm_first, causal=True))
    x = mg.Tensor(rng().standard_normal((6, 4)))
    whole = encoder(x, Packing([6])).numpy()
    for n in range(1, 6):
        assert absolute_error(encoder(x[:n], Packing([n])).numpy(), whole[:n]) < EXACT
    plain = ready(nn.TransformerEncoder(2, 4, 2, 3, 0.0, norm_first=norm_first))
    assert absolute_error(plain(x[:5], Packing([5])).numpy(), plain(x, Packing([6])).numpy()[:5]) > 1e-3


def test_padded_and_packed_drop_the_same_units() -> None:
    decoder = ready(nn.TransformerDecoder(2, 4, 2, 3, 0.3))
    xs, ms = sequences(TARGET, 0), sequences(MEMORY, 10)
    (wide, mask), (memory, memory_mask) = padded(xs), padded(ms)
    packed = mg.Tensor(np.concatenate(xs)), mg.Tensor(np.concatenate(ms)), TARGET, MEMORY
    with random.at(1, 2):
        y = decoder(*packed)
    with random.at(1, 2):
        z = decoder(mg.Tensor(wide), mg.Tensor(memory), attention_mask=mask, memory_mask=memory_mask)
    assert absolute_error(z.numpy()[mask != 0], y.numpy()) < EXACT
    assert absolute_error(decoder.eval()(*packed).numpy(), y.numpy()) > 1e-3


# ---------------------------------------------------------------- what is refused
def test_memories_that_do_not_fit() -> None:
    layer, x, packing = nn.MultiHeadAttention(4, 2), mg.Tensor(np.zeros((3, 4), np.float32)), Packing([2, 1])
    with pytest.raises(ArgumentError, match="none was passed"):
        layer(x, packing, memory_packing=packing)
    with pytest.raises(ArgumentError, match="none was passed"):
        layer(x, packing, memory_mask=np.ones((2, 2)))
    with pytest.raises(ShapeError, match="2 sequences cannot attend to a memory of 1"):
        layer(x, packing, memory=x, memory_packing=Packing([3]))
    with pytest.raises(ShapeError, match=r"memory: the packing has 2 rows"):
        layer(x, packing, memory=x, memory_packing=Packing([2]))
    with pytest.raises(ArgumentError, match=r"memory: .* no meaning"):
        layer(x, packing, memory=x, memory_packing=packing, memory_mask=np.ones((2, 2)))
    with pytest.raises(ShapeError, match="padded rows"):
        layer(x, packing, memory=x)
    with pytest.raises(ArgumentError, match="num_layers"):
        nn.TransformerDecoder(0, 4, 2, 3)
