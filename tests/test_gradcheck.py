"""gradcheck itself: it refuses invalid arguments, rejects planted errors of every known kind, and accepts right derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad.errors import ArgumentError, DTypeError, GradientCheckError
from minigrad.gradcheck import DIRECTIONS, FULL
from minigrad.op import REGISTRY, op
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor


def leaf(data: Any, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.asarray(data, dtype=dtype), requires_grad=True)


X = np.array([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4]])
Y = np.array([[0.5, 1.3, -0.6], [-1.2, 0.8, 0.1]])
ROW = np.array([0.4, -0.9, 0.7])
SQUARE = np.array([[0.6, -0.3], [0.2, 0.8]])


@contextmanager
def registered(body: Callable[..., Any]) -> Iterator[Any]:
    """The body as an operation, for one test."""
    body.__name__ = "planted"
    try:
        yield op("planted")(body)
    finally:
        del REGISTRY["planted"]


# ---------------------------------------------------------------- what it refuses
def test_float32_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"input 1 is float32.*float64"):
        mg.gradcheck(F.multiply, [leaf(X), leaf(X, np.float32)])


@pytest.mark.parametrize("order", [0, 3, -1])
def test_orders_other_than_1_and_2_are_refused(order: int) -> None:
    with pytest.raises(ArgumentError, match=f"order is 1 or 2, got {order}"):
        mg.gradcheck(F.exp, leaf(X), order=order)


@pytest.mark.parametrize("inputs", [[], [Tensor(X)], [X], Tensor(X)], ids=["none", "plain tensor", "array", "single"])
def test_nothing_to_check_is_refused(inputs: Any) -> None:
    with pytest.raises(ArgumentError, match=r"no input has requires_grad=True"):
        mg.gradcheck(lambda *a: Tensor(1.0), inputs)


# ---------------------------------------------------------------- planted errors
# name → (right pullback, wrong pullback, body's value, inputs). A pullback takes (xp, g, *arrays).
Rule = Callable[..., Any]
PLANTED: dict[str, tuple[Callable[..., Any], Rule, Rule, list[np.ndarray]]] = {
    "sign of a subtraction": (lambda xp, x, y: x - y, lambda xp, g, x, y: (g, -g), lambda xp, g, x, y: (g, g), [X, Y]),
    "sign of the whole gradient": (lambda xp, x: xp.exp(x), lambda xp, g, x: (g * xp.exp(x),), lambda xp, g, x: (-g * xp.exp(x),), [X]),
    "factor 2 of a square": (lambda xp, x: x * x, lambda xp, g, x: (g * x * 2.0,), lambda xp, g, x: (g * x,), [X]),
    "one millionth off": (lambda xp, x: x * x, lambda xp, g, x: (g * x * 2.0,), lambda xp, g, x: (g * x * 2.00001,), [X * 10]),
    "swapped arguments of a product": (
        lambda xp, x, y: x * y,
        lambda xp, g, x, y: (g * y, g * x),
        lambda xp, g, x, y: (g * x, g * y),
        [X, Y],
    ),
    "swapped arguments of a quotient": (
        lambda xp, x, y: x / y,
        lambda xp, g, x, y: (g / y, -g * x / (y * y)),
        lambda xp, g, x, y: (-g * x / (y * y), g / y),
        [X, Y],
    ),
    "missing square of a denominator": (
        lambda xp, x, y: x / y,
        lambda xp, g, x, y: (g / y, -g * x / (y * y)),
        lambda xp, g, x, y: (g / y, -g * x / y),
        [X, Y],
    ),
    "zero for one argument": (lambda xp, x, y: x * y, lambda xp, g, x, y: (g * y, g * x), lambda xp, g, x, y: (g * y, g * 0.0), [X, Y]),
    "None for one argument": (lambda xp, x, y: x * y, lambda xp, g, x, y: (g * y, g * x), lambda xp, g, x, y: (g * y, None), [X, Y]),
    "broadcasting undone by the mean": (
        lambda xp, x, y: x + y,
        lambda xp, g, x, y: (g, xp.sum(g, axis=0)),
        lambda xp, g, x, y: (g, xp.sum(g, axis=0) * 0.5),
        [X, ROW],
    ),
    "broadcasting undone by the first row": (
        lambda xp, x, y: x * y,
        lambda xp, g, x, y: (g * y, xp.sum(g * x, axis=0)),
        lambda xp, g, x, y: (g * y, (g * x)[0]),
        [X, ROW],
    ),
    "missing 1/n of a mean": (
        lambda xp, x: xp.sum(x, axis=0) * (1 / 2),
        lambda xp, g, x: (xp.broadcast_to(g * (1 / 2), x.shape),),
        lambda xp, g, x: (xp.broadcast_to(g, x.shape),),
        [X],
    ),
    "gradient of a sum given to one element": (
        lambda xp, x: xp.sum(x, axis=0),
        lambda xp, g, x: (xp.broadcast_to(g, x.shape),),
        lambda xp, g, x: (xp.broadcast_to(g, x.shape) * np.array([[1.0], [0.0]]),),
        [X],
    ),
    "gradient of a sum spread along the other axis": (
        lambda xp, x: xp.sum(x, axis=0),
        lambda xp, g, x: (xp.broadcast_to(g, x.shape),),
        lambda xp, g, x: (xp.broadcast_to(g.reshape((2, 1)), x.shape),),
        [SQUARE],
    ),
    "missing transpose of a product": (
        lambda xp, x, y: x @ y,
        lambda xp, g, x, y: (g @ y.swapaxes(0, 1), x.swapaxes(0, 1) @ g),
        lambda xp, g, x, y: (g @ y, x.swapaxes(0, 1) @ g),
        [SQUARE, SQUARE + 0.3],
    ),
    "gradient transposed": (lambda xp, x: x.swapaxes(0, 1), lambda xp, g, x: (g.swapaxes(0, 1),), lambda xp, g, x: (g,), [SQUARE]),
    "reversed axis not reversed back": (lambda xp, x: x[::-1], lambda xp, g, x: (g[::-1],), lambda xp, g, x: (g,), [X]),
    "repeated index not accumulated": (
        lambda xp, x: x[np.array([0, 0, 1])],
        lambda xp, g, x: (xp.zeros_at(g, np.array([0, 0, 1]), x.shape),),
        lambda xp, g, x: (xp.zeros_at(g[1:], np.array([0, 1]), x.shape),),
        [X],
    ),
    "derivative of tanh without its square": (
        lambda xp, x: xp.tanh(x),
        lambda xp, g, x: (g * (1.0 - xp.tanh(x) * xp.tanh(x)),),
        lambda xp, g, x: (g * (1.0 - xp.tanh(x)),),
        [X],
    ),
    "softmax without its mean": (
        lambda xp, x: xp.exp(x) / xp.sum(xp.exp(x)),
        lambda xp, g, x: (lambda y: (y * (g - xp.sum(g * y)),))(xp.exp(x) / xp.sum(xp.exp(x))),
        lambda xp, g, x: (xp.exp(x) / xp.sum(xp.exp(x)) * g,),
        [X],
    ),
    "variance through the mean only": (
        lambda xp, x: xp.sum((x - xp.sum(x) * (1 / 6)) * (x - xp.sum(x) * (1 / 6))),
        lambda xp, g, x: ((x - xp.sum(x) * (1 / 6)) * 2.0 * g,),
        lambda xp, g, x: (x * 2.0 * g,),
        [X],
    ),
    "maximum that shares always": (
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, g, x, y: (g * (xp.constant(x) > xp.constant(y)), g * (xp.constant(y) > xp.constant(x))),
        lambda xp, g, x, y: (g * 0.5, g * 0.5),
        [X, Y],
    ),
    "incoming gradient ignored": (lambda xp, x: xp.exp(x), lambda xp, g, x: (g * xp.exp(x),), lambda xp, g, x: (xp.exp(x),), [X]),
    "incoming gradient squared": (lambda xp, x: x * 3.0, lambda xp, g, x: (g * 3.0,), lambda xp, g, x: (g * g * 3.0,), [X]),
    "one wrong element of many": (
        lambda xp, x: x * 2.0,
        lambda xp, g, x: (g * 2.0,),
        lambda xp, g, x: (g * np.where(np.arange(x.shape[0]) == 37, 2.01, 2.0),),
        [np.linspace(-1, 1, FULL)],
    ),
    "wrong only where large": (
        lambda xp, x: xp.exp(x),
        lambda xp, g, x: (g * xp.exp(x),),
        lambda xp, g, x: (g * xp.where(xp.constant(x) > 1.0, 1.0, xp.exp(x)),),
        [X],
    ),
    "nan": (lambda xp, x: x * 2.0, lambda xp, g, x: (g * 2.0,), lambda xp, g, x: (g * float("nan"),), [X]),
}


def planted(value: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    return lambda xp, *arrays: (value(xp, *arrays), lambda g: rule(xp, g, *arrays))


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_wrong_pullback_is_caught_and_the_right_one_is_not(name: str) -> None:
    value, right, wrong, arrays = PLANTED[name]
    with registered(planted(value, right)) as operation:
        seen = mg.gradcheck(operation, [leaf(a) for a in arrays], order=2)
        inputs, outputs = sum(a.size for a in arrays), operation(*arrays).size
        assert seen and seen.comparisons == inputs * (outputs + 1) + inputs * (inputs + 1) and seen.max_error < 1e-7
    with registered(planted(value, wrong)) as operation, pytest.raises(GradientCheckError, match=r"gradient of input"):
        mg.gradcheck(operation, [leaf(a) for a in arrays])


def test_there_are_more_than_20_planted_errors() -> None:
    assert len(PLANTED) > 20


def test_an_error_in_a_large_input_is_caught_along_random_directions() -> None:
    x = np.linspace(-1, 1, 20 * FULL)
    value, right, _, _ = PLANTED["factor 2 of a square"]
    with registered(planted(value, right)) as operation:
        assert mg.gradcheck(operation, leaf(x), order=2)
    wrong = planted(value, lambda xp, g, x: (g * x * 2.0 * np.where(np.arange(len(xp.constant(x))) % 100 == 0, 1.5, 1.0),))
    with registered(wrong) as operation, pytest.raises(GradientCheckError, match=r"along random direction"):
        mg.gradcheck(operation, leaf(x))


def test_a_wrong_second_derivative_is_caught_at_order_2_only() -> None:
    """The slope is treated as a constant: right at first order, but the second derivative is lost."""

    def body(xp: Any, x: Any) -> Any:
        return xp.exp(x), lambda g: (g * np.exp(xp.constant(x)),)

    with registered(body) as operation:
        assert mg.gradcheck(operation, leaf(X), order=1)
        with pytest.raises(GradientCheckError, match=r"second derivative of input 0"):
            mg.gradcheck(operation, leaf(X), order=2)


def test_a_result_that_lost_its_graph_is_caught() -> None:
    with pytest.raises(GradientCheckError, match=r"analytic 0,"):
        mg.gradcheck(lambda x: F.exp(x.detach()), leaf(X))
    with pytest.raises(GradientCheckError):
        mg.gradcheck(lambda x, y: x + (y * 2.0).detach(), [leaf(X), leaf(Y)])


# ---------------------------------------------------------------- what it accepts
def test_the_message_names_input_element_and_both_values() -> None:
    value, _, wrong, _ = PLANTED["swapped arguments of a product"]
    message = r"gradient of input 0 at \(0, 0\): analytic [-\d.e]+, central difference [-\d.e]+"
    with registered(planted(value, wrong)) as operation, pytest.raises(GradientCheckError, match=message):
        mg.gradcheck(operation, [leaf(X), leaf(Y)])


def test_inputs_that_are_not_checked_are_passed_through() -> None:
    seen = mg.gradcheck(lambda x, ids, y, flag: x[ids] * y if flag else x, [leaf(X), np.array([0, 0]), Tensor(Y), True], order=2)
    assert seen.comparisons == 2 * (X.size + 1) * X.size  # the Jacobian of 6 outputs and their sum by 6 inputs, and the Hessian


def test_several_outputs_are_all_checked() -> None:
    assert mg.gradcheck(lambda x: (x * 2.0, F.exp(x), x > 0), leaf(X), order=2)
    with pytest.raises(GradientCheckError):
        mg.gradcheck(lambda x: (x * 2.0, F.exp(x.detach())), leaf(X))


def test_a_pullback_that_is_wrong_only_for_several_gradients_at_once_is_caught() -> None:
    def body(xp: Any, x: Any) -> Any:
        return (x * 2.0, x * 3.0), lambda g: (g[0] * 2.0 if g[0] is not None else g[1] * 3.0,)

    with registered(body) as operation, pytest.raises(GradientCheckError, match="of combination"):
        mg.gradcheck(operation, leaf(X))


def test_every_entry_of_the_jacobian_is_compared_and_a_wrong_one_is_named() -> None:
    """An error that cancels if both outputs receive the same gradient."""

    def body(xp: Any, x: Any) -> Any:
        wrong = np.array([[0.0, 1e-3], [0.0, -1e-3]])
        return x * 2.0, lambda g: (g * 2.0 + wrong.T @ g,)

    with registered(body) as operation, pytest.raises(GradientCheckError, match=r"input 0 at \(1,\).*\(of result 0 at \(0,\)\)"):
        mg.gradcheck(operation, leaf([0.3, 0.4]))


def test_a_function_that_does_not_depend_on_an_input_has_gradient_0() -> None:
    assert mg.gradcheck(lambda x, y: x * 2.0, [leaf(X), leaf(Y)], order=2)


def test_dropout_draws_the_same_units_every_time_and_the_stream_stays_where_it_was() -> None:
    mg.manual_seed(0)
    expected = F.dropout(Tensor(X), 0.5).tolist()
    mg.manual_seed(0)
    assert mg.gradcheck(lambda x: F.dropout(x, 0.5), leaf(X), order=2)
    assert F.dropout(Tensor(X), 0.5).tolist() == expected


def test_nothing_is_left_in_the_inputs() -> None:
    x, weight = leaf(X), Parameter(Y)
    before = x.numpy().copy(), weight.numpy().copy()
    assert mg.gradcheck(F.multiply, [x, weight], order=2)
    assert x.grad is None and weight.grad is None
    np.testing.assert_array_equal(x.numpy(), before[0])
    np.testing.assert_array_equal(weight.numpy(), before[1])


@pytest.mark.parametrize("size", [0, 1, FULL, FULL + 1])
def test_sizes_around_the_border_of_the_full_check(size: int) -> None:
    seen = mg.gradcheck(F.tanh, leaf(np.linspace(-1, 1, size)))
    assert seen.comparisons == ((size + 1) * size if size <= FULL else DIRECTIONS**2)


def test_the_message_has_the_plain_entry_of_the_jacobian() -> None:
    with pytest.raises(GradientCheckError, match=r"at \(1,\): analytic 0, central difference 0\.5 \(of result 0 at \(1,\)\)"):
        mg.gradcheck(mg.functional.relu, mg.Tensor(np.array([1.0, 0.0]), requires_grad=True))
