"""Padding a tensor with constants or with copies of its own elements, as `numpy.pad` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backend import Array, namespace_of, to_numpy
from minigrad.backend.dtypes import numbers
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.op import composite
from minigrad.ops.index import take, zeros_at
from minigrad.ops.shape import concatenate
from minigrad.tensor import Tensor, TensorLike, as_tensor


@composite("*s -> *t")
def pad(x: TensorLike, pad_width: int | Sequence[Any], mode: str = "constant", constant_values: float | Sequence[Any] = 0) -> Tensor:
    """x padded before and after along its axes.

    pad_width: one number for all, (before, after) for all axes, or such a pair for each axis.
    mode: "constant" (`constant_values`, given like the widths), "edge" (the outermost element repeated), "reflect" (mirrored at the
    outermost element), "wrap" (from the other end).
    Raises: ArgumentError for negative widths or an unknown mode; ShapeError if the widths do not fit the axes, or an empty axis is to be
    padded with copies; DTypeError.
    """
    x = as_tensor(x)
    widths = _widths(pad_width, x.ndim)
    if mode == "constant":
        return _with_constants(x, widths, constant_values)
    if mode not in ("edge", "reflect", "wrap"):
        raise ArgumentError(f'pad: mode is "constant", "edge", "reflect" or "wrap", not {mode!r}')
    for axis, (before, after) in enumerate(widths):
        if before or after:
            x = _with_copies(x, axis, before, after, mode)
    return x


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """The padding before and after each axis."""
    given = numbers(to_numpy(pad_width.array) if isinstance(pad_width, Tensor) else pad_width)
    if given.dtype.kind not in "iu":
        raise DTypeError(f"pad: pad_width must hold integers, got {given.dtype}")
    if given.size and int(given.min()) < 0:
        raise ArgumentError(f"pad: pad_width must not be negative, got {pad_width!r:.60}; cut with a slice instead")
    try:
        return [(before, after) for before, after in namespace_of(given).broadcast_to(given, (ndim, 2)).tolist()]
    except ValueError as error:
        raise ShapeError(f"pad: a pad_width of shape {given.shape} does not fit {ndim} axes: give a number, a pair, or pairs") from error


def _with_constants(x: Tensor, widths: list[tuple[int, int]], values: Any) -> Tensor:
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in zip(widths, x.shape, strict=True))
    padded: Tensor = zeros_at(x, key=inside, shape=shape)
    if isinstance(values, Tensor) and values.requires_grad:
        raise ArgumentError("pad: constant_values are constants, and no gradient would reach these: pass constant_values.detach()")
    given = numbers(to_numpy(values.array) if isinstance(values, Tensor) else values)
    if not widths or not given.any():
        return padded
    xp = namespace_of(x.array)
    try:
        frame = xp.pad(xp.zeros(x.shape, x.dtype), widths, constant_values=given.tolist())
    except (ValueError, TypeError, OverflowError) as error:
        raise ArgumentError(f"pad: constant_values {values!r:.60} do not fit {x.ndim} axes of {x.dtype}: {error}") from error
    return padded + Tensor.wrap(frame)


def _with_copies(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """One axis padded with copies. Only the padding is gathered, so that the gradient of the middle is a plain slice."""
    xp, n = namespace_of(x.array), x.shape[axis]
    if n == 0:
        raise ShapeError(f"pad: axis {axis} of shape {x.shape} is empty, there is nothing to repeat: use mode='constant'")
    places = _source_index(xp, xp.arange(-before, n + after), n, mode)
    return concatenate(take(x, places[:before], axis), x, take(x, places[before + n :], axis), axis=axis)


def _source_index(xp: Any, at: Array, n: int, mode: str) -> Array:
    """The index, from 0 to n - 1, of the element that is copied to position `at` of the padded axis (the input begins at 0).

    The array library's `pad` is not used, because CuPy's (14.2) "wrap" is wrong if one width is larger than the axis and the other is not.
    """
    if mode == "edge":
        return at.clip(0, n - 1)
    if mode == "wrap":
        return at % n
    there_and_back = max(2 * (n - 1), 1)
    at = at % there_and_back
    return xp.minimum(at, there_and_back - at)
