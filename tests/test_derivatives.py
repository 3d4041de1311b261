"""vjp, jacobian, hvp, hessian and gradients of gradients, against closed forms and finite differences of the next lower order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

RNG = np.random.default_rng(0)
STEP = 1e-5
RTOL, ATOL = 1e-6, 1e-7
"""As in gradcheck: a central difference with this step is accurate to about 1e-10 for values of order 1."""


def differences(function: Any, point: np.ndarray) -> np.ndarray:
    """The Jacobian by central differences, (*output, *input)."""
    columns = []
    for j in range(point.size):
        unit = np.eye(point.size)[j].reshape(point.shape) * STEP
        columns.append((function(point + unit) - function(point - unit)) / (2 * STEP))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *point.shape)


WEIGHTS = [RNG.standard_normal((4, 3)), RNG.standard_normal(4), RNG.standard_normal((2, 4))]


def network(x: Any) -> Tensor:
    """A small MLP: (3,) → (2,)."""
    w1, b1, w2 = WEIGHTS
    return F.sigmoid(F.tanh(F.matmul(w1, x) + b1) @ w2.T)


# ---------------------------------------------------------------- vjp
def test_vjp_of_one_output_multiplies_from_the_left() -> None:
    point, v = RNG.standard_normal(3), RNG.standard_normal(2)
    out, pull = mg.vjp(network, point)
    np.testing.assert_array_equal(out.numpy(), network(point).numpy())
    assert not out.requires_grad
    expected = v @ differences(lambda p: network(p).numpy(), point)
    for _ in range(3):  # as often as wanted
        np.testing.assert_allclose(pull(v).numpy(), expected, rtol=RTOL, atol=ATOL)
    np.testing.assert_array_equal(pull(2.0 * v).numpy(), 2.0 * pull(v).numpy())


def test_vjp_of_several_inputs_and_outputs() -> None:
    (product, total), pull = mg.vjp(lambda a, b: (a * b, a.sum()), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert product.tolist() == [3.0, 8.0] and total.item() == 3.0
    by_a, by_b = pull(([1.0, 10.0], 100.0))
    assert by_a.tolist() == [103.0, 140.0] and by_b.tolist() == [1.0, 20.0]


def test_vjp_gives_zeros_where_nothing_depends() -> None:
    _, pull = mg.vjp(lambda a, b: a * 2.0, np.ones(2), np.ones((3, 1)))
    assert pull(np.ones(2))[1].tolist() == [[0.0]] * 3
    (_, constant), pull = mg.vjp(lambda a: (a, Tensor(np.ones(4))), np.ones(2))
    assert not constant.requires_grad
    assert pull((np.ones(2), np.ones(4))).tolist() == [1.0, 1.0]


def test_vjp_leaves_grad_alone_and_works_inside_no_grad() -> None:
    x = leaf([1.0, 2.0])
    with mg.no_grad():
        _, pull = mg.vjp(lambda x: x * x, x)
        assert pull(np.ones(2)).tolist() == [2.0, 4.0]
    assert x.grad is None


def test_vjp_with_create_graph_is_differentiated_by_input_and_cotangent() -> None:
    x, v = leaf([0.3, -0.7]), leaf([2.0, 5.0])
    out, pull = mg.vjp(lambda x: F.exp(x), x, create_graph=True)
    assert out.requires_grad
    by_x, by_v = mg.grad(pull(v).sum(), [x, v])
    assert by_x is not None and by_v is not None
    np.testing.assert_allclose(by_x.numpy(), v.numpy() * np.exp(x.numpy()), rtol=1e-15)
    np.testing.assert_allclose(by_v.numpy(), np.exp(x.numpy()), rtol=1e-15)


@pytest.mark.parametrize("cotangent", [np.ones(3), (np.ones(2), np.ones(2)), None])
def test_cotangents_of_another_shape(cotangent: Any) -> None:
    _, pull = mg.vjp(lambda x: x * x, np.ones(2))
    with pytest.raises(MinigradError):
        pull(cotangent)


def test_a_tuple_of_outputs_needs_as_many_cotangents() -> None:
    _, pull = mg.vjp(lambda x: (x, x), np.ones(2))
    for cotangents in (np.ones(2), (np.ones(2),), (np.ones(2),) * 3):
        with pytest.raises(ShapeError, match=r"tuple of 2"):
            pull(cotangents)


# ---------------------------------------------------------------- jacobian
def test_jacobian_of_a_network() -> None:
    point = RNG.standard_normal(3)
    found = mg.jacobian(network, point)
    assert found.shape == (2, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found.numpy(), differences(lambda p: network(p).numpy(), point), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,), (2, 0)], ids=str)
def test_jacobian_of_a_matrix_valued_function_has_outputs_then_inputs(shape: tuple[int, ...]) -> None:
    point = RNG.standard_normal(shape)
    found = mg.jacobian(lambda x: F.stack([x, x * x]), point)
    assert found.shape == (2, *shape, *shape)
    size = point.size
    expected = np.stack([np.eye(size), np.diag(2.0 * point.reshape(-1))]).reshape(found.shape)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_jacobian_by_several_inputs() -> None:
    w, x = RNG.standard_normal((2, 3)), RNG.standard_normal(3)
    by_w, by_x = mg.jacobian(F.matmul, [w, x])
    np.testing.assert_array_equal(by_x.numpy(), w)
    np.testing.assert_array_equal(by_w.numpy(), np.einsum("ik,j->ikj", np.eye(2), x))
    (only,) = mg.jacobian(lambda x: x * 2.0, (x,))
    np.testing.assert_array_equal(only.numpy(), 2.0 * np.eye(3))


def test_jacobian_can_be_differentiated() -> None:
    x = leaf([0.5, -0.25])
    found = mg.jacobian(lambda x: x**3, x, create_graph=True)
    second = mg.grad(found.sum(), x)
    assert second is not None
    np.testing.assert_allclose(second.numpy(), 6.0 * x.numpy(), rtol=1e-14)


# ---------------------------------------------------------------- hvp and hessian
def scalar(x: Any) -> Tensor:
    return (network(x) ** 2).sum()


def slope(point: np.ndarray) -> np.ndarray:
    return mg.value_and_grad(scalar)(point)[1].numpy()  # type: ignore[no-any-return]


def test_hessian_and_its_product_with_a_vector() -> None:
    point, v = RNG.standard_normal(3), RNG.standard_normal(3)
    expected = differences(slope, point)
    full, product = mg.hessian(scalar, point), mg.hvp(scalar, point, v)
    np.testing.assert_allclose(full.numpy(), expected, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(product.numpy(), expected @ v, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(full.numpy(), full.numpy().T, rtol=1e-12, atol=1e-14)  # rounding of another order of the sums


def test_hvp_counts_the_cross_derivatives() -> None:
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    by_a, by_b = mg.hvp(lambda a, b: (a * b * b).sum(), [a, b], [np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    assert by_a.tolist() == [0.0, 8.0] and by_b.tolist() == [6.0, 4.0]  # H = [[0, 2b], [2b, 2a]]


def test_hvp_by_the_parameters_of_a_model() -> None:
    mg.manual_seed(0)
    model = mg.nn.Sequential(mg.nn.Linear(3, 4), F.tanh, mg.nn.Linear(4, 1)).to("float64")
    x, parameters = RNG.standard_normal((5, 3)), model.parameters()
    vectors = [RNG.standard_normal(p.shape) for p in parameters]
    products = mg.hvp(lambda *_: (model(x) ** 2).mean(), parameters, vectors)

    def slopes() -> list[np.ndarray]:
        found = mg.grad((model(x) ** 2).mean(), parameters)
        return [g.numpy() for g in found if g is not None]

    at = [p.numpy().copy() for p in parameters]
    moved = []
    for sign in (1.0, -1.0):
        for p, start, v in zip(parameters, at, vectors, strict=True):
            p.assign(start + sign * STEP * v)
        moved.append(slopes())
    for found, above, below in zip(products, *moved, strict=True):
        np.testing.assert_allclose(found.numpy(), (above - below) / (2 * STEP), rtol=RTOL, atol=ATOL)


def test_second_derivatives_of_linear_and_constant_functions_are_zero() -> None:
    assert mg.hvp(lambda x: x.sum(), np.ones(2), np.ones(2)).tolist() == [0.0, 0.0]
    assert mg.hessian(lambda x: Tensor(1.0), np.ones(2)).tolist() == [[0.0, 0.0]] * 2


def test_hvp_of_a_function_with_several_values() -> None:
    with pytest.raises(ShapeError, match=r"hvp: the function must return one number, it returned \(2,\)"):
        mg.hvp(lambda x: x * x, np.ones(2), np.ones(2))
    with pytest.raises(ShapeError):
        mg.hvp(lambda x: x.sum(), np.ones(2), np.ones(3))
    with pytest.raises(ShapeError):
        mg.hvp(lambda x, y: (x * y).sum(), [np.ones(2), np.ones(2)], [np.ones(2)])


# ---------------------------------------------------------------- any order
def derivatives(function: Any, x: float, order: int) -> list[float]:
    """f, f′, f″, … by repeated `grad`."""
    point = leaf(x)
    with mg.higher_order():
        y = function(point)
        found = [y.item()]
        for _ in range(order):
            y = mg.grad(y, point, create_graph=True)
            found.append(y.item())
    return found


def test_four_orders_of_exp_and_tanh() -> None:
    assert derivatives(F.exp, 0.4, 4) == pytest.approx([np.exp(0.4)] * 5, rel=1e-13)
    t = np.tanh(0.7)
    s = 1.0 - t * t
    closed = [t, s, -2.0 * t * s, s * (6.0 * t * t - 2.0), s * (16.0 * t - 24.0 * t**3)]
    assert derivatives(F.tanh, 0.7, 4) == pytest.approx(closed, rel=1e-12)


def nth(order: int) -> Any:
    """The derivative of that order of a small MLP along each input, summed over the outputs: (3,) → (3,)."""

    def function(x: Tensor) -> Tensor:
        with mg.higher_order():
            y: Any = network(x).sum()
            for _ in range(order):
                y = mg.grad(y.sum(), x, create_graph=True)
        return y  # type: ignore[no-any-return]

    return function


@pytest.mark.parametrize("order", [2, 3, 4])
def test_each_order_of_a_network_is_the_difference_of_the_order_below(order: int) -> None:
    point = np.array([0.3, -0.4, 0.2])
    found = nth(order)(leaf(point))
    below = differences(lambda p: nth(order - 1)(leaf(p)).numpy(), point)
    np.testing.assert_allclose(found.numpy(), below.sum(axis=0), rtol=RTOL, atol=ATOL)


def test_hvp_with_create_graph_reaches_the_third_order() -> None:
    x = leaf([0.5, -0.5])
    product = mg.hvp(lambda x: (x**4).sum(), x, np.ones(2), create_graph=True)
    third = mg.grad(product.sum(), x)
    assert third is not None
    np.testing.assert_allclose(third.numpy(), 24.0 * x.numpy(), rtol=1e-13)


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    "call",
    [
        lambda f, x: mg.vjp(f, x),
        lambda f, x: mg.jacobian(f, x),
        lambda f, x: mg.hvp(f, x, np.ones(2)),
        lambda f, x: mg.hessian(f, x),
    ],
)
def test_bad_inputs_and_results(call: Any) -> None:
    with pytest.raises(DTypeError, match="only floating"):
        call(lambda x: (x * 1.0).sum(), np.ones(2, np.int64))
    with pytest.raises(MinigradError):
        call(lambda x: "text", np.ones(2))
    with pytest.raises(MinigradError):
        call(lambda x: x, "text")


def test_no_input_or_the_same_twice() -> None:
    x = leaf([2.0])
    with pytest.raises(ArgumentError, match="no input"):
        mg.vjp(lambda: x)
    with pytest.raises(ArgumentError, match=r"twice.*detach"):
        mg.jacobian(F.multiply, [x, x])
    by_first, by_second = mg.jacobian(lambda a, b: a * b * b, [x, x.detach()])
    assert (by_first.item(), by_second.item()) == (4.0, 8.0)


def test_jacobian_takes_one_output() -> None:
    with pytest.raises(DTypeError, match="tuple"):
        mg.jacobian(lambda x: (x, x), np.ones(2))


def test_a_parameter_changed_before_the_pull_is_caught() -> None:
    w = Parameter(np.ones(2))
    _, pull = mg.vjp(lambda x: x * w, np.ones(2))
    w.assign(np.zeros(2))
    with pytest.raises(MinigradError, match="changed"):
        pull(np.ones(2))


@pytest.mark.parametrize("function", [lambda x: x.argmax(), lambda x: (x > 0).sum()])
def test_integers_have_no_derivative(function: Any) -> None:
    x = mg.ones(2)
    for call in (lambda: mg.jacobian(function, x), lambda: mg.hvp(function, x, x), lambda: mg.hessian(function, x)):
        with pytest.raises(DTypeError, match="returned int64, which has no derivative"):
            call()
