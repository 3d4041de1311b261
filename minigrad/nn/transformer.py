"""A Transformer encoder, usable without BERT: packed rows inside, padded arrays welcome at the border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.nn.activation import activation as named_activation
from minigrad.nn.attention import MultiHeadAttention, pack_rows, pad_rows
from minigrad.nn.basic import Dropout, LayerNorm, Linear
from minigrad.nn.checks import check_packing, check_sizes
from minigrad.nn.module import Module
from minigrad.packing import Packing
from minigrad.tensor import Tensor


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward block, each with dropout, a residual connection and a layer norm.

    norm_first=False normalises after each block (the original, BERT's), True before it (pre-norm, which trains deeper stacks).
    Shapes: x (rows, dim) with a packing, or (batch, longest, dim) with an attention_mask; the output has x's shape.
    activation: a name (`nn.activation.ACTIVATIONS`), or any function or layer that keeps the shape.
    Raises: ArgumentError for sizes, rates or names that cannot be, and as `MultiHeadAttention` when called.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "gelu",
        norm_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        check_sizes("TransformerEncoderLayer", dim=dim, heads=heads, feedforward=feedforward)
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.linear1, self.linear2 = Linear(dim, feedforward), Linear(feedforward, dim)
        self.norm1, self.norm2 = LayerNorm(dim, eps), LayerNorm(dim, eps)
        self.dropout1, self.dropout, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        self.activation, self.norm_first = named_activation(activation), norm_first

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        packing = check_packing("TransformerEncoderLayer", x, packing, attention_mask)
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
    Raises: as one layer; ArgumentError for a number of layers below 1.
    """

    def __init__(
        self,
        num_layers: int,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "gelu",
        norm_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        check_sizes("TransformerEncoder", num_layers=num_layers)
        self.layers = [TransformerEncoderLayer(dim, heads, feedforward, dropout, activation, norm_first, eps) for _ in range(num_layers)]
        self.norm = LayerNorm(dim, eps) if norm_first else None

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        packing = check_packing("TransformerEncoder", x, packing, attention_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        for layer in self.layers:
            x = layer(x, packing)
        return x if self.norm is None else self.norm(x)
