"""A table whose touched rows are updated equals the dense rule, whenever and however it is read in between."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optim.reference import CASES, Case, feed, feed_rows, relative_error

import minigrad as mg
import minigrad.functional as F
from minigrad.backend.gradients import RowSparse
from minigrad.errors import IndexRangeError
from minigrad.optim.arena import TABLE_ROWS
from minigrad.optim.table import Table

ROWS, WIDTH = TABLE_ROWS + 50, 24  # about 1400 rows of float64 make a block: the table is several blocks


def table_of(start: np.ndarray, case: Case, lr: float = 0.05) -> tuple[mg.Parameter, mg.optim.Optimizer, Table]:
    p = mg.Parameter(start, gathered=True)
    optimizer = case.optimizer([p], lr=lr, **case.options)
    return p, optimizer, optimizer.tables[p]


def batches(generator: np.random.Generator, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows all over the table, ever new ones: some come again, some once, most never, several twice within a batch."""
    for step in range(steps):
        ids = generator.integers(0, 20 + 10 * step, 12) * 1009 % ROWS
        yield ids, generator.standard_normal((12, WIDTH))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_dense_rule(case: Case) -> None:
    generator = np.random.default_rng(3)
    start = generator.standard_normal((ROWS, WIDTH))
    p, optimizer, table = table_of(start, case)
    dense: list[np.ndarray | None] = []
    for step, (ids, values) in enumerate(batches(generator, 30)):
        if step % 7 == 3:
            dense.append(None)  # a step in which nothing reads the table
        else:
            dense.append(feed_rows(p, ids, values))
            assert isinstance(p.leaf.grad, RowSparse)
        optimizer.step()
        optimizer.zero_grad()
    if optimizer.idle_factor(optimizer.param_groups[0]) is None:
        assert table.used == ROWS
    else:
        assert table.used <= 30 * 12
    assert relative_error(p.numpy(), case.expected(start, dense, [0.05] * 30)) < 1e-12  # rounding of 30 updates


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_dense_update_to_the_last_bit(case: Case, dtype: str) -> None:
    generator = np.random.default_rng(4)
    start = generator.standard_normal((ROWS, WIDTH)).astype(dtype)
    rows, dense = mg.Parameter(start, gathered=True), mg.Parameter(start)
    optimizers = [case.optimizer([p], lr=0.05, **case.options) for p in (rows, dense)]
    assert optimizers[0].tables
    assert not optimizers[1].tables
    for ids, values in batches(generator, 8):
        for p, optimizer in zip((rows, dense), optimizers, strict=True):
            feed_rows(p, ids, values.astype(dtype))
            optimizer.step()
            optimizer.zero_grad()
    np.testing.assert_array_equal(rows.numpy(), dense.numpy())


READERS = {
    "data": lambda p: p.data[:],
    "numpy": lambda p: p.numpy(),
    "operation": lambda p: (p * 1.0).numpy(),
    "item by item": lambda p: p[:, :].numpy(),
    "gather of all": lambda p: F.embedding(mg.tensor(np.arange(ROWS)), p).numpy(),
    "gather thrice": lambda p: F.embedding(mg.tensor(np.tile(np.arange(ROWS), 3)), p).numpy()[ROWS:-ROWS],
    "gather as int32": lambda p: F.embedding(mg.tensor(np.arange(ROWS, dtype=np.int32)), p).numpy(),
}


@pytest.mark.parametrize("reader", READERS)
def test_debts_are_settled_before_anyone_reads(reader: str) -> None:
    start = np.ones((ROWS, WIDTH))
    p, optimizer, table = table_of(start, Case(mg.optim.AdamW, {"weight_decay": 0.5}), lr=0.1)
    for _ in range(3):
        feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
        optimizer.step()
        optimizer.zero_grad()
    assert len(table.debt.factors) == 3
    seen = READERS[reader](p)
    # Three roundings of 0.95³.
    np.testing.assert_allclose(np.delete(seen, 5, axis=0), 0.95**3, rtol=1e-15)
    np.testing.assert_array_equal(READERS[reader](p), seen)  # paid once


@given(st.data())
def test_when_a_row_was_read_does_not_matter(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    start = generator.standard_normal((ROWS, WIDTH)).astype(np.float32)
    case = Case(mg.optim.AdamW, {"weight_decay": 0.3})
    p, optimizer, _ = table_of(start, case)
    q, watched, _ = table_of(start, case)
    for step, (ids, values) in enumerate(batches(generator, 12)):
        kind = data.draw(st.sampled_from(["nothing", "rows", "all"]), label="read")
        if kind == "rows":
            rows = generator.integers(0, ROWS, 40)
            F.embedding(mg.tensor(rows), q)
        elif kind == "all":
            q.numpy()
        for parameter, either in ((p, optimizer), (q, watched)):
            either.param_groups[0]["lr"] = 0.01 * (step + 1)
            feed_rows(parameter, ids, values.astype(np.float32))
            either.step()
            either.zero_grad()
    np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.parametrize("reader", ["numpy", "gather"])
def test_readers_in_several_threads_pay_each_debt_once(reader: str) -> None:
    start = np.random.default_rng(9).standard_normal((ROWS, WIDTH))
    p, optimizer, table = table_of(start, Case(mg.optim.AdamW, {"weight_decay": 0.5}), lr=0.1)
    q, alone, _ = table_of(start, Case(mg.optim.AdamW, {"weight_decay": 0.5}), lr=0.1)
    barrier = Barrier(4, timeout=60)
    wrong: list[int] = []

    def read(thread: int, expected: np.ndarray) -> None:
        ids = np.random.default_rng(thread).permutation(ROWS)
        barrier.wait()
        with mg.no_grad():
            seen = p.numpy() if reader == "numpy" else F.embedding(mg.tensor(ids), p).numpy()
        if not np.array_equal(seen, expected if reader == "numpy" else expected[ids]):
            wrong.append(thread)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change within a settlement, not only between two
    try:
        for _ in range(8):
            for parameter, either in ((p, optimizer), (q, alone)):
                feed_rows(parameter, np.array([5]), np.ones((1, WIDTH)))
                either.step()
                either.zero_grad()
            expected = np.array(q.numpy())
            threads = [Thread(target=read, args=(number, expected)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert not table.debt.factors


def test_a_gather_pays_only_for_its_rows() -> None:
    p, optimizer, table = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.AdamW, {"weight_decay": 0.5}), lr=0.1)
    feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
    optimizer.step()
    F.embedding(mg.tensor(np.array([7, 9, 7])), p)
    raw = table.data
    np.testing.assert_array_equal(raw[[7, 9]], 0.95)
    np.testing.assert_array_equal(raw[[6, 8]], 1.0)


def test_wrong_ids_are_explained_by_the_operation_also_with_debts() -> None:
    p, optimizer, _ = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.AdamW, {"weight_decay": 0.5}))
    feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
    optimizer.step()
    for wrong in (-1, ROWS):
        with pytest.raises(IndexRangeError, match=str(wrong)):
            F.embedding(mg.tensor(np.array([3, wrong])), p)


def test_slots_follow_the_first_touch_and_stay() -> None:
    p, optimizer, table = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.AdamW, {}))
    for rows in ([40, 3], [3, 100], [7]):
        feed_rows(p, np.array(rows), np.ones((len(rows), WIDTH)))
        optimizer.step()
        optimizer.zero_grad()
    assert sorted(table.row[:2].tolist()) == [3, 40]
    assert table.row[2:4].tolist() == [100, 7]
    assert table.used == 4


def test_momentum_goes_on_where_no_gradient_comes() -> None:
    p, optimizer, _ = table_of(np.zeros((ROWS, WIDTH)), Case(mg.optim.SGD, {"momentum": 0.5}), lr=1.0)
    feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
    optimizer.step()
    optimizer.zero_grad()
    feed_rows(p, np.array([6]), np.ones((1, WIDTH)))
    optimizer.step()
    assert p.numpy()[5].tolist() == [-1.5] * WIDTH
    assert p.numpy()[6].tolist() == [-1.0] * WIDTH


def test_a_rule_without_moments_updates_only_the_rows_of_the_step() -> None:
    p, optimizer, table = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.SGD, {"weight_decay": 0.5}), lr=0.1)
    for row in (5, 6, 5):
        feed_rows(p, np.array([row]), np.zeros((1, WIDTH)))
        optimizer.step()
        optimizer.zero_grad()
        assert table.used == 0
    np.testing.assert_allclose(p.numpy(), 0.95**3, rtol=1e-15)  # decay in every step for every row, by whichever way


@pytest.mark.parametrize("case", [CASES[3], CASES[7], CASES[11]], ids=str)
@pytest.mark.parametrize("first", [0, 2])
def test_a_dense_gradient_touches_all_rows(case: Case, first: int) -> None:
    """Tied weights: the table is gathered, and multiplied with as a matrix."""
    generator = np.random.default_rng(5)
    start = generator.standard_normal((ROWS, WIDTH))
    p, optimizer, table = table_of(start, case)
    dense = []
    for step, (ids, values) in enumerate(batches(generator, 5)):
        total = feed_rows(p, ids, values)
        if step == first:
            g = generator.standard_normal((ROWS, WIDTH))
            feed(p, g)
            total = total + g
        dense.append(total)
        optimizer.step()
        optimizer.zero_grad()
    assert table.used == ROWS
    assert relative_error(p.numpy(), case.expected(start, dense, [0.05] * 5)) < 1e-12  # rounding of 5 updates


def test_decay_switched_on_later_reaches_untouched_rows() -> None:
    p, optimizer, _ = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.Adam, {}), lr=0.1)
    for decay in (0.0, 0.5):
        optimizer.param_groups[0]["weight_decay"] = decay
        feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
        optimizer.step()
        optimizer.zero_grad()
    one = np.ones(1)
    m, v = 0.1 * 0.5 * one, 0.001 * 0.25 * one
    expected = one - 0.1 / (1 - 0.9**2) * m / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
    np.testing.assert_allclose(p.numpy()[6], expected[0], rtol=1e-13)  # one update written out in another order


def test_momentum_switched_on_later_finds_debts_paid() -> None:
    start = np.random.default_rng(7).standard_normal((ROWS, WIDTH))
    rows, dense = mg.Parameter(start, gathered=True), mg.Parameter(start)
    optimizers = [mg.optim.SGD([p], lr=0.1, weight_decay=0.3) for p in (rows, dense)]
    for step, (ids, values) in enumerate(batches(np.random.default_rng(8), 6)):
        for p, optimizer in zip((rows, dense), optimizers, strict=True):
            optimizer.param_groups[0]["momentum"] = 0.9 if step >= 3 else 0.0
            feed_rows(p, ids, values)
            optimizer.step()
            optimizer.zero_grad()
    assert relative_error(rows.numpy(), dense.numpy()) < 1e-14  # p - lr·λp against p·(1 - lr·λ), three times


def test_a_table_in_fortran_order_is_updated() -> None:
    start = np.asfortranarray(np.random.default_rng(6).standard_normal((ROWS, WIDTH)))
    p, optimizer, _ = table_of(start, Case(mg.optim.AdamW, {"weight_decay": 0.1}))
    dense = feed_rows(p, np.array([1, 2]), np.ones((2, WIDTH)))
    optimizer.step()
    expected = Case(mg.optim.AdamW, {"weight_decay": 0.1}).expected(start, [dense], [0.05])
    assert relative_error(p.numpy(), expected) < 1e-14  # one update


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_state_moves_between_devices(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU no table stands apart. What was saved by rows goes on for all rows and the other way round, to the last bit."""
    generator = np.random.default_rng(8)
    start = generator.standard_normal((ROWS, WIDTH))
    steps = list(batches(generator, 12))
    p, optimizer, _ = table_of(start, case)

    def dense_one() -> tuple[mg.Parameter, mg.optim.Optimizer]:
        other = mg.Parameter(start, gathered=True)
        with monkeypatch.context() as patch:
            patch.setattr(mg.Parameter, "device", property(lambda self: "cuda"))
            return other, case.optimizer([other], lr=0.05, **case.options)

    q, dense = dense_one()
    assert not dense.tables
    for number, (ids, values) in enumerate(steps):
        for parameter, owner in ((p, optimizer), (q, dense)):
            feed_rows(parameter, ids, values)
            owner.step()
            owner.zero_grad()
        if number == 5:  # each goes on where the other was
            saved, saved_dense, numbers, numbers_dense = optimizer.state_dict(), dense.state_dict(), p.numpy().copy(), q.numpy().copy()
            (p, optimizer, table), (q, dense) = table_of(start, case), dense_one()
            optimizer.load_state_dict(saved_dense)
            dense.load_state_dict(saved)
            p.assign(numbers_dense)
            q.assign(numbers)
            assert table.used < ROWS // 10 or optimizer.idle_factor(optimizer.param_groups[0]) is None
    np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_small_or_plain_tables_live_in_the_arena() -> None:
    small, plain = mg.Parameter(np.ones((TABLE_ROWS - 1, 2)), gathered=True), mg.Parameter(np.ones((TABLE_ROWS, 2)))
    optimizer = mg.optim.AdamW([small, plain], lr=0.1)
    assert not optimizer.tables
    feed_rows(small, np.array([1, 1]), np.ones((2, 2)))
    assert small.leaf.grad is small.leaf.view
    assert small.grad is not None
    assert small.grad.numpy()[:3, 0].tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_table_that_is_moved_goes_on_to_the_last_bit(case: Case) -> None:
    """Debts, moments and slots come along; the memory that was left is not written any more."""
    generator = np.random.default_rng(4)
    start = generator.standard_normal((ROWS, WIDTH))
    stays, its_optimizer, _ = table_of(start, case)
    moves, optimizer, table = table_of(start, case)
    for step, (ids, values) in enumerate(batches(generator, 4)):
        if step == 2:
            left = table.arrays()
            kept = [array.copy() for array in left]
            table.move(np.zeros)
        for p, its in ((stays, its_optimizer), (moves, optimizer)):
            feed_rows(p, ids, values)
            its.step()
            its.zero_grad()
    np.testing.assert_array_equal(moves.numpy(), stays.numpy())
    assert not any(np.shares_memory(old, new) for old in left for new in [moves.array, *table.arrays()])
    for array, copy in zip(left, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_assigning_a_table_pays_first_and_owes_nothing_for_the_past() -> None:
    p, optimizer, _ = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.AdamW, {"weight_decay": 0.5}), lr=0.1)
    feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
    optimizer.step()
    p.assign(np.full((ROWS, WIDTH), 2.0))
    np.testing.assert_array_equal(p.numpy(), 2.0)


def test_a_vanishing_factor_is_a_factor() -> None:
    p, optimizer, _ = table_of(np.ones((ROWS, WIDTH)), Case(mg.optim.AdamW, {"weight_decay": 1.0}), lr=1.0)
    feed_rows(p, np.array([5]), np.ones((1, WIDTH)))
    optimizer.step()
    np.testing.assert_array_equal(np.delete(p.numpy(), 5, axis=0), 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size from /proc")
def test_moments_occupy_memory_for_touched_rows_only() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    p = mg.Parameter(np.ones((200_000, 64)), gathered=True)  # 102 MB; its two moments would be 205 MB
    before = resident()
    optimizer = mg.optim.AdamW([p], lr=0.1)
    F.embedding(mg.tensor(np.arange(0, 200_000, 1000)), p).sum().backward()
    optimizer.step()
    assert resident() - before < 60e6  # slots, rows and debts are 5 MB; the rest is the allocator's slack, huge pages among it
