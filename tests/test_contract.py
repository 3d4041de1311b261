"""`check_op` and `custom_op`: for every rule there is an operation that breaks it and is caught."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ArgumentError, ContractError, DTypeError, GradientCheckError
from minigrad.op import CUSTOM, REGISTRY

X = np.array([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4]])


@mg.custom_op("*s -> *s")
def softsign(xp: Any, x: Any) -> Any:
    """x / (1 + |x|)."""
    scale = 1.0 / (1.0 + abs(x))
    return x * scale, (lambda g: g * scale * scale,)


def test_one_call_proves_an_operation_of_your_own() -> None:
    seen = mg.check_op(softsign, (X,))
    assert seen.comparisons == 2 * 6 * 7 and seen.max_error < 1e-8
    x = mg.Tensor(X, requires_grad=True)
    softsign(x).sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float64


def test_any_function_of_tensors_can_be_checked() -> None:
    assert mg.check_op(lambda x, row, flag: (x * row).sum(axis=0) if flag else x, (X, [0.5, 2.0, -1.0], True))
    assert mg.check_op(mg.functional.softmax, (X,), {"axis": 0})
    assert mg.check_op(lambda x, ids: x[ids], (X, np.array([1, 1, 0])))
    assert mg.check_op(mg.functional.exp, (mg.Tensor(X.astype(np.float32)),))  # checked in float64


def rejected(body: Callable[..., Any], error: type[Exception], match: str, **how: Any) -> None:
    with pytest.raises(error, match=match):
        mg.check_op(mg.custom_op("*s -> *s")(body), (X,), **how)


def test_a_wrong_derivative_is_rejected() -> None:
    rejected(lambda xp, x: (x * x, (lambda g: g * x,)), GradientCheckError, "gradient of input 0")


def test_a_wrong_second_derivative_is_rejected() -> None:
    rejected(lambda xp, x: (x * x, (lambda g: g * (2.0 * xp.constant(x)),)), GradientCheckError, "second derivative")


def test_writing_to_an_input_is_rejected() -> None:
    def body(xp: Any, x: Any) -> Any:
        x *= 2.0
        return x, (lambda g: g * 2.0,)

    rejected(body, ContractError, "writes to an array")


def test_writing_to_the_incoming_gradient_is_rejected() -> None:
    def pull(g: Any) -> Any:
        g *= 2.0
        return g

    rejected(lambda xp, x: (x * 2.0, (pull,)), ContractError, "writes to an array")


def test_writing_to_what_the_pullback_keeps_is_rejected() -> None:
    def body(xp: Any, x: Any) -> Any:
        kept = x * 1.0

        def pull(g: Any) -> Any:
            nonlocal kept
            found = g * kept * 2.0
            kept *= 0.5
            return found

        return x * x, (pull,)

    rejected(body, ContractError, "second time")


def test_writing_to_the_output_is_rejected() -> None:
    def body(xp: Any, x: Any) -> Any:
        y = xp.exp(x)

        def pull(g: Any) -> Any:
            nonlocal y
            found = g * y
            y += 0.0 if hasattr(y, "requires_grad") else 1.0
            return found

        return y, (pull,)

    rejected(body, ContractError, "output was changed")


def test_leaving_float32_is_rejected() -> None:
    rejected(lambda xp, x: (x * xp.constant(np.full((2, 3), 2.0)), (lambda g: g * 2.0,)), ContractError, "float32 inputs gave float64")


def test_one_meaning_on_arrays_and_another_on_tensors_is_rejected() -> None:
    def body(xp: Any, x: Any) -> Any:
        y = x * 1.0
        z = y
        z *= x  # on arrays this changes y to x², on Tensors it does not
        return y, (lambda g: g * (y / x) * 2.0,)

    rejected(body, ContractError, "run on Tensors it has another gradient")


def test_depending_on_the_memory_layout_is_rejected() -> None:
    def body(xp: Any, x: Any) -> Any:
        factor = 2.0 if getattr(x, "flags", None) is None or x.flags.c_contiguous else 3.0
        return x * factor, (lambda g: g * factor,)

    rejected(body, ContractError, "memory layout")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "unusual",
    [
        lambda g: not g.flags.c_contiguous and min(g.strides) > 0,
        lambda g: min(g.strides) < 0,
        lambda g: max(g.strides) == 0,
        lambda g: g.strides[-1] > g.strides[0] > 0,
    ],
    ids=["gaps", "negative", "repeated", "transposed"],
)
def test_depending_on_the_layout_of_the_incoming_gradient_is_rejected(unusual: Callable[[Any], bool], dtype: Any) -> None:
    """For any seed: every layout is tried, separately in float32, which may have a kernel of its own."""

    def body(xp: Any, x: Any) -> Any:
        def pull(g: Any) -> Any:
            return g * (3.0 if isinstance(g, np.ndarray) and g.dtype == dtype and unusual(g) else 2.0)

        return x * 2.0, (pull,)

    rejected(body, ContractError, "memory layout|repeated incoming gradient")


def test_another_value_where_no_gradient_is_wanted_is_rejected() -> None:
    def body(xp: Any, x: Any, *, keep: bool) -> Any:
        return x * (2.0 if keep else 2.001), (lambda g: g * 2.0,)

    rejected(body, ContractError, "without a gradient wanted it has another value")


def test_writing_to_an_input_in_float32_only_is_rejected() -> None:
    @mg.custom_op("*s -> *s")
    def doubled(xp: Any, x: Any) -> Any:
        return x * 2.0, (lambda g: g * 2.0,)

    @doubled.on("numpy")
    def fast(xp: Any, x: Any, *, keep: bool) -> Any:
        if x.dtype != np.float32 or keep:
            return NotImplemented
        x *= 2.0
        return x, None

    with pytest.raises(ContractError, match="writes to an array"):
        mg.check_op(doubled, (X,))


def test_a_float32_kernel_that_is_wrong_by_a_hundredth_is_rejected() -> None:
    @mg.custom_op("*s -> *s")
    def tripled(xp: Any, x: Any) -> Any:
        return x * 3.0, (lambda g: g * 3.0,)

    @tripled.on("numpy")
    def fast(xp: Any, x: Any) -> Any:
        return NotImplemented if x.dtype != np.float32 else (x * 3, (lambda g: g * 3.03,))

    with pytest.raises(ContractError, match="in float32 it has another gradient"):
        mg.check_op(tripled, (X,))


@pytest.mark.parametrize(
    "pull",
    [
        lambda g: (g[0] * 2.0 + g[1] * 3.0,),  # one of the two may be None
        lambda g: 2.0,
        lambda g: [x for x in g if x is not None],
        lambda g: next(x for x in g if x is not None) @ np.ones(17),
    ],
    ids=["None", "number", "list", "shape"],
)
def test_a_pullback_that_fails_is_explained(pull: Callable[[Any], Any]) -> None:
    rejected(lambda xp, x: ((x * 2.0, x * 3.0), pull), ContractError, "the pullback failed: .*with None for those that have none")


def test_too_few_or_too_many_gradients_are_counted() -> None:
    rejected(lambda xp, x: (x * 2.0, lambda g: (g * 2.0, None)), ContractError, "gave 2 gradients for 1 inputs: each has one, or None")
    rejected(lambda xp, x: (x * 2.0, lambda g: ()), ContractError, "gave 0 gradients for 1 inputs")
    rejected(lambda xp, x: (x * 2.0, (lambda g: g * 2.0, None)), ContractError, "gave 2 pullbacks for 1 inputs: it gives one function")
    rejected(lambda xp, x: (x * 2.0, ()), ContractError, "gave 0 pullbacks for 1 inputs")
    rejected(lambda xp, x: ((x * 2.0, x * 3.0), (None, None)), ContractError, "gave 2 gradients for 1 inputs")


@pytest.mark.parametrize("result", [None, 3.0, X, (None, None)])
def test_what_returns_no_tensor_is_refused(result: Any) -> None:
    with pytest.raises(DTypeError, match="must return a Tensor or a tuple of them"):
        mg.check_op(lambda x: result, (X,))


def test_arguments_that_are_lists_and_numpy_scalars() -> None:
    assert mg.check_op(lambda x: x * x, (np.float64(2.0),))
    with pytest.raises(DTypeError, match="cannot make a tensor of list"):
        mg.check_op(lambda x: x[0], ([X, X[:1]],))


def test_nothing_to_check_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no argument is an array of floats"):
        mg.check_op(softsign, (3,))


# ---------------------------------------------------------------- custom_op
def test_custom_operations_do_not_take_names_of_minigrads_own() -> None:
    def exp(xp: Any, x: Any) -> Any:
        return x, (lambda g: g,)

    with pytest.raises(ArgumentError, match="exp is one of minigrad's own"):
        mg.custom_op("*s -> *s")(exp)
    assert "softsign" not in REGISTRY


@pytest.mark.parametrize("spec", ["nonsense", None, lambda xp, x: x], ids=["no-arrow", "none", "bare"])
def test_a_custom_operation_needs_shapes(spec: Any) -> None:
    with pytest.raises(ArgumentError, match="custom_op takes the shapes"):
        mg.custom_op(spec)


def test_a_body_takes_xp_first() -> None:
    def lonely(x: Any) -> Any:
        return x, (lambda g: g,)

    with pytest.raises(ArgumentError, match="the first parameter of lonely must be xp"):
        mg.custom_op("*s -> *s")(lonely)
    assert "lonely" not in CUSTOM


@pytest.mark.parametrize(
    "result",
    [lambda x: 2 * x, lambda x: (x, x), lambda x: (x,), lambda x: (x, [lambda g: g]), lambda x: (x, None), lambda x: None],
    ids=["array", "two-arrays", "one", "list-of-functions", "no-pullback", "nothing"],
)
@pytest.mark.parametrize("tensors", [False, True])
def test_a_body_that_gives_no_pullback_is_refused(result: Callable[..., Any], tensors: bool) -> None:
    def forgetful(xp: Any, x: Any) -> Any:
        return result(x)

    op = mg.custom_op("*s -> *s")(forgetful)
    with (
        mg.higher_order() if tensors else nullcontext(),
        pytest.raises(ContractError, match=r"forgetful: .*\(output, pullback\)") as caught,
    ):
        op(mg.tensor([1.0, 5.0], requires_grad=True))
    assert caught.value.code == "contract-pullback"


def test_a_body_that_writes_to_its_input_is_stopped_at_once() -> None:
    def greedy(xp: Any, x: Any) -> Any:
        x *= 2.0
        return x, (lambda g: 2.0 * g,)

    op = mg.custom_op("*s -> *s")(greedy)
    for x in (mg.tensor([1.0, 5.0]), mg.Parameter([1.0, 5.0])):
        with pytest.raises(ContractError, match="greedy: its body writes to an array that it was given") as caught:
            op(x)
        assert caught.value.code == "contract-purity" and x.tolist() == [1.0, 5.0]


def test_a_body_may_leave_out_the_pullback_that_nobody_wants() -> None:
    def thrifty(xp: Any, x: Any, *, keep: bool = True) -> Any:
        return 2.0 * x, (lambda g: 2.0 * g,) if keep else None

    assert mg.custom_op("*s -> *s")(thrifty)([1.0, 5.0]).tolist() == [2.0, 10.0]


def test_functions_of_numpy_in_a_body_are_explained() -> None:
    def numpys(xp: Any, x: Any) -> Any:
        y = np.tanh(x)
        return y, (lambda g: g * (1.0 - y * y),)

    rejected(numpys, DTypeError, r"numpys: .* use xp's, such as xp\.tanh")


def test_a_new_definition_replaces_the_old_one() -> None:
    def again(xp: Any, x: Any) -> Any:
        return x * 2.0, (lambda g: g * 2.0,)

    first, second = mg.custom_op("*s -> *s")(again), mg.custom_op("*s -> *s")(again)
    assert CUSTOM["again"] is second is not first


def test_layers_that_hold_a_custom_operation_can_be_copied() -> None:
    def halved(xp: Any, x: Any) -> Any:
        return x * 0.5, (lambda g: g * 0.5,)

    old, new = mg.custom_op("*s -> *s")(halved), mg.custom_op("*s -> *s")(halved)
    assert copy.deepcopy(old) is old and copy.deepcopy(new) is new  # an old one stays what it is
    assert pickle.loads(pickle.dumps(new)) is new  # a file knows names only


def test_a_custom_operation_may_have_kernels() -> None:
    @mg.custom_op("*s -> *s")
    def doubled(xp: Any, x: Any) -> Any:
        return x * 2.0, (lambda g: g * 2.0,)

    @doubled.on("numpy")
    def fast(xp: Any, x: Any) -> Any:
        return NotImplemented if x.dtype != np.float32 else (x + x, (lambda g: g + g,))

    assert mg.check_op(doubled, (X,))
    assert doubled(np.ones(2, np.float32)).tolist() == [2.0, 2.0]
