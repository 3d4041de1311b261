"""The building blocks of a Transformer, fused at the boundaries of BERT's modules.

A fused body calls the same small helpers as the plain one, so each formula stands here once. The stabilising shifts of softmax are
constants: softmax does not change with them, so this is exact at every order of derivative.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op
from minigrad.ops.elementwise import logistic
from minigrad.ops.index import check_rows
from minigrad.packing import Packing


# ---------------------------------------------------------------- layer normalisation
def normalise(xp: Any, x: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and 1/σ of each row. The mean is taken twice (corrected two-pass): rows with a large mean keep six more digits."""
    xhat = x - x.mean(axis=-1, keepdims=True)
    xhat -= xhat.mean(axis=-1, keepdims=True)
    rstd = 1.0 / xp.sqrt((xhat * xhat).mean(axis=-1, keepdims=True) + eps)
    xhat *= rstd
    return xhat, rstd


def normalise_pullback(g: Array, xhat: Array, rstd: Array) -> Array:
    gx = g - g.mean(axis=-1, keepdims=True)
    gx -= xhat * (g * xhat).mean(axis=-1, keepdims=True)
    gx *= rstd
    return gx


@op("*b d, d, d -> *b d", promotes="float")
def layer_norm(xp: Any, x: Array, weight: Array, bias: Array, *, eps: float = 1e-12) -> Any:
    """Each row shifted to mean 0 and scaled to variance 1, then · weight + bias. Ba, Kiros & Hinton, arXiv 1607.06450."""
    if tuple(weight.shape) != tuple(x.shape[-1:]) or tuple(bias.shape) != tuple(weight.shape):
        raise ShapeError(f"layer_norm: x {tuple(x.shape)} needs a weight and a bias of its last axis, got {weight.shape} and {bias.shape}")
    xhat, rstd = normalise(xp, x, eps)

    def pullback(g: Array) -> Any:
        return normalise_pullback(g * weight, xhat, rstd), g * xhat, g

    return xhat * weight + bias, pullback


# ---------------------------------------------------------------- gelu
def gelu_gate(xp: Any, x: Array, approximate: str) -> Array:
    """The factor of x in gelu(x): Φ(x), by erfc so that the left tail keeps its digits, or its tanh form as a sigmoid (likewise)."""
    if approximate == "tanh":
        return logistic(xp, (x + x * x * x * 0.044715) * (2.0 * sqrt(2.0 / pi)))
    gate = xp.erfc(x * -sqrt(0.5))
    gate *= 0.5
    return gate


def gelu_slope(xp: Any, x: Array, gate: Array, approximate: str) -> Array:
    """gelu'(x) = gate + x · gate'."""
    if approximate == "tanh":
        inner = (x * x * (3.0 * 0.044715) + 1.0) * (2.0 * sqrt(2.0 / pi))
        return gate + x * gate * (1.0 - gate) * inner
    slope = xp.exp(x * x * -0.5)
    slope *= x * (1.0 / sqrt(2.0 * pi))
    slope += gate
    return slope


@op("*s -> *s", promotes="float")
def gelu(xp: Any, x: Array, *, approximate: str = "none") -> Any:
    """x · Φ(x), the Gaussian error linear unit; approximate="tanh" is the form of GPT. Hendrycks & Gimpel, arXiv 1606.08415."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')
    gate = gelu_gate(xp, x, approximate)
    return x * gate, (lambda g: g * gelu_slope(xp, x, gate, approximate),)


# ---------------------------------------------------------------- softmax
def _softmax(xp: Any, x: Array, axis: int) -> Array:
    e = xp.exp(x - xp.constant(x).max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


@op("*b n -> *b n", promotes="float")
def softmax(xp: Any, x: Array, mask: Array | None, *, axis: int = -1) -> Any:
    """eˣ / Σ eˣ along an axis. With a boolean mask only True entries take part; a slice without any gives zeros."""
    if mask is None:
        y = _softmax(xp, x, axis)
    else:
        top = xp.where(mask, xp.constant(x), -xp.inf).max(axis=axis, keepdims=True)
        shift = xp.where(top == -xp.inf, 0.0, top)  # a slice without a True entry has no maximum
        e = xp.exp(xp.where(mask, x - shift, 0.0)) * mask
        total = e.sum(axis=axis, keepdims=True)
        y = e / xp.where(xp.constant(total) == 0, 1.0, total)
    return y, (lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True)), None)


@op("*b n -> *b n", promotes="float")
def log_softmax(xp: Any, x: Array, *, axis: int = -1) -> Any:
    """x - log Σ eˣ along an axis."""
    shifted = x - xp.constant(x).max(axis=axis, keepdims=True)
    y = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
    return y, (lambda g: g - xp.exp(y) * g.sum(axis=axis, keepdims=True),)


@op("n c, n:int<c -> ", promotes="float")
def cross_entropy(
    xp: Any, logits: Array, labels: Array, *, ignore_index: int = -100, label_smoothing: float = 0.0, denominator: int | None = None
) -> Any:
    """The mean of -log softmax(logits)[label] over the rows whose label is not `ignore_index`.

    Label smoothing mixes the one-hot target with the uniform one (Szegedy et al., arXiv 1512.00567). `denominator` is the number of
    labels to divide by when these rows are only part of a step. Without any label the loss is NaN and the gradient 0, as in PyTorch.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(f"cross_entropy takes logits (n, classes) and labels (n,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing lies between 0 and 1, got {label_smoothing}")
    valid = labels != ignore_index
    check_rows("cross_entropy labels", xp.constant(labels) * valid, logits.shape[1])
    classes = logits.shape[1]
    n = int(valid.sum()) if denominator is None else denominator
    target = xp.one_hot(xp.constant(labels), classes, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / classes
    target *= valid[:, None]
    counted = xp.where(valid[:, None], logits, 0.0)  # whatever an ignored row holds, it must not count
    shifted = counted - xp.constant(counted).max(axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)

    def pullback(g: Array) -> Any:
        return ((e / total) * valid[:, None] - target) * (g * (1.0 / max(n, 1))), None

    wanted = xp.where(target == 0, 0.0, shifted) * target  # a class at -inf costs nothing where nobody asks for it
    losses = xp.log(total) * valid[:, None] - wanted.sum(axis=-1, keepdims=True)
    return losses.sum() * (1.0 / n if n else float("nan")), pullback


# ---------------------------------------------------------------- dropout
def survivors(xp: Any, draw: Draw, x: Array) -> Array:
    """scale where a unit survives, 0 where it drops: in every interpreter a constant array, shaped like x."""
    return (xp.like(draw.mask(), x).astype(x.dtype) * draw.scale).reshape(x.shape)


@op("*b d -> *b d", promotes="float")
def dropout(xp: Any, x: Array, *, draw: Draw) -> Any:
    """Units dropped by `draw`, survivors scaled up. Srivastava et al., JMLR 15, 2014. Leading axes count as rows."""
    kept = survivors(xp, draw, x)
    return x * kept, (lambda g: g * kept,)


# ---------------------------------------------------------------- fused with a linear layer
@op("n k, m k, m -> n m", promotes="float")
def dense_gelu(xp: Any, x: Array, weight: Array, bias: Array, *, approximate: str = "none") -> Any:
    """gelu(x Wᵀ + b): the first half of a feed-forward block."""
    h = x @ weight.swapaxes(0, 1) + bias
    gate = gelu_gate(xp, h, approximate)

    def pullback(g: Array) -> Any:
        dh = g * gelu_slope(xp, h, gate, approximate)
        return dh @ weight, xp.product(dh.swapaxes(0, 1), x), dh

    return h * gate, pullback


@op("n k, d k, d, n d, d, d -> n d", promotes="float")
def dense_add_norm(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    *,
    draw: Draw | None = None,
    eps: float = 1e-12,
) -> Any:
    """layer_norm(dropout(x Wᵀ + b) + residual): the end of an attention or feed-forward block (post-norm)."""
    y = x @ weight.swapaxes(0, 1) + bias
    kept = None if draw is None else survivors(xp, draw, y)
    if kept is not None:
        y = y * kept
    xhat, rstd = normalise(xp, y + residual, eps)

    def pullback(g: Array) -> Any:
        gx = normalise_pullback(g * gamma, xhat, rstd)
        dy = gx if kept is None else gx * kept
        return dy @ weight, xp.product(dy.swapaxes(0, 1), x), dy, gx, g * xhat, g

    return xhat * gamma + beta, pullback


# ---------------------------------------------------------------- attention
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
        weights = _softmax(xp, (asking @ k.swapaxes(-1, -2)) * scale, -1)
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
