"""Row kernels of float32, run on the CPU by way of the operations that are made of them, against the bodies in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels.cuda import short_arrays
from kernels.cuda.emulation import EmulationError, Emulator, Namespace, guarded
from kernels.cuda.parity import TOLERANCE, compare, declines, evaluate, normal
from support import absolute_error

import minigrad as mg
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend import random
from minigrad.backend.gemm import SHORT
from minigrad.backend.gradients import dense
from minigrad.backend.random import Draw
from minigrad.kernels.cuda import draws, launch, layers, losses
from minigrad.kernels.cuda.shortening import short_outputs
from minigrad.kernels.cuda.table import MAX_WIDTH
from minigrad.op import REGISTRY
from minigrad.packing import Packing

WIDTHS = [1, 3, 4, 31, 33, 127, 128, 132, 256, 384, 512, 513, 768, 770]


# ---------------------------------------------------------------- the operations
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 9])
def test_layer_norm(rows: int, width: int, emulator: Emulator) -> None:
    x, gamma, beta = normal((rows, width), (width,), (width,))
    compare("layer_norm", [x if width > 1 else x * 0, gamma, beta], {"eps": 1e-5}, emulator)


def packing_of(rows: int) -> Packing:
    """Sequences whose numbers are not their places."""
    return Packing([rows]) if rows < 3 else Packing([2, rows - 2], numbers=[5, 3])


@pytest.mark.parametrize("rate", [None, 0.0, 0.1, 1.0])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 5), (9, 130), (3, 512), (5, 768), (7, 770), (4, 1024)])
def test_dense_add_norm(rows: int, width: int, rate: float | None, emulator: Emulator) -> None:
    x, weight, bias, residual, gamma, beta = normal((rows, 3), (width, 3), (width,), (rows, width), (width,), (width,))
    draw = None if rate is None else Draw("a", rate, packing_of(rows), width)
    compare("dense_add_norm", [x, weight, bias, residual, gamma, beta], {"draw": draw, "eps": 1e-5 if width > 1 else 1.0}, emulator)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 3), (130, 4), (7, 770), (260, 129)])
def test_dense_gelu(rows: int, width: int, emulator: Emulator) -> None:
    x, weight, bias = normal((rows, 3), (width, 3), (width,))
    compare("dense_gelu", [x, weight, bias], {}, emulator)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 3), (130, 4), (7, 770), (260, 129)])
def test_dense_tanh(rows: int, width: int, emulator: Emulator) -> None:
    compare("dense_tanh", normal((rows, 3), (width, 3), (width,)), {}, emulator)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("width", [6, 132])
def test_what_is_multiplied_next_is_left_short_too(width: int, precision: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout's output, and the gradients of what cross-entropy and tanh were computed from: `product` finds the gradient, and so shortens
    two operands instead of three."""
    noted: list[Any] = []
    for module in (layers, losses):
        monkeypatch.setattr(module, "short_outputs", lambda xp, x: noted.append((x, *short_outputs(xp, x))) or noted[-1][1:])
    xp, given = Namespace(), []
    xp.shortened = lambda x, how: given.append(x.shape) or Namespace.shortened(x, how)  # type: ignore[attr-defined]
    x, weight, bias = normal((9, width), (width, width), (width,))
    with mg.precision(precision):
        REGISTRY["dropout"].overrides["cupy"](xp, x, draw=Draw("a", 0.3, packing_of(9), width))
        for name, arrays in {"dense_tanh": (x, weight, bias), "cross_entropy": (x, np.arange(9) % 4)}.items():
            y, pullback = REGISTRY[name].overrides["cupy"](xp, *arrays)
            pullback(np.ones_like(y))
    xp.check()
    assert given == [(9, width), (width, width)] and len(noted) == 3
    for x, *short in noted:
        assert [s is None for s in short] == [name != precision for name in SHORT]
        np.testing.assert_array_equal(short[SHORT.index(precision)], short_arrays.shortened(x, precision))


@pytest.mark.parametrize("rows", [1, 128, 129, 300])
def test_linears(rows: int, emulator: Emulator) -> None:
    compare("linears", normal((rows, 3), (5, 3), (132, 3), (5,), (132,)), {}, emulator)


@pytest.mark.parametrize("rows", [1, 300])
def test_linear(rows: int, emulator: Emulator) -> None:
    compare("linear", normal((rows, 3), (132, 3), (132,)), {}, emulator)


@pytest.mark.parametrize("width", [*WIDTHS, 1600])
def test_dropout_drops_the_units_of_the_draw(width: int, emulator: Emulator) -> None:
    packing = Packing([3, 1, 4], numbers=[7, 0, 1 << 19])
    draw = Draw("somewhere", 0.3, packing, width)
    compare("dropout", normal((8, width)), {"draw": draw}, emulator)
    out = evaluate("dropout", [np.ones((8, width), np.float32)], {"draw": draw}, False, emulator)[0]
    np.testing.assert_array_equal(out, draw.mask() * np.float32(draw.scale))


@pytest.mark.parametrize("name", ["layer_norm", "dense_gelu", "dense_tanh", "linear", "linears", "dense_add_norm", "dropout"])
def test_no_rows_at_all(name: str, emulator: Emulator) -> None:
    sizes = {
        "layer_norm": [(0, 4), (4,), (4,)],
        "dense_gelu": [(0, 3), (4, 3), (4,)],
        "dense_tanh": [(0, 3), (4, 3), (4,)],
        "linear": [(0, 3), (4, 3), (4,)],
        "linears": [(0, 3), (4, 3), (4,)],
        "dense_add_norm": [(0, 3), (4, 3), (4,), (0, 4), (4,), (4,)],
        "dropout": [(0, 4)],
    }[name]
    if name == "dropout":
        launch.launch("drop", (0,), *[None] * 4, 0, 4, None, None, 0, 0, 0, 0, 1.0)  # a packing has rows, a launch need not
        return
    found = evaluate(name, normal(*sizes), {}, False, emulator)
    assert all(not np.any(x) for x in found)


@pytest.mark.parametrize("name", ["layer_norm", "dense_gelu", "dense_add_norm"])
def test_inference_keeps_nothing_and_gives_the_same_bits(name: str, emulator: Emulator) -> None:
    arrays = normal((5, 12), *{"layer_norm": [(12,), (12,)], "dense_gelu": [(7, 12), (7,)]}.get(name, [(9, 12), (9,), (5, 9), (9,), (9,)]))
    override = REGISTRY[name].overrides["cupy"]
    results = [override(Namespace(), *[guarded(a) for a in arrays], keep=keep)[0] for keep in (True, False)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["linears", "dense_gelu", "dense_add_norm"])
def test_each_operand_of_short_products_is_shortened_once(name: str, precision: str, emulator: Emulator) -> None:
    """x, the weights and the gradient. The results are those of NumPy, which rounds the same operands."""
    sizes = {
        "linears": [(40, 30), (20, 30), (50, 30), (20,), (50,)],
        "dense_gelu": [(40, 30), (50, 30), (50,)],
        "dense_add_norm": [(40, 30), (50, 30), (50,), (40, 50), (50,), (50,)],
    }[name]
    arrays, xp, given = normal(*sizes), Namespace(), []
    xp.shortened = lambda x, how: given.append(x.shape) or Namespace.shortened(x, how)  # type: ignore[attr-defined]
    with mg.precision(precision):
        y, pullback = REGISTRY[name].overrides["cupy"](xp, *arrays, **({} if name == "linears" else {"keep": True}))
        expected, pullback_of_the_body = REGISTRY[name].body(numpy_namespace, *arrays)
        g = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
        ours = [y, *[dense(x) for x in pullback(g)]]
        truths = [expected, *[dense(x) for x in pullback_of_the_body(g)]]
    assert given == [(40, 30), (y.shape[1], 30), y.shape]
    # Elsewhere the gradient that a product takes is computed first: float32's last bit may decide how it is rounded.
    step = 0.0 if name == "linears" else {"bf16": 2.0**-8, "fp16": 2.0**-11}[precision]
    for mine, truth in zip(ours, truths, strict=True):
        truth = truth.sum(axis=0) if truth.ndim > mine.ndim else truth
        assert absolute_error(mine, truth) <= (step + 4 * TOLERANCE) * max(1.0, float(np.abs(truth).max()))


def test_rows_with_a_large_mean_keep_their_digits(emulator: Emulator) -> None:
    x, gamma, beta = normal((4, 384), (384,), (384,))
    x += np.float32(1e4)  # float32 has steps of 1e-3 there, so what is compared is what the rounded numbers give
    compare("layer_norm", [x, gamma, beta], {"eps": 1e-5}, emulator)


@pytest.mark.parametrize("offset", [1, 2])
def test_any_alignment(offset: int, emulator: Emulator) -> None:
    """Parameters lie anywhere in an arena: sixteen bytes are read at a time only where that is allowed."""
    x, gamma, beta = normal((3, 132), (132,), (132,))
    moved = [guarded(a, offset=offset) for a in (x, gamma, beta)]
    override, xp = REGISTRY["layer_norm"].overrides["cupy"], Namespace()
    np.testing.assert_array_equal(override(xp, *moved, keep=True)[0], override(xp, x, gamma, beta, keep=True)[0])


def test_a_captured_step_is_read_from_the_clock(emulator: Emulator) -> None:
    packing, x = Packing([4]), np.ones((4, 50), np.float32)
    with random.at(3, 10):
        draw = Draw("a", 0.5, packing, 50)
    with random.at(3, 11):
        later = Draw("a", 0.5, packing, 50)
    override = REGISTRY["dropout"].overrides["cupy"]
    token = draws.clock.set(np.array([11], np.uint64))
    try:
        at_the_clock = override(Namespace(), x, draw=draw)[0]
    finally:
        draws.clock.reset(token)
    np.testing.assert_array_equal(at_the_clock, later.mask() * np.float32(2))
    np.testing.assert_array_equal(override(Namespace(), x, draw=draw)[0], draw.mask() * np.float32(2))


# ---------------------------------------------------------------- what is declined
def test_what_is_not_covered_is_declined() -> None:
    x, w, b = normal((4, 6), (5, 6), (5,))
    v = normal((6,))[0]
    wide = normal((2, MAX_WIDTH + 1), (MAX_WIDTH + 1,))
    assert declines("dense_gelu", x, w, b, approximate="tanh")
    assert declines("dense_gelu", x.astype(np.float64), w, b)
    assert declines("dense_gelu", x[None], w, b)
    assert declines("dense_gelu", x, w, v)
    assert declines("dense_tanh", x.astype(np.float64), w, b)
    assert declines("dense_tanh", x[None], w, b)
    assert declines("dense_tanh", x, w, v)
    assert declines("layer_norm", x[None], v, v)
    assert declines("layer_norm", x, b, b)
    assert declines("layer_norm", wide[0], wide[1], wide[1])
    assert declines("linears", x, w, v)
    assert declines("linear", x, w, v)
    assert declines("linear", x[None], w, b)
    assert declines("linear", x, w, None)
    assert declines("dense_add_norm", x, w, b, x, b, b)
    assert declines("dropout", x, draw=Draw("a", 0.5, Packing([3]), 6))
    assert declines("dropout", x[:, ::2].astype(np.float64), draw=Draw("a", 0.5, Packing([4]), 3))


# ---------------------------------------------------------------- that the checks check
PLANTED: list[tuple[str, str, str, str, Callable[[], Any]]] = [
    (
        "dense_gelu",
        "strips.cuh",
        "sum = sum + all[i][threadIdx.x]",
        "sum = sum + all[1][threadIdx.x]",
        lambda: normal((20, 3), (9, 3), (9,)),
    ),
    ("dense_tanh", "rows_float32.cu", "given[i] * given[i] * -1.0f", "given[i] * -1.0f", lambda: normal((9, 3), (4, 3), (4,))),
    (
        "layer_norm",
        "layer_norm.cuh",
        "if (!N && i * CHUNK + j >= lane.left)",
        "if (!N && i * CHUNK + j > lane.left)",
        lambda: normal((3, 33), (33,), (33,)),
    ),
    ("layer_norm", "layer_norm.cuh", "* -mean_along", "* -mean", lambda: normal((3, 33), (33,), (33,))),
    (
        "layer_norm",
        "layer_norm.cuh",
        "less = __shfl_sync(ALL, lane.left > 0 ? v[0].x : 0.0f, 0)",
        "less = 0.0f",
        lambda: [a + 1e4 for a in normal((3, 384))] + normal((384,), (384,)),
    ),
    ("layer_norm", "layer_norm.cuh", "(left + CHUNK - 1) / CHUNK", "left / CHUNK", lambda: normal((3, 416), (416,), (416,))),
    ("layer_norm", "layer_norm.cuh", "run<3>(true)", "run<2>(true)", lambda: normal((3, 384), (384,), (384,))),
    ("layer_norm", "layer_norm.cuh", "await_copies();", "", lambda: normal((3, 768), (768,), (768,))),
    ("layer_norm", "strips.cuh", "__syncthreads();  // the previous sum has been read", "", lambda: normal((130, 33), (33,), (33,))),
    ("linears", "rows_float32.cu", "__syncthreads();", "", lambda: normal((300, 3), (4, 3), (4,))),
    ("linears", "rows_float32.cu", "row < rows ? width : 0", "width", lambda: normal((300, 3), (4, 3), (4,))),
    ("linears", "rows_float32.cu", "half = GROUPS / 2", "half = GROUPS / 4", lambda: normal((20, 3), (4, 3), (4,))),
]


@pytest.mark.parametrize(("name", "source", "right", "wrong", "arrays"), PLANTED, ids=[p[2][:30] for p in PLANTED])
def test_a_planted_error_is_caught(
    name: str, source: str, right: str, wrong: str, arrays: Callable[[], Any], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = emulator.changed(source, right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises((AssertionError, EmulationError)):
        compare(name, arrays(), {}, planted)
