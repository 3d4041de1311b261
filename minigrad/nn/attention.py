"""Multi-head self-attention over packed rows, and the border where padded arrays are packed and padded again."""

from __future__ import annotations

from typing import Any

from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn.basic import Dropout, Linear
from minigrad.nn.checks import check_packing, check_sizes
from minigrad.nn.module import Module
from minigrad.packing import PackedTokens, Packing, pack_mask
from minigrad.tensor import Tensor


def pack_rows(x: Tensor, attention_mask: Any = None) -> tuple[Tensor, PackedTokens]:
    """The real rows of a padded array, and how they are packed.

    Shapes: x (batch, longest, d), attention_mask (batch, longest) with non-zero = real → (rows, d).
    """
    x = F.as_tensor(x)
    if x.ndim != 3:
        raise ShapeError(f"expected padded rows (batch, longest, d), or packed rows (rows, d) with a packing; got {x.shape}")
    tokens = pack_mask(x.shape[:2], attention_mask)
    return F.take_rows(x.reshape((-1, x.shape[2])), tokens.places()), tokens


def pad_rows(rows: Tensor, tokens: PackedTokens) -> Tensor:
    """Packed rows put back into the padded array they came from, zeros at the pads. Shapes: (rows, d) → (batch, longest, d)."""
    real, places = tokens.padded_rows()
    batch, longest = tokens.padded_shape or (0, 0)
    if len(real) < rows.shape[0]:
        rows = F.take_rows(rows, real)
    return F.put_rows(rows, places, count=batch * longest).reshape((batch, longest, rows.shape[1]))


class MultiHeadAttention(Module):
    """softmax(Q Kᵀ / √d) V with several heads, each row attending to its own sequence. Vaswani et al., arXiv 1706.03762.

    Shapes: x (rows, dim) with a packing → (rows, dim); or x (batch, longest, dim) with an attention_mask → the same shape.
    Raises: ArgumentError if dim does not divide among the heads, and when called with a mask beside or in place of the packing;
    ShapeError for a packing of other rows.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        check_sizes("MultiHeadAttention", dim=dim, heads=heads)
        if dim % heads:
            raise ArgumentError(f"MultiHeadAttention: {dim} channels do not divide among {heads} heads")
        self.heads = heads
        self.query, self.key, self.value = Linear(dim, dim, bias), Linear(dim, dim, bias), Linear(dim, dim, bias)
        self.output = Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None) -> Tensor:
        packing = check_packing("MultiHeadAttention", x, packing, attention_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing), tokens)
        parts = [layer(x) for layer in (self.query, self.key, self.value)]
        draw = self.dropout.draw(packing, self.heads, packing)
        mixed = F.attention(parts[0], F.concatenate(parts[1:], axis=1), packing=packing, heads=self.heads, draw=draw)
        return self.output(mixed)  # type: ignore[no-any-return]
