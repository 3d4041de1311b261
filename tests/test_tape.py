"""Recording modes begin and end where they should, and gradients that are neighbours in memory are accumulated together."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from support import leaf

import minigrad as mg
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import Product
from minigrad.errors import ArgumentError
from minigrad.tape import Leaf, Node, accumulate_neighbours, recording, replayable


# ---------------------------------------------------------------- modes
def test_no_grad_records_nothing_and_enable_grad_records_within_it() -> None:
    x = leaf([1.0])
    with mg.no_grad():
        assert not (x * 2.0).requires_grad
        with mg.enable_grad():
            assert (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad


@pytest.mark.parametrize(
    ("mode", "variable", "inside"), [(mg.no_grad, recording, False), (mg.enable_grad, recording, True), (mg.higher_order, replayable, True)]
)
def test_modes_end_with_their_block_even_by_an_exception(mode: Any, variable: Any, inside: bool) -> None:
    before = variable.get()
    with pytest.raises(KeyError), mode():
        assert variable.get() is inside
        raise KeyError
    assert variable.get() is before


def test_modes_do_not_leak_into_other_threads() -> None:
    seen: list[bool] = []
    x = leaf([1.0])
    with mg.no_grad(), mg.higher_order():
        thread = threading.Thread(target=lambda: seen.extend([(x * 2.0).requires_grad, replayable.get()]))
        thread.start()
        thread.join()
    assert seen == [True, False]


def test_modes_do_not_leak_between_tasks() -> None:
    x = leaf([1.0])

    async def quiet(ready: asyncio.Event, done: asyncio.Event) -> bool:
        with mg.no_grad():
            ready.set()
            await done.wait()
            return (x * 2.0).requires_grad

    async def loud(ready: asyncio.Event, done: asyncio.Event) -> bool:
        await ready.wait()
        result = (x * 2.0).requires_grad
        done.set()
        return result

    async def both() -> list[bool]:
        ready, done = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(quiet(ready, done), loud(ready, done))

    assert asyncio.run(both()) == [False, True]


def test_modes_follow_a_copied_context() -> None:
    x = leaf([1.0])
    with mg.no_grad():
        context = contextvars.copy_context()
    assert context.run(lambda: (x * 2.0).requires_grad) is False
    assert (x * 2.0).requires_grad


def test_one_mode_serves_several_tasks_and_threads_at_a_time() -> None:
    x, mode = leaf([1.0]), mg.no_grad()

    async def task(delay: float) -> tuple[bool, bool]:
        with mode:
            await asyncio.sleep(delay)
            inside = (x * 2.0).requires_grad
        return inside, (x * 2.0).requires_grad

    async def both() -> list[tuple[bool, bool]]:
        return await asyncio.gather(task(0.01), task(0.02))  # the first to enter is the first to leave

    assert asyncio.run(both()) == [(False, True)] * 2
    seen: list[tuple[bool, bool]] = []
    entered = threading.Barrier(2)

    def work(last: threading.Event, turn: threading.Event) -> None:
        with mode:
            entered.wait(10)
            last.wait(10)
            inside = (x * 2.0).requires_grad
        turn.set()
        seen.append((inside, (x * 2.0).requires_grad))

    at_once, first_is_out = threading.Event(), threading.Event()
    at_once.set()
    threads = [threading.Thread(target=work, args=pair) for pair in ((at_once, first_is_out), (first_is_out, threading.Event()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(False, True)] * 2


def test_a_mode_does_not_decorate_what_runs_later() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def task() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, task, stream):
        with pytest.raises(ArgumentError, match=f"cannot decorate .*{function.__name__}.*write `with` inside"):
            mg.no_grad()(function)


# ---------------------------------------------------------------- gradients side by side
def laid_out(*sizes: int) -> tuple[list[Leaf], np.ndarray, list[np.ndarray]]:
    """Leaves whose views are neighbours, the buffer of these views, and gradients that are neighbours, too."""
    ends = np.cumsum(sizes)
    memory, numbers = np.zeros(ends[-1]), np.arange(1.0, ends[-1] + 1)
    leaves = [Leaf(f"p{i}", (size,), np.dtype(float)) for i, size in enumerate(sizes)]
    for leaf_, size, end in zip(leaves, sizes, ends, strict=True):
        leaf_.view = memory[end - size : end]
    return leaves, memory, [numbers[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def test_gradients_side_by_side_are_copied_at_once() -> None:
    leaves, memory, gradients = laid_out(3, 1, 2)
    matrix, inner = Leaf("w", (2, 2), np.dtype(float)), Node("n", (3,), np.dtype(float), (), None)
    found = accumulate_neighbours(
        [matrix, leaves[0], None, leaves[1], inner, leaves[2]], [memory, gradients[0], None, gradients[1], None, gradients[2]]
    )
    assert sorted(found) == [1, 3, 5]
    assert memory.tolist() == [1, 2, 3, 4, 5, 6]
    assert all(leaf_.grad is leaf_.view for leaf_ in leaves) and matrix.grad is None
    assert not any(np.shares_memory(leaf_.grad, gradient) for leaf_, gradient in zip(leaves, gradients, strict=True))
    assert sorted(accumulate_neighbours(leaves, gradients)) == [0, 1, 2]  # added to what is there
    assert memory.tolist() == [2, 4, 6, 8, 10, 12]


IN_THE_WAY: dict[str, Any] = {
    "another order": lambda leaves, gradients: (leaves[::-1], gradients[::-1]),
    "gradients that lie apart": lambda leaves, gradients: (leaves, [gradients[0], gradients[1].copy(), gradients[2]]),
    "one leaf twice": lambda leaves, gradients: ([leaves[0], leaves[0]], [gradients[0], gradients[0]]),
    "one that is not summed yet": lambda leaves, gradients: (leaves, [gradients[0][None], *gradients[1:]]),
    "another dtype": lambda leaves, gradients: (leaves, [g.astype(np.float32) for g in gradients]),
    "no gradient": lambda leaves, gradients: (leaves, [*gradients[:2], None]),
    "one alone": lambda leaves, gradients: (leaves[:1], gradients[:1]),
    "one left out": lambda leaves, gradients: (leaves[::2], gradients[::2]),
    "a hook": lambda leaves, gradients: (leaves[1].register_hook(lambda g: g) and leaves, gradients),
    "no place": lambda leaves, gradients: (setattr(leaves[1], "view", None) or leaves, gradients),
    "an earlier gradient": lambda leaves, gradients: (setattr(leaves[1], "grad", leaves[1].view) or leaves, gradients),
}


@pytest.mark.parametrize("how", IN_THE_WAY)
def test_otherwise_each_is_left_to_be_accumulated(how: str) -> None:
    leaves, memory, gradients = laid_out(2, 2, 2)
    assert not accumulate_neighbours(*IN_THE_WAY[how](leaves, gradients))
    assert not memory.any()


def parts_of_a_product() -> tuple[list[Leaf], np.ndarray, list[Product], np.ndarray, list[int]]:
    """Leaves whose views are neighbours, their buffer, parts of a lazy product as gradients, the product, and the rows of each matmul."""
    memory, stops, computed = np.full((6, 4), 99.0), [3, 4, 6], []
    leaves = [Leaf("w", (rows, 4), np.dtype(float)) for rows in (3, 1, 2)]
    for leaf_, stop in zip(leaves, stops, strict=True):
        leaf_.view = memory.reshape(-1)[4 * (stop - leaf_.shape[0]) : 4 * stop].reshape(leaf_.shape)

    def matmul(a: np.ndarray, *others: Any, **how: Any) -> np.ndarray:
        computed.append(len(a))
        return numpy_namespace.matmul(a, *others, **how)

    a, b = np.arange(30.0).reshape(5, 6).T, np.cos(np.arange(20.0)).reshape(5, 4)
    return leaves, memory, Product(a, b, matmul).parts(3, 1, 2), a @ b, computed


def test_parts_of_a_product_go_side_by_side_by_one_product() -> None:
    leaves, memory, gradients, expected, computed = parts_of_a_product()
    for times in (1, 2):
        assert sorted(accumulate_neighbours(leaves, gradients)) == [0, 1, 2]
        assert computed == times * [6] and all(leaf_.grad is leaf_.view for leaf_ in leaves)
        np.testing.assert_allclose(memory, times * expected, rtol=1e-12)


APART: dict[str, tuple[list[int], Any]] = {  # the indices of those that are computed together nevertheless
    "the first frozen": ([1, 2], lambda leaves, gradients: ([None, *leaves[1:]], gradients)),
    "the second frozen": ([], lambda leaves, gradients: ([leaves[0], None, leaves[2]], gradients)),
    "the last frozen": ([0, 1], lambda leaves, gradients: ([*leaves[:2], None], gradients)),
    "a hook": ([1, 2], lambda leaves, gradients: leaves[0].register_hook(lambda g: g) and (leaves, gradients)),
    "an earlier gradient": ([], lambda leaves, gradients: setattr(leaves[0], "grad", leaves[0].view) or (leaves, gradients)),
    "no place": ([], lambda leaves, gradients: setattr(leaves[1], "view", None) or (leaves, gradients)),
    "another dtype": ([], lambda leaves, gradients: setattr(gradients[0], "dtype", np.dtype(np.float32)) or (leaves, gradients)),
    "another order": ([], lambda leaves, gradients: (leaves[::-1], gradients[::-1])),
    "places that lie otherwise": ([], lambda leaves, gradients: (leaves, [gradients[0], gradients[2], gradients[1]])),
    "two products": ([1, 2], lambda leaves, gradients: (leaves, [parts_of_a_product()[2][0], *gradients[1:]])),
    "products that are no parts": ([], lambda leaves, gradients: (leaves, [Product(g.a, g.b, g.matmul) for g in gradients])),
}


@pytest.mark.parametrize("how", APART)
def test_parts_that_are_no_neighbours_are_left_to_be_accumulated(how: str) -> None:
    leaves, memory, gradients, expected, computed = parts_of_a_product()
    at_once, change = APART[how]
    parents, given = change(leaves, gradients)
    assert sorted(accumulate_neighbours(parents, given)) == at_once
    assert len(computed) == bool(at_once)
    done = np.concatenate(
        [np.full(len(g.a), leaf_ is not None and i in at_once) for i, (leaf_, g) in enumerate(zip(parents, given, strict=True))]
    )
    np.testing.assert_allclose(memory[done], expected[done], rtol=1e-12)
    assert (memory[~done] == 99.0).all()
