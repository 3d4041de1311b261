"""recompute: bitwise the same gradients with less memory, for everything that a segment of a model may do."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from support import accumulated, gradients_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.backend import random
from minigrad.errors import DTypeError, GraphError, NonFiniteError
from minigrad.nn import Dropout, Linear, Module, Sequential, TransformerEncoder
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))


def direct(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def block() -> Sequential:
    mg.manual_seed(0)
    return Sequential(Linear(3, 5), F.tanh, Dropout(0.5), Linear(5, 3)).to("float64")


def outcome(run: Any, function: Any, model: Module, *args: Any) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Value, input gradient and parameter gradients of sum(run(function, x)²)."""
    x = leaf(X)
    mg.manual_seed(7)
    out = run(function, x, *args)
    (out * out).sum().backward()
    return out.numpy(), accumulated(x), gradients_of(model)


def assert_same(ours: Any, expected: Any) -> None:
    for a, b in zip(ours[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours[2].keys() == expected[2].keys()
    for name, g in expected[2].items():
        np.testing.assert_array_equal(ours[2][name], g, err_msg=name)


# ---------------------------------------------------------------- the same numbers
def test_value_gradients_and_dropout_are_the_same_to_the_last_bit() -> None:
    model = block()
    found = outcome(mg.recompute, model, model)
    assert_same(found, outcome(direct, model, model))
    assert any((g != 0).any() for g in found[2].values())


def test_draws_that_follow_are_the_same_with_and_without() -> None:
    model = block()

    def after(run: Any) -> tuple[list[Any], list[Any]]:
        mg.manual_seed(7)
        run(model, leaf(X))
        before_backward = F.dropout(mg.ones((2, 8)), 0.5, path="layers.2").tolist()
        out = run(model, leaf(X))
        out.sum().backward()
        return before_backward, F.dropout(mg.ones((2, 8)), 0.5, path="layers.2").tolist()

    assert after(mg.recompute) == after(direct)


def test_the_random_stream_may_move_on_before_the_backward_pass() -> None:
    model, x, twin = block(), leaf(X), leaf(X)
    mg.manual_seed(3)
    out = mg.recompute(model, x)
    random.current().advance()
    model(x)
    mg.manual_seed(99)
    out.sum().backward()
    mg.manual_seed(3)
    model(twin).sum().backward()
    np.testing.assert_array_equal(accumulated(x), accumulated(twin))


@pytest.mark.parametrize("padded", [True, False])
def test_a_transformer_with_every_layer_recomputed(padded: bool) -> None:
    mg.manual_seed(0)
    model = TransformerEncoder(3, 8, 2, 16).to("float64")
    data = RNG.standard_normal((2, 5, 8)) if padded else RNG.standard_normal((10, 8))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    packing = mg.packing.Packing([6, 4])

    def run(layer_by_layer: bool) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        x: Any = leaf(data)
        h = x
        mg.manual_seed(5)
        for layer in model.layers:
            here = mg.recompute if layer_by_layer else direct
            h = here(layer, h, attention_mask=mask) if padded else here(layer, h, packing)
        (h * h).sum().backward()
        return h.numpy(), accumulated(x), gradients_of(model)

    assert_same(run(True), run(False))


def test_recompute_inside_recompute() -> None:
    model = block()

    def nested(x: Tensor) -> Tensor:
        inner = mg.recompute(lambda h: mg.recompute(model, h) * 2.0, x)
        return F.tanh(inner) + model(inner)

    def flat(x: Tensor) -> Tensor:
        inner = model(x) * 2.0
        return F.tanh(inner) + model(inner)

    found, expected = outcome(mg.recompute, nested, model), outcome(direct, flat, model)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    for name, g in expected[2].items():  # used inside and outside of the inner part: summed in another order
        np.testing.assert_allclose(found[2][name], g, rtol=1e-14, atol=1e-14)


# ---------------------------------------------------------------- what goes in and out
def test_several_outputs_of_which_some_carry_no_gradient() -> None:
    def function(x: Tensor, scale: float, counts: np.ndarray, *, shift: Any) -> Any:
        y = x * scale + shift
        return y, "text", y.argmax(), F.exp(y), y.detach()

    x, shift = leaf([1.0, 2.0]), leaf([0.5, 0.5])
    counts = np.ones(2)
    y, text, where, e, detached = mg.recompute(function, x, 3.0, counts, shift=shift)
    assert text == "text" and where.item() == 1 and not where.requires_grad and not detached.requires_grad
    (y.sum() + e.sum() * 2.0).backward()
    np.testing.assert_array_equal(accumulated(shift), 1.0 + 2.0 * e.numpy())
    np.testing.assert_array_equal(accumulated(x), 3.0 * (1.0 + 2.0 * e.numpy()))


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_outputs_is_used(which: int) -> None:
    x = leaf([1.0, 2.0])
    mg.recompute(lambda x: [x * 2.0, x * x], x)[which].sum().backward()
    np.testing.assert_array_equal(accumulated(x), [[2.0, 2.0], [2.0, 4.0]][which])


def test_inputs_and_parameters_may_be_returned_as_they_are_and_twice() -> None:
    x, w = leaf([1.0, 2.0]), Parameter(np.ones(2))
    same, y, again, weight = mg.recompute(lambda x: (x, *[x * w] * 2, w), x)
    (same * 10.0 + y + again + weight * 5.0).sum().backward()
    np.testing.assert_array_equal(accumulated(x), [12.0, 12.0])
    np.testing.assert_array_equal(accumulated(w), [7.0, 9.0])


def test_tensors_inside_containers_and_closures_get_their_gradients() -> None:
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    h = F.exp(w)  # computed before
    out = mg.recompute(lambda pair: pair["x"] * pair["x"] * h, {"x": x})
    out.sum().backward()
    np.testing.assert_array_equal(accumulated(w), x.numpy() ** 2 * h.numpy())
    np.testing.assert_array_equal(accumulated(x), 2.0 * x.numpy() * h.numpy())


def test_a_closure_s_tensor_and_the_leaf_behind_it_are_not_counted_twice() -> None:
    w = leaf([3.0])
    h = w * 2.0
    mg.recompute(lambda: h * w).sum().backward()
    assert accumulated(w).tolist() == [12.0]


def test_arrays_may_be_written_to_afterwards() -> None:
    x, factor = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    out = mg.recompute(lambda x, factor: x * factor, x, factor)
    factor[:] = 0.0
    out.sum().backward()
    np.testing.assert_array_equal(accumulated(x), [3.0, 4.0])


def test_without_anything_to_differentiate_the_function_just_runs() -> None:
    calls: list[int] = []

    def function(x: Any) -> Tensor:
        calls.append(1)
        return x * 2.0

    assert not mg.recompute(function, mg.ones(2)).requires_grad
    with mg.no_grad():
        assert not mg.recompute(function, leaf([1.0])).requires_grad
        assert mg.recompute(lambda: 3) == 3
    assert len(calls) == 2


@pytest.mark.parametrize("returned", [None, 1.0, (), {"y": 1}], ids=repr)
def test_a_function_that_returns_no_tensor(returned: Any) -> None:
    with pytest.raises(DTypeError, match="must return a Tensor"):
        mg.recompute(lambda x: returned, leaf([1.0]))


# ---------------------------------------------------------------- how it fits the tape
def test_grad_by_a_parameter_that_only_the_closure_reaches() -> None:
    model, x = block(), leaf(X)
    mg.manual_seed(1)
    found = mg.grad(mg.recompute(model, x).sum(), [x, *model.parameters()])
    mg.manual_seed(1)
    expected = mg.grad(model(x).sum(), [x, *model.parameters()])
    for a, b in zip(found, expected, strict=True):
        assert a is not None and b is not None
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert x.grad is None and all(p.grad is None for p in model.parameters())


def test_frozen_parameters_get_nothing() -> None:
    model = block()
    model.freeze("layers.0")
    mg.recompute(model, X).sum().backward()
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_a_parameter_that_changed_is_caught_frozen_recorded_or_not(trained: bool, nested: bool) -> None:
    w, x = Parameter(np.ones(2), requires_grad=trained), leaf([1.0, 2.0])

    def scaled(x: Tensor) -> Tensor:
        return x * F.exp(w * 2.0)  # with a frozen w its exp is not recorded, but the second run would compute it anew

    def function(x: Tensor) -> Any:
        return mg.recompute(scaled, x) if nested else scaled(x)

    out = mg.recompute(function, x)
    w.assign(np.zeros(2))
    with pytest.raises(GraphError, match=r"changed between the forward pass of recompute\(function\)") as error:
        out.sum().backward()
    assert error.value.code == "graph-stale" and x.grad is None and w.grad is None


def test_a_part_is_one_node_whose_inputs_are_what_the_function_reached() -> None:
    w, x, unused = leaf([3.0]), leaf([1.0]), leaf([1.0])
    h = F.exp(w * 2.0)
    out = mg.recompute(lambda x, unused: F.tanh(x * h) * h, x, unused)
    assert out.node is not None and out.node.parents[0] is not None
    assert set(out.node.parents[0].parents) == {x.node, h.node}  # but not w, from which h was computed


def test_the_second_backward_and_retain_graph() -> None:
    x = leaf([1.0, 2.0])
    out = mg.recompute(lambda x: F.exp(x), x).sum()
    for _ in range(3):
        out.backward(retain_graph=True)
    expected = np.exp(x.numpy())
    np.testing.assert_array_equal(accumulated(x), expected + expected + expected)
    out.backward()
    with pytest.raises(GraphError, match="freed") as error:
        out.backward()
    assert error.value.code == "graph-freed"


def test_hooks_inside_and_outside_run_once_a_walk() -> None:
    x, w, seen = leaf([1.0]), Parameter(np.array([3.0])), []
    w.register_hook(lambda g: seen.append(("w", g.tolist())))
    x.register_hook(lambda g: seen.append(("x", g.tolist())))

    def function(x: Tensor) -> Tensor:
        h = x * w
        if h.requires_grad:
            h.register_hook(lambda g: seen.append(("h", g.tolist())))
        return h * h

    out = mg.recompute(function, x)
    out.register_hook(lambda g: seen.append(("out", g.tolist())))
    out.sum().backward()
    assert seen == [("out", [1.0]), ("h", [6.0]), ("w", [6.0]), ("x", [18.0])]


def test_a_mode_changed_in_between_is_an_error() -> None:
    model, x = block(), leaf(X)
    out = mg.recompute(model, x)
    model.eval()
    with pytest.raises(GraphError, match=r"did not do in the backward pass .*train, eval") as error:
        out.sum().backward()
    assert error.value.code == "graph-recompute" and x.grad is None


def test_an_error_leaves_modes_and_random_numbers_as_they_were() -> None:
    runs: list[int] = []

    def function(x: Tensor) -> Tensor:
        runs.append(1)
        if len(runs) == 2:
            raise KeyError("second run")
        return F.dropout(x, 0.5) * x

    x = leaf(np.ones(8))
    mg.manual_seed(0)
    out = mg.recompute(function, x).sum()
    with mg.no_grad():
        with pytest.raises(KeyError):
            out.backward()
        assert not (x * 2.0).requires_grad
    assert x.grad is None
    following = F.dropout(mg.ones(64), 0.5).tolist()
    mg.manual_seed(0)
    F.dropout(mg.ones(8), 0.5)
    assert F.dropout(mg.ones(64), 0.5).tolist() == following


def test_a_backward_pass_in_another_thread() -> None:
    model, x = block(), leaf(X)
    expected = outcome(direct, model, model)
    mg.manual_seed(7)
    out = mg.recompute(model, x)
    total = (out * out).sum()
    thread = threading.Thread(target=total.backward)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(accumulated(x), expected[1])


def test_running_statistics_move_once() -> None:
    models = [Sequential(Linear(3, 3), mg.nn.BatchNorm1d(3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for run, model in zip((mg.recompute, direct), models, strict=True):
        run(model, mg.Tensor(X, dtype="float32")).sum().backward()
    states = [model.state_dict() for model in models]
    for name, values in states[1].items():
        np.testing.assert_array_equal(states[0][name], values, err_msg=name)
    assert (states[0]["layers.1.running_mean"] != 0).all()


# ---------------------------------------------------------------- higher orders
def smooth(x: Tensor) -> Tensor:
    return F.tanh(x * x) * F.exp(-x)


def test_higher_orders_through_recompute() -> None:
    x, w = leaf([0.3, -0.5]), leaf([1.5, 0.5])

    def total(run: Any) -> list[np.ndarray]:
        found = []
        with mg.higher_order():
            y: Any = run(lambda x: smooth(x * w), x).sum()
            for _ in range(3):
                by_x, by_w = mg.grad(y, [x, w], create_graph=True)
                found += [by_x.numpy(), by_w.numpy()]
                y = (by_x * by_x).sum() + by_w.sum()
        return found

    for ours, expected in zip(total(mg.recompute), total(direct), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)  # the same derivatives, summed in another order


def test_gradcheck_jacobian_and_hvp_through_recompute() -> None:
    x, w = leaf([0.3, -0.5]), leaf([1.5, 0.5])
    assert mg.gradcheck(lambda x, w: mg.recompute(lambda: smooth(x * w)) * x, [x, w], order=2)
    point = np.array([0.3, -0.5])
    for derivative in (mg.jacobian, lambda f, p: mg.hvp(lambda x: f(x).sum(), p, np.ones(2))):
        ours, expected = derivative(lambda x: mg.recompute(smooth, x), point), derivative(smooth, point)
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-13)


def test_create_graph_outside_higher_order_names_the_remedy() -> None:
    x = leaf([1.0])
    with pytest.raises(GraphError, match=r"recompute\(smooth\) was recorded without.*higher_order") as error:
        mg.grad(mg.recompute(smooth, x), x, np.ones(1), create_graph=True)
    assert error.value.code == "graph-order"


def test_anomaly_mode_names_the_operation_inside() -> None:
    x = leaf([0.0, 1.0])
    with mg.detect_anomaly(), np.errstate(divide="ignore"):
        out = mg.recompute(lambda x: F.sqrt(x) * 2.0, x).sum()
        with pytest.raises(NonFiniteError, match=r"backward: sqrt, called at .*test_recompute\.py"):
            out.backward()
    assert x.grad is None


# ---------------------------------------------------------------- memory
SIZE = 100_000  # float64: 0.8 MB per array
PARTS, DEPTH = 8, 6


def chain(run: Any) -> tuple[float, float]:
    """(memory after the forward pass, peak of both passes), in arrays of SIZE, for PARTS segments of DEPTH operations."""

    def part(x: Tensor) -> Tensor:
        for _ in range(DEPTH):
            x = F.tanh(x)
        return x

    x = leaf(np.ones(SIZE))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = x
        for _ in range(PARTS):
            y = run(part, y)
        kept = tracemalloc.get_traced_memory()[0] - before
        y.sum().backward()
        return kept / (8 * SIZE), (tracemalloc.get_traced_memory()[1] - before) / (8 * SIZE)
    finally:
        tracemalloc.stop()


def test_only_inputs_are_kept() -> None:
    kept, peak = chain(direct)
    kept_recomputed, peak_recomputed = chain(mg.recompute)
    print(f"kept {kept:.1f} -> {kept_recomputed:.1f}, peak {peak:.1f} -> {peak_recomputed:.1f} arrays")
    assert kept == pytest.approx(PARTS * DEPTH, abs=0.5) and kept_recomputed == pytest.approx(PARTS, abs=0.5)
    assert peak_recomputed <= PARTS + DEPTH + 5 < peak  # a part's activations, gradients and temporary arrays


def test_a_chain_of_2000_parts_without_recursion() -> None:
    x = leaf(1.0)
    y: Any = x
    for _ in range(2000):
        y = mg.recompute(lambda y: y + 0.5, y)
    y.backward()
    assert accumulated(x) == 1.0
