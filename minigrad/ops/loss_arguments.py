"""Checks and conversions of the losses' arguments, with uniform error messages, and their reduction."""

from __future__ import annotations

from itertools import zip_longest
from math import inf
from numbers import Real
from typing import Any

from minigrad.backend import FLOAT_DTYPES, Array, to_device
from minigrad.backend.transfers import is_recording
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops.index import refuse_outside
from minigrad.tensor import Tensor, TensorLike, as_tensor

REDUCTIONS = ("mean", "sum", "none")

IGNORED = -100
"""The default label of items that a loss ignores, as in PyTorch."""


def check_reduction(name: str, reduction: Any, known: tuple[str, ...] = REDUCTIONS) -> None:
    """Raises: ArgumentError naming the known reductions."""
    if not isinstance(reduction, str) or reduction not in known:
        raise ArgumentError(f"{name}: reduction is one of {', '.join(known)}, not {reduction!r:.80}")


def label_ids(name: str, labels: TensorLike, scores: Tensor, ignore_index: int) -> Array:
    """Integer labels as an array on the scores' device. Their range is checked if that is a GPU; on a CPU the operation checks it.

    Shapes: scores (*b, classes), labels (*b). Raises: DTypeError; ShapeError; IndexRangeError.
    """
    if scores.ndim == 0:
        raise ShapeError(f"{name}: the scores need an axis of classes, got a single number")
    ids = as_tensor(labels)
    if ids.shape != scores.shape[:-1]:
        raise ShapeError(f"{name}: labels have shape {ids.shape}, scores {scores.shape}: the leading axes must be equal")
    if ids.size and ids.dtype.kind not in "iu":  # an empty list arrives as floats
        raise DTypeError(f"{name}: labels must be integers, got {ids.dtype}")
    array = ids.array.astype("int64", copy=False)
    if scores.device != "cpu" and not is_recording():
        refuse_outside(f"{name} labels", array * (array != ignore_index), scores.shape[-1])
    return to_device(array, scores.device)


def class_weights(name: str, weight: TensorLike | None, scores: Tensor) -> Array | None:
    """Constant weights as an array on the scores' device, in their dtype. Shapes: scores (*b, classes), weight (classes,)."""
    if weight is None:
        return None
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise ArgumentError(f"{name}: class weights are constants, and no gradient would reach this one: pass weight.detach()")
    weights = Tensor(weight, dtype=scores.dtype if scores.dtype.kind == "f" else FLOAT_DTYPES[0], device=scores.device)
    if weights.shape != scores.shape[-1:]:
        raise ShapeError(f"{name}: weight has shape {weights.shape}, the scores {scores.shape}: it needs one number per class")
    return weights.array


def as_floating(x: TensorLike) -> Tensor:
    tensor = as_tensor(x)
    return tensor if tensor.dtype.kind == "f" else tensor.astype(FLOAT_DTYPES[0])


def as_dtype_of(x: TensorLike, like: Tensor) -> Tensor:
    """x in the dtype of `like`; a list becomes a tensor on its device."""
    return x.astype(like.dtype) if isinstance(x, Tensor) else Tensor(x, dtype=like.dtype, device=like.device)


def as_pair(name: str, x: TensorLike, y: TensorLike) -> tuple[Tensor, Tensor]:
    """Both as floating tensors of one shape, in the dtype of the first."""
    first = as_floating(x)
    second = as_dtype_of(y, first)
    if first.shape != second.shape:
        raise ShapeError(f"{name}: the shapes {first.shape} and {second.shape} differ: they must be equal")
    return first, second


def broadcast_shape(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which two shapes broadcast. Raises: ShapeError."""
    sides = list(zip_longest(reversed(x), reversed(y), fillvalue=1))
    if any(m != n and 1 not in (m, n) for m, n in sides):
        raise ShapeError(f"{name}: the shapes {x} and {y} do not broadcast")
    return tuple(n if m == 1 else m for m, n in reversed(sides))


def check_positive(name: str, what: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0.0 < float(value) < inf:
        raise ArgumentError(f"{name}: {what} is a number above 0, got {value!r:.80}")
    return float(value)  # a NumPy float64 would turn float32 into float64


def check_smoothing(name: str, value: Any) -> None:
    if not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise ArgumentError(f"{name}: label_smoothing lies between 0 and 1, got {value!r:.80}")


def apply_reduction(losses: Tensor, reduction: str) -> Tensor:
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()
