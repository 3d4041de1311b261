"""F: all functions on Tensors, stateless. Layers contain no formulas of their own; a function that they lack belongs here.

Most names are the operations of `ops` themselves. A function defined here checks and converts its arguments, and then calls the operation
of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from minigrad import ops
from minigrad.backend import Array, device_of
from minigrad.backend.random import Draw
from minigrad.backend.transfers import is_recording
from minigrad.errors import ArgumentError, DTypeError, ShapeError

from minigrad.ops import (  # isort: skip
    absolute, add, argmax, argmin, argsort, attention, attention_block, avg_pool1d, avg_pool2d, batch_norm, bce_with_logits, ceil, conv1d,
    conv2d, cos, cosine_similarity, cumsum, dense_add_norm, dense_gelu, dense_tanh, divide, einsum, embed_norm, equal, erf, erfc, exp,
    expand_dims, expm1, feed_forward, flip, floor, greater, greater_equal, group_norm, gru, huber_loss, isfinite, isnan, kl_div, l1_loss,
    ldexp, less, less_equal, linears, log, log1p, lstm, masked_fill, matmul, max, max_pool1d, max_pool2d, maximum, mean, min, minimum,
    moveaxis, mse_loss, multiply, negative, nll_loss, norm, not_equal, one_hot, outer, pad, power, prod, relu, repeat, rnn, round, rsqrt,
    scaled_dot_product_attention, scatter_add, segment_max, segment_mean, sigmoid, sign, silu, sin, smooth_l1_loss, soft_cross_entropy,
    softplus, sort, split, sqrt, square, squeeze, stack, std, subtract, sum, take_along_axis, tanh, tile, topk, tril, triu, var,
)  # fmt: skip
from minigrad.ops.axes import as_integer, as_integers
from minigrad.ops.loss_arguments import IGNORED
from minigrad.ops.windows import PerAxis
from minigrad.packing import Packing, host_array
from minigrad.tensor import Tensor, TensorLike, as_tensor

__all__ = [
    "absolute", "add", "argmax", "argmin", "argsort", "as_tensor", "attention", "attention_block", "avg_pool1d", "avg_pool2d", "batch_norm",
    "bce_with_logits", "broadcast_to", "ceil", "clip", "concatenate", "conv1d", "conv2d", "cos", "cosine_similarity", "cross_entropy",
    "cumsum", "dense_add_norm", "dense_gelu", "dense_tanh", "divide", "dropout", "einsum", "embed_norm", "embedding", "equal", "erf",
    "erfc", "exp", "expand_dims", "expm1", "feed_forward", "flip", "floor", "fold", "gelu", "greater", "greater_equal", "group_norm", "gru",
    "huber_loss", "isfinite", "isnan", "kl_div", "l1_loss", "layer_norm", "ldexp", "less", "less_equal", "linear", "linears", "log",
    "log1p", "log_softmax", "logsumexp", "lstm", "masked_fill", "matmul", "max", "max_pool1d", "max_pool2d", "maximum", "mean", "min",
    "minimum", "moveaxis", "mse_loss", "multiply", "negative", "nll_loss", "norm", "not_equal", "one_hot", "outer", "pad", "power", "prod",
    "put_rows", "relu", "repeat", "reshape", "rms_norm", "rnn", "round", "rsqrt", "scaled_dot_product_attention", "scatter_add",
    "segment_max", "segment_mean", "sigmoid", "sign", "silu", "sin", "smooth_l1_loss", "soft_cross_entropy", "softmax", "softplus", "sort",
    "split", "sqrt", "square", "squeeze", "stack", "std", "subtract", "sum", "swapaxes", "take_along_axis", "take_rows", "tanh", "tile",
    "topk", "transpose", "tril", "triu", "unfold", "var", "where",
]  # fmt: skip


# ---------------------------------------------------------------- elementwise
def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x · Φ(x), exactly (by erf), or by the tanh approximation with approximate="tanh"."""
    return ops.gelu(as_tensor(x), approximate=approximate)


def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds, else y; the branch not taken receives gradient 0."""
    if not isinstance(condition, Tensor):
        condition = Tensor(condition, device=next((branch.device for branch in (x, y) if isinstance(branch, Tensor)), None))
    return ops.where(condition, x, y)


def clip(x: TensorLike, min: float | None = None, max: float | None = None) -> Tensor:
    """x limited to min … max, numbers or None for no limit; the slope is 1 within and at both bounds, 0 outside.

    Raises: ArgumentError without a bound, or for a bound that is not a number.
    """
    if not all(b is None or isinstance(b, Real) for b in (min, max)):
        raise ArgumentError(f"clip: a bound is a number or None, got {min!r:.40} and {max!r:.40}")
    low, high = (int(b) if isinstance(b, Integral) else None if b is None else float(b) for b in (min, max))
    x = as_tensor(x)
    if x.dtype.kind != "f" and (isinstance(low, float) or isinstance(high, float)):
        x = x.astype("float32")
    return ops.clip(x, min=low, max=high)


# ---------------------------------------------------------------- shape
def reshape(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """The same elements, row by row, in another shape (one dimension may be -1)."""
    return ops.reshape(as_tensor(x), shape=shape)


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """Axis i of the result is axis axes[i] of x; without `axes` the order is reversed."""
    x = as_tensor(x)
    return ops.transpose(x, axes=tuple(reversed(range(x.ndim))) if axes is None else axes)


def swapaxes(x: TensorLike, a: int, b: int) -> Tensor:
    """Two axes exchanged."""
    return ops.swapaxes(as_tensor(x), a=a, b=b)


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1."""
    return ops.broadcast_to(as_tensor(x), shape=as_integers("broadcast_to: shape", shape))


def concatenate(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors joined along an existing axis.

    Raises: ArgumentError for no tensors; ShapeError for shapes that do not fit together.
    """
    if not hasattr(tensors, "__len__") or len(tensors) == 0:
        raise ArgumentError("concatenate needs a list of at least one tensor")
    return ops.concatenate(*tensors, axis=axis)


def take_rows(x: TensorLike, rows: Array) -> Tensor:
    """Distinct rows of x. Shapes: x (n, d), rows (m,) integers → (m, d).

    Raises: IndexRangeError for a row outside x; ArgumentError for repeated rows (`x[rows]` allows them).
    """
    x = as_tensor(x)
    if x.ndim == 0:
        raise ShapeError("take_rows: a single number has no rows")
    return ops.take_rows(x, _distinct(rows, x.shape[0], x.device))


def _distinct(rows: Any, count: int, device: str) -> Tensor:
    """Row indices on a device, checked. During a capture indices that are on the GPU count as checked."""
    if is_recording() and device_of(rows) != "cpu":
        return Tensor.wrap(rows)
    places = host_array("rows", rows)
    if places.ndim != 1:
        raise ShapeError(f"rows must be a list of integers, got shape {places.shape}")
    ops.check_rows("rows", places, count)
    if len(set(places.tolist())) < len(places):
        raise ArgumentError("rows must be distinct; index with x[rows] to repeat some")
    return Tensor(places, device=device)


def put_rows(x: TensorLike, rows: Array, count: int) -> Tensor:
    """Zeros (count, d) with the rows of x written to the distinct rows `rows`: the transpose of take_rows."""
    x, count = as_tensor(x), as_integer("put_rows: count", count)
    return ops.put_rows(x, _distinct(rows, count, x.device), count=count)


# ---------------------------------------------------------------- reductions
def logsumexp(x: TensorLike, axis: int = -1, keepdims: bool = False) -> Tensor:
    """log Σ eˣ over one axis; all -inf gives -inf, +inf gives +inf."""
    return ops.logsumexp(as_tensor(x), axis=axis, keepdims=keepdims)


# ---------------------------------------------------------------- layers as functions
def softmax(x: TensorLike, axis: int = -1, mask: TensorLike | None = None) -> Tensor:
    """eˣ / Σ eˣ along an axis. With a mask only entries where it is True (or 1) take part; a slice without any gives zeros.

    Shapes: x (*s), mask booleans or integers 0 and 1 that broadcast to (*s) → (*s).
    Raises: ArgumentError for a mask of floats, or of other integers (on the CPU only); ShapeError.
    """
    x = as_tensor(x)
    return ops.softmax(x, None if mask is None else ops.allowed(mask, x), axis=axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """x - log Σ eˣ along an axis."""
    return ops.log_softmax(as_tensor(x), axis=axis)


def linear(x: TensorLike, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. Shapes: x (*b, in), weight (out, in), bias (out,) → (*b, out)."""
    return ops.linear(x, weight, bias)


def layer_norm(x: TensorLike, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-12) -> Tensor:
    """The last axis normalised to mean 0 and variance 1, then scaled and shifted. Shapes: x (*b, d), weight and bias (d,) or None.

    Raises: ShapeError unless weight and bias have the shape of the last axis.
    """
    if weight is not None and bias is not None:
        return ops.layer_norm(x, weight, bias, eps=eps)
    x = as_tensor(x)
    given = weight if weight is not None else bias
    if x.ndim == 0 or (given is not None and as_tensor(given).shape != x.shape[-1:]):
        raise ShapeError(f"layer_norm: x {x.shape} needs a weight and a bias of its last axis, or None")
    return ops.standardise(x, weight, bias, axes=(-1,), eps=eps)


def rms_norm(x: TensorLike, weight: TensorLike | None = None, eps: float = 1e-6) -> Tensor:
    """The last axis divided by the root of its mean square, then scaled. Shapes: x (*b, d), weight (d,) or None."""
    return ops.rms_norm(as_tensor(x), weight, eps=eps)


def unfold(x: TensorLike, kernel_size: PerAxis, stride: PerAxis = 1, padding: PerAxis = 0, dilation: PerAxis = 1) -> Tensor:
    """Every window of x as a column (im2col). Shapes: x (batch, channels, *s) → (batch, channels * kernel positions, windows).

    Raises: ShapeError for a kernel that does not fit; ArgumentError for invalid options.
    """
    return ops.unfold(as_tensor(x), kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)


def fold(
    columns: TensorLike,
    output_size: Sequence[int],
    kernel_size: PerAxis,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
) -> Tensor:
    """The transpose of `unfold` (col2im): columns added at the positions of their windows, in an array of spatial size `output_size`.

    Shapes: columns (batch, channels * kernel positions, windows) → (batch, channels, *output_size). Raises: as `unfold`.
    """
    return ops.fold(as_tensor(columns), output_size=output_size, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)


def embedding(ids: TensorLike, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of a table; row `padding_idx` receives no gradient. Shapes: ids (*b) integers, weight (rows, d) → (*b, d).

    Raises: IndexRangeError naming the value for an id or padding_idx outside the table (negative ones too); DTypeError for ids that are
    not integers.
    """
    if not isinstance(weight, Tensor):
        raise DTypeError(f"embedding: weight must be a Tensor, got {type(weight).__name__}")
    rows = weight.shape[0] if weight.ndim else 0
    places = ops.placed_rows("embedding ids", _integers("embedding ids", ids), rows, weight.device)
    return ops.embedding(weight, Tensor.wrap(places), padding_idx=padding_idx)


def _integers(what: str, values: TensorLike) -> Array:
    array = values.array if isinstance(values, Tensor) else Tensor(values).array
    if array.size == 0 and array.dtype.kind == "f":  # an empty list arrives as floats
        array = array.astype("int64")
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, got {array.dtype}")
    return array


def dropout(x: TensorLike, p: float = 0.5, training: bool = True, path: str = "functional.dropout") -> Tensor:
    """Each unit dropped with probability p, the others scaled by 1/(1-p); x itself when not training. All axes but the last form the rows.

    Raises: ArgumentError for a p that is not a probability.
    """
    if not isinstance(p, Real) or not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: p lies between 0 and 1, got {p!r:.80}")
    x = as_tensor(x)
    if not training or p == 0.0 or x.size == 0:
        return x
    rows = x if x.ndim else x.reshape((1,))
    draw = Draw(path, p, Packing([math.prod(rows.shape[:-1])]), rows.shape[-1])
    return ops.dropout(rows, draw=draw).reshape(x.shape)


# ---------------------------------------------------------------- losses
def cross_entropy(
    logits: TensorLike,
    labels: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """-log softmax(logits)[label] over rows whose label is not `ignore_index`, times the weight of the label's class.

    The mean divides by the sum of those weights (without weights, the number of labels), or by `denominator`, a number or a constant tensor
    () on the logits' device: with the whole batch's, the losses of micro-batches add up to the batch's loss. If no label is valid, the mean
    is NaN and its gradient 0.
    Floating labels of the logits' shape are probabilities: see `soft_cross_entropy`.
    Shapes: logits (*b, classes), labels (*b) integers, weight (classes,) → (), or (*b) with reduction="none".
    Raises: IndexRangeError naming the row for a label outside 0..classes-1; ShapeError; DTypeError; ArgumentError.
    """
    logits, given = as_tensor(logits), as_tensor(labels)
    if given.dtype.kind == "f" and given.shape == logits.shape:
        if ignore_index != IGNORED or denominator is not None:
            raise ArgumentError("cross_entropy: ignore_index and denominator belong to integer labels, these are probabilities")
        return ops.soft_cross_entropy(logits, labels, weight, reduction, label_smoothing)
    if isinstance(denominator, Tensor):
        if denominator.requires_grad or denominator.shape != () or denominator.device != logits.device:
            raise ArgumentError(
                f"cross_entropy: the denominator is a number or a constant tensor () on {logits.device}, got one of shape "
                f"{denominator.shape} on {denominator.device}{' that requires a gradient' if denominator.requires_grad else ''}"
            )
        denominator = denominator.array
    elif denominator is not None and not isinstance(denominator, Real):
        raise ArgumentError(f"cross_entropy: the denominator is a number or a constant tensor (), not {denominator!r:.80}")
    ids = ops.label_ids("cross_entropy", given, logits, ignore_index)
    losses = ops.cross_entropy(
        logits if logits.ndim == 2 else logits.reshape((ids.size, logits.shape[-1])),
        Tensor.wrap(ids.reshape(-1)),
        weight=ops.class_weights("cross_entropy", weight, logits),
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        denominator=denominator,
    )
    return losses.reshape(ids.shape) if reduction == "none" else losses
