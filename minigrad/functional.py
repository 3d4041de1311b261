"""F: the vocabulary of functions on Tensors. Stateless; a layer that needs mathematics of its own is a missing function here.

This module also completes the third interpreter: the namespace that operation bodies receive when they run on Tensors
(for second derivatives) is made of these functions and registered at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of, register_namespace, to_device
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops import absolute as absolute
from minigrad.ops import add as add
from minigrad.ops import attention as attention
from minigrad.ops import dense_add_norm as dense_add_norm
from minigrad.ops import dense_gelu as dense_gelu
from minigrad.ops import divide as divide
from minigrad.ops import erf as erf
from minigrad.ops import erfc as erfc
from minigrad.ops import exp as exp
from minigrad.ops import linears as linears
from minigrad.ops import log as log
from minigrad.ops import matmul as matmul
from minigrad.ops import maximum as maximum
from minigrad.ops import minimum as minimum
from minigrad.ops import multiply as multiply
from minigrad.ops import negative as negative
from minigrad.ops import power as power
from minigrad.ops import relu as relu
from minigrad.ops import sigmoid as sigmoid
from minigrad.ops import sqrt as sqrt
from minigrad.ops import subtract as subtract
from minigrad.ops import tanh as tanh
from minigrad.packing import Packing, host_array
from minigrad.tensor import Tensor, TensorLike, elementwise


def as_tensor(x: TensorLike) -> Tensor:
    """x itself if it is a Tensor, else a new Tensor of it."""
    return x if isinstance(x, Tensor) else Tensor(x)


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


def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of equal shape along a new axis."""
    if len(tensors) == 0:
        raise ArgumentError("stack needs at least one tensor")
    return ops.concatenate(*[expand_dims(as_tensor(t), axis) for t in tensors], axis=axis)


def split(x: Tensor, sections: int, axis: int = 0) -> list[Tensor]:
    """x cut into equal parts along an axis.

    Raises: ShapeError if there is no such axis or it does not divide.
    """
    if not -x.ndim <= axis < x.ndim or sections < 1:
        raise ShapeError(f"cannot split axis {axis} of a tensor of shape {x.shape} into {sections} parts")
    length, rest = divmod(x.shape[axis], sections)
    if rest:
        raise ShapeError(f"an axis of length {x.shape[axis]} does not divide into {sections} equal parts")
    lead = (slice(None),) * (axis % x.ndim)
    return [x[(*lead, slice(i * length, (i + 1) * length))] for i in range(sections)]


def expand_dims(x: Tensor, axis: int) -> Tensor:
    """x with a new axis of length 1.

    Raises: ShapeError if the result has no such axis.
    """
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ShapeError(f"axis {axis} is out of bounds for a tensor of shape {x.shape} with one more axis")
    axis %= x.ndim + 1
    return x.reshape((*x.shape[:axis], 1, *x.shape[axis:]))


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


def std(x: TensorLike, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation; see `Tensor.std`."""
    return as_tensor(x).std(axis=axis, ddof=ddof, keepdims=keepdims)


# ---------------------------------------------------------------- layers as functions
def softmax(x: TensorLike, axis: int = -1, mask: TensorLike | None = None) -> Tensor:
    """eˣ / Σ eˣ along an axis. With a mask (broadcast to x) only True entries take part; a slice without any gives zeros."""
    x = as_tensor(x)
    return ops.softmax(x, None if mask is None else _allowed(mask, x), axis=axis)


def _allowed(mask: TensorLike, x: Tensor) -> Array:
    """A mask as booleans of x's shape, where x lives."""
    allowed = to_device(as_tensor(mask).array != 0, x.device)
    try:
        return namespace_of(x.array).broadcast_to(allowed, x.shape)
    except ValueError as error:
        raise ShapeError(f"a mask of shape {tuple(allowed.shape)} does not broadcast to {x.shape}") from error


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


def dropout_by(x: Tensor, draw: Draw) -> Tensor:
    """Units dropped as `draw` says. Shapes: x (rows, d)."""
    return ops.dropout(x, draw=draw)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: TensorLike | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v over padded arrays; packed batches use a model's own attention, which computes no padding.

    mask: True where a query may attend to a key, broadcast to (*b, queries, keys). A query without any key gives zeros.
    Shapes: q (*b, queries, d), k (*b, keys, d), v (*b, keys, dv) → (*b, queries, dv).
    """
    scores = (q @ k.swapaxes(-1, -2)) * (q.shape[-1] ** -0.5)
    return softmax(scores, mask=mask) @ v


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


def mse_loss(predictions: TensorLike, targets: TensorLike) -> Tensor:
    """The mean squared difference.

    Raises: ShapeError if the shapes differ (nothing is broadcast silently).
    """
    predictions = as_tensor(predictions)
    wanted = targets if isinstance(targets, Tensor) else Tensor(targets, dtype=predictions.dtype, device=predictions.device)
    if wanted.shape != predictions.shape:
        raise ShapeError(f"mse_loss: predictions have shape {predictions.shape}, targets {wanted.shape}: they must be equal")
    difference = predictions - wanted.astype(predictions.dtype)
    return (difference * difference).mean()


# ---------------------------------------------------------------- the third interpreter
class _TensorNamespace:
    """What bodies receive as `xp` on Tensors. Functions of constants give plain arrays; functions of Tensors give Tensors."""

    NAME = "tensor"
    DEVICE = "any"
    inf = float("inf")

    exp, log, sqrt, tanh, erf, erfc = (staticmethod(f) for f in (ops.exp, ops.log, ops.sqrt, ops.tanh, ops.erf, ops.erfc))
    maximum, minimum, where = (staticmethod(f) for f in (ops.maximum, ops.minimum, ops.where))
    concatenate, broadcast_to = staticmethod(concatenate), staticmethod(broadcast_to)

    @staticmethod
    def constant(x: Any) -> Array:
        return x.array if isinstance(x, Tensor) else x

    @staticmethod
    def like(host: Array, x: Any) -> Array:
        return namespace_of(_TensorNamespace.constant(x)).like(host, x)

    @staticmethod
    def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.sum(x, axis=axis, keepdims=keepdims)

    @staticmethod
    def zeros_at(g: Tensor, key: Any, shape: tuple[int, ...]) -> Tensor:
        return ops.zeros_at(g, key=key, shape=tuple(shape))

    @staticmethod
    def put_rows(g: Tensor, ids: Array, shape: tuple[int, ...]) -> Tensor:
        return ops.put_rows(g, ids, count=shape[0])

    @staticmethod
    def rows(ids: Array, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return ops.zeros_at(g, key=ids, shape=tuple(shape))

    @staticmethod
    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def transfer(x: Tensor, device: str) -> Tensor:
        return x.to(device)

    def __getattr__(self, name: str) -> Any:
        """Functions of constants only (sign, isfinite, one_hot): the arrays' own."""
        if name not in ("sign", "isfinite", "one_hot"):
            raise AttributeError(f"operation bodies may not use xp.{name} on Tensors: add it to the vocabulary of functional.py")
        return lambda x, *rest: getattr(namespace_of(x), name)(x, *rest)


register_namespace(Tensor, _TensorNamespace())
