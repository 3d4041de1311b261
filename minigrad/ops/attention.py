"""Attention over packed rows: every sequence by itself, no padding."""

from __future__ import annotations

from math import sqrt
from typing import Any

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ShapeError
from minigrad.op import composite, op
from minigrad.ops.softmax import allowed, plain_softmax, softmax
from minigrad.packing import Packing
from minigrad.tensor import Tensor, TensorLike, as_tensor


@op("nq h | none, n 3h | n 2h -> nq h")
def attention(
    xp: Any, q: Array | None, kv: Array, *, packing: Packing, queries: Packing | None = None, heads: int, draw: Draw | None = None
) -> Any:
    """softmax(Q Kᵀ / √d) V, head by head and sequence by sequence. Vaswani et al., arXiv 1706.03762.

    With q None, kv holds Q | K | V side by side and every row asks. Otherwise q holds the rows that ask, packed by `queries`, and kv
    holds K | V of all rows. Rows that are masked first tokens of `packing` are attended to by nobody.
    """
    parts = 3 if q is None else 2
    if kv.shape[1] % (parts * heads):
        raise ShapeError(f"attention: {kv.shape[1] // parts} channels do not divide among {heads} heads")
    d = kv.shape[1] // (parts * heads)
    scale = 1.0 / sqrt(d)
    queries = packing if queries is None else queries
    asking_rows = kv.shape[0] if q is None else q.shape[0]
    if (kv.shape[0], asking_rows, len(packing)) != (packing.rows, queries.rows, len(queries)):
        raise ShapeError(f"attention: {kv.shape[0]} rows asked by {asking_rows} do not fit {packing} and {queries}")
    kv_heads = kv.reshape((kv.shape[0], parts * heads, d))
    q_heads = kv_heads if q is None else q.reshape((q.shape[0], heads, d))
    outputs, saved = [], []
    for i, ((a, b), (first, last)) in enumerate(zip(packing.key_spans, queries.spans, strict=True)):
        both = kv_heads[a:b, -2 * heads :].swapaxes(0, 1)  # (2 heads, keys, d)
        k, v = both[:heads], both[heads:]
        asking = q_heads[first:last, :heads].swapaxes(0, 1)
        weights = plain_softmax(xp, (asking @ k.swapaxes(-1, -2)) * scale, -1)
        kept = None if draw is None else xp.like(draw.pairs(i), kv).astype(kv.dtype) * draw.scale
        mixed = (weights if kept is None else weights * kept) @ v
        outputs.append(mixed.swapaxes(0, 1).reshape((last - first, heads * d)))
        saved.append((asking, k, v, weights, kept))

    def pullback(g: Array) -> Any:
        g_heads = g.reshape((g.shape[0], heads, d))
        dq, dkv = [], []
        for i, (asking, k, v, weights, kept) in enumerate(saved):
            first, last = queries.spans[i]
            go = g_heads[first:last].swapaxes(0, 1)
            dp = go @ v.swapaxes(-1, -2)
            if kept is not None:
                dp = dp * kept
            dv = (weights if kept is None else weights * kept).swapaxes(-1, -2) @ go
            ds = weights * (dp - (dp * weights).sum(axis=-1, keepdims=True))
            ds *= scale
            dq.append((ds @ k).swapaxes(0, 1))
            dkv.append(_with_masked_first(xp, xp.concatenate([ds.swapaxes(-1, -2) @ asking, dv], axis=0).swapaxes(0, 1), packing, i))
        gq, gkv = xp.concatenate(dq, axis=0), xp.concatenate(dkv, axis=0)
        if q is None:
            joined = xp.concatenate([gq, gkv], axis=1)
            return None, joined.reshape((joined.shape[0], 3 * heads * d))
        return gq.reshape((gq.shape[0], heads * d)), gkv.reshape((gkv.shape[0], 2 * heads * d))

    return xp.concatenate(outputs, axis=0), pullback


def _with_masked_first(xp: Any, gradient: Array, packing: Packing, i: int) -> Array:
    """The key and value gradients of sequence i, with a zero row in front if its first token was not attended to."""
    if packing.masked_first is None or not packing.masked_first[i]:
        return gradient
    return xp.concatenate([gradient[:1] * 0.0, gradient], axis=0)


@composite("*b q d, *b k d, *b k v -> *b q v")
def scaled_dot_product_attention(q: TensorLike, k: TensorLike, v: TensorLike, mask: TensorLike | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v over padded arrays; packed batches use a model's own attention, which computes no padding.

    mask: True where a query may attend to a key, broadcast to (*b, queries, keys). A query without any key gives zeros.
    Shapes: q (*b, queries, d), k (*b, keys, d), v (*b, keys, dv) → (*b, queries, dv).
    """
    q, k, v = as_tensor(q), as_tensor(k), as_tensor(v)
    scores = (q @ k.swapaxes(-1, -2)) * (q.shape[-1] ** -0.5)
    return softmax(scores, None if mask is None else allowed(mask, scores)) @ v
