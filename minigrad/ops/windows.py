"""Sliding windows over the spatial axes (all axes after batch and channels), as used by convolution and pooling.

`unfold` (im2col) copies the windows to the columns of a matrix, one strided slice of the input per kernel position; `fold` (col2im), its
transpose, adds the columns at the positions that they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from numbers import Integral
from typing import Any, TypeAlias

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op

Sizes: TypeAlias = tuple[int, ...]
PerAxis: TypeAlias = int | Sequence[int]
"""One integer for all spatial axes, or one for each."""


# ---------------------------------------------------------------- geometry
@dataclass(frozen=True)
class Window:
    """A window with `kernel` positions along each spatial axis, `dilation` apart, that moves in steps of `stride` over a padded input."""

    what: str
    kernel: Sizes
    stride: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes

    @classmethod
    def of(cls, what: str, ndim: int, kernel: PerAxis, stride: PerAxis, padding: PerAxis | str, dilation: PerAxis) -> Window:
        """The window for a user's options. Raises: ArgumentError naming the invalid option."""
        kernel, stride, dilation = (
            per_axis(what, name, value, ndim, 1) for name, value in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation))
        )
        if isinstance(padding, str):
            if padding not in ("same", "valid") or (padding == "same" and set(stride) != {1}):
                raise ArgumentError(f'{what}: padding is a number per axis, "valid", or with stride 1 "same"; got {padding!r} and {stride}')
            reach = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
            return cls(what, kernel, stride, tuple((n // 2, n - n // 2) for n in reach), dilation)
        return cls(what, kernel, stride, tuple((p, p) for p in per_axis(what, "padding", padding, ndim, 0)), dilation)

    def padded(self, sizes: Sizes) -> Sizes:
        return tuple(n + before + after for n, (before, after) in zip(sizes, self.padding, strict=True))

    def interior(self, sizes: Sizes) -> tuple[slice, ...]:
        """The slices of the padded input that hold the input."""
        return tuple(slice(before, before + n) for n, (before, _) in zip(sizes, self.padding, strict=True))

    def counts(self, sizes: Sizes) -> Sizes:
        """How many windows fit along each axis. Raises: ShapeError if none does."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        found = tuple((n - r) // s + 1 for n, r, s in zip(self.padded(sizes), reach, self.stride, strict=True))
        if any(n < 1 for n in found):
            raise ShapeError(
                f"{self.what}: a kernel of {self.kernel} (dilation {self.dilation}) does not fit into the spatial axes {tuple(sizes)} "
                f"padded to {self.padded(sizes)}: use a smaller kernel, a larger input or more padding"
            )
        return found

    def places(self, counts: Sizes) -> Iterator[tuple[slice, ...]]:
        """For each kernel position, the slices of the padded input that all windows cover there. The last axis varies fastest."""
        for place in product(*map(range, self.kernel)):
            starts = [p * d for p, d in zip(place, self.dilation, strict=True)]
            yield tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, self.stride, counts, strict=True))


def per_axis(what: str, name: str, value: Any, ndim: int, least: int) -> Sizes:
    """One integer for each spatial axis. Raises: ArgumentError unless there are that many, each at least `least`."""
    values = (value,) * ndim if isinstance(value, Integral) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(values) != ndim or not all(isinstance(v, Integral) and not isinstance(v, bool) and int(v) >= least for v in values):
        raise ArgumentError(f"{what}: {name} is an integer of at least {least}, or {ndim} of them, got {value!r:.80}")
    return tuple(int(v) for v in values)


def im2col(xp: Any, x: Array, window: Window, axis: int) -> Array:
    """All windows of x. Shapes: x (a, b, *s) → (a, b, *windows) with the kernel positions as an additional axis, `axis` (1 or 2)."""
    sizes = tuple(x.shape[2:])
    places = list(window.places(window.counts(sizes)))
    if any(map(any, window.padding)):
        whole = (slice(None), slice(None))
        x = xp.zeros_at(x, (*whole, *window.interior(sizes)), (*x.shape[:2], *window.padded(sizes)))
    lead = (slice(None), None, slice(None)) if axis == 1 else (slice(None), slice(None), None)
    return xp.concatenate([x[(*lead, *place)] for place in places], axis=axis)


def col2im(xp: Any, columns: Array, window: Window, sizes: Sizes, axis: int) -> Array:
    """The transpose of `im2col`: every element is added at the position of x that it was read from."""
    counts, whole = window.counts(sizes), (slice(None), slice(None))
    lead = (columns.shape[0], columns.shape[3 - axis])
    parts = [columns[(*whole[:axis], k)] for k in range(columns.shape[axis])]
    keys = [(*whole, *place) for place in window.places(counts)]
    padded = xp.sum_at(parts, keys, (*lead, *window.padded(sizes)))
    return padded[(*whole, *window.interior(sizes))]


def spatial_shape(what: str, x: Array, ndim: int | None = None) -> Sizes:
    """The spatial shape of x. Raises: ShapeError unless it has axes for batch, channels and `ndim` (if None, one or more) dimensions."""
    if x.ndim < 3 or (ndim is not None and x.ndim != ndim + 2):
        axes = "one or more spatial axes" if ndim is None else f"{ndim} spatial ax{'is' if ndim == 1 else 'es'}"
        raise ShapeError(f"{what}: x has shape {tuple(x.shape)}, expected (batch, channels) and {axes}")
    return tuple(x.shape[2:])


# ---------------------------------------------------------------- windows as operations
@op("n c *s -> n c*k t")
def unfold(xp: Any, x: Array, *, kernel_size: PerAxis, stride: PerAxis = 1, padding: PerAxis = 0, dilation: PerAxis = 1) -> Any:
    """Every window of x as a column, with the kernel positions of the first channel first; zeros where a window covers padding."""
    sizes = spatial_shape("unfold", x)
    window = Window.of("unfold", len(sizes), kernel_size, stride, padding, dilation)
    columns = im2col(xp, x, window, axis=2)
    shape = columns.shape
    y = columns.reshape((shape[0], shape[1] * shape[2], prod(shape[3:])))
    return y, (lambda g: col2im(xp, g.reshape(shape), window, sizes, axis=2),)


@op("n c*k t -> n c *s")
def fold(
    xp: Any,
    columns: Array,
    *,
    output_size: Sequence[int],
    kernel_size: PerAxis,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
) -> Any:
    """The transpose of unfold: columns added at the positions of their windows, in an array of spatial size `output_size`.

    Raises: ShapeError unless the columns have the shape that `unfold` gives; ArgumentError for invalid sizes.
    """
    sizes = per_axis("fold", "output_size", tuple(output_size), len(output_size), 0)
    window = Window.of("fold", len(sizes), kernel_size, stride, padding, dilation)
    counts, cells = window.counts(sizes), prod(window.kernel)
    if columns.ndim != 3 or columns.shape[1] % cells or columns.shape[2] != prod(counts):
        raise ShapeError(
            f"fold: columns have shape {tuple(columns.shape)}, but {prod(counts)} windows of {cells} places need "
            f"(batch, channels * {cells}, {prod(counts)})"
        )
    old = columns.shape
    split = (old[0], old[1] // cells, cells, *counts)
    y = col2im(xp, columns.reshape(split), window, sizes, axis=2)
    return y, (lambda g: im2col(xp, g, window, axis=2).reshape(old),)
