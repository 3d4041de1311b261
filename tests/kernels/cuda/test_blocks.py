"""BERT's blocks as one operation, run on the CPU, against their bodies in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda.block_cases import FORMS, STEP, Case, assert_close, body, case, dropping, results
from kernels.cuda.emulation import EmulationError, Emulator, Namespace, check_guards, guarded
from kernels.cuda.parity import declines

import minigrad as mg
from minigrad.backend.gemm import SHORT
from minigrad.backend.random import Draw
from minigrad.kernels import register_cuda
from minigrad.kernels.cuda import launch, shortening
from minigrad.kernels.cuda.table import MAX_WIDTH, ROWS, ceil_div
from minigrad.op import REGISTRY
from minigrad.packing import Packing

register_cuda()

OPERATIONS = ["attention_block", "feed_forward"]

each_block = pytest.mark.parametrize("block", OPERATIONS)
each_precision = pytest.mark.parametrize("precision", STEP)


def kernels(given: Case, precision: str, emulator: Emulator, backwards: bool = False) -> list[np.ndarray]:
    """The output and all gradients. Inputs and what kernels write to lie among poison; the way back is gone twice."""
    emulator.backwards = backwards
    block, host, constants, g = given
    xp, arrays, above = Namespace(), [guarded(a) for a in host], guarded(g)
    with mg.precision(precision):
        y, pullback = REGISTRY[block].overrides["cupy"](xp, *arrays, **constants, keep=True)
        first = results(pullback(above), host)
        again = results(pullback(above), host)
    xp.check()
    check_guards(*arrays, above)
    for before, after in zip([*host, g, *first], [*arrays, above, *again], strict=True):
        np.testing.assert_array_equal(before, after)
    return [np.array(x) for x in (y, *first)]


@pytest.mark.parametrize(("block", "form"), FORMS)
@each_precision
def test_values_and_gradients_equal_the_body(block: str, precision: str, form: str, emulator: Emulator) -> None:
    given = case(block, form)
    ours = kernels(given, precision, emulator)
    for once, again in zip(ours, kernels(given, precision, emulator, backwards=True), strict=True):
        np.testing.assert_array_equal(once, again)
    assert_close(ours, body(given), block, precision)


@each_precision
@each_block
def test_inference_keeps_nothing_and_gives_the_same_bits(block: str, precision: str, emulator: Emulator) -> None:
    _, host, constants, _ = given = case(block, "training")
    xp = Namespace()
    with mg.precision(precision):
        y = REGISTRY[block].overrides["cupy"](xp, *map(guarded, host), **constants, keep=False)[0]
    xp.check()
    np.testing.assert_array_equal(y, kernels(given, precision, emulator)[0])


@pytest.mark.parametrize("precision", SHORT)
@each_block
def test_what_lies_between_the_products_is_short(block: str, precision: str, emulator: Emulator) -> None:
    """Of float32 there are the output, one number for each row (and head), the gradient of the input, and sums over rows."""
    _, host, constants, g = case(block, "training")
    xp = Namespace()
    with mg.precision(precision):
        y, pullback = REGISTRY[block].overrides["cupy"](xp, *host, **constants, keep=True)
        pullback(g)
    heads = constants.get("heads", 1)
    long = [a for a in xp._made if a.dtype == np.float32 and a.size > heads * len(y)]
    blocks = ceil_div(len(y), ROWS)
    assert sorted(a.shape for a in long if a.ndim > 1 and len(a) > blocks) == [y.shape, y.shape]


@each_precision
@each_block
def test_the_units_of_the_draw_are_dropped(block: str, precision: str, emulator: Emulator) -> None:
    _, host, constants, _ = dropping(block)
    with mg.precision(precision):
        y = REGISTRY[block].overrides["cupy"](Namespace(), *host, **constants, keep=False)[0]
    np.testing.assert_array_equal(y > 0, constants["draw"].mask())


@each_precision
def test_no_rows_at_all(precision: str, emulator: Emulator) -> None:
    block, host, _, g = case("feed_forward", "small")
    found = kernels((block, [host[0][:0], *host[1:]], {"eps": 1e-5}, g[:0]), precision, emulator)
    assert all(not np.any(x) for x in found)


@each_block
def test_weights_side_by_side_are_shortened_at_once(block: str, emulator: Emulator) -> None:
    """As an optimizer lays them out: all matrices, then all vectors."""
    _, host, constants, _ = given = case(block, "training")
    places = sorted(range(1, len(host)), key=lambda i: host[i].ndim == 1)
    flat, start = np.concatenate([host[i].reshape(-1) for i in places]), 0
    arrays, given_sizes, xp = list(host), [], Namespace()
    for i in places:
        arrays[i] = flat[start : start + host[i].size].reshape(host[i].shape)
        start += host[i].size
    xp.shortened = lambda x, how: given_sizes.append(x.size) or Namespace.shortened(x, how)  # type: ignore[attr-defined]
    with mg.precision("bf16"):
        y = REGISTRY[block].overrides["cupy"](xp, *arrays, **constants, keep=True)[0]
    assert given_sizes == [host[0].size, sum(a.size for a in host[1:] if a.ndim == 2)]
    np.testing.assert_array_equal(y, kernels(given, "bf16", emulator)[0])


def test_a_block_leaves_its_output_short_to_the_next(emulator: Emulator) -> None:
    """As short as the next one's products ask, as long as the output lives, and with the same bits as if that were shortened again."""
    _, host, constants, _ = case("attention_block", "training")
    after, xp, given = case("feed_forward", "training")[1][1:], Namespace(), []
    xp.shortened = lambda x, how: given.append(x.shape) or Namespace.shortened(x, how)  # type: ignore[attr-defined]

    def following(x: np.ndarray) -> tuple[np.ndarray, bool]:
        """The output, and whether x was shortened."""
        given.clear()
        y = REGISTRY["feed_forward"].overrides["cupy"](xp, x, *after, keep=False)[0]
        return np.array(y), x.shape in given

    kept = len(shortening._short_copies)
    with mg.precision("bf16"):
        out = REGISTRY["attention_block"].overrides["cupy"](xp, *host, **constants, keep=False)[0]
        (ours, again), (expected, shortened) = following(out), following(out.copy())
    np.testing.assert_array_equal(ours, expected)
    assert not again and shortened
    with mg.precision("fp16"):
        assert following(out)[1]
    xp._made.clear()
    del out
    assert len(shortening._short_copies) == kept


def test_weights_side_by_side_are_read_where_they_lie(emulator: Emulator) -> None:
    """Those of queries, keys and values, as an optimizer lays them out."""
    block, host, constants, _ = given = case("attention_block", "small")
    xp = Namespace()
    flat = [np.concatenate([a.reshape(-1) for a in host[start : start + 3]]) for start in (1, 4)]
    views = [
        whole[i * host[at].size : (i + 1) * host[at].size].reshape(host[at].shape)
        for at, whole in ((1, flat[0]), (4, flat[1]))
        for i in range(3)
    ]
    with mg.precision("bf16"):
        xp.concatenate = None  # type: ignore[attr-defined]  # nothing is copied
        y = REGISTRY[block].overrides["cupy"](xp, host[0], *views, *host[7:], **constants, keep=True)[0]
    np.testing.assert_array_equal(y, kernels(given, "bf16", emulator)[0])


# ---------------------------------------------------------------- what is declined
def declined(given: Case, precision: str = "bf16", arrays: dict[int, np.ndarray] | None = None, **changed: Any) -> bool:
    """Whether the body computes this. arrays: in place of those of the case, by their places."""
    block, host, constants, _ = given
    with mg.precision(precision):
        return declines(block, *[(arrays or {}).get(i, a) for i, a in enumerate(host)], **constants | changed)


@each_block
def test_what_is_not_covered_is_declined(block: str) -> None:
    given = case(block, "training")
    x = given[1][0]
    last = len(given[1]) - 1
    assert declined(given, arrays={0: x.astype(np.float64)})
    assert declined(given, arrays={0: x[None]})
    assert declined(given, arrays={0: x[:, 1:]})
    assert declined(given, arrays={1: given[1][1][1:]})
    assert declined(given, arrays={last: given[1][last][1:]})
    assert declined(given, draw=Draw("a", 0.5, Packing([3]), 64))
    wide = {i: np.zeros([MAX_WIDTH + 32 if n == 64 else n for n in a.shape], np.float32) for i, a in enumerate(given[1])}
    assert declined(given, arrays=wide, draw=None)


def test_what_attention_does_not_cover_is_declined() -> None:
    given = case("attention_block", "training")
    packing = given[2]["packing"]
    assert declined(given, heads=3) and declined(given, heads=4)  # 64 is 4 heads of 16
    assert declined(given, packing=Packing([3]))
    assert declined(case("attention_block", "first rows"), causal=True)
    assert declined(given, first_only=True)  # its draws are of all rows
    assert declined(given, mixing=Draw("a", 0.5, packing.first, 2, packing))
    assert declined(given, mixing=Draw("a", 0.5, packing, 4, packing))


def test_another_gelu_is_declined() -> None:
    assert declined(case("feed_forward", "small"), approximate="tanh")


# ---------------------------------------------------------------- that the checks check
PLANTED = [
    ("layer_norm.cuh", "lane.room[i * WARP] + found", "found"),
    ("strips.cuh", "gate = x < 0.0f ? tail : 1.0f - tail", "gate = 1.0f - tail"),
]


@pytest.mark.parametrize(("source", "right", "wrong"), PLANTED, ids=[p[1][:30] for p in PLANTED])
def test_a_planted_error_is_caught(source: str, right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed(source, right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises((AssertionError, EmulationError)):
        test_values_and_gradients_equal_the_body("feed_forward", "bf16", "training", planted)
