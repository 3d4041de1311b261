"""softmax and its logarithm. The stabilising shifts are constants: softmax does not depend on them, so all derivatives remain exact."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array, device_of, namespace_of, to_device
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op
from minigrad.tensor import Tensor, TensorLike, as_tensor


def _length(x: Array, axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is out of bounds for an array with {x.ndim} dimensions")
    return int(x.shape[axis])


@op("*b n -> *b n", promotes="float")
def softmax(xp: Any, x: Array, mask: Array | None, *, axis: int = -1) -> Any:
    """eˣ / Σ eˣ along an axis. With a boolean mask only True entries take part; a slice without any gives zeros."""
    if not _length(x, axis):
        return x * 1.0, (lambda g: g, None)  # an empty axis has no maximum
    if mask is None:
        y = xp.exp(x - xp.constant(x).max(axis=axis, keepdims=True))
        y /= xp.sum(y, axis=axis, keepdims=True)
    else:
        top = xp.where(mask, xp.constant(x), -xp.inf).max(axis=axis, keepdims=True)
        shift = xp.where(top == -xp.inf, 0.0, top)  # a slice without a True entry has no maximum
        e = xp.exp(xp.where(mask, x - shift, 0.0)) * mask
        total = xp.sum(e, axis=axis, keepdims=True)
        y = e / xp.where(xp.constant(total) == 0, 1.0, total)
    return y, (lambda g: y * (g - xp.sum(g * y, axis=axis, keepdims=True)), None)


@op("*b n -> *b n", promotes="float")
def log_softmax(xp: Any, x: Array, *, axis: int = -1) -> Any:
    """x - log Σ eˣ along an axis."""
    if not _length(x, axis):
        return x * 1.0, (lambda g: g,)
    shifted = x - xp.constant(x).max(axis=axis, keepdims=True)
    y = shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))
    return y, (lambda g: g - xp.exp(y) * xp.sum(g, axis=axis, keepdims=True),)


def allowed(mask: TensorLike, x: Tensor) -> Array:
    """A mask of booleans, or of the integers 0 and 1, as booleans of x's shape on x's device.

    Raises: ShapeError; ArgumentError for floats, which in other libraries are additive masks (where 0 means the opposite), and for other
    integers, if the mask is on the CPU (checking them on a GPU would synchronise).
    """
    given = as_tensor(mask).array
    floats = given.dtype.kind == "f" and given.size > 0  # an empty list arrives as floats
    if floats or (given.dtype.kind in "iu" and device_of(given) == "cpu" and not ((given == 0) | (given == 1)).all()):
        raise ArgumentError(
            f"a mask says where something holds: pass booleans (or the integers 0 and 1), not {given.dtype} numbers that are added to "
            "scores. Of a mask that is added (0 and -inf) pass mask == 0, of floats 0 and 1 pass mask != 0"
        )
    allowed = to_device(given != 0, x.device)
    try:
        return namespace_of(x.array).broadcast_to(allowed, x.shape)
    except ValueError as error:
        raise ShapeError(f"a mask of shape {tuple(allowed.shape)} does not broadcast to {x.shape}") from error
