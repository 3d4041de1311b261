"""Hooks on tensors: when they are called, what they receive, what they may return."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from support import accumulated, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ArgumentError, DTypeError, GraphError, ShapeError
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor


def lists(seen: list[Tensor]) -> list[Any]:
    return [g.tolist() for g in seen]


# ---------------------------------------------------------------- what a hook sees
def test_a_leaf_s_hook_sees_the_total_of_each_walk_once() -> None:
    x, seen = leaf([1.0, 2.0]), []
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 2.0 + x * 3.0 + x * x).sum().backward()
    assert lists(seen) == [[7.0, 9.0], [7.0, 9.0]]
    np.testing.assert_array_equal(accumulated(x), [14.0, 18.0])


def test_a_computed_tensor_s_hook_sees_its_complete_gradient() -> None:
    x, seen = leaf([1.0, 2.0]), []
    y = x * 2.0
    y.register_hook(seen.append)
    (y * y + y * 10.0).sum().backward()
    assert lists(seen) == [[14.0, 18.0]]
    np.testing.assert_array_equal(accumulated(x), [28.0, 36.0])


def test_the_root_and_a_leaf_that_is_the_root() -> None:
    x, seen = leaf(2.0), []
    x.register_hook(seen.append)
    x.backward()
    y = x * 3.0
    y.register_hook(seen.append)
    y.backward()
    assert lists(seen) == [1.0, 1.0, 3.0] and accumulated(x) == 4.0


def test_hooks_run_in_the_walk_of_grad_if_it_leads_to_a_target() -> None:
    x, y, seen = leaf([1.0]), leaf([1.0]), []
    h = x * 2.0
    h.register_hook(seen.append)
    z = (h * y).sum()
    assert mg.grad(z, y, retain_graph=True) is not None
    assert seen == []
    found = mg.grad(z, x)
    assert found is not None and found.tolist() == [2.0] and lists(seen) == [[1.0]]


def test_one_of_several_outputs() -> None:
    x, seen = leaf(np.arange(4.0)), []
    first, second = F.split(x, 2)
    second.register_hook(seen.append)
    (first.sum() + second.sum() * 5.0).backward()
    assert lists(seen) == [[5.0, 5.0]]
    np.testing.assert_array_equal(accumulated(x), [1.0, 1.0, 5.0, 5.0])


def test_what_a_hook_sees_is_read_only_and_stays_as_it_is() -> None:
    x, seen = leaf([1.0, 2.0]), []
    x.register_hook(seen.append)
    (x * 2.0).sum().backward()
    with pytest.raises(ValueError, match="read-only"):
        seen[0].numpy()[0] = 7.0
    (x * 3.0).sum().backward()
    assert lists(seen) == [[2.0, 2.0], [3.0, 3.0]]


def test_lazy_gradients_of_parameters_arrive_whole() -> None:
    table, weight, seen = Parameter(np.ones((4, 2)), gathered=True), Parameter(np.ones((3, 2))), []
    table.register_hook(seen.append)
    weight.register_hook(seen.append)
    F.linear(F.embedding([1, 1, 3], table), weight).sum().backward()
    assert sorted(g.shape for g in seen) == [(3, 2), (4, 2)]
    for parameter, g in zip((weight, table), sorted(seen, key=lambda g: g.shape), strict=True):
        np.testing.assert_array_equal(accumulated(parameter), g.numpy())
    assert accumulated(table)[:, 0].tolist() == [0.0, 6.0, 0.0, 3.0]


# ---------------------------------------------------------------- what it may return
@pytest.mark.parametrize("where", ["leaf", "computed"])
def test_a_returned_tensor_takes_the_gradient_s_place(where: str) -> None:
    x = leaf([1.0, -2.0])
    y = x * 3.0
    (x if where == "leaf" else y).register_hook(lambda g: g * 10.0)
    (x if where == "leaf" else y).register_hook(lambda g: g + 1.0)  # in the order of registration
    (y * y).sum().backward()
    upstream = 2.0 * y.numpy()
    expected = upstream * 3.0 * 10.0 + 1.0 if where == "leaf" else (upstream * 10.0 + 1.0) * 3.0
    np.testing.assert_array_equal(accumulated(x), expected)


def test_a_hook_is_a_function_whose_gradient_can_be_chosen() -> None:
    """A gradient that hooks reverse and scale equals finite differences of the function that it represents."""
    x = np.array([0.3, -0.6])

    def analytic(scale: float) -> np.ndarray:
        t = leaf(x)
        h = F.tanh(t)
        h.register_hook(lambda g: g * scale)
        return mg.grad((h**2).sum(), t).numpy()  # type: ignore[union-attr, no-any-return]

    step = 1e-6  # the error of a central difference is about step², below the tolerance
    numeric = [((np.tanh(x + d) ** 2).sum() - (np.tanh(x - d) ** 2).sum()) / (2 * step) for d in np.eye(2) * step]
    np.testing.assert_allclose(analytic(1.0), numeric, rtol=1e-7)
    np.testing.assert_allclose(analytic(-0.5), -0.5 * np.array(numeric), rtol=1e-7)


def test_with_create_graph_a_hook_takes_part_in_the_second_derivative() -> None:
    x, seen = leaf([0.5, 2.0]), []

    def cube(g: Tensor) -> Tensor:
        seen.append(g)
        return g * g * g

    with mg.higher_order():
        x.register_hook(cube)
        first = mg.grad((x * x).sum(), x, create_graph=True)  # (2x)³
        assert first is not None and seen[0].requires_grad
        np.testing.assert_allclose(first.numpy(), 8.0 * x.numpy() ** 3, rtol=1e-15)
    second = mg.grad(first.sum(), x)  # the hook cubes again what arrives: 24x²
    assert second is not None
    np.testing.assert_allclose(second.numpy(), (24.0 * x.numpy() ** 2) ** 3, rtol=1e-13)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (Tensor(np.ones(3)), ShapeError, r"\(3,\) for a tensor of shape \(2,\)"),
        (Tensor(np.ones(2, np.float32)), DTypeError, r"float32 gradient for a float64"),
        (np.ones(2), DTypeError, r"returned ndarray"),
        (1.0, DTypeError, r"returned float"),
    ],
    ids=["shape", "dtype", "array", "number"],
)
def test_a_replacement_that_does_not_fit(returned: Any, error: Any, words: str) -> None:
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: returned)
    with pytest.raises(error, match=words):
        (x * x).sum().backward()
    assert x.grad is None


def test_a_hook_that_raises_leaves_all_leaves_with_hooks_as_they_were() -> None:
    x, y = leaf([1.0]), leaf([1.0])

    def refuse(g: Tensor) -> None:
        raise KeyError("stop")

    x.register_hook(refuse)
    y.register_hook(lambda g: g * 2.0)  # the younger leaf, whose gradient is complete first
    with pytest.raises(KeyError):
        (x * y).sum().backward()
    assert x.grad is None and y.grad is None


# ---------------------------------------------------------------- handles
def test_handles_remove_and_end_with_their_block() -> None:
    x, seen = leaf([1.0]), []
    handle = x.register_hook(seen.append)
    with x.register_hook(seen.append), pytest.raises(KeyError), x.register_hook(seen.append):
        (x * 2.0).sum().backward()
        raise KeyError
    assert len(seen) == 3
    (x * 2.0).sum().backward()
    assert len(seen) == 4
    handle.remove()
    handle.remove()
    (x * 2.0).sum().backward()
    assert len(seen) == 4 and accumulated(x) == [6.0]


def test_a_hook_may_remove_itself() -> None:
    x, seen = leaf([1.0]), []

    def once(g: Tensor) -> None:
        seen.append(g)
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(seen.append)
    for _ in range(2):
        (x * 2.0).sum().backward()
    assert len(seen) == 3


def test_hooks_are_refused_where_no_gradient_arrives() -> None:
    with pytest.raises(GraphError, match="requires none"):
        mg.ones(2).register_hook(print)
    with pytest.raises(ArgumentError, match="function"):
        leaf([1.0]).register_hook(None)  # type: ignore[arg-type]


def test_a_parameter_s_hooks_survive_freezing_and_conversion_but_not_copying() -> None:
    p, seen = Parameter(np.ones(2)), []
    p.register_hook(seen.append)
    p.requires_grad_(False).requires_grad_(True)
    twin = copy.deepcopy(p)
    (twin * 2.0).sum().backward()
    assert seen == []
    p.replace_storage(p.numpy().astype(np.float32))
    (p * 2.0).sum().backward()
    assert [g.dtype for g in seen] == [np.float32]


def test_a_hook_before_an_optimizer_step() -> None:
    p = Parameter(np.array([1.0, -1.0]))
    optimizer = mg.optim.SGD([p], lr=1.0)
    p.register_hook(lambda g: g * 0.5)
    (p * np.array([2.0, 4.0])).sum().backward()
    optimizer.step()
    assert p.tolist() == [0.0, -3.0]
