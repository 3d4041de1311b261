"""Packed attention in float32, run on the CPU: forward and backward against the operation's body in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.cuda.attention_cases import FORMS, OVERRIDE, Sample, assert_close, body, kernels, sample
from kernels.cuda.emulation import Emulator, Namespace, guarded

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.random import Draw
from minigrad.kernels.cuda import attention, draws
from minigrad.kernels.cuda.table import HEAD_SIZES, PIECE
from minigrad.op import REGISTRY
from minigrad.packing import Packing

TOLERANCE = 5e-6
"""Relative: sums of up to 130 float32 products, and a weight's exponent that is rounded at about 2, lose up to 2e-6. 1e-5 is promised."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", HEAD_SIZES)
def test_values_and_gradients_equal_the_body(size: int, form: str, emulator: Emulator) -> None:
    """The second run's threads go in falling order, and it must give the same bits."""
    case = sample(form, size)
    ours = kernels(case, emulator)
    for once, again in zip(ours, kernels(case, emulator, backwards=True), strict=True):
        np.testing.assert_array_equal(once, again)
    assert_close(ours, body(case), TOLERANCE)


@pytest.mark.parametrize("length", range(1, 36))
def test_every_short_length(length: int, emulator: Emulator) -> None:
    """Sequences of the commonest lengths, alone: no neighbour's numbers lie where a row too many would be read."""
    case = sample("decoder", 32, (length,), seed=length)
    assert_close(kernels(case, emulator), body(case), TOLERANCE)


@given(data=st.data())
def test_any_packing(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=5))
    masked = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    asked = data.draw(st.lists(st.integers(1, 70), min_size=len(lengths), max_size=len(lengths)))
    for owner, packing, queries in [
        (owner, Packing(lengths, masked_first=masked), queries) for owner in ("queries", "keys") for queries in (Packing(asked), None)
    ]:
        asking = packing if queries is None else queries
        table = attention.pieces(packing, asking, owner)
        assert table.dtype == np.int32 and table.shape[1:] == (8,)
        covered = []
        for key_first, keys, query_first, count, number, start, *_ in table.tolist():
            i = packing.numbers.tolist().index(number)
            assert (key_first, key_first + keys) == packing.key_spans[i]
            assert (query_first, query_first + count) == asking.spans[i]
            first, rows = (query_first, count) if owner == "queries" else (key_first, keys)
            covered += range(first + start, first + min(rows, start + PIECE))
        spans = asking.spans if owner == "queries" else packing.key_spans
        assert sorted(covered) == [row for a, b in spans for row in range(a, b)]


def test_the_dearest_pieces_come_first() -> None:
    packing = Packing([3, 130, 64])
    assert attention.pieces(packing, packing, "queries")[:, [1, 5]].tolist() == [[130, 0], [130, 64], [64, 0], [130, 128], [3, 0]]


# ---------------------------------------------------------------- what is dropped, and hidden
@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_units_of_the_draw_are_dropped(rate: float, emulator: Emulator) -> None:
    """Equal scores, and a value of its own for every key: the output shows each weight."""
    heads, size, packing = 2, 128, Packing([128, 5, 70], [9, 0, 1 << 19])
    draw = Draw("somewhere", rate, packing, heads, packing)
    kv = np.zeros((packing.rows, 3, heads, size), np.float32)
    kv[np.arange(packing.rows), 2, :, packing.positions] = 1
    out = OVERRIDE(Namespace(), None, guarded(kv.reshape(packing.rows, -1)), packing=packing, heads=heads, draw=draw)[0]
    for i, (a, b) in enumerate(packing.spans):
        found = out[a:b].reshape(b - a, heads, size).swapaxes(0, 1)[:, :, : b - a]
        np.testing.assert_allclose(found, draw.pairs(i) * (draw.scale / (b - a)), rtol=1e-6)  # a few roundings


def test_a_captured_step_is_read_from_the_clock(emulator: Emulator) -> None:
    arrays, _, constants = sample("encoder", 32, (40,))
    with random.at(3, 10):
        draw = Draw("a", 0.5, constants["packing"], 1, constants["packing"])
    with random.at(3, 11):
        later = Draw("a", 0.5, constants["packing"], 1, constants["packing"])
    expected = OVERRIDE(Namespace(), *arrays, **constants | {"draw": later})[0]
    token = draws.clock.set(np.array([11], np.uint64))
    try:
        at_the_clock = OVERRIDE(Namespace(), *arrays, **constants | {"draw": draw})[0]
    finally:
        draws.clock.reset(token)
    np.testing.assert_array_equal(at_the_clock, expected)


def test_nobody_reads_a_masked_first_row(emulator: Emulator) -> None:
    """NaN in its key and value would show in every row of its sequence; its own gradients there are zero."""
    case = sample("training", 32)
    packing, width = case[2]["packing"], 2 * 32
    masked = packing.first_rows[np.asarray(packing.masked_first)]
    assert case[0][1] is not None
    case[0][1][masked, width:] = np.nan
    ours = kernels(case, emulator)
    assert np.isfinite(ours[0]).all() and not ours[1][masked, width:].any()
    assert_close(ours, body(case), TOLERANCE)


def test_a_sequence_of_one_masked_row_has_no_keys(emulator: Emulator) -> None:
    packing = Packing([1, 3, 1], masked_first=[True, False, True])
    rng = np.random.default_rng(0)
    case: Sample = (
        [None, rng.standard_normal((5, 96)).astype(np.float32)],
        rng.standard_normal((5, 32)).astype(np.float32),
        {"packing": packing, "heads": 1},
    )
    ours = kernels(case, emulator)
    assert not ours[0][[0, 4]].any() and not ours[1][[0, 4]].any()
    assert_close(ours, body(case), TOLERANCE)


# ---------------------------------------------------------------- numbers at the edge
@pytest.mark.parametrize(("largest", "tolerance"), [(80.0, 1e-5), (1e4, 1e-3)])
def test_large_scores(largest: float, tolerance: float, emulator: Emulator) -> None:
    """A score of 80 is known to 5e-6 in float32, and one of 10,000 to 6e-4, and so are its weight and the gradients."""
    case = sample("decoder", 64)
    assert case[0][1] is not None
    q, k = (case[0][1][:, part : part + 192].reshape(-1, 3, 64).swapaxes(0, 1) for part in (0, 192))
    scores = q @ k.swapaxes(1, 2) / 8
    case[0][1][:, :192] *= np.float32(largest / np.abs(scores).max())
    assert_close(kernels(case, emulator), body(case), tolerance)


def _pattern(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), 0.0, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["query", "key", "value"])
def test_nan_and_infinity_go_where_the_body_lets_them_go(place: str, value: float, emulator: Emulator) -> None:
    case = sample("encoder", 32, (5, 40, 70))
    assert case[0][1] is not None
    case[0][1][20, {"query": 3, "key": 32 + 3, "value": 64 + 3}[place]] = value
    with np.errstate(invalid="ignore"):
        truth = body(case, np.float32)
    for mine, theirs in zip(kernels(case, emulator), truth, strict=True):
        np.testing.assert_array_equal(_pattern(mine), _pattern(theirs))


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_whose_every_score_is_minus_infinity(causal: bool, emulator: Emulator) -> None:
    """The body gives NaN, and zeros where a mask hides keys."""
    case = sample("encoder", 32, (4,))
    assert case[0][1] is not None
    case[0][1][:, :64] = 0
    case[0][1][:, 32] = 1
    case[0][1][2, 0] = -np.inf
    case[2]["causal"] = causal
    with np.errstate(invalid="ignore"):
        truth = body(case, np.float32)
    ours = kernels(case, emulator)
    np.testing.assert_array_equal(_pattern(ours[0]), _pattern(truth[0]))
    np.testing.assert_allclose(ours[0], truth[0], rtol=1e-6)  # a few roundings


# ---------------------------------------------------------------- the operation
@pytest.mark.parametrize("form", ["training", "causal cross"])
def test_through_the_engine(form: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, g, constants = sample(form, 32, (3, 20))
    monkeypatch.setitem(REGISTRY["attention"].overrides, "numpy", OVERRIDE)
    tensors = [None if a is None else mg.Tensor(a, requires_grad=True) for a in arrays]
    y = mg.functional.attention(*tensors, **constants)
    gradients = mg.grad((y * g).sum(), [t for t in tensors if t is not None])
    assert_close([y.numpy(), *[x.numpy() for x in gradients]], body((arrays, g, constants)), TOLERANCE)


def test_layouts_that_kernels_cannot_read_are_copied(emulator: Emulator) -> None:
    arrays, g, constants = sample("cross", 32, (3, 20))
    expected = kernels((arrays, g, constants), emulator)

    def strided(a: np.ndarray) -> np.ndarray:
        return np.repeat(a, 2, axis=1)[:, ::2]

    for moved in (lambda a: guarded(a, offset=1), strided, np.asfortranarray):
        y, pullback = OVERRIDE(Namespace(), *[moved(a) for a in arrays], **constants)
        for mine, theirs in zip([y, *pullback(moved(g))], expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_gradient_that_is_repeated_and_not_stored(emulator: Emulator) -> None:
    arrays, g, constants = sample("encoder", 32, (3, 20))
    pullback = OVERRIDE(Namespace(), *arrays, **constants)[1]
    np.testing.assert_array_equal(pullback(np.broadcast_to(np.float32(1), g.shape))[1], pullback(np.ones_like(g))[1])


def test_packings_are_copied_to_the_gpu_once(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, g, constants = sample("encoder", 32, (3, 20))
    made, pieces = [], attention.pieces
    monkeypatch.setattr(attention, "pieces", lambda *args: made.append(args) or pieces(*args))
    for _ in range(3):
        OVERRIDE(Namespace(), *arrays, **constants)[1](g)
    assert [owner for _, _, owner in made] == ["queries", "keys"]


def test_what_is_not_covered_is_declined() -> None:
    def declined(*arrays: Any, **changes: Any) -> bool:
        return OVERRIDE(Namespace(), *arrays, **{"packing": Packing([4]), "heads": 2} | changes) is NotImplemented

    def x(*shape: int, dtype: Any = np.float32) -> np.ndarray:
        return np.zeros(shape, dtype)

    other = Packing([4])
    assert declined(None, x(4, 192, dtype=np.float64))
    assert declined(x(4, 64, dtype=np.float64), x(4, 128))
    assert declined(None, x(4, 3 * 2 * 48))  # a head size without a kernel
    assert declined(None, x(4, 193))
    assert declined(None, x(5, 192))
    assert declined(x(4, 32), x(4, 128))
    assert declined(x(3, 64), x(4, 128))
    assert declined(x(4, 64), x(4, 128), queries=Packing([2, 2]))
    assert declined(None, x(4, 192), draw=Draw("a", 0.1, other, 2, other))  # of packings that the kernels are not told of
