"""Row kernels for each storage, run on the CPU, against their formulas in float64 of the numbers that are stored.

What is written to is poisoned and guarded; each kernel runs twice, the second time with its threads in the opposite order, and must give
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels.cuda.emulation import EmulationError, Emulator, Namespace, check_guards, guarded
from kernels.cuda.parity import TOLERANCE, normal
from kernels.cuda.short_arrays import shortened, widened

from minigrad import ops
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.random import Draw
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.draws import row_draw
from minigrad.kernels.cuda.table import ROWS, STORAGES, ceil_div
from minigrad.ops.normalisation import normalise, normalise_pullback
from minigrad.packing import Packing

STEP = {"float32": 0.0, "bf16": 2.0**-8, "fp16": 2.0**-11}
"""The largest relative error of one rounding to the storage. What the arithmetic adds to it is float32's `TOLERANCE`."""

GELU = 1e-5
"""Relative to GELU, or to the gradient that its slope is multiplied by: where rows are short, Φ is within 5e-6 of its value."""

SHAPES = [(1, 1, 0), (9, 33, 0), (5, 128, 0), (40, 130, 0), (70, 132, 0), (70, 132, 1), (3, 256, 0), (3, 388, 0), (3, 640, 0), (3, 768, 0)]
SHAPES += [(3, 770, 1), (2, 1024, 0)]
"""Rows, width, and the numbers by which arrays begin behind a multiple of what is read at once."""

each_storage = pytest.mark.parametrize("storage", STORAGES)
each_shape = pytest.mark.parametrize(("rows", "width", "offset"), SHAPES)


def stored(x: np.ndarray, storage: str, offset: int = 0) -> np.ndarray:
    """A guarded array as kernels of this storage take it, `offset` numbers off its alignment."""
    return guarded(x if storage == "float32" else shortened(x, storage), offset=offset)


def room(shape: tuple[int, ...], storage: str = "float32") -> np.ndarray:
    return guarded(shape=shape, dtype={"float32": np.float32, "bf16": np.uint16, "fp16": np.float16}[storage])


def numbers(x: np.ndarray) -> np.ndarray:
    """What is stored, in float64."""
    return (x if x.dtype == np.float32 else widened(x)).astype(np.float64)


def twice(run: Callable[[], list[np.ndarray]], emulator: Emulator) -> list[np.ndarray]:
    """What is written to, in float64."""
    found = []
    for emulator.backwards in (False, True):
        found.append(run())
        check_guards(*found[-1])
    for once, again in zip(*found, strict=True):
        np.testing.assert_array_equal(once, again)
    return [numbers(x) for x in found[0]]


def assert_stored(found: np.ndarray, truth: np.ndarray, storage: str, extra: np.ndarray | float = 0.0) -> None:
    """Within one rounding of each number, and what float32 loses of the largest."""
    bound = STEP[storage] * np.abs(truth) + TOLERANCE * max(1.0, float(np.abs(truth).max())) + extra
    assert (np.abs(found - truth) <= bound).all(), float((np.abs(found - truth) / bound).max())


# ---------------------------------------------------------------- strips
@each_shape
@each_storage
def test_add_bias(storage: str, rows: int, width: int, offset: int, emulator: Emulator) -> None:
    x, bias = normal((rows, width), (width,))

    def run() -> list[np.ndarray]:
        y = stored(x, storage, offset)
        launch.launch(f"add_bias_{storage}", x.shape, y, guarded(bias), rows, width)
        return [y]

    assert_stored(twice(run, emulator)[0], numbers(stored(x, storage)) + bias, storage)


@pytest.mark.parametrize("in_place", [False, True])
@each_shape
@each_storage
def test_bias_gelu(storage: str, rows: int, width: int, offset: int, in_place: bool, emulator: Emulator) -> None:
    x, bias = normal((rows, width), (width,))
    x *= 4  # both tails

    def run() -> list[np.ndarray]:
        h = stored(x, storage, offset)
        out = h if in_place else room(x.shape, storage)
        launch.launch(f"bias_gelu_{storage}", x.shape, h, guarded(bias), out, rows, width)
        return [out]

    truth = ops.gelu.body(numpy_namespace, numbers(stored(x, storage)) + bias)[0]
    assert_stored(twice(run, emulator)[0], truth, storage, 0.0 if storage == "float32" else GELU * np.abs(truth))


@pytest.mark.parametrize("in_place", [False, True])
@each_shape
@each_storage
def test_bias_gelu_pullback(storage: str, rows: int, width: int, offset: int, in_place: bool, emulator: Emulator) -> None:
    x, g, bias = normal((rows, width), (rows, width), (width,))
    x *= 4
    blocks, stride = ceil_div(rows, ROWS), width + 3

    def run() -> list[np.ndarray]:
        above, h = stored(g, storage, offset), stored(x, storage)
        dh = above if in_place else room(x.shape, storage)
        partial = guarded(np.full((blocks, stride), 7, np.float32))
        places = partial.reshape(-1)[2:]
        launch.launch(f"bias_gelu_pullback_{storage}", x.shape, above, h, guarded(bias), dh, places, rows, width, stride)
        assert (np.delete(partial, np.s_[2 : width + 2], axis=1) == 7).all()
        check_guards(partial)
        return [dh, guarded(partial[:, 2 : width + 2])]

    dh, partial = twice(run, emulator)
    above = numbers(stored(g, storage))
    pullback = ops.gelu.body(numpy_namespace, numbers(stored(x, storage)) + bias)[1]
    truth = pullback(above) if callable(pullback) else pullback[0](above)
    extra = 0.0 if storage == "float32" else GELU * np.abs(above)
    assert_stored(dh, truth, storage, extra)
    starts = np.arange(0, rows, ROWS)
    sums = np.add.reduceat(truth, starts, axis=0)
    assert_stored(partial, sums, "float32", np.add.reduceat(np.broadcast_to(extra, truth.shape), starts, axis=0))


@each_shape
@each_storage
def test_column_sums(storage: str, rows: int, width: int, offset: int, emulator: Emulator) -> None:
    [x] = normal((rows, width))

    def run() -> list[np.ndarray]:
        partial = room((ceil_div(rows, ROWS), width))
        launch.launch(f"column_sums_{storage}", x.shape, stored(x, storage, offset), partial, rows, width, width)
        return [partial]

    truth = np.add.reduceat(numbers(stored(x, storage)), np.arange(0, rows, ROWS), axis=0)
    assert_stored(twice(run, emulator)[0], truth, "float32")


@pytest.mark.parametrize(
    ("rows", "width", "offset"), [*SHAPES, (32, 4, 0), (33, 36, 0), (256, 40, 0), (600, 5, 0), (600, 64, 1), (600, 64, 0)]
)
def test_total_rows(rows: int, width: int, offset: int, emulator: Emulator) -> None:
    [x] = normal((rows, width))

    def run() -> list[np.ndarray]:
        out = room((width,))
        launch.launch("total_rows", (width,), guarded(x, offset=offset), out, rows, width)
        return [out]

    assert_stored(twice(run, emulator)[0], x.astype(np.float64).sum(axis=0), "float32")


@pytest.mark.parametrize("kinds", [2, 3])
@each_shape
@each_storage
def test_norm_sums(storage: str, rows: int, width: int, offset: int, kinds: int, emulator: Emulator) -> None:
    g, xhat, dy = normal((rows, width), (rows, width), (rows, width))
    if kinds == 3:
        dy[0] = 9

    def run() -> list[np.ndarray]:
        partial = room((ceil_div(rows, ROWS), kinds * width))
        arrays = guarded(g), stored(xhat, storage, offset), stored(dy, storage) if kinds == 3 else None
        launch.launch(f"norm_sums_{storage}", g.shape, *arrays, partial, rows, width, kinds * width)
        return [partial]

    parts = [numbers(stored(dy, storage)), g * numbers(stored(xhat, storage)), g.astype(np.float64)][-kinds:]
    truth = np.add.reduceat(np.concatenate(parts, axis=1), np.arange(0, rows, ROWS), axis=0)
    assert_stored(twice(run, emulator)[0], truth, "float32")


# ---------------------------------------------------------------- layer normalisation
def drawn(rate: float | None, rows: int, width: int) -> tuple[tuple[Any, ...], np.ndarray | float]:
    """What a kernel is told, and the factor of each number."""
    if rate is None:
        return row_draw(Namespace(), None), 1.0
    draw = Draw("a", rate, Packing([rows], numbers=[5]), width)
    return row_draw(Namespace(), draw), draw.mask() * draw.scale


@pytest.mark.parametrize("rate", [None, 0.3])
@each_shape
@each_storage
def test_add_norm(storage: str, rows: int, width: int, offset: int, rate: float | None, emulator: Emulator) -> None:
    y, residual, bias, gamma, beta = normal((rows, width), (rows, width), (width,), (width,), (width,))
    drawing, factor = drawn(rate, rows, width)
    eps = 1e-5 if width > 1 else 1.0

    def run(keep: bool = True) -> list[np.ndarray]:
        given, out, rounded, rstd = stored(y, storage, offset), room(y.shape), room(y.shape, storage), room((rows,))
        kept = (rounded, given, rstd) if keep else (None, None, None)  # x̂ takes the place of y
        arrays = (given, *(guarded(a) for a in (bias, residual, gamma, beta)), out, *kept)
        launch.launch(f"add_norm_{storage}", (rows,), *arrays, rows, width, eps, *drawing)
        return [out, *kept] if keep else [out]

    out, rounded, xhat, rstd = twice(run, emulator)
    true_xhat, true_rstd = normalise(numpy_namespace, (numbers(stored(y, storage)) + bias) * factor + residual, eps)
    assert_stored(out, true_xhat * gamma + beta, "float32")
    np.testing.assert_array_equal(rounded, numbers(stored(out.astype(np.float32), storage)))
    assert_stored(xhat, true_xhat, storage)
    assert_stored(rstd, true_rstd[:, 0], "float32")
    np.testing.assert_array_equal(run(keep=False)[0], out.astype(np.float32))


@pytest.mark.parametrize("rate", [None, 0.3])
@each_shape
@each_storage
def test_add_norm_pullback(storage: str, rows: int, width: int, offset: int, rate: float | None, emulator: Emulator) -> None:
    g, xhat, gamma, rstd = normal((rows, width), (rows, width), (width,), (rows,))
    drawing, factor = drawn(rate, rows, width)

    def run() -> list[np.ndarray]:
        gx, dy = room(g.shape), room(g.shape, storage)
        arrays = (guarded(g), guarded(gamma), stored(xhat, storage, offset), guarded(rstd), gx, dy)
        launch.launch(f"add_norm_pullback_{storage}", (rows,), *arrays, rows, width, *drawing)
        return [gx, dy]

    gx, dy = twice(run, emulator)
    exact = g.astype(np.float64) * gamma
    truth = normalise_pullback(numpy_namespace, exact, numbers(stored(xhat, storage)), rstd[:, None].astype(np.float64))
    assert_stored(gx, truth, "float32")
    assert_stored(dy, truth * factor, storage)


# ---------------------------------------------------------------- what is no number, and what is not there
@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_what_is_too_large_becomes_infinite_and_nan_stays(storage: str, emulator: Emulator) -> None:
    largest = {"bf16": np.float32(3.38e38), "fp16": np.float32(65504)}[storage]
    y = stored(np.array([[largest, -largest, np.nan, np.inf, 1]], np.float32), storage)
    bias = np.array([largest, -largest, 0, 0, 2], np.float32)
    launch.launch(f"add_bias_{storage}", y.shape, y, bias, *y.shape)
    np.testing.assert_array_equal(numbers(y), [[np.inf, -np.inf, np.nan, np.inf, 3]])


@each_storage
def test_no_rows_launch_nothing(storage: str) -> None:
    """There is no emulator here that could run anything."""
    launch.launch(f"add_bias_{storage}", (0, 4), None, None, 0, 4)
    launch.launch(f"column_sums_{storage}", (0, 4), None, None, 0, 4, 4)
    launch.launch(f"norm_sums_{storage}", (0, 4), *[None] * 4, 0, 4, 12)


# ---------------------------------------------------------------- that the checks check
PLANTED = [
    ("storage.cuh", "Short::pair(x.z, x.w)", "Short::pair(x.w, x.z)", test_add_bias, (70, 132, 0)),
    ("storage.cuh", "found.high |= (u32)row[at + 3].bits << 16", "found.high = (u32)row[at + 3].bits << 16", test_add_bias, (70, 132, 1)),
    ("strips.cuh", "0.31f * fabsf(x)", "0.31f * x", test_bias_gelu, (9, 33, 0, False)),
    ("strips.cuh", "if (has(i)) store4", "store4", test_add_bias, (31, 33, 0)),
    ("strips.cuh", "x && has(i) ? width : 0", "x ? width : 0", test_column_sums, (70, 132, 0)),
    ("strips.cuh", "all - first < ROWS", "false", test_column_sums, (70, 132, 0)),
    ("strips.cuh", "store_sum(partial + width, strip", "store_sum(partial, strip", test_norm_sums, (40, 130, 0, 3)),
    ("layer_norm.cuh", "found * factors(drawing, kept, i)", "found", test_add_norm_pullback, (9, 33, 0, 0.3)),
]


@pytest.mark.parametrize(("source", "right", "wrong", "test", "case"), PLANTED, ids=[p[1][:30] for p in PLANTED])
def test_a_planted_error_is_caught(
    source: str, right: str, wrong: str, test: Any, case: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = emulator.changed(source, right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises((AssertionError, EmulationError)):
        test("bf16", *case, emulator=planted)
