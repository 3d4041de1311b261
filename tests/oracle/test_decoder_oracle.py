"""Decoder layers, attention to a memory and causal attention equal PyTorch's in float64: values and all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.agreement import agree, agree_on_gradients, summary
from support import gradients_of

import minigrad as mg
from minigrad import functional as F
from minigrad import nn

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
pytestmark = pytest.mark.oracle

VALUE, GRADIENT = 1e-12, 1e-9
"""Float64 rounding and nothing else; each of up to three layer norms divides it by a row's deviation, which may be small."""

DIM = 6
seeds, heads = st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3])


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nagreement with PyTorch {torch.__version__}:\n{summary()}")


ATTENTION = {
    "in_proj_weight": "query.weight,key.weight,value.weight",
    "in_proj_bias": "query.bias,key.bias,value.bias",
    "out_proj.weight": "output.weight",
    "out_proj.bias": "output.bias",
}
LINEAR = ("linear1", "linear2", "norm1", "norm2", "norm3")
LAYER = {f"{name}.{kind}": f"{name}.{kind}" for name in LINEAR for kind in ("weight", "bias")}
for _theirs, _ours in (("self_attn", "attention"), ("multihead_attn", "cross_attention")):
    LAYER |= {f"{_theirs}.{t}": ",".join(f"{_ours}.{part}" for part in o.split(",")) for t, o in ATTENTION.items()}


def stacked(ours: dict[str, np.ndarray], names: dict[str, str]) -> dict[str, np.ndarray]:
    """Our arrays under PyTorch's names."""
    return {name: np.concatenate([ours[part] for part in parts.split(",")]) for name, parts in names.items()}


def prepared(ours: Any, theirs: Any, names: dict[str, str], seed: int) -> Any:
    """Random parameters in ours, the same in PyTorch's."""
    rng = np.random.default_rng(seed)
    for parameter in ours.to("float64").parameters():
        parameter.assign(0.5 * rng.standard_normal(parameter.shape) + 0.1)
    theirs.double().load_state_dict({n: torch.from_numpy(a) for n, a in stacked(ours.state_dict(), names).items()})
    return theirs


def masks(rng: np.random.Generator, batch: int, longest: int, first: bool) -> np.ndarray:
    """Holes, but a real token in every row, the first one if wanted: without it causal rows see nothing, which is NaN there."""
    mask = (rng.random((batch, longest)) < 0.7).astype(np.int64)
    mask[~mask.any(axis=1), -1] = 1
    mask[:, 0] |= first
    return mask


def compare(kind: str, ours: Any, theirs: Any, names: dict[str, str], call: Any, their_call: Any, inputs: Any, real: np.ndarray) -> None:
    """Values and gradients where `real` is not 0."""
    leaves, their_leaves = [mg.Tensor(x, requires_grad=True) for x in inputs], [torch.from_numpy(x).requires_grad_() for x in inputs]
    y, expected = call(ours, *leaves), their_call(theirs, *their_leaves)
    where = np.broadcast_to(real[:, :, None] != 0, y.shape)
    scale = max(1.0, float(np.abs(y.numpy()).max()))
    agree(f"{kind}, values", y.numpy()[where], expected.detach().numpy()[where], VALUE, scale)
    weights = np.cos(np.arange(y.size)).reshape(y.shape) * where
    y.backward(weights)
    expected.backward(torch.from_numpy(weights))
    for leaf, their_leaf in zip(leaves, their_leaves, strict=True):
        assert leaf.grad is not None
        theirs_grad = their_leaf.grad.numpy()
        agree(f"{kind}, input gradients", leaf.grad.numpy(), theirs_grad, GRADIENT, max(1.0, float(np.abs(theirs_grad).max())))
    found = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    agree_on_gradients(f"{kind}, parameter gradients", stacked(gradients_of(ours), names), found, GRADIENT)


def later(n: int) -> Any:
    """PyTorch's way of saying causal: True where a query may not look."""
    return torch.from_numpy(~np.tri(n, dtype=bool))


lengths = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@given(sides=lengths, heads=heads, norm_first=st.booleans(), activation=st.sampled_from(["gelu", "relu"]), seed=seeds)
def test_decoder_layer(sides: tuple[int, int, int], heads: int, norm_first: bool, activation: str, seed: int) -> None:
    (batch, target, source), rng = sides, np.random.default_rng(seed)
    ours = nn.TransformerDecoderLayer(DIM, heads, 5, 0.0, activation, norm_first)
    theirs = torch.nn.TransformerDecoderLayer(DIM, heads, 5, 0.0, activation, batch_first=True, norm_first=norm_first)
    mask, memory_mask = masks(rng, batch, target, True), masks(rng, batch, source, False)
    hidden, memory_hidden = torch.from_numpy(mask == 0), torch.from_numpy(memory_mask == 0)
    compare(
        "TransformerDecoderLayer",
        ours,
        prepared(ours, theirs, LAYER, seed),
        LAYER,
        lambda layer, x, memory: layer(x, memory, attention_mask=mask, memory_mask=memory_mask),
        lambda layer, x, memory: layer(
            x, memory, tgt_mask=later(target), tgt_key_padding_mask=hidden, memory_key_padding_mask=memory_hidden
        ),
        (rng.standard_normal((batch, target, DIM)), rng.standard_normal((batch, source, DIM))),
        mask,
    )


@given(sides=lengths, heads=heads, seed=seeds)
def test_attention_to_a_memory(sides: tuple[int, int, int], heads: int, seed: int) -> None:
    (batch, target, source), rng = sides, np.random.default_rng(seed)
    ours, theirs = nn.MultiHeadAttention(DIM, heads), torch.nn.MultiheadAttention(DIM, heads, batch_first=True)
    mask = masks(rng, batch, source, False)
    compare(
        "attention to a memory",
        ours,
        prepared(ours, theirs, ATTENTION, seed),
        ATTENTION,
        lambda layer, x, memory: layer(x, memory=memory, memory_mask=mask),
        lambda layer, x, memory: layer(x, memory, memory, key_padding_mask=torch.from_numpy(mask == 0), need_weights=False)[0],
        (rng.standard_normal((batch, target, DIM)), rng.standard_normal((batch, source, DIM))),
        np.ones((batch, target)),
    )


@given(sides=lengths, heads=heads, seed=seeds)
def test_causal_attention(sides: tuple[int, int, int], heads: int, seed: int) -> None:
    (batch, length, _), rng = sides, np.random.default_rng(seed)
    ours, theirs = nn.MultiHeadAttention(DIM, heads, causal=True), torch.nn.MultiheadAttention(DIM, heads, batch_first=True)
    mask = masks(rng, batch, length, True)
    hidden = torch.from_numpy(mask == 0)
    compare(
        "causal attention",
        ours,
        prepared(ours, theirs, ATTENTION, seed),
        ATTENTION,
        lambda layer, x: layer(x, attention_mask=mask),
        lambda layer, x: layer(x, x, x, attn_mask=later(length), key_padding_mask=hidden, need_weights=False)[0],
        (rng.standard_normal((batch, length, DIM)),),
        mask,
    )


@given(sides=lengths, seed=seeds)
def test_causal_scaled_dot_product_attention(sides: tuple[int, int, int], seed: int) -> None:
    """Of equal numbers of queries and keys; of unequal ones PyTorch aligns the beginnings, we the ends."""
    batch, length, width = sides
    q, k, v = np.random.default_rng(seed).standard_normal((3, batch, length, width))
    expected = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), is_causal=True)
    agree("scaled_dot_product_attention", F.scaled_dot_product_attention(q, k, v, causal=True).numpy(), expected.numpy(), VALUE)
