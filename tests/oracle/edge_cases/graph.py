"""E47-E55: the graph, and the meaning of losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import isnan
from typing import Any

import numpy as np
import pytest
import torch
from oracle.edge_cases.base import asks, grad, leaf, same

TF = torch.nn.functional


# ---------------------------------------------------------------- graph and memory
@asks(47)
def _() -> bool:
    unnoticed = []
    for edit in (lambda x: x.detach().numpy().fill(5.0), lambda x: x.data.fill_(5.0)):
        x = leaf([1.0, 1.0])
        out = (x * x).sum()
        edit(x)
        out.backward()
        unnoticed.append(same(x.grad, [10, 10]))
    x = leaf([1.0, 1.0])
    out = (x * x).sum()
    with torch.no_grad():
        x.mul_(5.0)  # this one is noticed
    with pytest.raises(RuntimeError, match="inplace operation"):
        out.backward()
    assert unnoticed == [True, True]
    return not any(unnoticed)


class Ruthless(torch.autograd.Function):
    """x, with a backward that writes to its incoming gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g.mul_(10.0)


@asks(48)
def _() -> bool:
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    sibling = b * 1.0
    ((Ruthless.apply(a * 1.0) + sibling) * 2.0).sum().backward()
    assert same(b.grad, [20, 20])
    return same(b.grad, [2, 2])


@asks(49)
def _() -> bool:
    a, b = leaf(3.0), leaf(3.0)
    (a + b).backward()
    return a.grad.item() == b.grad.item() == 1


LAYOUTS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x.T.contiguous().T,
    lambda x: torch.repeat_interleave(x, 2, -1)[..., ::2],
    lambda x: torch.flip(x, (0, 1)).contiguous().flip(0, 1),
    lambda x: x[:1].expand(x.shape),
)


@asks(51)
def _() -> bool:
    functions = [torch.exp, TF.gelu, torch.amax, torch.sum, lambda x: x @ x.T, lambda x: x.softmax(0), lambda x: x.prod(1)]
    functions += [lambda x: TF.layer_norm(x, x.shape[-1:]), lambda x: x.cumsum(0), lambda x: x[[2, 0, 0]], lambda x: x.reshape(-1).var()]
    good, numbers = True, torch.randn(3, 4, dtype=torch.float64)
    for function, layout in product(functions, LAYOUTS):
        found = []
        for x in (layout(numbers).detach(), layout(numbers).detach().clone(memory_format=torch.contiguous_format)):
            out = function(x.requires_grad_())
            upstream = torch.ones_like(out) if x.is_contiguous() else torch.ones((), dtype=torch.float64).expand(out.shape)
            found.append([out.detach(), torch.autograd.grad(out, x, upstream)[0]])
        good = good and all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))
    return good


@asks(52)
def _() -> bool:
    x = leaf([0.5])
    out = torch.tanh(x).sum()
    for _ in range(3):
        out.backward(retain_graph=True)
    assert same(x.grad, 3 * grad(out, x))
    out.backward()
    with pytest.raises(RuntimeError, match="a second time") as error:
        out.backward()
    y = leaf(1.0)
    chain = y
    for _ in range(5_000):
        chain = chain + 0.5
    chain.backward()
    assert y.grad.item() == 1
    return "tanh" in str(error.value).lower() or "sum" in str(error.value).lower()


# ---------------------------------------------------------------- losses
@asks(53)
def _() -> bool:
    logits = leaf(np.ones((2, 3)))
    loss = TF.cross_entropy(logits, torch.tensor([-100, -100]))
    return isnan(loss.item()) and same(grad(loss, logits), np.zeros((2, 3)))


@asks(54)
def _() -> bool:
    row_named = []
    for label in (3, -1, -4):
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds") as error:
            TF.cross_entropy(torch.zeros(4, 3), torch.tensor([0, 1, -100, label]))
        row_named.append(str(error.value) != f"Target {label} is out of bounds.")
    return all(row_named)


@asks(55)
def _() -> bool:
    labels, parts = torch.tensor([0, -100, 2, 1, -100, -100]), ((0, 2), (2, 3), (3, 6))
    rows = torch.randn(6, 3)
    logits = rows.clone().requires_grad_()
    expected = grad(TF.cross_entropy(logits, labels), logits)
    total = sum(TF.cross_entropy(logits[a:b], labels[a:b], reduction="sum") for a, b in parts) / 3
    means = sum(TF.cross_entropy(logits[a:b], labels[a:b]) for a, b in ((0, 1), (1, 4))) / 2
    assert not np.allclose(grad(means, logits), expected, rtol=0.0, atol=1e-3)
    return np.allclose(grad(total, logits), expected, rtol=0.0, atol=1e-6)
