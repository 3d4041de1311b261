"""The kernels of `sequences.cu`, run on the CPU: rows of each sequence pooled, and its tokens counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.cuda.emulation import Emulator, check_guards, guarded
from kernels.cuda.parity import compare, declines, evaluate, normal

from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.sequences import count_ids
from minigrad.packing import Packing

LENGTHS = [(1,), (7, 1, 8, 9), (3, 64, 65, 1, 200)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("width", [1, 3, 4, 128, 132, 770])
@pytest.mark.parametrize("name", ["segment_mean", "segment_max"])
def test_pooling(name: str, width: int, lengths: tuple[int, ...], emulator: Emulator) -> None:
    packing = Packing(lengths)
    compare(name, [normal((packing.rows, width))[0]], {"packing": packing}, emulator)


def test_equal_maxima_share_the_gradient(emulator: Emulator) -> None:
    """Every column of every sequence has several, in rows of one warp and of others."""
    packing = Packing((40, 2, 9))
    x = np.round(normal((packing.rows, 6))[0])
    assert ((x[:40] == x[:40].max(axis=0)).sum(axis=0) > 1).any()
    compare("segment_max", [x], {"packing": packing}, emulator)
    compare("segment_max", [np.zeros_like(x)], {"packing": packing}, emulator)
    out, gradient = evaluate("segment_max", [np.full_like(x, -np.inf)], {"packing": packing}, False, emulator)
    assert (out == -np.inf).all()
    np.testing.assert_array_equal(gradient, evaluate("segment_max", [np.zeros_like(x)], {"packing": packing}, False, emulator)[1])


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy announces 0/0, which CuPy does not
@pytest.mark.parametrize("place", [0, 3, 8, 11])
def test_nan_wins_and_is_passed_on(place: int, emulator: Emulator) -> None:
    packing, x = Packing((12, 3)), normal((15, 2))[0]
    x[place, 1] = np.nan
    out, gradient = evaluate("segment_max", [x], {"packing": packing}, False, emulator)
    assert np.isnan(out).tolist() == [[False, True], [False, False]]
    assert np.isnan(gradient[:12, 1]).all() and np.isfinite(gradient[:, 0]).all() and np.isfinite(gradient[12:]).all()


def test_what_is_not_covered_is_declined() -> None:
    x, packing = normal((5, 4))[0], Packing((2, 3))
    for name in ("segment_mean", "segment_max"):
        assert declines(name, x.astype(np.float64), packing=packing)
        assert declines(name, x[:4], packing=packing)
        assert declines(name, x[0], packing=packing)


# ---------------------------------------------------------------- counting
def counted(packing: Packing, ids: np.ndarray, skipped: int, start: int) -> np.ndarray:
    """One after the other."""
    found = []
    for first, last in packing.spans:
        count = start
        for number in ids[first:last]:
            count += number != skipped
            found.append(count if number != skipped else start)
    return np.array(found)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 80), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.booleans(),
)
def test_ids_are_counted(compiled: Emulator, lengths: list[int], share: float, skipped: int, start: int, backwards: bool) -> None:
    packing = Packing(lengths)
    generator = np.random.default_rng(lengths)
    ids = np.where(generator.random(packing.rows) < share, skipped, generator.integers(0, 9, packing.rows))
    expected = counted(packing, ids, skipped, start)
    np.testing.assert_array_equal(packing.counted(ids, skipped, start), expected)
    compiled.backwards = backwards
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "kernel_of", compiled.kernel)
        np.testing.assert_array_equal(count_ids(ids, packing.first_rows, skipped, start), expected)
    compiled.backwards = False


def test_counting_writes_its_rows_alone(emulator: Emulator) -> None:
    packing = Packing((33, 1, 32, 64, 5, 31, 2, 40, 40))
    ids, out = guarded(np.arange(packing.rows) % 5), guarded(shape=(packing.rows,), dtype=np.int64)
    sizes = packing.rows, len(packing)
    launch.launch("count_ids", (len(packing),), ids, guarded(packing.first_rows), out, *sizes, 3, 7)
    check_guards(ids, out)
    np.testing.assert_array_equal(out, counted(packing, ids, 3, 7))


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("segment_mean", "row += WARPS) found", "row += WARPS + 1) found"),
        ("segment_mean", "(float)(span.end - span.first)", "(float)rows"),
        ("segment_mean", "sequence + 1 < sequences ?", "sequence + 2 < sequences ?"),
        ("segment_max", "b > a || b != b", "b > a"),
        ("segment_max", "make_float4(-INFINITE)", "make_float4(0.0f)"),
        ("segment_max", "(hit.x / count.x)", "hit.x"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # as above
def test_a_planted_error_is_caught(name: str, right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed("sequences.cu", right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    packing, x = Packing((20, 3, 12)), -1 - np.round(np.abs(normal((35, 4))[0]))
    x[30, 0] = np.nan if right.startswith("b > a") else x[30, 0]
    with pytest.raises(AssertionError):
        if np.isnan(x).any():
            assert np.isnan(evaluate(name, [x], {"packing": packing}, False, planted)[0][2, 0])
        compare(name, [x], {"packing": packing}, planted)


@pytest.mark.parametrize(
    ("right", "wrong"), [("(2u << lane) - 1", "(1u << lane) - 1"), ("before += __popc(all);", ""), ("before = start", "before = 0")]
)
def test_a_planted_error_in_counting_is_caught(right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed("sequences.cu", right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    packing = Packing((40, 3))
    ids = np.arange(43) % 4
    assert (count_ids(ids, packing.first_rows, 1, 2) != counted(packing, ids, 1, 2)).any()
