"""Anomaly mode: it names the operation, the pass and the user's line, and blames no operation for non-finite inputs."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support import accumulated, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad.anomaly import detecting
from minigrad.backend import random
from minigrad.errors import NonFiniteError
from minigrad.nn import Linear, Module, Sequential
from minigrad.op import REGISTRY, op
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

INF = float("inf")


@pytest.fixture(autouse=True)
def no_warnings_of_numpy() -> Iterator[None]:
    """Suppresses NumPy's warnings about what these tests do on purpose."""
    with np.errstate(all="ignore"):
        yield


def caught(function: Any) -> str:
    """The message of the NonFiniteError that `function` raises in anomaly mode."""
    with mg.detect_anomaly(), pytest.raises(NonFiniteError) as error:
        function()
    assert error.value.code == "non-finite"
    return str(error.value)


def here(offset: int = 0) -> str:
    """This file and the caller's line, as written in messages."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno + offset}"


# ---------------------------------------------------------------- forward
def test_the_first_operation_is_named_with_its_line_shapes_and_counts() -> None:
    lines = []

    def user() -> Tensor:
        x = leaf([[0.0, 1.0, -1.0], [2.0, 0.0, 3.0]])
        lines.append(here(1))
        y = F.log(x * 1.0)
        return y * 2.0

    message = caught(user)
    assert message.startswith(f"forward: log, called at {lines[0]}, made 3 non-finite of 6 values (1 NaN, 2 -inf)")
    assert "output of shape (2, 3)" in message and "all its inputs were finite (input 0 float64[2, 3])" in message


@pytest.mark.parametrize("recorded", [True, False])
def test_it_looks_at_what_is_not_recorded_too(recorded: bool) -> None:
    x = Tensor([0.0]) if not recorded else leaf([0.0])
    assert "forward: divide" in caught(lambda: 1.0 / x)
    with mg.no_grad():
        assert "forward: divide" in caught(lambda: 1.0 / x)


def test_a_line_inside_a_user_s_module_and_the_parameter_s_name() -> None:
    lines = []

    class Scale(Module):
        def __init__(self) -> None:
            self.weight = Parameter(np.array([1.0, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            lines.append(here(1))
            return x / self.weight

    model = Sequential(Linear(2, 2).to("float64"), Scale())
    message = caught(lambda: model(np.ones((1, 2))))
    assert f"divide, called at {lines[0]}, made" in message and "input 1 (layers.1.weight) float64[2]" in message


def test_fused_operations_and_layers_of_minigrad_name_the_line_that_called_them() -> None:
    layer = Linear(2, 2)
    layer.weight.assign(np.full((2, 2), 3e38))
    line = here(1)
    message = caught(lambda: layer(np.full((1, 2), 3e38, np.float32)))
    assert f"called at {line}, made 2 non-finite of 2 values" in message and "input 1 (weight) float32[2, 2]" in message


def test_one_of_several_outputs() -> None:
    @op("*s -> *s, *s")
    def both(xp: Any, x: Any) -> Any:
        return (x, xp.sqrt(x)), (lambda g: (g[0],))

    try:
        assert "both, called at" in (message := caught(lambda: both(leaf([-1.0])))) and "output 1 of shape" in message
    finally:
        del REGISTRY["both"]


# ---------------------------------------------------------------- what came from outside
@pytest.mark.parametrize("bad", [np.nan, INF])
def test_an_input_that_was_already_bad_is_named_as_the_origin(bad: float) -> None:
    message = caught(lambda: leaf([1.0, 2.0]) * np.array([1.0, bad]))
    assert "multiply" in message and "passed on 1 non-finite of 2" in message and " made " not in message
    assert "its inputs were not finite: input 1 held 1 non-finite of 2 values" in message
    assert "input 1 held" in caught(lambda: leaf([1.0]) + bad)
    w = Parameter(np.array([bad]))
    w.leaf.name = "decoder.bias"
    assert "input 1 (decoder.bias) held" in caught(lambda: leaf([1.0]) + w)


def attention_scores(x: Tensor) -> Tensor:
    mask = np.array([[0.0, -INF, 0.0], [0.0, 0.0, -INF]])
    return F.softmax(F.where(np.array([True, True, False]), x, -INF) + mask) * F.softmax(F.masked_fill(x, mask < 0, -INF))


def test_masks_of_negative_infinity_pass() -> None:
    x, twin = leaf([[0.3, 0.1, 0.2], [1.0, 2.0, 3.0]]), leaf([[0.3, 0.1, 0.2], [1.0, 2.0, 3.0]])
    with mg.detect_anomaly():
        (attention_scores(x) ** 2).sum().backward()
    (attention_scores(twin) ** 2).sum().backward()
    np.testing.assert_array_equal(accumulated(x), accumulated(twin))


@pytest.mark.parametrize("fill", [-INF, np.float32(-INF)])
def test_a_mask_s_infinity_may_be_a_constant(fill: Any) -> None:
    @op("*s -> *s")
    def positive_or(xp: Any, x: Any, *, fill: float) -> Any:
        return xp.where(x > 0, x, fill), (lambda g: xp.where(x > 0, g, 0.0),)

    try:
        with mg.detect_anomaly():
            assert positive_or(leaf([1.0, -1.0]), fill=fill).tolist() == [1.0, -INF]
        assert "the constant fill held 1 non-finite of 1 values (1 +inf)" in caught(lambda: positive_or(leaf([-1.0]), fill=INF))
    finally:
        del REGISTRY["positive_or"]


def test_what_else_comes_of_a_mask_is_reported_and_the_mask_named() -> None:
    message = caught(lambda: leaf([0.0, 1.0]) * np.array([-INF, 0.0]))
    assert "1 NaN" in message and "input 1 held 1 non-finite of 2 values (1 -inf)" in message
    assert "1 +inf" in caught(lambda: -Tensor([-INF]))


def test_a_gradient_that_a_mask_spoils_is_not_blamed_on_the_operation() -> None:
    x, w = leaf([1.0, 2.0]), leaf(2.0)

    def function() -> None:
        scores = F.where(np.array([True, False]), x, -INF) * w
        F.softmax(scores)[0].backward()

    message = caught(function)
    assert "backward: multiply" in message and "passed on 1 non-finite" in message and "input 0 held 1 non-finite of 2 values" in message


# ---------------------------------------------------------------- backward
def test_the_backward_pass_names_the_line_of_the_forward_pass() -> None:
    x, lines = leaf([0.0, 4.0]), []

    def function() -> None:
        lines.append(here(1))
        y = F.sqrt(x * 1.0)
        y.sum().backward()

    message = caught(function)
    assert message.startswith(
        f"backward: sqrt, called at {lines[0]}, made 1 non-finite of 2 values (1 +inf) in the gradient of its input 0"
    )
    assert f"(the output of multiply called at {lines[0]}) of shape (2,)" in message
    assert "the gradient of its output was finite (output of shape (2,))" in message
    assert x.grad is None


def test_without_the_forward_pass_inside_there_is_no_line() -> None:
    x = leaf([0.0])
    y = F.sqrt(x).sum()
    message = caught(y.backward)
    assert "backward: sqrt, recorded outside of detect_anomaly()" in message and "its input 0 (a leaf)" in message


def test_a_failed_backward_pass_adds_nothing_anywhere() -> None:
    x, w = leaf([0.0, 1.0]), Parameter(np.ones(2))

    def function() -> None:
        (F.sqrt(x) + w * 2.0).sum().backward()

    caught(function)
    assert x.grad is None and w.grad is None


@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
def test_a_bad_gradient_that_was_passed_in(bad: float) -> None:
    x = leaf([1.0, 2.0])
    message = caught(lambda: (x * 2.0).backward(np.array([1.0, bad])))
    assert "the gradient that was passed in at the output of multiply" in message


def test_a_sum_of_gradients_that_overflows() -> None:
    x = leaf([1.0])

    def function() -> None:
        y = x * 1.0
        (y * 1.5e308 + y * 1.5e308).backward(np.ones(1))

    with mg.detect_anomaly(), pytest.raises(NonFiniteError, match="forward: add"):
        function()
    x = leaf([1e-10])
    assert "the sum of the gradients that met at the output of multiply" in caught(function)


def test_a_hook_that_returns_a_bad_gradient() -> None:
    x = leaf([1.0])
    x.register_hook(lambda g: Tensor(np.array([np.nan])))
    assert "what a hook returned at a leaf" in caught(lambda: (x * 2.0).sum().backward())
    assert x.grad is None


def test_lazy_gradients_of_parameters() -> None:
    table = Parameter(np.ones((3, 2), np.float32), gathered=True)
    weight = Parameter(np.full((2, 2), 1e38, np.float32))

    def function() -> None:
        out = F.linear(F.embedding([0, 2], table), weight)
        (out * np.float32(1e-30)).backward(np.full((2, 2), 1e35, np.float32))

    message = caught(function)
    assert "backward: linear" in message and table.grad is None and weight.grad is None


def test_gradients_are_the_same_inside_and_outside() -> None:
    mg.manual_seed(0)
    model = mg.nn.TransformerEncoderLayer(8, 2, 16)
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    found = []
    for mode in (mg.detect_anomaly, mg.enable_grad):
        with mode(), random.at(1, 0):
            out = model(mg.tensor(x))
            (out * out).sum().backward()
        found.append([accumulated(p) for p in model.parameters()])
        model.zero_grad()
    for inside, outside in zip(*found, strict=True):
        np.testing.assert_array_equal(inside, outside)


# ---------------------------------------------------------------- higher orders
def test_second_derivatives_are_watched_operation_by_operation() -> None:
    x = leaf([0.0, 1.0])

    def function() -> None:
        with mg.higher_order():
            y = (x * F.sqrt(x + 0.0)).sum()
            mg.grad(y, x, create_graph=True)

    message = caught(function)
    assert message.startswith("backward: sqrt, called at") and "made 1 non-finite" in message


def test_what_a_pullback_computes_for_a_moment_is_nobody_s_anomaly() -> None:
    @op("*s -> *s")
    def safe_log(xp: Any, x: Any) -> Any:
        """log x where x > 0, else 0."""
        y = xp.where(xp.constant(x) > 0, xp.log(x), 0.0)
        return y, (lambda g: xp.where(xp.constant(x) > 0, g / x, 0.0),)

    try:
        x = leaf([0.0, 2.0])
        with mg.detect_anomaly(), mg.higher_order():
            first = mg.grad(safe_log(x).sum(), x, create_graph=True)
        assert first is not None and first.tolist() == [0.0, 0.5]
    finally:
        del REGISTRY["safe_log"]


# ---------------------------------------------------------------- the mode
def test_outside_nothing_is_looked_at_and_nothing_noted() -> None:
    y = F.log(leaf([0.0]))
    assert y.tolist() == [-INF] and y.node is not None and y.node.origin is None
    with mg.detect_anomaly():
        z = leaf([1.0]) * 2.0
    assert z.node is not None and z.node.origin is not None


def test_a_decorator_and_nesting() -> None:
    @mg.detect_anomaly()
    def step(x: Tensor) -> Tensor:
        return F.log(x)

    with pytest.raises(NonFiniteError, match=re.escape(__file__)):
        step(leaf([0.0]))
    assert step.__name__ == "step" and not detecting.get()
    mode = mg.detect_anomaly()
    with mode:
        with mode:
            assert detecting.get()
        assert detecting.get()
    assert not detecting.get()


def test_the_mode_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), mg.detect_anomaly():
        raise KeyError
    assert not detecting.get()
    caught(lambda: F.log(leaf([0.0])))
    assert not detecting.get()


def test_the_mode_does_not_leak_into_threads_and_tasks() -> None:
    seen: list[Any] = []
    with mg.detect_anomaly():
        thread = threading.Thread(target=lambda: seen.append(detecting.get()))
        thread.start()
        thread.join()
    assert seen == [False]

    async def watching(ready: asyncio.Event, done: asyncio.Event) -> bool:
        with mg.detect_anomaly():
            ready.set()
            await done.wait()
            return detecting.get()

    async def careless(ready: asyncio.Event, done: asyncio.Event) -> Any:
        await ready.wait()
        result = F.log(leaf([0.0])).tolist()
        done.set()
        return result

    async def both() -> list[Any]:
        ready, done = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(watching(ready, done), careless(ready, done))

    assert asyncio.run(both()) == [True, [-INF]]


def test_threads_that_watch_at_the_same_time() -> None:
    messages: dict[str, str] = {}

    def work(name: str, function: Any) -> None:
        with np.errstate(all="ignore"):
            messages[name] = caught(lambda: function(leaf([0.0])))

    threads = [threading.Thread(target=work, args=pair) for pair in [("log", F.log), ("divide", lambda x: 1.0 / x)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"forward: {name}, called at {__file__}" in message for name, message in messages.items()) and len(messages) == 2
