"""E47-E52: guarantees of a recorded graph for every operation. Tested on samples of every operation (`ops/cases`).

Each docstring is the convention.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC, Sample
from support import accumulated, grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import nn, ops, optim
from minigrad.backend import random
from minigrad.contract import LAYOUTS
from minigrad.errors import ContractError, DTypeError, GraphError
from minigrad.op import custom_op

some_examples = settings(max_examples=max(5, settings().max_examples // 10))
"""For tests over all operations: each draws samples of its own, and a rule broken by one shape is broken by most."""


def outputs_of(name: str, sample: Sample, args: Any) -> list[mg.Tensor]:
    """The floating outputs of a call, with dropout as in every other call of the sample."""
    with random.replay():
        found = sample.call(PUBLIC[name], args)
    return [out for out in (found if isinstance(found, list | tuple) else [found]) if out.dtype.kind == "f"]


def uneven(out: mg.Tensor) -> np.ndarray:
    """A random incoming gradient, the same for every output of one shape."""
    return np.random.default_rng(out.size).uniform(0.5, 1.5, out.shape)


def pulled(outputs: list[mg.Tensor], leaves: list[mg.Tensor], incoming: Callable[[mg.Tensor], Any] = uneven) -> list[np.ndarray]:
    """The summed gradients of several outputs."""
    totals = [np.zeros(leaf.shape) for leaf in leaves]
    for out in outputs:
        for total, found in zip(totals, mg.grad(out, leaves, mg.Tensor.wrap(incoming(out)), retain_graph=True), strict=True):
            if found is not None:
                total += found.numpy()
    return totals


# ---------------------------------------------------------------- E47
def _edit_source(x: mg.Tensor, source: np.ndarray) -> None:
    source[:] = 99.0  # the array that the tensor was made of, which was copied


def _edit_with_operators(x: mg.Tensor, source: np.ndarray) -> None:
    y = x
    y += 99.0  # another tensor
    y *= 99.0


def _refused(error: type[Exception], edit: Callable[[mg.Tensor], Any]) -> Callable[[mg.Tensor, np.ndarray], None]:
    def refused(x: mg.Tensor, source: np.ndarray) -> None:
        with pytest.raises(error):
            edit(x)

    return refused


EDITS: dict[str, Callable[[mg.Tensor, np.ndarray], None]] = {
    "the array it was made of": _edit_source,
    "augmented assignment": _edit_with_operators,
    "item assignment": _refused(DTypeError, lambda x: x.__setitem__(0, 99.0)),
    "numpy()": _refused(ValueError, lambda x: x.numpy().fill(99.0)),
    "data": _refused(ValueError, lambda x: x.data.fill(99.0)),
    "numpy() of detach()": _refused(ValueError, lambda x: x.detach().numpy().fill(99.0)),
    "asarray": _refused(ValueError, lambda x: np.asarray(x.detach()).fill(99.0)),
    "out=": _refused(ValueError, lambda x: np.multiply(x.data, 99.0, out=x.data)),
    "numpy() of its gradient": _refused(ValueError, lambda x: _with_gradient(x).numpy().fill(99.0)),
}


def _with_gradient(x: mg.Tensor) -> mg.Tensor:
    (x * 2.0).sum().backward()
    assert x.grad is not None
    return x.grad


BESIDE: dict[str, tuple[np.ndarray, Callable[[mg.Tensor, np.ndarray], mg.Tensor]]] = {
    "an index": (np.array([1, 1, 1]), lambda x, index: x[index]),
    "a boolean index": (np.array([False, True]), lambda x, index: x[index]),
    "ids": (np.array([1]), lambda x, ids: F.embedding(ids, x.reshape((2, 1)))),
    "labels": (np.array([1]), lambda x, labels: F.cross_entropy(x.reshape((1, 2)), labels)),
    "class weights": (np.array([1.0, 2.0]), lambda x, weight: F.cross_entropy(x.reshape((1, 2)), [1], weight=weight, reduction="sum")),
    "a mask": (np.array([False, True]), lambda x, mask: F.softmax(x, mask=mask) * x),
    "a condition": (np.array([False, True]), lambda x, condition: F.where(condition, x, 0.0)),
}
"""Arrays that functions take beside a tensor."""


def _parameter_edits() -> dict[str, Callable[[nn.Linear], Any]]:
    return {
        "assign": lambda model: model.weight.assign(np.ones(model.weight.shape)),
        "optimizer step": lambda model: optim.SGD(model.parameters(), lr=0.1).step(),
        "load_state_dict": lambda model: model.load_state_dict(model.state_dict()),
        "conversion": lambda model: model.to("float32"),
    }


@pytest.mark.parametrize("what", [*EDITS, *BESIDE, *_parameter_edits(), *sorted(CASES)])
@some_examples
@given(data=st.data())
def test_e47_nothing_that_a_graph_keeps_can_be_edited_unnoticed(what: str, data: st.DataObject) -> None:
    """A tensor copies the array it is made from, and a recorded operation copies every array among its operands; `data` and `numpy()` are
    read-only views. Only a parameter changes in place (by `assign`, an optimizer, `load_state_dict`): a backward pass over a graph that
    has read its earlier numbers raises GraphError naming it, before any gradient is accumulated."""
    if what in EDITS:
        source = np.array([1.0, 2.0])
        x = mg.Tensor(source, requires_grad=True)
        out = (x * x * x).sum()
        EDITS[what](x, source)
        x.zero_grad()
        out.backward()
        np.testing.assert_array_equal(accumulated(x), [3.0, 12.0])
    elif what in BESIDE:
        array, function = BESIDE[what]
        x, used = leaf([1.0, 2.0]), array.copy()
        out = function(x, used)
        used[...] = 0
        np.testing.assert_array_equal(grad_of(out, x), grad_of(function(x, array), x))
    elif what in _parameter_edits():
        model = nn.Linear(2, 2).to("float64")
        model(np.ones((1, 2))).sum().backward()  # a gradient, for the optimizer
        before = np.array(accumulated(model.weight))
        loss = (model(np.ones((1, 2))) * model.weight).sum()
        _parameter_edits()[what](model)
        with pytest.raises(GraphError, match="weight changed between the forward pass of") as error:
            loss.backward()
        assert error.value.code == "graph-stale"
        if what != "conversion":  # which begins a new leaf
            np.testing.assert_array_equal(accumulated(model.weight), before)
        (model(np.ones((1, 2), model.weight.dtype)) * model.weight).sum().backward()  # a new forward pass is fine
    else:
        sample: Sample = data.draw(CASES[what])
        for place in sample.floating:
            arrays = [np.array(a) if isinstance(a, np.ndarray) else a for a in sample.args]
            x = leaf(arrays[place])
            outs = outputs_of(what, sample, [x if i == place else a for i, a in enumerate(arrays)])
            expected = pulled(outs, [x])
            for array in arrays:
                if isinstance(array, np.ndarray):
                    array[...] = 0
            np.testing.assert_array_equal(pulled(outs, [x]), expected)


# ---------------------------------------------------------------- E48
@custom_op("*s -> *s")
def ruthless(xp: Any, x: Any) -> Any:
    """x, with a pullback that breaks the rule and writes to its incoming gradient."""

    def pullback(g: Any) -> Any:
        g *= 10.0
        return (g,)

    return x * 1.0, pullback


@pytest.mark.parametrize("place", ["beside a branch", "before a branch", "under a sum", "at the seed", "in grad", "once alone"])
def test_e48_a_pullback_cannot_write_to_the_gradient_it_is_given(place: str) -> None:
    """The gradient that a pullback receives is read-only: a pullback that writes to it raises ContractError naming the operation, so it
    cannot change the gradient of a sibling branch, a result or an array of the caller."""
    a, b, seed = leaf([1.0, 2.0]), leaf([3.0, 4.0]), mg.Tensor(np.ones(2))
    inner, array = a * 1.0, np.ones(2)
    with pytest.raises(ContractError, match=r"ruthless.*incoming gradient") as error:
        if place == "beside a branch":
            other = b * 1.0
            ((ruthless(inner) + other) * 2.0).sum().backward()
        elif place == "before a branch":
            rude = ruthless(inner)
            ((rude + b * 1.0) * 2.0).sum().backward()
        elif place == "under a sum":
            ruthless(inner).sum().backward()
        elif place == "at the seed":
            ruthless(a).backward(seed)
        elif place == "in grad":
            mg.grad(ruthless(inner), [inner], array)
        else:
            (ruthless(inner) * 2.0).backward(array)
    assert error.value.code == "contract-purity"
    assert seed.tolist() == array.tolist() == [1.0, 1.0]
    assert a.grad is None

    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])  # gradients handed to two places share no memory either
    (x + y).sum().backward()
    (x * 10.0).sum().backward()
    np.testing.assert_array_equal(accumulated(x), [11.0, 11.0])
    np.testing.assert_array_equal(accumulated(y), [1.0, 1.0])


# ---------------------------------------------------------------- E49
def test_e49_two_leaves_with_one_value_are_two_leaves() -> None:
    """Leaves are distinguished by identity, never by value: two tensors made from one array receive separate gradients."""
    data = np.array(3.0)
    a, b = leaf(data), leaf(data)
    (a + b).backward()
    assert accumulated(a) == 1.0 and accumulated(b) == 1.0
    (a + b * 2.0).backward()
    assert accumulated(a) == 2.0 and accumulated(b) == 3.0
    assert a != b and len({a, b}) == 2


# ---------------------------------------------------------------- E50
@pytest.mark.parametrize("name", [*sorted(CASES), *ops.NON_DIFFERENTIABLE])
@some_examples
@given(data=st.data())
def test_e50_gradients_are_handed_on_or_declared_absent(name: str, data: st.DataObject) -> None:
    """Every floating result of a public function requires a gradient as soon as one floating input does, unless the function is in
    `ops.NON_DIFFERENTIABLE`, whose results never do."""
    assert set(F.__all__) - {"as_tensor"} <= set(PUBLIC) | set(ops.NON_DIFFERENTIABLE)
    assert not set(PUBLIC) & set(ops.NON_DIFFERENTIABLE)
    if name in ops.NON_DIFFERENTIABLE:
        function = getattr(F, name)
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        x = leaf([1.0, 2.0])
        out = function([0, 1], 2) if name == "one_hot" else function(*[x] * len(required))
        assert not out.requires_grad
        return
    sample = data.draw(CASES[name])
    for place in sample.floating:
        args = [leaf(a) if i == place else a for i, a in enumerate(sample.args)]
        outs = outputs_of(name, sample, args)
        assert outs and all(out.requires_grad for out in outs), f"the gradient by input {place} is lost"
        with mg.no_grad():
            assert not any(out.requires_grad for out in outputs_of(name, sample, args) if out is not args[place])
    assert not any(out.requires_grad for out in outputs_of(name, sample, sample.args))


# ---------------------------------------------------------------- E51
@pytest.mark.parametrize("name", sorted(CASES))
@some_examples
@given(data=st.data())
def test_e51_memory_layout_changes_neither_value_nor_gradient(name: str, data: st.DataObject) -> None:
    """Value and gradient do not depend on the memory layout of inputs and incoming gradients: contiguous, transposed, step-sliced, reversed
    and repeated (stride 0) arrays give the same, except for the order of sums in BLAS."""
    sample: Sample = data.draw(CASES[name])
    floats = sample.floating
    repeated = [a[:1] if a.ndim and len(a) else a for a in (sample.args[i] for i in floats)]

    def run(numbers: list[np.ndarray], incoming: Callable[[mg.Tensor], Any]) -> list[np.ndarray]:
        args, leaves = list(sample.args), [mg.Tensor.wrap(a).requires_grad_() for a in numbers]
        for i, x in zip(floats, leaves, strict=True):
            args[i] = x
        outs = outputs_of(name, sample, args)
        return [out.numpy() for out in outs] + pulled(outs, leaves, incoming)

    given_arrays = [sample.args[i] for i in floats]
    expected = run(given_arrays, uneven)
    for layout in LAYOUTS:
        found = run([layout.view(layout.store(a)) for a in given_arrays], lambda out, layout=layout: layout.view(layout.store(uneven(out))))
        _same(found, expected, layout.name)
    stretched = [np.broadcast_to(a, b.shape) for a, b in zip(repeated, given_arrays, strict=True)]  # stride 0 along the first axis
    found = run(stretched, lambda out: np.broadcast_to(1.5, out.shape))
    _same(found, run([np.array(a) for a in stretched], lambda out: np.full(out.shape, 1.5)), "stride 0")


def _same(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    for a, b in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * scale, err_msg=what)


# ---------------------------------------------------------------- E52
def test_e52_backward_twice_and_backward_through_a_long_chain() -> None:
    """A second backward pass raises GraphError naming the operation whose graph was freed; with retain_graph=True N passes accumulate
    exactly N times, bit for bit. The pass is iterative: no chain of operations is too long for it, nor for freeing the graph."""
    x = leaf([1.0])
    y = F.tanh(x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"sum was freed.*retain_graph=True") as error:
        y.backward()
    assert error.value.code == "graph-freed"

    for times in (1, 2, 7):
        x = leaf([0.1, -0.7, 1e-9])
        y = (F.exp(x) / 3.0).sum()
        once = mg.grad(y, x, retain_graph=True)
        assert once is not None
        expected = np.zeros(3)
        for _ in range(times):
            y.backward(retain_graph=True)
            expected = expected + once.numpy()
        np.testing.assert_array_equal(accumulated(x), expected)

    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 0.5
    y.backward(retain_graph=True)
    assert accumulated(x) == 1.0 and grad_of(y, x) == 1.0
    alive = weakref.ref(y)
    del y  # a recursive destructor would overflow the stack here
    gc.collect()
    assert alive() is None
