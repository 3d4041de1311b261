"""Layers equal PyTorch's in float64: values, and the gradients of input and parameters."""

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
from minigrad import nn

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
pytestmark = pytest.mark.oracle

VALUE, GRADIENT = 1e-12, 1e-10
"""Float64 rounding and nothing else."""

seeds, leads = st.integers(0, 2**32 - 1), st.sampled_from([(), (1,), (6,), (2, 3), (0, 3)])


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nagreement with PyTorch {torch.__version__}:\n{summary()}")


def randomise(module: Any, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    for parameter in module.to("float64").parameters():
        parameter.assign(0.5 * generator.standard_normal(parameter.shape) + 0.1)
    return module


def copied(ours: Any, theirs: Any, names: dict[str, str]) -> Any:
    """PyTorch's module with our parameters; `names` maps its names to (comma-joined) names of ours, stacked."""
    state, double = ours.state_dict(), theirs.double()
    wanted = {name: np.concatenate([state[part] for part in parts.split(",")]) for name, parts in names.items()}
    double.load_state_dict({name: torch.from_numpy(array) for name, array in wanted.items()})
    return double


def compare(kind: str, ours: Any, theirs: Any, names: dict[str, str], x: np.ndarray, real: Any = None, **feed: Any) -> None:
    """Values and gradients, where `real` is not 0."""
    leaf, their_leaf = mg.Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
    y = ours(leaf, attention_mask=real) if real is not None else ours(leaf)
    expected = theirs(their_leaf, **feed)
    where = np.ones(y.shape) if real is None else np.broadcast_to(real[:, :, None], y.shape)
    agree(f"{kind}, values", y.numpy() * where, expected.detach().numpy() * where, VALUE, max(1.0, float(np.abs(y.numpy()).max(initial=0))))
    seed = np.cos(np.arange(y.size)).reshape(y.shape) * where
    y.backward(seed)
    expected.backward(torch.from_numpy(seed))
    if x.size:
        scale = max(1.0, float(their_leaf.grad.abs().max()))
        agree(f"{kind}, input gradients", leaf.grad.numpy(), their_leaf.grad.numpy(), GRADIENT, scale)
        gradients = gradients_of(ours)
        mine = {name: np.concatenate([gradients[part] for part in parts.split(",")]) for name, parts in names.items()}
        agree_on_gradients(f"{kind}, parameter gradients", mine, {n: p.grad.numpy() for n, p in theirs.named_parameters()}, GRADIENT)


PLAIN = {"weight": "weight", "bias": "bias"}


@given(lead=leads, n=st.integers(1, 7), m=st.integers(1, 7), seed=seeds, bias=st.booleans())
def test_linear(lead: tuple[int, ...], n: int, m: int, seed: int, bias: bool) -> None:
    ours = randomise(nn.Linear(n, m, bias), seed)
    names = PLAIN if bias else {"weight": "weight"}
    x = np.random.default_rng(seed).standard_normal((*lead, n))
    compare("Linear", ours, copied(ours, torch.nn.Linear(n, m, bias), names), names, x)


@given(lead=leads, d=st.integers(2, 9), eps=st.sampled_from([1e-12, 1e-5, 0.1]), seed=seeds)
def test_layer_norm(lead: tuple[int, ...], d: int, eps: float, seed: int) -> None:
    ours = randomise(nn.LayerNorm(d, eps), seed)
    x = np.random.default_rng(seed).permuted(np.tile(np.arange(d, dtype=float), (*lead, 1)), axis=-1)  # no nearly constant rows
    compare("LayerNorm", ours, copied(ours, torch.nn.LayerNorm(d, eps), PLAIN), PLAIN, x)


@given(lead=leads, rows=st.integers(1, 7), d=st.integers(1, 4), seed=seeds)
def test_embedding(lead: tuple[int, ...], rows: int, d: int, seed: int) -> None:
    ours = randomise(nn.Embedding(rows, d), seed)
    theirs = copied(ours, torch.nn.Embedding(rows, d), {"weight": "weight"})
    ids = np.random.default_rng(seed).integers(0, rows, lead)
    y, expected = ours(ids), theirs(torch.from_numpy(np.asarray(ids)))
    np.testing.assert_array_equal(y.numpy(), expected.detach().numpy())
    seed_array = np.cos(np.arange(y.size)).reshape(y.shape)
    y.backward(seed_array)
    expected.backward(torch.from_numpy(seed_array))
    agree("Embedding, parameter gradients", ours.weight.grad.numpy(), theirs.weight.grad.numpy(), GRADIENT)


ATTENTION = {
    "in_proj_weight": "query.weight,key.weight,value.weight",
    "in_proj_bias": "query.bias,key.bias,value.bias",
    "out_proj.weight": "output.weight",
    "out_proj.bias": "output.bias",
}


@st.composite
def masks(draw: Any) -> np.ndarray:
    """Holes and masked first columns, but a real token in every row: a row without any is an error here and NaN there."""
    generator = np.random.default_rng(draw(seeds))
    mask = (generator.random((draw(st.integers(1, 4)), draw(st.integers(1, 6)))) < 0.7).astype(np.int64)
    mask[~mask.any(axis=1), -1] = 1
    return mask


class SelfAttention(torch.nn.Module):
    """PyTorch's attention of a sequence to itself, with our mask."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any, mask: Any) -> Any:
        return self.inner(x, x, x, key_padding_mask=mask == 0, need_weights=False)[0]

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.named_parameters()


@given(mask=masks(), heads=st.sampled_from([1, 2, 3]), d=st.integers(1, 4), seed=seeds)
def test_attention(mask: np.ndarray, heads: int, d: int, seed: int) -> None:
    ours = randomise(nn.MultiHeadAttention(heads * d, heads), seed)
    theirs = copied(ours, torch.nn.MultiheadAttention(heads * d, heads, batch_first=True), ATTENTION)
    x = np.random.default_rng(seed).standard_normal((*mask.shape, heads * d))
    compare("MultiHeadAttention", ours, SelfAttention(theirs), ATTENTION, x, mask, mask=torch.from_numpy(mask))


LAYER = {
    **{f"self_attn.{theirs}": ",".join(f"attention.{part}" for part in ours.split(",")) for theirs, ours in ATTENTION.items()},
    **{f"{name}.{kind}": f"{name}.{kind}" for name in ("linear1", "linear2", "norm1", "norm2") for kind in ("weight", "bias")},
}


@given(mask=masks(), heads=st.sampled_from([1, 2]), norm_first=st.booleans(), activation=st.sampled_from(["gelu", "relu"]), seed=seeds)
def test_encoder_layer(mask: np.ndarray, heads: int, norm_first: bool, activation: str, seed: int) -> None:
    ours = randomise(nn.TransformerEncoderLayer(6, heads, 5, 0.0, activation, norm_first), seed)
    theirs = torch.nn.TransformerEncoderLayer(6, heads, 5, 0.0, activation, batch_first=True, norm_first=norm_first)
    x = np.random.default_rng(seed).standard_normal((*mask.shape, 6))
    compare("TransformerEncoderLayer", ours, copied(ours, theirs, LAYER), LAYER, x, mask, src_key_padding_mask=torch.from_numpy(mask == 0))
