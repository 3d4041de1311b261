"""Transformer encoders and decoders, usable without BERT. They take packed rows or padded arrays, and compute packed rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad.nn.activation import activation as named_activation
from minigrad.nn.attention import MultiHeadAttention, pack_memory, pack_rows, pad_rows
from minigrad.nn.basic import Dropout, Linear
from minigrad.nn.checks import check_packing, check_sizes
from minigrad.nn.module import Module
from minigrad.nn.normalisation import LayerNorm
from minigrad.packing import Packing
from minigrad.tensor import Tensor


class _TransformerLayer(Module):
    """Base of encoder and decoder layers: the feed-forward block, and the wrapping of a block in dropout, residual and norm."""

    linear1: Linear
    linear2: Linear
    dropout: Dropout
    activation: Callable[[Tensor], Tensor]
    norm_first: bool

    def _residual(self, x: Tensor, packing: Packing, norm: LayerNorm, dropout: Dropout, block: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute a block with dropout, a residual connection, and a norm before or after it."""
        if self.norm_first:
            return x + dropout(block(norm(x)), packing)  # type: ignore[no-any-return]
        return norm(x + dropout(block(x), packing))  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor, packing: Packing) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x)), packing))  # type: ignore[no-any-return]


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and a feed-forward block, each with dropout, a residual connection and a layer norm.

    norm_first=False normalises after each block (the original, BERT's), True before it (pre-norm, which trains deeper stacks).
    causal=True lets a row attend only to rows up to itself: with norm_first=True this is a layer of GPT.
    Shapes: x (rows, dim) with a packing, or (batch, longest, dim) with an attention_mask (1 or True = real); the output has x's shape.
    activation: a name (`nn.activation.ACTIVATIONS`), or any function or layer that keeps the shape.
    Raises: ArgumentError for impossible sizes, rates or names, and as `MultiHeadAttention` when called.
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
        causal: bool = False,
    ) -> None:
        check_sizes("TransformerEncoderLayer", dim=dim, heads=heads, feedforward=feedforward)
        self.attention = MultiHeadAttention(dim, heads, dropout, causal=causal)
        self.linear1, self.linear2 = Linear(dim, feedforward), Linear(feedforward, dim)
        self.norm1, self.norm2 = LayerNorm(dim, eps), LayerNorm(dim, eps)
        self.dropout1, self.dropout, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        self.activation, self.norm_first = named_activation(activation), norm_first

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        packing = check_packing("TransformerEncoderLayer", x, packing, attention_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        x = self._residual(x, packing, self.norm1, self.dropout1, lambda y: self.attention(y, packing))
        return self._residual(x, packing, self.norm2, self.dropout2, lambda y: self._feed_forward(y, packing))


class TransformerEncoder(Module):
    """A stack of `TransformerEncoderLayer`s, with a final layer norm for pre-norm stacks.

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
        causal: bool = False,
    ) -> None:
        check_sizes("TransformerEncoder", num_layers=num_layers)
        settings = (dim, heads, feedforward, dropout, activation, norm_first, eps, causal)
        self.layers = [TransformerEncoderLayer(*settings) for _ in range(num_layers)]
        self.norm = LayerNorm(dim, eps) if norm_first else None

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        packing = check_packing("TransformerEncoder", x, packing, attention_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        for layer in self.layers:
            x = layer(x, packing)
        return x if self.norm is None else self.norm(x)


class TransformerDecoderLayer(_TransformerLayer):
    """Causal self-attention, attention to a memory, and a feed-forward block, each with dropout, a residual connection and a layer norm.

    norm_first, activation: as in `TransformerEncoderLayer`.
    Shapes: x and memory (rows, dim) with packing and memory_packing, or padded (batch, length, dim) with attention_mask and memory_mask
    (1 or True = real), independently of each other; both hold the same number of sequences, of any lengths. The output has x's shape.
    Raises: ArgumentError for impossible sizes, rates or names, and as `MultiHeadAttention` when called.
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
        check_sizes("TransformerDecoderLayer", dim=dim, heads=heads, feedforward=feedforward)
        self.attention, self.cross_attention = MultiHeadAttention(dim, heads, dropout, causal=True), MultiHeadAttention(dim, heads, dropout)
        self.linear1, self.linear2 = Linear(dim, feedforward), Linear(feedforward, dim)
        self.norm1, self.norm2, self.norm3 = LayerNorm(dim, eps), LayerNorm(dim, eps), LayerNorm(dim, eps)
        self.dropout1, self.dropout2, self.dropout, self.dropout3 = (Dropout(dropout) for _ in range(4))
        self.activation, self.norm_first = named_activation(activation), norm_first

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        packing: Packing | None = None,
        memory_packing: Packing | None = None,
        attention_mask: Any = None,
        memory_mask: Any = None,
    ) -> Tensor:
        packing = check_packing("TransformerDecoderLayer", x, packing, attention_mask)
        memory, keys = pack_memory("TransformerDecoderLayer", memory, memory_packing, memory_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, memory, tokens.packing, keys), tokens)
        x = self._residual(x, packing, self.norm1, self.dropout1, lambda y: self.attention(y, packing))
        x = self._residual(
            x, packing, self.norm2, self.dropout2, lambda y: self.cross_attention(y, packing, memory=memory, memory_packing=keys)
        )
        return self._residual(x, packing, self.norm3, self.dropout3, lambda y: self._feed_forward(y, packing))


class TransformerDecoder(Module):
    """A stack of `TransformerDecoderLayer`s over one memory, with a final layer norm for pre-norm stacks.

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
        check_sizes("TransformerDecoder", num_layers=num_layers)
        self.layers = [TransformerDecoderLayer(dim, heads, feedforward, dropout, activation, norm_first, eps) for _ in range(num_layers)]
        self.norm = LayerNorm(dim, eps) if norm_first else None

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        packing: Packing | None = None,
        memory_packing: Packing | None = None,
        attention_mask: Any = None,
        memory_mask: Any = None,
    ) -> Tensor:
        packing = check_packing("TransformerDecoder", x, packing, attention_mask)
        memory, keys = pack_memory("TransformerDecoder", memory, memory_packing, memory_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, memory, tokens.packing, keys), tokens)
        for layer in self.layers:
            x = layer(x, memory, packing, keys)
        return x if self.norm is None else self.norm(x)
