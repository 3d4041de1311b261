"""The backward pass: its errors, accumulation, several outputs, second derivatives, memory, targets."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import accumulated, leaf

import minigrad as mg
from minigrad import functional as F
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
    y = x * 1.0  # an inner node, whose first gradient is borrowed, and later ones are added to it
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
    """The peak memory during the call, in arrays of SIZE, above what was in use before."""
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
            total[0] = total[0] + 1.0  # the pullback of an addition captures nothing

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
