"""Functions that are piecewise constant or return indices: they carry no gradient, and their results never require one.

`NON_DIFFERENTIABLE` is the public list of them; every other public function propagates gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

from minigrad.backend import Array, device_of, namespace_of
from minigrad.backend.dtypes import as_dtype
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops.index import check_rows, placed_rows
from minigrad.tensor import Tensor, TensorLike, as_tensor

NON_DIFFERENTIABLE = (
    "argmax", "argmin", "argsort", "ceil", "equal", "floor", "greater", "greater_equal", "isfinite", "isnan", "less", "less_equal",
    "not_equal", "one_hot", "round", "sign",
)  # fmt: skip


def without_gradient(name: str, *operands: TensorLike) -> Tensor:
    """A NumPy function, given by name, applied to operands of which at least one is a tensor or an array.

    Raises: ShapeError or DTypeError if the operands do not fit.
    """
    arrays = [x.array if isinstance(x, Tensor) else x for x in operands]
    xp = namespace_of(next(x for x in arrays if hasattr(x, "dtype")))
    return _evaluate(lambda: getattr(xp, name)(*arrays), name)


def _evaluate(compute: Callable[[], Array], name: str) -> Tensor:
    """The result of an array function, whose exceptions become minigrad's."""
    try:
        return Tensor.wrap(compute())
    except (TypeError, OverflowError) as error:
        raise DTypeError(f"{name}: {error}") from error
    except (ValueError, IndexError) as error:
        raise ShapeError(f"{name}: {error}") from error


def sign(x: TensorLike) -> Tensor:
    """-1, 0 or 1 by the sign of each element; carries no gradient."""
    return without_gradient("sign", as_tensor(x))


def floor(x: TensorLike) -> Tensor:
    """The largest integer not above each element; carries no gradient."""
    return without_gradient("floor", as_tensor(x))


def ceil(x: TensorLike) -> Tensor:
    """The smallest integer not below each element; carries no gradient."""
    return without_gradient("ceil", as_tensor(x))


def round(x: TensorLike) -> Tensor:
    """The nearest integer, halves to the even one; carries no gradient."""
    return without_gradient("round", as_tensor(x))


def isfinite(x: TensorLike) -> Tensor:
    """Booleans: where x is neither infinite nor NaN; carries no gradient."""
    return without_gradient("isfinite", as_tensor(x))


def isnan(x: TensorLike) -> Tensor:
    """Booleans: where x is NaN; carries no gradient."""
    return without_gradient("isnan", as_tensor(x))


def equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: where two tensors hold the same number (== on tensors is identity); carries no gradient."""
    return _comparison("equal", x, y)


def not_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: where two tensors differ; carries no gradient."""
    return _comparison("not_equal", x, y)


def less(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: x < y; carries no gradient."""
    return _comparison("less", x, y)


def less_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: x ≤ y; carries no gradient."""
    return _comparison("less_equal", x, y)


def greater(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: x > y; carries no gradient."""
    return _comparison("greater", x, y)


def greater_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Booleans: x ≥ y; carries no gradient."""
    return _comparison("greater_equal", x, y)


def _comparison(name: str, x: Any, y: Any) -> Tensor:
    if not (hasattr(x, "dtype") or hasattr(y, "dtype")):
        x = as_tensor(x)
    return without_gradient(name, _as_operand_with(y, x), _as_operand_with(x, y))


def _as_operand_with(other: Any, x: Any) -> Any:
    """x itself; a list becomes a Tensor on the other operand's device, with its floating dtype, so that [0.1] equals a float32 0.1."""
    if not isinstance(x, list | tuple):
        return x
    listed, dtype, device = Tensor(x), getattr(other, "dtype", None), other.device if isinstance(other, Tensor) else "cpu"
    return Tensor(x, dtype=dtype if dtype is not None and dtype.kind == listed.dtype.kind == "f" else None, device=device)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the first largest element along an axis (in the flattened tensor if None); carries no gradient.

    Raises: ShapeError if there is no such axis or it is empty.
    """
    array = as_tensor(x).array
    return _evaluate(lambda: array.argmax(axis=axis, keepdims=keepdims), "argmax")


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index of the first smallest element along an axis (in the flattened tensor if None); carries no gradient.

    Raises: ShapeError if there is no such axis or it is empty.
    """
    array = as_tensor(x).array
    return _evaluate(lambda: array.argmin(axis=axis, keepdims=keepdims), "argmin")


def argsort(x: TensorLike, axis: int = -1) -> Tensor:
    """The indices that sort x in ascending order; the sort is stable. Carries no gradient.

    Raises: ShapeError if there is no such axis.
    """
    array = as_tensor(x).array
    return _evaluate(lambda: namespace_of(array).argsort(array, axis=axis, kind="stable"), "argsort")


def one_hot(ids: TensorLike, num_classes: int, dtype: Any = "float32") -> Tensor:
    """1 at the index given by each id, 0 elsewhere; carries no gradient. Shapes: ids (*b) integers → (*b, num_classes).

    Raises: IndexRangeError naming an id outside 0..num_classes-1; DTypeError for ids that are not integers; ArgumentError unless
    num_classes is a non-negative integer.
    """
    if not isinstance(num_classes, Integral) or num_classes < 0:
        raise ArgumentError(f"one_hot: num_classes is a whole number, not {num_classes!r}")
    array = as_tensor(ids).array
    array = placed_rows("one_hot ids", array, num_classes, device_of(array))
    check_rows("one_hot ids", array, num_classes)
    return Tensor.wrap(namespace_of(array).one_hot(array, num_classes, as_dtype(dtype)))
