"""The encoder blocks that BERT-like families share, under their published names.

Everything inside works on packed rows, so padding is never computed. For a head that reads only the first token, the last layer computes
only those rows (its keys and values still need all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minigrad import functional as F
from minigrad.backend import namespace_of
from minigrad.backend.random import Draw
from minigrad.models.config import PretrainedConfig
from minigrad.nn import Dropout, LayerNorm, Linear, Module
from minigrad.nn.activation import GELU_FORMS, activation
from minigrad.op import Op
from minigrad.ops.attention import causal_mask
from minigrad.packing import Packing
from minigrad.parameter import lay_out
from minigrad.tensor import Tensor


@dataclass
class Trace:
    """Hidden states and attention weights collected while the layers run; None if not asked for.

    Shapes: hidden_states: (rows, hidden), the embeddings first; attentions: per layer and sequence (heads, n, n).
    """

    hidden_states: list[Tensor] | None = None
    attentions: list[tuple[Tensor, ...]] | None = None


class SelfAttention(Module):
    """Multi-head attention, causal in a decoder. query_rows, queries: the only rows to compute the result for, and their packing."""

    def __init__(self, config: PretrainedConfig) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.heads, self.causal = config.num_attention_heads, config.is_decoder
        self.query, self.key, self.value = Linear(h, h, std=std), Linear(h, h, std=std), Linear(h, h, std=std)
        make_adjacent(self.query, self.key, self.value)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor, packing: Packing, query_rows: Tensor | None = None, queries: Packing | None = None) -> Tensor:
        draw = self.dropout.draw(queries or packing, self.heads, packing)
        if query_rows is None:
            qkv = joint_linear(x, self.query, self.key, self.value)
            return F.attention(None, qkv, packing=packing, heads=self.heads, draw=draw, causal=self.causal)
        kv = joint_linear(x, self.key, self.value)
        return F.attention(self.query(query_rows), kv, packing=packing, queries=queries, heads=self.heads, draw=draw)

    def weights(self, x: Tensor, packing: Packing) -> tuple[Tensor, ...]:
        """The attention weights before dropout. Shapes: per sequence (heads, n, n)."""
        return attention_weights(self.query(x), self.key(x), packing, self.heads, self.causal)


def attention_weights(queries: Tensor, keys: Tensor, packing: Packing, heads: int, causal: bool = False) -> tuple[Tensor, ...]:
    """softmax(queries · keysᵀ / √d) of each head and sequence. Shapes: queries, keys (rows, hidden) → per sequence (heads, n, n)."""
    found = []
    queries, keys = (y.reshape((packing.rows, heads, -1)).transpose((1, 0, 2)) for y in (queries, keys))
    for (first, last), (a, b) in zip(packing.spans, packing.key_spans, strict=True):
        scores = (queries[:, first:last] @ keys[:, a:b].swapaxes(-1, -2)) * queries.shape[2] ** -0.5
        weights = F.softmax(scores, mask=causal_mask(scores.array, last - first, b - a) if causal else None)
        found.append(weights if a == first else F.pad(weights, ((0, 0), (0, 0), (1, 0))))
    return tuple(found)


def make_adjacent(*layers: Linear) -> None:
    """Make the weights of several layers adjacent in memory, and their biases, so that `joint_linear` need not copy them.

    Only for newly built layers: views taken earlier keep the old memory.
    """
    for parameters in ([layer.weight for layer in layers], [layer.bias for layer in layers if layer.bias is not None]):
        lay_out(namespace_of(parameters[0].array).concatenate([p.array.reshape(-1) for p in parameters]), parameters)


def joint_linear(x: Tensor, *layers: Linear) -> Tensor:
    """Apply several linear layers to the same rows in one operation. Shapes: (rows, hidden) → (rows, sum of the layers' widths)."""
    return F.linears(x, *[layer.weight for layer in layers], *[layer.bias for layer in layers])


class DenseAddNorm(Module):
    """layer_norm(dropout(dense(x)) + residual). Published as BertSelfOutput and BertOutput."""

    def __init__(self, in_features: int, config: PretrainedConfig) -> None:
        self.dense = Linear(in_features, config.hidden_size, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor, packing: Packing) -> Tensor:
        norm, draw = self.LayerNorm, self.dropout.draw(packing, residual.shape[1])
        return F.dense_add_norm(x, self.dense.weight, self.dense.bias, residual, norm.weight, norm.bias, draw=draw, eps=norm.eps)


class Attention(Module):
    """Self-attention and its output layer under their published names; `Layer` calls the two, or computes both in one operation."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.self = SelfAttention(config)
        self.output = DenseAddNorm(config.hidden_size, config)


class Intermediate(Module):
    """activation(dense(x)): the wide half of the feed-forward block. Shapes: (rows, hidden) → (rows, intermediate)."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.dense = Linear(config.hidden_size, config.intermediate_size, std=config.initializer_range)
        self.hidden_act = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        return activated(x, self.dense, self.hidden_act)


def activated(x: Tensor, dense: Linear, hidden_act: str) -> Tensor:
    """activation(dense(x)), fused where there is an operation for it."""
    form = GELU_FORMS.get(hidden_act)
    if hidden_act == "tanh" and dense.bias is not None and can_fuse(F.dense_tanh, x, (dense, Linear)):
        return F.dense_tanh(x, dense.weight, dense.bias)
    if form is None:
        return activation(hidden_act)(dense(x))
    return F.dense_gelu(x, dense.weight, dense.bias, approximate=form)


# ---------------------------------------------------------------- fused blocks
def can_fuse(block: Op[Any], x: Tensor, *parts: tuple[Module, type[Module]]) -> bool:
    """Whether a layer computes a block as one fused operation, without calling the block's modules.

    It does if x's device has a kernel for the block and no part has a hook or was replaced or redefined. parts: each module with the
    class it was built as. Otherwise the parts are called one by one, which takes less memory (see `ops.blocks`).
    """
    return namespace_of(x.array).NAME in block.overrides and all(_is_original(*part) for part in parts)


def _is_original(part: Module, kind: type[Module]) -> bool:
    hooked = any(list(hooks or ()) for hooks in (part._forward_hooks, part._forward_pre_hooks))
    return not hooked and getattr(part.forward, "__func__", None) is kind.forward


def attention_block(
    x: Tensor,
    packing: Packing,
    qkv: tuple[Linear, Linear, Linear],
    dense: Linear,
    norm: LayerNorm,
    draws: tuple[Draw | None, Draw | None],
    **options: Any,
) -> Tensor:
    """norm(dense(attention(x)) + x). qkv: the query, key and value layers; draws: the dropout of the attention weights and of dense's
    output; options: heads and further arguments of `functional.attention_block`."""
    parameters = [*[layer.weight for layer in qkv], *[layer.bias for layer in qkv], dense.weight, dense.bias, norm.weight, norm.bias]
    return F.attention_block(x, *parameters, packing=packing, mixing=draws[0], draw=draws[1], eps=norm.eps, **options)


def feed_forward(x: Tensor, wide: Linear, dense: Linear, norm: LayerNorm, form: str, draw: Draw | None) -> Tensor:
    """norm(dense(gelu(wide(x))) + x). form: which GELU; draw: the dropout of dense's output."""
    parameters = (wide.weight, wide.bias, dense.weight, dense.bias, norm.weight, norm.bias)
    return F.feed_forward(x, *parameters, approximate=form, draw=draw, eps=norm.eps)


class Layer(Module):
    """Attention and feed-forward; with `first_only`, computed only for the first row of each sequence."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = DenseAddNorm(config.intermediate_size, config)

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False) -> Tensor:
        return self._fed_forward(self._attended(x, packing, first_only), packing.first if first_only else packing)

    def _attended(self, x: Tensor, packing: Packing, first_only: bool) -> Tensor:
        inner, end, queries = self.attention.self, self.attention.output, packing.first if first_only else packing
        if can_fuse(F.attention_block, x, (inner, SelfAttention), (end, DenseAddNorm)):
            draws = inner.dropout.draw(queries, inner.heads, packing), end.dropout.draw(queries, x.shape[1])
            qkv, options = (inner.query, inner.key, inner.value), {"first_only": first_only, "heads": inner.heads, "causal": inner.causal}
            return attention_block(x, packing, qkv, end.dense, end.LayerNorm, draws, **options)
        if not first_only:
            return end(inner(x, packing), x, packing)  # type: ignore[no-any-return]
        first = F.take_rows(x, packing.first_rows)
        return end(inner(x, packing, first, queries), first, queries)  # type: ignore[no-any-return]

    def _fed_forward(self, x: Tensor, packing: Packing) -> Tensor:
        wide, end = self.intermediate, self.output
        form = GELU_FORMS.get(wide.hidden_act)
        if form is None or not can_fuse(F.feed_forward, x, (wide, Intermediate), (end, DenseAddNorm)):
            return end(wide(x), x, packing)  # type: ignore[no-any-return]
        return feed_forward(x, wide.dense, end.dense, end.LayerNorm, form, end.dropout.draw(packing, x.shape[1]))

    def weights(self, x: Tensor, packing: Packing) -> tuple[Tensor, ...]:
        """As `SelfAttention.weights`."""
        return self.attention.self.weights(x, packing)


class Encoder(Module):
    """The stack of layers."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.layer = [Layer(config) for _ in range(config.num_hidden_layers)]

    def forward(self, x: Tensor, packing: Packing, first_only: bool = False, trace: Trace | None = None) -> Tensor:
        """Shapes, arguments: as `run_layers`."""
        return run_layers(self.layer, x, packing, first_only, trace)


class EncoderLayer(Protocol):
    """Interface of the layers in a stack: that of `Layer`."""

    def __call__(self, x: Tensor, packing: Packing, first_only: bool = False) -> Tensor: ...

    def weights(self, x: Tensor, packing: Packing) -> tuple[Tensor, ...]: ...


def run_layers(layers: Sequence[EncoderLayer], x: Tensor, packing: Packing, first_only: bool = False, trace: Trace | None = None) -> Tensor:
    """Run the layers in order, adding each one's input and attention weights to `trace`.

    Shapes: x (rows, hidden) → the same, or (sequences, hidden) with first_only.
    """
    for layer in layers[:-1] if first_only else layers:
        if trace is not None:
            _record(trace, layer, x, packing)
        x = layer(x, packing)
    if trace is not None and trace.hidden_states is not None:
        trace.hidden_states.append(x)
    if not first_only:
        return x
    return layers[-1](x, packing, True) if layers else F.take_rows(x, packing.first_rows)


def _record(trace: Trace, layer: EncoderLayer, x: Tensor, packing: Packing) -> None:
    if trace.hidden_states is not None:
        trace.hidden_states.append(x)
    if trace.attentions is not None:
        trace.attentions.append(layer.weights(x, packing))


class Pooler(Module):
    """tanh(dense([CLS]))."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.dense = Linear(config.hidden_size, config.hidden_size, std=config.initializer_range)

    def forward(self, first: Tensor) -> Tensor:
        return activated(first, self.dense, "tanh")
