"""Rows of `ops/windows.py`, `ops/conv.py` and `ops/pool.py`: small windows that overlap, leave gaps, and reach into padding."""

from __future__ import annotations

from math import prod
from typing import Any

from hypothesis import strategies as st
from ops.cases.base import CASES, Sample, case
from strategies import arrays

from minigrad.ops.windows import Window

Options = dict[str, Any]


def _of_axes(draw: Any, ndim: int, least: int, most: int) -> Any:
    """One number for each spatial axis, or one for all."""
    numbers = tuple(draw(st.integers(least, most)) for _ in range(ndim))
    return numbers[0] if len(set(numbers)) == 1 and draw(st.booleans()) else numbers


def _geometry(draw: Any, ndim: int, *, half: bool = False, dilated: bool = True) -> tuple[tuple[int, ...], Options]:
    """A spatial shape, and the options of a window that fits into it. half: the padding is at most half of the kernel."""
    most = 2 if ndim > 1 else 3
    kernel = tuple(draw(st.integers(1, most)) for _ in range(ndim))
    padding = tuple(draw(st.integers(0, k // 2 if half else 1)) for k in kernel)
    dilation = tuple(draw(st.integers(1, 2)) if dilated else 1 for _ in range(ndim))
    reach = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    least = dilation if half else (1,) * ndim  # with fewer, a window may cover only padding
    room = 3 if ndim == 1 else 1 if max(*reach, *dilation) < 3 else 0  # keeps the inputs small
    sides = tuple(max(n, r) + draw(st.integers(0, room)) for n, r in zip(least, reach, strict=True))
    options = {"kernel_size": kernel, "stride": _of_axes(draw, ndim, 1, 2), "padding": padding}
    return sides, options | ({"dilation": dilation} if dilated else {})


@case
def unfold(draw: Any) -> Sample:
    sides, options = _geometry(draw, draw(st.integers(1, 2)))
    return Sample((draw(arrays((draw(st.integers(0, 2)), draw(st.integers(1, 2)), *sides))),), options)


@case
def fold(draw: Any) -> Sample:
    sides, options = _geometry(draw, draw(st.integers(1, 2)))
    window = Window.of("fold", len(sides), *options.values())
    rows, columns = prod(window.kernel), prod(window.counts(sides))
    channels = draw(st.integers(1, 2 if rows * columns <= 12 else 1))
    return Sample((draw(arrays((draw(st.integers(0, 1)), channels * rows, columns))),), {"output_size": sides, **options})


def _convolution(draw: Any, ndim: int) -> Sample:
    sides, options = _geometry(draw, ndim)
    kernel = options.pop("kernel_size")
    groups, inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if groups == 2 or ndim > 1:  # at most 16 numbers in each input
        inputs = outputs = 1
    if options["stride"] in (1, (1,) * ndim) and draw(st.booleans()):
        options["padding"] = "same"
    x = draw(arrays((draw(st.integers(0, 1 if prod(sides) > 4 else 2)), groups * inputs, *sides)))
    weight, bias = draw(arrays((groups * outputs, inputs, *kernel))), draw(arrays((groups * outputs,)))
    return Sample((x, weight, bias if draw(st.booleans()) else None), {**options, "groups": groups})


CASES["conv"] = st.composite(lambda draw: _convolution(draw, draw(st.integers(1, 2))))()
CASES["conv1d"] = st.composite(lambda draw: _convolution(draw, 1))()
CASES["conv2d"] = st.composite(lambda draw: _convolution(draw, 2))()


def _pool(name: str, ndim: int, domain: str) -> None:
    @st.composite
    def sample(draw: Any) -> Sample:
        sides, options = _geometry(draw, ndim, half=True, dilated=domain == "distinct")
        if draw(st.booleans()):
            options["stride"] = None
        if domain != "distinct":
            options["count_include_pad"] = draw(st.booleans())
        return Sample((draw(arrays((*draw(st.sampled_from([(0, 1), (1, 1), (1, 2), (2, 1)])), *sides), domain)),), options)

    CASES[name] = sample()


_pool("max_pool1d", 1, "distinct")
_pool("max_pool2d", 2, "distinct")
_pool("avg_pool1d", 1, "real")
_pool("avg_pool2d", 2, "real")
