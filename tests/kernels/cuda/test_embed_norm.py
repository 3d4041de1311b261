"""The kernels of `embed_norm.cu`, run on the CPU by way of their operation, against its body in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda import short_arrays
from kernels.cuda.emulation import Emulator, Namespace, guarded
from kernels.cuda.parity import compare, declines, evaluate, normal

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.random import Draw
from minigrad.errors import IndexRangeError
from minigrad.kernels.cuda import draws, launch, shortening
from minigrad.modes import Mode
from minigrad.op import REGISTRY
from minigrad.packing import Packing

override = REGISTRY["embed_norm"].overrides["cupy"]

HEIGHTS = (23, 12, 2)

WIDTHS = [1, 5, 128, 132, 300, 770, 1024]


def arrays(rows: int, width: int, tables: int = 3) -> list[np.ndarray]:
    """gamma and beta, the tables, and the ids for each. Of the last table the row 0 is read most often."""
    rng = np.random.default_rng([rows, width, tables])
    ids = [rng.integers(0, height, rows) for height in HEIGHTS[:tables]]
    return [*normal((width,), (width,), *[(height, width) for height in HEIGHTS[:tables]]), *ids]


def constants(rows: int, width: int, rate: float | None, untrained: tuple[int | None, ...] = (3, None, None)) -> dict[str, Any]:
    packing = Packing([rows]) if rows < 3 else Packing([2, rows - 2], numbers=[5, 3])
    draw = None if rate is None else Draw("a", rate, packing, width)
    return {"untrained": untrained, "draw": draw, "eps": 1e-5 if width > 1 else 1.0}


@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("width", WIDTHS)
def test_values_and_gradients_equal_the_body(width: int, rate: float | None, emulator: Emulator) -> None:
    for rows in (1, 19):
        compare("embed_norm", arrays(rows, width), constants(rows, width, rate), emulator)


@pytest.mark.parametrize("untrained", [(3,), (None,), (3, 1), (None, 11)])
def test_fewer_tables(untrained: tuple[int | None, ...], emulator: Emulator) -> None:
    compare("embed_norm", arrays(9, 6, len(untrained)), constants(9, 6, 0.3, untrained), emulator)


def test_no_rows_at_all(emulator: Emulator) -> None:
    compare("embed_norm", arrays(0, 6), {"untrained": (None,) * 3}, emulator)


def test_units_drop_as_the_draw_says(emulator: Emulator) -> None:
    """Of a norm that gives ones; in a captured step as the clock says, there and back."""
    rows, width = 9, 130
    given = arrays(rows, width)
    given[0][...], given[1][...] = 0.0, 1.0
    with random.at(3, 10):
        told = constants(rows, width, 0.4)
    with random.at(3, 11):
        later = constants(rows, width, 0.4)
    for draw, clock in ((told["draw"], None), (later["draw"], np.array([11], np.uint64))):
        with Mode(draws.clock, clock):
            out, _, dbeta, *_ = evaluate("embed_norm", given, told, False, emulator)
        factors = draw.mask() * np.float32(draw.scale)
        np.testing.assert_array_equal(out, factors)
        g = np.cos(np.arange(rows * width)).reshape(rows, width)  # that of `evaluate`
        np.testing.assert_allclose(dbeta, (g * factors).sum(axis=0), atol=1e-5)  # nine float32 numbers of up to 1.7


@pytest.mark.parametrize("rate", [None, 0.1])
def test_inference_keeps_nothing_and_gives_the_same_bits(rate: float | None, emulator: Emulator) -> None:
    given, told, xp = arrays(9, 300), constants(9, 300, rate), Namespace()
    found = override(xp, *map(guarded, given), **told, keep=False)[0]
    xp.check()
    assert len(xp._made) == 1
    np.testing.assert_array_equal(found, evaluate("embed_norm", given, told, False, emulator)[0])


@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("width", [6, 132])
def test_products_find_the_rows_rounded(width: int, precision: str, rate: float | None, emulator: Emulator) -> None:
    xp = Namespace()
    with mg.precision(precision):
        out, _ = override(xp, *arrays(9, width), **constants(9, width, rate), keep=True)
    xp.check()
    rounded = shortening.shortened(None, out, precision)  # no namespace: it is there
    np.testing.assert_array_equal(rounded, short_arrays.shortened(out, precision))


def test_the_row_of_an_id_that_nobody_has_checked_is_nan(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arrays(3, 5)
    with pytest.raises(IndexRangeError, match=r"embedding ids: value 12 at place 2 is outside 0\.\.11"):
        override(Namespace(), *given[:6], np.array([0, 1, 12]), given[7], **constants(3, 5, None), keep=False)
    monkeypatch.setattr("minigrad.ops.check_rows", lambda *_: None)
    for wrong in (12, -1, 1 << 40):
        out, _ = override(Namespace(), *given[:6], np.array([0, 1, wrong]), given[7], **constants(3, 5, None), keep=False)
        assert np.isnan(out).all(axis=1).tolist() == [False, False, True]


def test_what_is_not_covered_is_declined() -> None:
    given, told = arrays(4, 6), constants(4, 6, None)
    assert declines("embed_norm", *[a.astype(np.float64) if a.dtype.kind == "f" else a for a in given], **told)
    assert declines("embed_norm", *given[:5], *[ids.astype(np.int32) for ids in given[5:]], **told)
    assert declines("embed_norm", *given[:5], *[ids[:, None] for ids in given[5:]], **told)
    assert declines("embed_norm", *given[:-1], given[-1][:3], **told)
    assert declines("embed_norm", given[0][:5], *given[1:], **told)
    assert declines("embed_norm", *given, **{**told, "untrained": (23, None, None)})
    assert declines("embed_norm", *given, **{**told, "draw": constants(5, 6, 0.1)["draw"]})
    assert declines("embed_norm", *arrays(4, 1025), **constants(4, 1025, None))
    assert declines("embed_norm", *given[:3], *[given[3]] * 4, *given[5:], *[given[6]] * 2, **{**told, "untrained": (None,) * 5})


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("g = dropped", "(void)dropped"),
        ("drop_rows(out, out, ROUNDED_ROWS, rows", "drop_rows(xhat, out, ROUNDED_ROWS, rows"),
    ],
)
def test_a_planted_error_is_caught(right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed("embed_norm.cu", right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises(AssertionError):
        compare("embed_norm", arrays(9, 5), constants(9, 5, 0.3), planted)
