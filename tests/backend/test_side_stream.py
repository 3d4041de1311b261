"""A branch: what is computed on the second stream and when the first one waits, and that nothing it reads is given back before."""

from __future__ import annotations

from typing import Any
from weakref import ref

import numpy as np
import pytest

from minigrad.backend import side_stream as module
from minigrad.backend.gradients import Product, RowSparse, RowSum
from minigrad.backend.side_stream import SideStream, current_side_stream
from minigrad.parameter import Parameter
from minigrad.tape import accumulate_neighbours

Log = list[tuple[str, ...]]


class Stream:
    """Writes down what it is asked for."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log = name, log

    def record(self, event: str) -> str:
        self.log.append((self.name, "records", event))
        return event

    def wait_event(self, event: str) -> None:
        self.log.append((self.name, "waits for", event))

    def __enter__(self) -> None:
        self.log.append((self.name, "entered"))

    def __exit__(self, *_: object) -> None:
        self.log.append((self.name, "left"))


FORK: Log = [("first", "records", "forked"), ("second", "waits for", "forked"), ("second", "entered")]
JOIN: Log = [("second", "records", "joined"), ("first", "waits for", "joined")]


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def beside(log: Log) -> SideStream:
    return SideStream(Stream("first", log), Stream("second", log), "forked", "joined")


def product(log: Log, k: int = 2) -> Product:
    def matmul(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
        log.append(("product",))
        out[...] = a @ b + (out if accumulate else 0)
        return out

    return Product(np.ones((3, k)), np.ones((k, 3)), matmul)


def total(x: Any, out: Any) -> Any:
    return x.sum(axis=0, out=out)


def test_it_begins_where_a_gradient_is_found_and_ends_with_the_walk(log: Log, beside: SideStream) -> None:
    p = Parameter(np.ones((3, 3)))
    p.leaf.view = np.zeros((3, 3))
    with beside.open():
        p.leaf.accumulate(product(log))
        log.append(("the walk goes on",))
        p.leaf.accumulate(product(log))
    assert current_side_stream.get() is None
    assert log == [*FORK, ("product",), ("second", "left"), ("the walk goes on",), *FORK, ("product",), ("second", "left"), *JOIN]
    np.testing.assert_array_equal(p.leaf.view, 4)


def test_parts_that_are_computed_at_once_are_computed_there(log: Log, beside: SideStream) -> None:
    weights, buffer = [Parameter(np.ones((1, 3))), Parameter(np.ones((2, 3)))], np.zeros((3, 3))
    weights[0].leaf.view, weights[1].leaf.view = buffer[:1], buffer[1:]
    with beside.open():
        assert len(accumulate_neighbours([p.leaf for p in weights], product(log).parts(1, 2))) == 2
    assert log == [*FORK, ("product",), ("second", "left"), *JOIN]


def test_whatever_it_reads_is_held_until_the_first_stream_waits(log: Log, beside: SideStream) -> None:
    gradient, late = product(log), np.ones((2, 3))
    sums = RowSum(np.zeros((2, 3)), total, [late])
    arrays = [ref(x) for x in (gradient.a, gradient.b, sums.x, late)]
    with beside.open():
        assert beside.offload(gradient, np.zeros((3, 3)), False) and beside.offload(sums, np.zeros(3), False)
        del gradient, sums, late
        assert all(array() is not None for array in arrays)
    assert all(array() is None for array in arrays)


@pytest.mark.parametrize("is_part", [False, True])
def test_what_it_does_not_take_is_added_when_it_has_ended(is_part: bool, log: Log, beside: SideStream) -> None:
    found = RowSum(np.ones((2, 4)), total).parts(3, 1)[0] if is_part else np.full(3, 2.0)
    p = Parameter(np.ones(3))
    p.leaf.view = np.zeros(3)
    with beside.open():
        p.leaf.accumulate(RowSum(np.ones((2, 3)), total))
        log.clear()
        p.leaf.accumulate(found)
        assert log == JOIN
    assert log == JOIN
    np.testing.assert_array_equal(p.leaf.view, 4)


def test_rows_of_a_table_are_summed_where_they_are_found(log: Log, beside: SideStream) -> None:
    table = Parameter(np.ones((4, 2)))
    table.leaf.view = np.zeros((4, 2))
    with beside.open():
        table.leaf.accumulate(RowSparse(np.array([1, 1]), np.ones((2, 2)), (4, 2)))
    assert not log
    np.testing.assert_array_equal(table.leaf.view[:, 0], [0, 2, 0, 0])


def test_large_products_are_computed_where_they_are_found(log: Log, beside: SideStream, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(x.nbytes for x in product(log).operands())
    monkeypatch.setattr(module, "MAX_HELD", 4 * size)
    assert beside.offload(product(log), np.zeros((3, 3)), False)
    assert not beside.offload(product(log, k=3), np.zeros((3, 3)), False)


def test_no_more_is_held_than_is_allowed(log: Log, beside: SideStream, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(x.nbytes for x in product(log).operands())
    monkeypatch.setattr(module, "MAX_HELD", 4 * size)
    with beside.open():
        for _ in range(4):
            assert beside.offload(product(log), np.zeros((3, 3)), False)
        assert JOIN[0] not in log
        fifth = product(log)
        held = ref(fifth.a)
        assert beside.offload(fifth, np.zeros((3, 3)), False) and log[-2:] == JOIN
        del fifth
        assert held() is None


def test_other_work_is_waited_for_when_its_holder_is_asked_for(log: Log, beside: SideStream) -> None:
    first, second = np.ones(3), np.ones(3)
    with beside.open():
        beside.run(lambda: log.append(("work",)), first, first.nbytes)
        assert log == [*FORK, ("work",), ("second", "left")]
        beside.finish(second)
        assert JOIN[0] not in log
        beside.finish(first)
        assert log[-2:] == JOIN
        beside.finish(first)
        assert log.count(JOIN[0]) == 1
    assert log.count(JOIN[0]) == 1


@pytest.mark.parametrize("recording_is_broken", [False, True])
def test_an_error_in_the_walk_ends_it_too(recording_is_broken: bool, log: Log, beside: SideStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is what its caller hears of: where the memory does not suffice, a step is recorded once more."""

    def broken(stream: Stream, event: str) -> str:
        raise RuntimeError

    gradient = product(log)
    held = ref(gradient.a)
    with pytest.raises(MemoryError), beside.open():
        beside.offload(gradient, np.zeros((3, 3)), False)
        del gradient
        if recording_is_broken:
            monkeypatch.setattr(Stream, "record", broken)
        raise MemoryError
    assert current_side_stream.get() is None and (recording_is_broken or log[-2:] == JOIN)
    assert held() is None


def test_a_gradient_that_fails_half_way_is_waited_for(log: Log, beside: SideStream) -> None:
    """What it has launched by then would write to memory that has been given back, and no capture ends before all streams have joined."""
    gradient = product(log)
    gradient.b = np.ones((4, 3))
    with pytest.raises(ValueError, match="matmul"), beside.open():
        beside.offload(gradient, np.zeros((3, 3)), False)
    assert log[-2:] == JOIN
