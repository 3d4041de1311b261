"""The kernels of `embedding.cu`, run on the CPU: rows gathered, and their gradients summed by id."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pytest
from kernels.cuda import short_arrays
from kernels.cuda.emulation import Emulator, check_guards, guarded
from kernels.cuda.parity import compare, declines, normal

from minigrad.backend.gemm import DTYPES, SHORT
from minigrad.backend.gradients import joined
from minigrad.backend.side_stream import SideStream
from minigrad.errors import IndexRangeError
from minigrad.kernels.cuda import embedding, launch
from minigrad.kernels.cuda.embedding import NO_ROW, SortedIds, SummedRows, TableRows
from minigrad.kernels.cuda.table import BUNDLE, MERGED, RUN

LONG = 64
"""In embedding.cu: the most keys of one id that a warp adds up alone."""

WIDTHS = [1, 3, 4, 128, 132, 770]


@pytest.mark.parametrize("width", WIDTHS)
def test_embedding(width: int, emulator: Emulator) -> None:
    ids = np.array([[3, 0, 3, 9], [9, 9, 4, 3]])
    compare("embedding", [normal((11, width))[0], ids], {}, emulator)
    compare("embedding", [normal((11, width))[0], ids], {"padding_idx": 9}, emulator)


def test_one_row_for_all_and_a_row_for_each(emulator: Emulator) -> None:
    table = normal((40, 5))[0]
    compare("embedding", [table, np.zeros(100, np.int64)], {}, emulator)
    compare("embedding", [table, np.arange(39, -1, -1)], {}, emulator)


def test_no_ids_at_all(emulator: Emulator) -> None:
    compare("embedding", [normal((4, 5))[0], np.zeros((2, 0), np.int64)], {}, emulator)
    compare("embedding", [normal((4, 5))[0], np.array([1, 1])], {"padding_idx": 1}, emulator)


def test_an_id_outside_of_the_table_is_refused(emulator: Emulator) -> None:
    with pytest.raises(IndexRangeError, match="value 4 at place 0"):
        compare("embedding", [normal((4, 5))[0], np.array([4])], {}, emulator)


def test_the_row_of_an_id_that_nobody_has_checked_is_nan(emulator: Emulator) -> None:
    """On a GPU ids are not looked at, which would wait for it."""
    table, out = guarded(normal((4, 6))[0]), guarded(shape=(3, 6))
    launch.launch("gather_rows", (3,), table, np.array([4, 3, -1]), out, *[None] * 3, 3, 4, 6, NO_ROW)
    np.testing.assert_array_equal(out, [[np.nan] * 6, table[3], [np.nan] * 6])


def test_what_is_not_covered_is_declined() -> None:
    table, ids = normal((4, 6))[0], np.array([1])
    assert declines("embedding", table.astype(np.float64), ids)
    assert declines("embedding", table, ids.astype(np.int32))
    assert declines("embedding", table[:, ::2], ids)
    assert declines("embedding", table, ids, padding_idx=4)


def test_gradients_of_two_batches_are_joined_and_stay_by_rows(emulator: Emulator) -> None:
    first, second = normal((3, 4))[0], normal((2, 4), seed=1)[0]
    joined = SummedRows(np.array([5, 1, 5]), guarded(first), (6, 4)).joined(SummedRows(np.array([1, 2]), second, (6, 4)))
    assert isinstance(joined, SummedRows)
    distinct = joined.coalesce()
    assert sorted(distinct.ids.tolist()) == [1, 2, 5]
    expected = np.zeros((6, 4), np.float32)
    np.add.at(expected, [5, 1, 5, 1, 2], np.concatenate([first, second]))
    np.testing.assert_allclose(joined.dense(), expected, rtol=1e-6)  # at most two numbers are added
    assert isinstance(joined.scaled(2.0), SummedRows)


@pytest.mark.parametrize("copies", [1, 2, BUNDLE - 1, BUNDLE, BUNDLE + 1, 31, 32, 2 * BUNDLE + 1, LONG - 1, LONG, LONG + 1, 300])
@pytest.mark.parametrize("width", [6, 130])
def test_rows_are_added_to_a_gradient_without_a_count(copies: int, width: int, emulator: Emulator) -> None:
    """Runs of one key and of many bundles, one of them at the end; the row NO_ROW is nobody's."""
    ids = np.concatenate([np.full(copies, 2), [0, NO_ROW], np.full(copies + 1, 4), [NO_ROW]])
    order = np.random.default_rng(0).permutation(len(ids))
    values, ids = normal((len(ids), width))[0], ids[order]
    expected = normal((5, width), seed=1)[0]
    out = guarded(expected)
    assert SummedRows(ids, values, (5, width)).into(out, accumulate=True) is out
    check_guards(out)
    kept = ids != NO_ROW
    np.add.at(expected, ids[kept], values[kept])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)  # a hundred float32 numbers of order 1, added in another order
    distinct = SummedRows(ids, values, (5, width)).coalesce()
    assert distinct.ids.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(distinct.dense(), SummedRows(ids, values, (5, width)).into(guarded(out), accumulate=False))


@pytest.mark.parametrize("start", range(BUNDLE))
def test_a_run_that_starts_anywhere_in_a_bundle_is_summed_once(start: int, emulator: Emulator) -> None:
    """Whole numbers, whose sums are exact. Two runs: bundles may hold the end of one and the start of another."""
    for length in [*range(1, 2 * BUNDLE + 2, 3), *range(LONG - 1, LONG + BUNDLE, 5)]:
        ids = np.repeat([0, 1, 2, 3], [start, length, length, 1])
        values = np.arange(len(ids), dtype=np.float32)[:, None]
        expected = np.zeros((4, 1), np.float32)
        np.add.at(expected, ids, values)
        np.testing.assert_array_equal(SummedRows(ids, values, (4, 1)).into(guarded(shape=(4, 1)), accumulate=False), expected)
        np.testing.assert_array_equal(SummedRows(ids, values, (4, 1)).into(guarded(expected), accumulate=True), 2 * expected)


def test_rows_without_an_id_are_zeros_or_stay_as_they_are(emulator: Emulator) -> None:
    """Also the last of a table, which ends within a block."""
    rows = SummedRows(np.array([3, 12]), np.ones((2, 5), np.float32), (13, 5))
    fresh, added_to = guarded(shape=(13, 5)), guarded(np.full((13, 5), 7, np.float32))
    rows.into(fresh, accumulate=False)
    rows.into(added_to, accumulate=True)
    check_guards(fresh, added_to)
    np.testing.assert_array_equal(fresh[:, 0], [*[0] * 3, 1, *[0] * 8, 1])
    np.testing.assert_array_equal(added_to, 7 + fresh)


@pytest.mark.parametrize("n", [1, 3 * BUNDLE + 2])
def test_tables_that_are_read_side_by_side_share_one_order(n: int, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets the gradient that it would get alone, to the last bit, and all are sorted by one launch."""
    rng = np.random.default_rng(n)
    ids, values = np.stack([rng.integers(NO_ROW, height, n) for height in (40, 9, 1)]), normal((n, 6))[0]
    whole, launches = TableRows(SortedIds(ids), values, (40, 9, 1)), []
    monkeypatch.setattr(embedding, "launch", lambda name, *arguments: (launches.append(name), launch.launch(name, *arguments)))
    for i, (start, height) in enumerate(((0, 40), (40, 9), (49, 1))):
        alone = SummedRows(ids[i], values, (height, 6)).dense()
        launches.clear()
        shared = SummedRows(ids[i], values, (height, 6), whole=whole, start=start)
        np.testing.assert_array_equal(shared.dense(), alone)
        assert launches == ([] if i else ["sort_ids", "sum_bundles"]) + ["sum_rows"]
        np.testing.assert_array_equal(shared.coalesce().dense(), alone)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("heights", [(40, 9, 1), (8, 16, 3), (1, 1, 70)])
@pytest.mark.parametrize("width", [6, 132])
def test_tables_that_lie_side_by_side_are_summed_at_once(
    width: int, heights: tuple[int, int, int], accumulate: bool, emulator: Emulator
) -> None:
    """To the last bit what each would get alone, all of them, and the last two or the first two."""
    n = 5 * BUNDLE + LONG
    rng = np.random.default_rng(n)
    ids, values = np.stack([rng.integers(NO_ROW, height, n) for height in heights]), normal((n, width))[0]
    whole, starts = TableRows(SortedIds(ids), values, heights), np.cumsum([0, *heights])
    start = normal((sum(heights), width), seed=1)[0]
    rows = [SummedRows(ids[i], values, (height, width), whole=whole, start=starts[i]) for i, height in enumerate(heights)]
    alone = [
        SummedRows(ids[i], values, (height, width)).into(start[starts[i] :][:height].copy(), accumulate) for i, height in enumerate(heights)
    ]
    for some in (slice(3), slice(1, 3), slice(2)):
        part = joined(rows[some])
        assert isinstance(part, TableRows)
        out = guarded(start[starts[some.start or 0] : starts[some.stop]])
        part.into(out, accumulate)
        check_guards(out)
        np.testing.assert_array_equal(out, np.concatenate(alone[some]))
    np.testing.assert_array_equal(whole.dense(), np.concatenate([row.dense() for row in rows]))
    assert joined(rows[::2]) is None and whole.operands() is None


def test_rows_are_added_to_those_that_are_named(emulator: Emulator) -> None:
    for width in WIDTHS:
        x, out, ids = *normal((9, width), (20, width)), np.random.default_rng(width).permutation(20)[:9]
        expected = out.copy()
        expected[ids] += x
        given, found = guarded(x), guarded(out)
        launch.launch("scatter_rows", (9,), given, ids, found, 9, width)
        check_guards(given, found)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("width", [6, 132])
def test_gathered_rows_are_left_short_too(width: int, precision: str, emulator: Emulator) -> None:
    table, out, short = normal((11, width))[0], guarded(shape=(3, width)), guarded(shape=(3, width), dtype=DTYPES[precision])
    rounded = [short if name == precision else None for name in SHORT]
    launch.launch("gather_rows", (3,), table, np.array([4, 3, 10]), out, *rounded, None, 3, 11, width, NO_ROW)
    check_guards(out, short)
    np.testing.assert_array_equal(out, table[[4, 3, 10]])
    np.testing.assert_array_equal(short, short_arrays.shortened(out, precision))


def test_ids_that_the_table_does_not_have_are_nobodys(emulator: Emulator) -> None:
    ids = np.array([5, 1, -7, 1 << 31, 1 << 40, -(1 << 40), *[4] * 20, *[-2] * 20])
    out = guarded(np.ones((4, 3), np.float32))
    SummedRows(ids, normal((len(ids), 3))[0] * 0 + 1, (4, 3)).into(out, accumulate=True)
    check_guards(out)
    np.testing.assert_array_equal(out[:, 0], [1, 2, 1, 1])


# ---------------------------------------------------------------- order
def test_an_order_that_is_made_beside_is_waited_for_once(emulator: Emulator) -> None:
    """Also by code that reads it while the side stream is open, as a part that is recomputed in the backward pass does."""
    main, side = MagicMock(), MagicMock()
    beside, order = SideStream(main, side, "forked", "joined"), SortedIds(np.array([[2, 0, 1]]))
    with beside.open():
        order.sort_on(beside)
        side.__enter__.assert_called_once()
        assert not main.wait_event.called
        for _ in range(2):
            assert (order.keys >> 32).tolist() == [[0, 1, 2]]
            main.wait_event.assert_called_once()


def sorted_places(ids: np.ndarray) -> np.ndarray:
    """The places of ids in the order of the keys, which are checked to be of these ids."""
    keys = SummedRows(ids, np.zeros((len(ids), 1), np.float32), (1, 1)).keys
    places = keys & 0xFFFFFFFF
    np.testing.assert_array_equal(keys >> 32, ids[places])
    return places


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31, 64, 65, 500, RUN, RUN + 1])
def test_ids_are_ordered_and_equal_ones_stay_as_they_came(n: int, emulator: Emulator) -> None:
    ids = np.random.default_rng(n).integers(NO_ROW, 40, n)
    np.testing.assert_array_equal(sorted_places(ids), np.argsort(ids, kind="stable"))


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_does_not_depend_on_how_threads_run(backwards: bool, emulator: Emulator) -> None:
    emulator.backwards = backwards
    ids = np.random.default_rng(0).permutation(700)
    np.testing.assert_array_equal(sorted_places(ids), np.argsort(ids))


@pytest.mark.parametrize("parts", [1, 2, MERGED, MERGED + 1, MERGED**2 + 3])
@pytest.mark.parametrize("run", [1, 8])
def test_runs_become_one(run: int, parts: int, emulator: Emulator) -> None:
    """Short ones, whose merging is that of long ones; the last is cut off."""
    n = run * parts - run // 2
    keys = guarded(np.random.default_rng(n).permutation(n))
    for start in range(0, n, run):
        keys[start : start + run].sort()
    while run < n:
        merged = guarded(shape=(n,), dtype=np.int64)
        launch.launch("merge_runs", (n, 1), keys, merged, run, n)
        check_guards(keys, merged)
        keys, run = merged, run * MERGED
    np.testing.assert_array_equal(keys, np.arange(n))


def test_sorting_writes_its_keys_alone(emulator: Emulator) -> None:
    ids, keys = guarded(np.array([[7, 0, 7], [2, 1, 0]])), guarded(shape=(2, 3), dtype=np.int64)
    launch.launch("sort_ids", (3, 2), ids, keys, 3)
    check_guards(ids, keys)
    assert keys.tolist() == [[1, 7 << 32, (7 << 32) + 2], [2, (1 << 32) + 1, 2 << 32]]


def test_runs_of_each_table_become_one(emulator: Emulator) -> None:
    keys, merged = guarded(np.array([[1, 4, 0, 3], [2, 9, 1, 8]])), guarded(shape=(2, 4), dtype=np.int64)
    launch.launch("merge_runs", (4, 2), keys, merged, 2, 4)
    check_guards(keys, merged)
    assert merged.tolist() == [[0, 1, 3, 4], [1, 2, 8, 9]]


def test_other_dtypes_are_summed_as_the_backend_does(emulator: Emulator) -> None:
    wide = SummedRows(np.array([1, 1]), np.ones((2, 3), np.float32), (4, 3)).astype(np.float64)
    assert not isinstance(wide, SummedRows)
    np.testing.assert_array_equal(wide.dense()[1], [2, 2, 2])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("key_of(ids[first + i], first + i)", "key_of(ids[first + i], count - 1 - i)"),
        ("table + id * width", "table + row * width"),
        ("left - passed : step - 1", "left - passed : step - 2"),
        ("count < WARP ? first + count", "count <= WARP ? first + count"),
        ("(first + BUNDLE - 1) / BUNDLE", "first / BUNDLE"),
        ("last * BUNDLE + mine", "last * BUNDLE + 1 + mine"),
        ("run.count() || !accumulate", "run.count()"),
    ],
)
def test_a_planted_error_is_caught(right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed("embedding.cu", right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises(AssertionError):
        compare("embedding", [normal((300, 5))[0], np.concatenate([np.arange(203)[::-1], np.full(100, 270)])], {}, planted)
