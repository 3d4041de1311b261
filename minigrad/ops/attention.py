"""Attention: over packed rows, where every sequence is computed by itself without padding, and over padded arrays."""

from __future__ import annotations

from math import sqrt
from typing import Any

from minigrad.backend import Array, namespace_of
from minigrad.backend.random import Draw
from minigrad.errors import ShapeError
from minigrad.op import composite, op
from minigrad.ops.softmax import allowed, softmax
from minigrad.packing import Packing
from minigrad.tensor import Tensor, TensorLike, as_tensors


@op("nq h | none, n 3h | n 2h -> nq h")
def attention(
    xp: Any,
    q: Array | None,
    kv: Array,
    *,
    packing: Packing,
    queries: Packing | None = None,
    heads: int,
    draw: Draw | None = None,
    causal: bool = False,
) -> Any:
    """softmax(Q Kᵀ / √d) V, head by head and sequence by sequence. Vaswani et al., arXiv 1706.03762.

    With q None, kv holds Q | K | V side by side and every row is a query. Otherwise q holds the queries, packed by `queries`, and kv
    holds K | V of all rows. No query attends to rows that are masked first tokens of `packing`. With `causal` a query attends to the keys
    up to its own position; if there are fewer or more queries than keys, positions are counted from the end, so that the last query
    attends to the last key. A query without any key gives zeros.
    Raises: ShapeError unless the heads divide the channels and the numbers of rows are those of the packings.
    """
    parts = 3 if q is None else 2
    if kv.shape[1] % (parts * heads):
        raise ShapeError(f"attention: {kv.shape[1] // parts} channels do not divide among {heads} heads")
    d = kv.shape[1] // (parts * heads)
    scale = 1.0 / sqrt(d)
    queries = packing if queries is None else queries
    query_rows = kv.shape[0] if q is None else q.shape[0]
    if (kv.shape[0], query_rows, len(packing)) != (packing.rows, queries.rows, len(queries)):
        raise ShapeError(f"attention: {kv.shape[0]} rows of keys and {query_rows} of queries do not fit {packing} and {queries}")
    kv_heads = kv.reshape((kv.shape[0], parts * heads, d))
    q_heads = kv_heads if q is None else q.reshape((q.shape[0], heads, d))
    outputs, saved = [], []
    for i, ((a, b), (first, last)) in enumerate(zip(packing.key_spans, queries.spans, strict=True)):
        keys_values = kv_heads[a:b, -2 * heads :].swapaxes(0, 1)  # (2 heads, keys, d)
        k, v = keys_values[:heads], keys_values[heads:]
        query = q_heads[first:last, :heads].swapaxes(0, 1)
        scores = xp.matmul(query, k.swapaxes(-1, -2)) * scale
        visible = causal_mask(xp.constant(kv), last - first, b - a) if causal else None
        weights = softmax.body(xp, scores, visible)[0] if a < b else scores
        mask = None if draw is None else xp.like(draw.pairs(i), kv).astype(kv.dtype) * draw.scale
        mixed = xp.matmul(weights if mask is None else weights * mask, v)
        outputs.append(mixed.swapaxes(0, 1).reshape((last - first, heads * d)))
        saved.append((query, k, v, weights, mask))

    def pullback(g: Array) -> Any:
        g_heads = g.reshape((g.shape[0], heads, d))
        dq, dkv = [], []
        for i, (query, k, v, weights, mask) in enumerate(saved):
            first, last = queries.spans[i]
            go = g_heads[first:last].swapaxes(0, 1)
            dp = xp.matmul(go, v.swapaxes(-1, -2))
            if mask is not None:
                dp = dp * mask
            dv = xp.matmul((weights if mask is None else weights * mask).swapaxes(-1, -2), go)
            ds = weights * (dp - (dp * weights).sum(axis=-1, keepdims=True))
            ds *= scale
            dq.append(xp.matmul(ds, k).swapaxes(0, 1))
            dk = xp.matmul(ds.swapaxes(-1, -2), query)
            dkv.append(_with_masked_first(xp, xp.concatenate([dk, dv], axis=0).swapaxes(0, 1), packing, i))
        gq, gkv = xp.concatenate(dq, axis=0), xp.concatenate(dkv, axis=0)
        if q is None:
            joined = xp.concatenate([gq, gkv], axis=1)
            return None, joined.reshape((joined.shape[0], 3 * heads * d))
        return gq.reshape((gq.shape[0], heads * d)), gkv.reshape((gkv.shape[0], 2 * heads * d))

    return xp.concatenate(outputs, axis=0), pullback


def causal_mask(x: Array, queries: int, keys: int) -> Array:
    """The causal mask on x's device: a query attends to keys up to its own position, and the last query to the last key.

    Shapes: → (queries, keys) booleans.
    """
    return namespace_of(x).tri(queries, keys, keys - queries, dtype=bool)


def _with_masked_first(xp: Any, gradient: Array, packing: Packing, i: int) -> Array:
    """The key and value gradients of sequence i, with a row of zeros prepended if its first token is masked."""
    if packing.masked_first is None or not packing.masked_first[i]:
        return gradient
    return xp.concatenate([xp.zeros_like(gradient, shape=(1, *gradient.shape[1:])), gradient], axis=0)


@composite("*b q d, *b k d, *b k v -> *b q v")
def scaled_dot_product_attention(
    q: TensorLike, k: TensorLike, v: TensorLike, mask: TensorLike | None = None, causal: bool = False
) -> Tensor:
    """softmax(q kᵀ / √d) v over padded arrays; for packed batches, `attention` computes no padding.

    mask: True (or 1) where a query may attend to a key, broadcast to (*b, queries, keys). For an additive mask of 0 and -inf, as PyTorch
    takes it, pass mask == 0. causal: a query attends to the keys up to its own position; if there are more or fewer queries than keys, the
    last query attends to the last key. With both, a key must be allowed by both. A query without any key gives zeros.
    Shapes: q (*b, queries, d), k (*b, keys, d), v (*b, keys, dv) → (*b, queries, dv).
    Raises: ShapeError for arrays of fewer than two axes, and for shapes that do not fit; ArgumentError for a mask of floats.
    """
    q, k, v = as_tensors(q, k, v)
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(f"attention needs axes of queries or keys, and of channels; got shapes {q.shape}, {k.shape} and {v.shape}")
    scores: Tensor = (q @ k.swapaxes(-1, -2)) * (max(q.shape[-1], 1) ** -0.5)
    if k.shape[-2] == 0:
        return scores @ v
    visible = None if mask is None else allowed(mask, scores)
    if causal:
        earlier = causal_mask(scores.array, q.shape[-2], k.shape[-2])
        visible = earlier if visible is None else visible & earlier
    return softmax(scores, visible) @ v
