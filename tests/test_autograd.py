"""The tape: backward and its errors, accumulation, recording modes in threads and tasks, memory, targets."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from support import accumulated, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.autograd import Leaf, Node, accumulate_side_by_side, recording, replayable
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import Product
from minigrad.errors import ArgumentError, ContractError, DTypeError, GraphError, MinigradError, ShapeError
from minigrad.op import REGISTRY, op
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor


# ---------------------------------------------------------------- backward
def test_backward_fills_grad() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * y).sum().backward()
    np.testing.assert_array_equal(accumulated(x), [3.0, 4.0])
    np.testing.assert_array_equal(accumulated(y), [1.0, 2.0])


def test_backward_of_a_leaf_itself() -> None:
    x = leaf(2.0)
    x.backward()
    assert accumulated(x) == 1.0


def test_backward_from_an_array_takes_a_gradient_of_its_shape() -> None:
    x = leaf([1.0, 2.0])
    y = x * x
    with pytest.raises(ShapeError, match=r"shape \(2,\).*pass gradient="):
        y.backward()
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
        y.backward(np.ones(3))
    y.backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(accumulated(x), [2.0, 40.0])


def test_backward_without_a_graph() -> None:
    for output in (Tensor(1.0) * 2.0, Tensor(1.0)):
        with pytest.raises(GraphError, match=r"requires_grad=True") as error:
            output.backward()
        assert error.value.code == "graph-none"


def test_backward_through_a_part_that_was_freed() -> None:
    x = leaf([1.0])
    shared = F.exp(x)
    shared.sum().backward()
    with pytest.raises(GraphError, match=r"exp was freed"):
        (shared * 2.0).sum().backward()


@pytest.mark.parametrize("times", [1, 3])
def test_retained_grad_gives_the_same_so_often(times: int) -> None:
    x = leaf([0.1, -0.7])
    y = (F.exp(x) * x).sum()
    found = [mg.grad(y, x, retain_graph=True) for _ in range(times)]
    last = mg.grad(y, x)
    assert last is not None and all(g is not None and g.tolist() == last.tolist() for g in found)
    with pytest.raises(GraphError, match="freed"):
        y.backward()
    assert x.grad is None


def test_a_chain_of_5000_operations_walked_twice_and_differentiated_by_grad() -> None:
    x = leaf([0.5])
    y = x
    for _ in range(5000):
        y = y * 1.0 + 0.0
    y.sum().backward(retain_graph=True)
    found = mg.grad(y.sum(), x)
    assert found is not None and found.tolist() == [1.0] and accumulated(x).tolist() == [1.0]


def test_detach_cuts_the_graph_and_keeps_the_numbers() -> None:
    x = leaf([1.0, 2.0])
    y = x * 3.0
    cut = y.detach()
    assert cut.tolist() == y.tolist() and not cut.requires_grad and y.requires_grad
    (y * cut).sum().backward()
    np.testing.assert_array_equal(accumulated(x), 3.0 * cut.numpy())
    assert not (cut * 2.0).requires_grad


def test_requires_grad_can_be_switched_on_leaves_only() -> None:
    x = Tensor([1.0, 2.0])
    assert x.requires_grad_() is x and x.requires_grad
    (x * 2.0).sum().backward()
    assert accumulated(x).tolist() == [2.0, 2.0]
    x.requires_grad_(False)
    assert not (x * 2.0).requires_grad
    with pytest.raises(GraphError, match=r"only a leaf.*detach") as error:
        (x.requires_grad_() * 2.0).requires_grad_(False)
    assert error.value.code == "graph-detach"
    with pytest.raises(DTypeError, match="only floating"):
        Tensor([1, 2]).requires_grad_()


def test_zero_grad_forgets() -> None:
    x = leaf([1.0])
    (x * 2.0).sum().backward()
    x.zero_grad()
    assert x.grad is None
    (x * 5.0).sum().backward()
    np.testing.assert_array_equal(accumulated(x), [5.0])


def test_a_deep_chain_with_branches_visits_each_node_once() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y  # 2⁶⁰ paths, 60 nodes
    y.backward()
    assert accumulated(x) == 2.0**60


def test_shared_subexpressions() -> None:
    x = leaf([0.3, 0.6])
    assert mg.gradcheck(lambda x: (lambda s: s * F.exp(s) + s.sum() * s)(F.tanh(x) * x), x, order=2)


# ---------------------------------------------------------------- borrowed gradients
def test_the_gradient_passed_in_is_not_changed_or_kept() -> None:
    x = leaf([1.0, 2.0])
    g = np.array([1.0, 1.0])
    for _ in range(2):
        (x + x).backward(g)
        x.reshape((2,)).backward(g)
    np.testing.assert_array_equal(g, [1.0, 1.0])
    np.testing.assert_array_equal(accumulated(x), [6.0, 6.0])
    g[:] = 99.0
    np.testing.assert_array_equal(accumulated(x), [6.0, 6.0])


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_the_same_tensor_on_both_sides(shape: tuple[int, ...]) -> None:
    x = leaf(np.full(shape, 3.0))
    y = x * 1.0  # an inner node, whose gradients are borrowed first and summed then
    (y + y + y - y * y).sum().backward()
    np.testing.assert_array_equal(accumulated(x), np.full(shape, 3.0 - 6.0))


def test_sibling_branches_keep_their_gradients_when_one_is_added_to() -> None:
    x, z = leaf([1.0, 2.0]), leaf([5.0, 6.0])
    y = x * 1.0
    w = z * 1.0
    total = y + w  # both borrow the same upstream array
    (total.sum() + (y * 2.0).sum() + (y * 3.0).sum() + (y * 4.0).sum()).backward()
    np.testing.assert_array_equal(accumulated(x), [10.0, 10.0])
    np.testing.assert_array_equal(accumulated(z), [1.0, 1.0])


def test_a_gradient_takes_the_dtype_of_its_input() -> None:
    x, y = leaf([1.0], np.float32), leaf([1.0], np.float64)
    (x * y).sum().backward()
    assert accumulated(x).dtype == np.float32 and accumulated(y).dtype == np.float64


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


# ---------------------------------------------------------------- higher order
def test_create_graph_outside_higher_order_names_the_remedy() -> None:
    x = leaf([1.0])
    with pytest.raises(GraphError, match=r"exp was recorded without its inputs.*higher_order\(\)") as error:
        mg.grad(F.exp(x), x, create_graph=True)
    assert error.value.code == "graph-order"


def test_third_derivative() -> None:
    x = leaf(0.7)
    with mg.higher_order():
        y = F.tanh(x)
        for _ in range(3):
            found = mg.grad(y, x, create_graph=True)
            assert found is not None
            y = found
    t = np.tanh(0.7)
    assert y.item() == pytest.approx((1 - t * t) * (6 * t * t - 2), rel=1e-12)


def test_a_gradient_without_create_graph_has_no_history() -> None:
    x = leaf([2.0])
    with mg.higher_order():
        found = mg.grad((x**3).sum(), x)
    assert found is not None and not found.requires_grad


# ---------------------------------------------------------------- parameters that change
def test_a_changed_parameter_that_is_not_on_the_path_does_not_matter() -> None:
    weight, other = Parameter(np.ones(2)), Parameter(np.ones(2))
    loss = (weight * 2.0).sum()
    other.assign(np.zeros(2))
    loss.backward()
    np.testing.assert_array_equal(accumulated(weight), [2.0, 2.0])


# ---------------------------------------------------------------- several outputs
@pytest.fixture
def sum_and_product() -> Iterator[Any]:
    """An operation with two outputs, (x + y, x · y), registered for one test."""

    @op("*s, *s -> *s, *s")
    def sum_and_product(xp: Any, x: Any, y: Any) -> Any:
        def pullback(g: Any) -> Any:
            gs, gp = g
            parts = [(gs, gs)] * (gs is not None) + ([(gp * y, gp * x)] if gp is not None else [])
            (a, b), *rest = parts
            return (a + rest[0][0], b + rest[0][1]) if rest else (a, b)

        return (x + y, x * y), pullback

    yield sum_and_product
    del REGISTRY["sum_and_product"]


def test_two_outputs(sum_and_product: Any) -> None:
    x, y = leaf([2.0, 3.0]), leaf([5.0, 7.0])
    s, p = sum_and_product(x, y)
    np.testing.assert_array_equal(s.numpy(), [7.0, 10.0])
    (s.sum() + p.sum() * 2.0).backward()
    np.testing.assert_array_equal(accumulated(x), [11.0, 15.0])
    np.testing.assert_array_equal(accumulated(y), [5.0, 7.0])


@pytest.mark.parametrize(("which", "expected"), [(0, [1.0, 1.0]), (1, [5.0, 7.0])])
def test_one_of_two_outputs(sum_and_product: Any, which: int, expected: list[float]) -> None:
    x, y = leaf([2.0, 3.0]), leaf([5.0, 7.0])
    sum_and_product(x, y)[which].sum().backward()
    np.testing.assert_array_equal(accumulated(x), expected)


def test_two_outputs_at_both_orders_and_one_output_used_twice(sum_and_product: Any) -> None:
    x, y = leaf([0.2, 0.3]), leaf([0.5, 0.7])

    def function(x: Tensor, y: Tensor) -> Tensor:
        s, p = sum_and_product(x, y)
        return s * F.exp(p) + s * p

    assert mg.gradcheck(function, [x, y], order=2)
    assert mg.gradcheck(lambda x, y: sum_and_product(x, y), [x, y], order=2)


def test_an_operation_name_is_registered_once(sum_and_product: Any) -> None:
    with pytest.raises(MinigradError, match=r"sum_and_product exists already"):

        @op("*s -> *s")
        def sum_and_product(xp: Any, x: Any) -> Any:
            return x, (lambda g: g,)


# ---------------------------------------------------------------- memory
SIZE = 250_000  # float64: 2 MB per array


def peak_of(function: Any) -> float:
    """Largest memory in use during the call, in arrays of SIZE, above what was in use before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return (tracemalloc.get_traced_memory()[1] - before) / (8 * SIZE)
    finally:
        tracemalloc.stop()


def test_activations_are_freed_as_backward_proceeds() -> None:
    alive: list[int] = []
    activations: list[weakref.ref[Any]] = []

    @op("*s -> *s")
    def watched(xp: Any, x: Any) -> Any:
        return x * 1.0, (lambda g: alive.append(sum(a() is not None for a in activations)) or g,)

    try:
        x = leaf(np.ones(4))
        for retain in (True, False):
            activations.clear()
            y = watched(x)
            for _ in range(10):
                y = F.exp(y * 0.1)
                activations.append(weakref.ref(y.array))
            y = y.sum()
            y.backward(retain_graph=retain)  # reaches `watched` last
    finally:
        del REGISTRY["watched"]
    assert alive == [10, 0]


def test_activations_that_no_pullback_mentions_die_at_once() -> None:
    x = leaf(np.ones(SIZE))
    total = [x]

    def chain() -> None:
        for _ in range(10):
            total[0] = total[0] + 1.0  # addition remembers nothing

    assert peak_of(chain) < 2.5


def test_no_grad_keeps_nothing_alive() -> None:
    x = leaf(np.ones(4))
    with mg.no_grad():
        y = F.exp(x)
    seen = weakref.ref(y)
    z = y * 2.0
    del y
    assert seen() is None and z.node is None


def test_a_recorded_result_does_not_keep_the_tensors_of_its_inputs() -> None:
    x = leaf(np.ones(4))
    y = F.exp(x)
    seen = weakref.ref(y)
    z = y + 1.0
    del y
    assert seen() is None
    z.sum().backward()
    np.testing.assert_array_equal(accumulated(x), np.exp(np.ones(4)))


# ---------------------------------------------------------------- grad and value_and_grad
def test_grad_of_leaves_and_inner_tensors_leaves_grad_alone() -> None:
    x = leaf([1.0, 2.0])
    y = x * x
    z = (y * 3.0).sum()
    gx, gy, gz = mg.grad(z, [x, y, z])
    assert gx is not None and gy is not None and gz is not None
    np.testing.assert_array_equal(gx.numpy(), [6.0, 12.0])
    np.testing.assert_array_equal(gy.numpy(), [3.0, 3.0])
    assert gz.item() == 1.0
    assert x.grad is None


def test_grad_is_none_for_what_the_output_does_not_depend_on() -> None:
    x, y = leaf([1.0]), leaf([1.0])
    assert mg.grad(x * 2.0, [x, y], np.ones(1))[1] is None
    assert mg.grad((x * 2.0).sum(), y) is None


def test_grad_of_an_input_without_requires_grad() -> None:
    x = leaf([1.0])
    with pytest.raises(GraphError, match=r"input 1.*requires no gradient"):
        mg.grad(x.sum(), [x, Tensor([1.0])])


def test_paths_that_lead_to_no_target_are_not_computed() -> None:
    called = []

    @op("*s -> *s")
    def watched(xp: Any, x: Any) -> Any:
        return x * 1.0, (lambda g: called.append("watched") or g,)

    try:
        x, y = leaf([1.0]), leaf([1.0])
        z = (watched(x) * y).sum()
        assert mg.grad(z, y, retain_graph=True) is not None
        assert called == []
        assert mg.grad(z, x) is not None
        assert called == ["watched"]
    finally:
        del REGISTRY["watched"]


def test_grad_frees_the_graph_unless_it_is_retained() -> None:
    x = leaf([1.0])
    y = F.exp(x).sum()
    mg.grad(y, x, retain_graph=True)
    mg.grad(y, x)
    with pytest.raises(GraphError, match=r"freed"):
        mg.grad(y, x)


def test_value_and_grad() -> None:
    value, gradient = mg.value_and_grad(lambda x: (x * x).sum())(np.array([1.0, 2.0]))
    assert value.item() == 5.0 and not value.requires_grad
    np.testing.assert_array_equal(gradient.numpy(), [2.0, 4.0])
    value, (by_y, by_x) = mg.value_and_grad(lambda x, y, scale: (x * y * scale).sum(), argnums=(1, 0))(2.0, 5.0, scale=3.0)
    assert (value.item(), by_y.item(), by_x.item()) == (30.0, 6.0, 15.0)
    with pytest.raises(ArgumentError, match=r"argnums 1 does not fit 1"):
        mg.value_and_grad(lambda x: x, argnums=1)(1.0)


def test_value_and_grad_of_a_parameter_that_is_used_elsewhere() -> None:
    weight = Parameter(np.ones(2))
    _, gradient = mg.value_and_grad(lambda w: (w * 3.0).sum())(weight)
    np.testing.assert_array_equal(gradient.numpy(), [3.0, 3.0])
    assert weight.grad is None


@pytest.mark.parametrize("pull", [lambda g: g[1:], lambda g: g.reshape((3, 1)), lambda g: g.sum()], ids=["part", "turned", "summed"])
def test_a_gradient_of_another_shape_is_refused(pull: Any) -> None:
    shapeless = mg.custom_op("*s -> *s")(lambda xp, x: (x * 1.0, (pull,)))
    x = mg.Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ContractError, match=r"gradient of shape .* for an input of shape \(3,\)"):
        shapeless(x).sum().backward()


# ---------------------------------------------------------------- gradients side by side
def laid_out(*sizes: int) -> tuple[list[Leaf], np.ndarray, list[np.ndarray]]:
    """Leaves whose views lie one after another, all of their memory, and gradients that do so too."""
    ends = np.cumsum(sizes)
    memory, numbers = np.zeros(ends[-1]), np.arange(1.0, ends[-1] + 1)
    leaves = [Leaf(f"p{i}", (size,), np.dtype(float)) for i, size in enumerate(sizes)]
    for leaf_, size, end in zip(leaves, sizes, ends, strict=True):
        leaf_.view = memory[end - size : end]
    return leaves, memory, [numbers[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def test_gradients_side_by_side_are_copied_at_once() -> None:
    leaves, memory, gradients = laid_out(3, 1, 2)
    matrix, inner = Leaf("w", (2, 2), np.dtype(float)), Node("n", (3,), np.dtype(float), (), None)
    found = accumulate_side_by_side(
        [matrix, leaves[0], None, leaves[1], inner, leaves[2]], [memory, gradients[0], None, gradients[1], None, gradients[2]]
    )
    assert sorted(found) == [1, 3, 5]
    assert memory.tolist() == [1, 2, 3, 4, 5, 6]
    assert all(leaf_.grad is leaf_.view for leaf_ in leaves) and matrix.grad is None
    assert not any(np.shares_memory(leaf_.grad, gradient) for leaf_, gradient in zip(leaves, gradients, strict=True))
    assert sorted(accumulate_side_by_side(leaves, gradients)) == [0, 1, 2]  # added to what is there
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
    assert not accumulate_side_by_side(*IN_THE_WAY[how](leaves, gradients))
    assert not memory.any()


def parts_of_a_product() -> tuple[list[Leaf], np.ndarray, list[Product], np.ndarray, list[int]]:
    """Matrices side by side, all of their memory, the parts of a product for them, that product, and how many rows were computed when."""
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
        assert sorted(accumulate_side_by_side(leaves, gradients)) == [0, 1, 2]
        assert computed == times * [6] and all(leaf_.grad is leaf_.view for leaf_ in leaves)
        np.testing.assert_allclose(memory, times * expected, rtol=1e-12)


APART: dict[str, tuple[list[int], Any]] = {  # which are computed at once nevertheless
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
    assert sorted(accumulate_side_by_side(parents, given)) == at_once
    assert len(computed) == bool(at_once)
    done = np.concatenate(
        [np.full(len(g.a), leaf_ is not None and i in at_once) for i, (leaf_, g) in enumerate(zip(parents, given, strict=True))]
    )
    np.testing.assert_allclose(memory[done], expected[done], rtol=1e-12)
    assert (memory[~done] == 99.0).all()
