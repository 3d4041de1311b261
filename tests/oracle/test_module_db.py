"""minigrad's layers agree with PyTorch's on the constructor and forward inputs of `module_db`, in float64: values, gradients, buffers.

The adapters are in `oracle/op_db/layers.py`. What is left out has a written reason: `python -m pytest tests/oracle/test_module_db.py -s`
prints them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from oracle.agreement import agree, agree_on_gradients
from support import gradients_of

import minigrad as mg
from minigrad import nn
from minigrad.tensor import Tensor

pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
pytestmark = pytest.mark.oracle

from oracle.op_db.driver import converted, tensors_in  # noqa: E402 - after the skip without PyTorch
from oracle.op_db.layers import ADAPTERS, Ours, plain  # noqa: E402
from oracle.op_db.pytorch import module_db, silent, torch  # noqa: E402
from oracle.op_db.vocabulary import NotCompared  # noqa: E402

VALUE, GRADIENT = 1e-12, 1e-10
"""Float64 rounding and nothing else, relative to the largest number (at least 1)."""

LAYERS, SAMPLES = 30, 250
"""How much has to be compared at least."""


def compare(kind: str, adapter: Callable[..., Ours], theirs: Any, constructor: Any, forward: Any) -> None:
    """One layer with its parameters shaken (a scale of exactly 1 would hide much), called once on both sides."""
    ours = adapter(*converted(constructor.args, {}), **converted(constructor.kwargs, {}))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    ours.module.to("float64").train(theirs.training)
    for name, tensor in theirs.state_dict().items():
        parts = ours.names.get(name, [name])
        known = ours.module.state_dict()
        if name != "weight" or name in known:  # the class weights of a loss are no parameters here: the constructor took them
            pieces = np.split(tensor.numpy(), len(parts)) if len(parts) > 1 else [tensor.numpy()]
            ours.module.load_state_dict(known | dict(zip(parts, pieces, strict=True)))
    memo: dict[int, Tensor] = {}
    arguments, keywords = list(converted(forward.args, memo)), converted(forward.kwargs, memo)
    if "input" in keywords:  # PyTorch's name of the first argument
        arguments.insert(0, keywords.pop("input"))
    leaves = [t for t in tensors_in([forward.args, forward.kwargs]) if t.requires_grad]
    with silent():
        expected = list(tensors_in(theirs(*forward.args, **forward.kwargs)))
    finite = all(bool(torch.isfinite(e).all()) for e in expected)
    with np.errstate(all="warn" if finite else "ignore"):
        found = list(tensors_in((ours.call or ours.module)(*arguments, **keywords)))
    if not finite:
        for y, e in zip(found, expected, strict=True):
            np.testing.assert_array_equal(np.isfinite(y.numpy()), torch.isfinite(e).numpy())
        raise NotCompared("inputs outside the function's domain: both results are NaN, at the same places")
    pairs = [(y, e) for y, e in zip(found, expected, strict=True) if isinstance(y, Tensor)]
    for y, e in pairs:
        agree(f"{kind}, values", y.numpy(), e.detach().numpy(), VALUE, max(1.0, float(e.detach().abs().max()) if e.numel() else 1.0))
    seeds = [torch.randn_like(e) for _, e in pairs]
    parameters = dict(theirs.named_parameters())
    gradients = torch.autograd.grad(
        [e for _, e in pairs], [*leaves, *parameters.values()], seeds, allow_unused=True, materialize_grads=True
    )
    terms = [(y * seed.numpy()).sum() for (y, _), seed in zip(pairs, seeds, strict=True)]
    sum(terms[1:], terms[0]).backward()
    for leaf, g in zip(leaves, gradients, strict=False):
        gradient = memo[id(leaf)].grad
        ours_gradient = np.zeros(leaf.shape) if gradient is None else gradient.numpy()
        agree(f"{kind}, input gradients", ours_gradient, g.numpy(), GRADIENT, max(1.0, float(np.abs(g.numpy()).max(initial=0.0))))
    mine = gradients_of(ours.module)
    if parameters:
        stacked = {name: np.concatenate([mine.pop(part) for part in ours.names.get(name, [name])]) for name in parameters}
        assert not mine, f"gradients of parameters that PyTorch does not have: {list(mine)}"
        wanted = {name: g.numpy() for name, g in zip(parameters, gradients[len(leaves) :], strict=True)}
        agree_on_gradients(f"{kind}, parameter gradients", stacked, wanted, GRADIENT)
    for name, buffer in theirs.named_buffers():
        if name in ours.module.state_dict():
            agree(f"{kind}, buffers", np.asarray(ours.module.state_dict()[name], np.float64), buffer.double().numpy(), VALUE)


@cache
def report_of(name: str) -> tuple[int, Counter[str]]:
    """How many samples of a layer agreed, and why others were left out. A failure raises."""
    info = next(info for info in module_db if info.name == f"nn.{name}")
    compared, skips = 0, Counter[str]()
    for training in (True, False) if info.train_and_eval_differ else (True,):
        torch.manual_seed(0)
        with silent():
            samples = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)
        for sample in samples:
            with silent():
                theirs = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).double().train(training)
            try:
                compare(name, ADAPTERS[name], theirs, sample.constructor_input, sample.forward_input)
                compared += 1
            except NotCompared as reason:
                skips[str(reason)] += 1
            except Exception as error:
                raise AssertionError(f"{name}, {'training' if training else 'evaluating'}, {sample.desc}: {error}") from error
    return compared, skips


@pytest.mark.parametrize("name", ADAPTERS)
def test_layer(name: str) -> None:
    compared, skips = report_of(name)
    assert compared, f"nothing is compared: {skips}"


def test_enough_is_compared() -> None:
    reports = {name: report_of(name) for name in ADAPTERS}
    for name, (compared, skips) in reports.items():
        print(f"\n{name:24}{compared:5} compared", end="")
        for reason, count in skips.items():
            print(f"\n{count:29} left out: {reason}", end="")
    assert sum(compared > 0 for compared, _ in reports.values()) >= LAYERS
    assert sum(compared for compared, _ in reports.values()) >= SAMPLES


def test_a_wrong_layer_is_found() -> None:
    layer, x = torch.nn.Linear(3, 2).double(), torch.ones(1, 3, dtype=torch.float64)
    call = torch.testing._internal.common_modules.FunctionInput

    class Doubled(nn.Linear):
        def forward(self, x: Any) -> mg.Tensor:
            return super().forward(x) * 2.0

    with pytest.raises(AssertionError, match="values"):
        compare("Linear", plain(Doubled), layer, call(3, 2), call(x))
