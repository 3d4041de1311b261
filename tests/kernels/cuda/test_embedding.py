"""The kernels of `embedding.cu`, run on the CPU: rows gathered, and their gradients summed by id."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator, check_guards, guarded
from kernels.cuda.parity import compare, declines, normal

from minigrad.errors import IndexRangeError
from minigrad.kernels.cuda import embedding, launch
from minigrad.kernels.cuda.embedding import NO_ROW, SummedRows

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
    launch.launch("gather_rows", (3,), table, np.array([4, 3, -1]), out, 3, 4, 6)
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


@pytest.mark.parametrize("copies", [1, 2, 3, 7, 8, 9, 100])
def test_rows_are_added_to_a_gradient_without_a_count(copies: int, emulator: Emulator) -> None:
    """Runs of every length that a search by doubling and halving can trip over, one of them at the end; the row NO_ROW is nobody's."""
    ids = np.concatenate([np.full(copies, 2), [0, NO_ROW], np.full(copies + 1, 4), [NO_ROW]])
    order = np.random.default_rng(0).permutation(len(ids))
    values, ids = normal((len(ids), 6))[0], ids[order]
    expected = normal((5, 6), seed=1)[0]
    out = guarded(expected)
    assert SummedRows(ids, values, (5, 6)).into(out, accumulate=True) is out
    check_guards(out)
    kept = ids != NO_ROW
    np.add.at(expected, ids[kept], values[kept])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)  # a hundred float32 numbers of order 1, added in another order
    distinct = SummedRows(ids, values, (5, 6)).coalesce()
    assert distinct.ids.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(distinct.dense(), SummedRows(ids, values, (5, 6)).dense())


@pytest.mark.parametrize("n", [1, 255, 256, 257, 600])
def test_ids_are_ordered(n: int, emulator: Emulator) -> None:
    ids = guarded(np.random.default_rng(n).integers(NO_ROW, 40, n))
    order, ascending = guarded(shape=(n,), dtype=np.int64), guarded(shape=(n,), dtype=np.int64)
    launch.launch("rank_ids", (n,), ids, order, ascending, n)
    check_guards(order, ascending)
    np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))
    np.testing.assert_array_equal(ascending, np.sort(ids))


def test_many_ids_are_ordered_otherwise(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = SummedRows(np.array([3, 1, 3, NO_ROW]), normal((4, 5))[0], (6, 5))
    compared = rows.dense()
    monkeypatch.setattr(embedding, "MOST_COMPARED", 3)
    np.testing.assert_array_equal(rows.dense(), compared)


def test_other_dtypes_are_summed_as_the_backend_does(emulator: Emulator) -> None:
    wide = SummedRows(np.array([1, 1]), np.ones((2, 3), np.float32), (4, 3)).astype(np.float64)
    assert not isinstance(wide, SummedRows)
    np.testing.assert_array_equal(wide.dense()[1], [2, 2, 2])


@pytest.mark.parametrize(("right", "wrong"), [("return inside + 1", "return first + 1"), ("table + id * width", "table + row * width")])
def test_a_planted_error_is_caught(right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed("embedding.cu", right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    with pytest.raises(AssertionError):
        compare("embedding", [normal((4, 5))[0], np.array([2, 2, 0])], {}, planted)
