"""A Transformer encoder, usable without BERT: packed rows inside, padded arrays welcome at the border."""

from __future__ import annotations

from typing import Any

from minigrad.errors import ArgumentError
from minigrad.nn.activation import activation
from minigrad.nn.attention import MultiHeadAttention, pack_rows, pad_rows
from minigrad.nn.basic import Dropout, LayerNorm, Linear
from minigrad.nn.module import Module
from minigrad.packing import Packing
from minigrad.tensor import Tensor


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward block, each with dropout, a residual connection and a layer norm.

    norm_first=False normalises after each block (the original, BERT's), True before it (pre-norm, which trains deeper stacks).
    Shapes: x (rows, dim) with a packing, or (batch, longest, dim) with an attention_mask; the output has x's shape.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.1,
        activation_name: str = "gelu",
        norm_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.linear1, self.linear2 = Linear(dim, feedforward), Linear(feedforward, dim)
        self.norm1, self.norm2 = LayerNorm(dim, eps), LayerNorm(dim, eps)
        self.dropout1, self.dropout, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        self.activation, self.norm_first = activation(activation_name), norm_first

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        if self.norm_first:
            x = x + self.dropout1(self.attention(self.norm1(x), packing), packing)
            return x + self._feed_forward(self.norm2(x), packing)  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout1(self.attention(x, packing), packing))
        return self.norm2(x + self._feed_forward(x, packing))  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor, packing: Packing) -> Any:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)), packing)), packing)


class TransformerEncoder(Module):
    """A stack of `TransformerEncoderLayer`s, and a last layer norm for pre-norm stacks.

    Shapes: as for one layer. Padded arrays are packed once for the whole stack.
    """

    def __init__(
        self,
        num_layers: int,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.1,
        activation_name: str = "gelu",
        norm_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        if num_layers < 1:
            raise ArgumentError(f"TransformerEncoder: num_layers must be at least 1, got {num_layers}")
        self.layers = [
            TransformerEncoderLayer(dim, heads, feedforward, dropout, activation_name, norm_first, eps) for _ in range(num_layers)
        ]
        self.norm = LayerNorm(dim, eps) if norm_first else None

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        for layer in self.layers:
            x = layer(x, packing)
        return x if self.norm is None else self.norm(x)
