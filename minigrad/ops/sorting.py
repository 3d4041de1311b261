"""Sorting: the order is computed without a gradient; elements are taken in it, and their gradients go back to where they came from."""

from __future__ import annotations

from minigrad.backend import Array, namespace_of
from minigrad.errors import ShapeError
from minigrad.op import composite
from minigrad.ops.axes import as_integer, normalise_axis
from minigrad.ops.index import take_along_axis
from minigrad.tensor import Tensor, TensorLike, as_tensor


def _order(x: Array, axis: int, descending: bool) -> Array:
    """The indices that sort x; equal elements keep their order. NaN counts as the largest."""
    xp = namespace_of(x)
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    # A stable sort of the reversed axis, read backwards, keeps the order of equal elements. (Sorting -x would overflow integers.)
    return x.shape[axis] - 1 - xp.flip(xp.argsort(xp.flip(x, axis), axis=axis, kind="stable"), axis)


@composite("*a n *b -> *a n *b")
def sort(x: TensorLike, axis: int | None = -1, descending: bool = False) -> Tensor:
    """The elements sorted along one axis (flattened if None). The sort is stable; NaN counts as the largest.

    Raises: ShapeError if there is no such axis; DTypeError.
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normalise_axis("sort", axis, x.shape)
    return take_along_axis(x, _order(x.array, axis, descending), axis)


@composite("*a n *b -> *a k *b, *a k *b")
def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along one axis, the most extreme first, and their indices (int64).

    Of equal elements the first ones are chosen, and they alone receive the gradient. NaN counts as the largest.
    Raises: ShapeError if there is no such axis or it is shorter than k; DTypeError.
    """
    x = as_tensor(x)
    axis = normalise_axis("topk", axis, x.shape)
    if not 0 <= as_integer("topk: k", k) <= x.shape[axis]:
        raise ShapeError(f"topk: k = {k} does not lie between 0 and {x.shape[axis]}, the length of axis {axis}")
    lead = (slice(None),) * axis
    places = Tensor.wrap(_order(x.array, axis, largest)[(*lead, slice(k))])
    return take_along_axis(x, places, axis), places
