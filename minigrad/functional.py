"""F: the vocabulary of functions on Tensors. Stateless; a layer that needs mathematics of its own is a missing function here.

Most names are the operations of `ops` themselves. A function defined here is the operation of the same name, with its arguments checked
and converted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from minigrad import ops
from minigrad.backend import Array, to_device
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops import (
    absolute,
    add,
    attention,
    dense_add_norm,
    dense_gelu,
    divide,
    erf,
    erfc,
    exp,
    expand_dims,
    linears,
    log,
    matmul,
    maximum,
    minimum,
    mse_loss,
    multiply,
    negative,
    power,
    relu,
    scaled_dot_product_attention,
    sigmoid,
    split,
    sqrt,
    stack,
    std,
    subtract,
    tanh,
)
from minigrad.packing import Packing, host_array
from minigrad.tensor import Tensor, TensorLike, as_tensor, elementwise

__all__ = [
    "absolute", "add", "as_tensor", "attention", "broadcast_to", "concatenate", "cross_entropy", "dense_add_norm", "dense_gelu", "divide",
    "dropout", "embedding", "equal", "erf", "erfc", "exp", "expand_dims", "gelu", "layer_norm", "linear", "linears", "log", "log_softmax",
    "logsumexp", "matmul", "maximum", "minimum", "mse_loss", "multiply", "negative", "not_equal", "power", "put_rows", "relu",
    "scaled_dot_product_attention", "sigmoid", "softmax", "split", "sqrt", "stack", "std", "subtract", "take_rows", "tanh", "where",
]  # fmt: skip


# ---------------------------------------------------------------- elementwise
def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x · Φ(x), exactly (by erf) or with approximate="tanh"."""
    return ops.gelu(as_tensor(x), approximate=approximate)


def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds, else y; the branch not taken receives gradient 0."""
    return ops.where(as_tensor(condition), x, y)


def equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: where two tensors hold the same number (== on tensors is identity); carries no gradient."""
    return elementwise("equal", as_tensor(x), y)


def not_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: where two tensors differ; carries no gradient."""
    return elementwise("not_equal", as_tensor(x), y)


# ---------------------------------------------------------------- shape
def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """x repeated along new and length-1 axes."""
    return ops.broadcast_to(as_tensor(x), shape=tuple(shape))


def concatenate(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors one after another along an existing axis."""
    if len(tensors) == 0:
        raise ArgumentError("concatenate needs at least one tensor")
    return ops.concatenate(*tensors, axis=axis)


def take_rows(x: Tensor, rows: Array) -> Tensor:
    """Distinct rows of x. Shapes: x (n, d), rows (m,) integers → (m, d).

    Raises: IndexRangeError for a row outside x; ArgumentError for a row named twice (`x[rows]` allows that).
    """
    return ops.take_rows(x, to_device(_distinct(rows, x.shape[0]), x.device))


def _distinct(rows: Any, count: int) -> Array:
    places = host_array("rows", rows)
    ops.check_rows("rows", places, count)
    if len(set(places.tolist())) < len(places):
        raise ArgumentError("rows must be distinct; index with x[rows] to repeat some")
    return places


def put_rows(x: Tensor, rows: Array, count: int) -> Tensor:
    """Zeros (count, d) with the rows of x at the distinct places `rows`: the transpose of take_rows."""
    return ops.put_rows(x, to_device(_distinct(rows, count), x.device), count=count)


# ---------------------------------------------------------------- reductions
def logsumexp(x: TensorLike, axis: int = -1, keepdims: bool = False) -> Tensor:
    """log Σ eˣ over one axis; all -inf gives -inf, +inf gives +inf."""
    return ops.logsumexp(as_tensor(x), axis=axis, keepdims=keepdims)


# ---------------------------------------------------------------- layers as functions
def softmax(x: TensorLike, axis: int = -1, mask: TensorLike | None = None) -> Tensor:
    """eˣ / Σ eˣ along an axis. With a mask (broadcast to x) only True entries take part; a slice without any gives zeros."""
    x = as_tensor(x)
    return ops.softmax(x, None if mask is None else ops.allowed(mask, x), axis=axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """x - log Σ eˣ along an axis."""
    return ops.log_softmax(as_tensor(x), axis=axis)


def linear(x: TensorLike, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. Shapes: x (*b, in), weight (out, in), bias (out,) → (*b, out)."""
    return ops.linear(x, weight, bias)


def layer_norm(x: TensorLike, weight: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """The last axis normalised to mean 0 and variance 1, then scaled and shifted. Shapes: x (*b, d), weight and bias (d,)."""
    return ops.layer_norm(x, weight, bias, eps=eps)


def embedding(ids: TensorLike, weight: Tensor) -> Tensor:
    """Rows of a table. Shapes: ids (*b) integers, weight (rows, d) → (*b, d).

    Raises: IndexRangeError naming the value for an id outside the table (negative ids too); DTypeError for ids that are no integers.
    """
    if not isinstance(weight, Tensor):
        raise DTypeError(f"embedding: weight must be a Tensor, got {type(weight).__name__}")
    return ops.embedding(weight, to_device(_integers("embedding ids", ids), weight.device))


def _integers(what: str, values: TensorLike) -> Array:
    array = values.array if isinstance(values, Tensor) else Tensor(values).array
    if array.size == 0 and array.dtype.kind == "f":  # an empty list has no kind of its own
        array = array.astype("int64")
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, got {array.dtype}")
    return array


def dropout(x: TensorLike, p: float = 0.5, training: bool = True, path: str = "functional.dropout") -> Tensor:
    """Each unit dropped with probability p, the others scaled by 1/(1-p); x itself when not training. Rows are all axes but the last."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: p lies between 0 and 1, got {p}")
    x = as_tensor(x)
    if not training or p == 0.0 or x.size == 0:
        return x
    rows = x if x.ndim else x.reshape((1,))
    draw = Draw(path, p, Packing([prod(rows.shape[:-1])]), rows.shape[-1])
    return ops.dropout(rows, draw=draw).reshape(x.shape)


# ---------------------------------------------------------------- losses
def cross_entropy(logits: TensorLike, labels: TensorLike, ignore_index: int = -100, label_smoothing: float = 0.0) -> Tensor:
    """The mean of -log softmax(logits)[label] over rows whose label is not `ignore_index`.

    Shapes: logits (*b, classes), labels (*b) integers → (). Without a single valid label the loss is NaN and its gradient 0.
    Raises: IndexRangeError naming the row for a label outside 0..classes-1; ShapeError.
    """
    logits = as_tensor(logits)
    if logits.ndim == 0:
        raise ShapeError("cross_entropy: logits need an axis of classes, got a single number")
    rows = logits.reshape((-1, logits.shape[-1]))
    ids = to_device(_integers("cross_entropy labels", labels), logits.device)
    if tuple(ids.shape) != logits.shape[:-1]:
        raise ShapeError(f"cross_entropy: labels have shape {tuple(ids.shape)}, logits {logits.shape}: the leading axes must be equal")
    return ops.cross_entropy(rows, ids.reshape(-1), ignore_index=ignore_index, label_smoothing=label_smoothing)
