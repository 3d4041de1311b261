"""Multi-head attention over packed rows, and functions that pack padded arrays and pad the results again."""

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
    """Pack the real rows of a padded array.

    Shapes: x (batch, longest, d), attention_mask (batch, longest) with 1 = real → (rows, d).
    Raises: ShapeError for an array with other axes, or a mask that does not fit it.
    """
    x = F.as_tensor(x)
    if x.ndim != 3:
        raise ShapeError(f"expected padded rows (batch, longest, d), or packed rows (rows, d) with a packing; got {x.shape}")
    tokens = pack_mask(x.shape[:2], attention_mask)
    return F.take_rows(x.reshape((-1, x.shape[2])), tokens.places()), tokens


def pad_rows(rows: Tensor, tokens: PackedTokens) -> Tensor:
    """Pad packed rows again as the array they came from, with zeros at the pads. Shapes: (rows, d) → (batch, longest, d)."""
    real, places = tokens.padded_rows()
    batch, longest = tokens.padded_shape or (0, 0)
    if len(real) < rows.shape[0]:
        rows = F.take_rows(rows, real)
    return F.put_rows(rows, places, count=batch * longest).reshape((batch, longest, rows.shape[1]))


def pack_memory(layer: str, memory: Tensor, packing: Packing | None, mask: Any) -> tuple[Tensor, Packing]:
    """The memory of a cross-attention as packed rows, whether it was passed packed or padded.

    Raises: as `check_packing` and `pack_rows`.
    """
    packing = check_packing(f"{layer}, memory", memory, packing, mask)
    if packing is not None:
        return memory, packing
    rows, tokens = pack_rows(memory, mask)
    return rows, tokens.packing


class MultiHeadAttention(Module):
    """softmax(Q Kᵀ / √d) V with several heads, each row attending to its own sequence. Vaswani et al., arXiv 1706.03762.

    With a `memory`, the rows of a sequence attend to the memory's sequence of the same number instead (cross-attention). With causal=True
    a row attends only to rows up to its own position; those of a memory of another length are counted from the end, so that the last row
    sees all of it.
    Shapes: x (rows, dim) with a packing → (rows, dim); or x (batch, longest, dim) with an attention_mask (batch, longest), which holds 1 or
    True for real rows and 0 or False for padding → the same shape. memory likewise, packed or padded, with memory_packing or memory_mask.
    Raises: ArgumentError if heads does not divide dim, and when called with other numbers in a mask, with a mask in addition to or in
    place of the packing, or with memory_packing or memory_mask but no memory; ShapeError for a packing of another number of rows, or a
    memory of another number of sequences.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, bias: bool = True, causal: bool = False) -> None:
        check_sizes("MultiHeadAttention", dim=dim, heads=heads)
        if dim % heads:
            raise ArgumentError(f"MultiHeadAttention: {dim} channels do not divide among {heads} heads")
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = Linear(dim, dim, bias), Linear(dim, dim, bias), Linear(dim, dim, bias)
        self.output = Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        packing: Packing | None = None,
        attention_mask: Any = None,
        memory: Tensor | None = None,
        memory_packing: Packing | None = None,
        memory_mask: Any = None,
    ) -> Tensor:
        packing = check_packing("MultiHeadAttention", x, packing, attention_mask)
        if memory is not None:
            memory, memory_packing = pack_memory("MultiHeadAttention", memory, memory_packing, memory_mask)
        elif memory_packing is not None or memory_mask is not None:
            raise ArgumentError("MultiHeadAttention: memory_packing and memory_mask belong to a memory, and none was passed")
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            return pad_rows(self.forward(rows, tokens.packing, memory=memory, memory_packing=memory_packing), tokens)
        keys = packing if memory_packing is None else memory_packing
        if len(keys) != len(packing):
            raise ShapeError(f"MultiHeadAttention: {len(packing)} sequences cannot attend to a memory of {len(keys)}")
        read = x if memory is None else memory
        asking, kv = self.query(x), F.concatenate([self.key(read), self.value(read)], axis=1)
        draw = self.dropout.draw(packing, self.heads, keys)
        mixed = F.attention(asking, kv, packing=keys, queries=packing, heads=self.heads, draw=draw, causal=self.causal)
        return self.output(mixed)  # type: ignore[no-any-return]
