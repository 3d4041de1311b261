"""E31-E46: elementwise functions, broadcasting, indexing and matrix products."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
import scipy.special
import torch
from oracle.edge_cases.base import asks, grad, leaf, same

TF = torch.nn.functional


# ---------------------------------------------------------------- elementwise
@asks(31)
def _() -> bool:
    grid = np.linspace(-12.0, 12.0, 4801).astype(np.float32)
    wide = grid.astype(np.float64)
    exact, density = wide * scipy.special.ndtr(wide), np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
    slope, far = scipy.special.ndtr(wide) + wide * density, np.abs(wide + 0.7518) > 0.1
    x = torch.from_numpy(grid).requires_grad_()
    value, found = TF.gelu(x).detach().numpy(), grad(TF.gelu(x), x)
    assert np.abs(value / np.where(exact == 0, 1, exact) - 1)[wide < -6].max() > 0.9 and np.abs(found / slope - 1)[wide < -6].max() > 0.9
    return np.allclose(value, exact, rtol=1e-5, atol=1e-37) and np.allclose(found[far], slope[far], rtol=1e-5, atol=1e-37)


@asks(32)
def _() -> bool:
    grid = np.linspace(-8.0, -4.0, 401).astype(np.float32)
    wide = grid.astype(np.float64)
    exact = wide * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))
    found = TF.gelu(torch.from_numpy(grid), approximate="tanh").numpy()
    assert found[0] == 0
    return np.allclose(found, exact, rtol=5e-5, atol=1e-37)


@asks(33)
def _() -> bool:
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="none or tanh"):
        TF.gelu(x, approximate="erf")
    return 1e-5 < (TF.gelu(x) - TF.gelu(x, approximate="tanh")).abs().max().item() <= 5e-4


@asks(34)
def _() -> bool:
    x, b, zeros = leaf([0.0, 2.0]), leaf([2.0, 0.5]), torch.zeros(2, dtype=torch.float64)
    return all(same(found, [0, 0]) for found in (grad(x**0, x), grad(x**zeros, x), grad(0.0**b, b), grad(zeros**b, b)))


@asks(35)
def _() -> bool:
    x, zero = leaf([[0.0, 0.0], [3.0, -4.0]]), leaf([0.0])
    found = [grad(torch.linalg.vector_norm(x, ord, dim=1), x) for ord in (1, 2, inf)]
    return all(same(g[0], [0, 0]) and np.isfinite(g).all() for g in found) and same(grad(zero.sqrt(), zero), [inf])


@asks(36)
def _() -> bool:
    x, y = leaf([-100.0, 1e4, -1e4]), leaf([100.0])
    label_0 = TF.binary_cross_entropy_with_logits(x, torch.zeros(3, dtype=torch.float64), reduction="none")
    label_1 = TF.binary_cross_entropy_with_logits(y, torch.ones(1, dtype=torch.float64))
    assert same(label_0.detach(), [0, 1e4, 0]) and np.isfinite(grad(label_0, x)).all() and label_1.item() == np.exp(-100.0)
    return label_0[0].item() == np.exp(-100.0)


@asks(37)
def _() -> bool:
    x = leaf([0.0, 1.0])
    assert same(grad(torch.where(x > 0, x.log(), 0.0), x), [np.nan, 1])
    safe = torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), 0.0)
    return same(grad(torch.where(x > 0, x * 3, 7.0), x), [0, 3]) and same(grad(safe, x), [0, 1])


@asks(38)
def _() -> bool:
    good = True
    for function, dtype in product((torch.sigmoid, torch.tanh, TF.softplus, TF.silu, torch.erf, TF.gelu), (torch.float32, torch.float64)):
        x = leaf([-1e4, -100.0, 0.0, 100.0, 1e4], dtype)
        slope = torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]
        good = good and bool(torch.isfinite(function(x)).all() and torch.isfinite(slope).all()) and np.isfinite(grad(slope, x)).all()
    return bool(good)


# ---------------------------------------------------------------- broadcasting, indexing, matrix products
@asks(39)
def _() -> bool:
    shapes = [sides for rank in range(5) for sides in product(range(4), repeat=rank)]
    left, right = ({s: torch.full(s, value, requires_grad=True) for s in shapes} for value in (1.5, 0.5))
    pairs = [(a, b) for a in shapes for b in shapes if all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))]
    functions = (torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.maximum, torch.minimum)
    good = True
    for start, function in enumerate(functions):
        for a, b in pairs[start :: 5 * len(functions)]:  # a part of the pairs: PyTorch is not what is tested here
            found = torch.autograd.grad(function(left[a], right[b]).sum(), [left[a], right[b]])
            good = good and tuple(found[0].shape) == a and tuple(found[1].shape) == b
    return good


@asks(40)
def _() -> bool:
    x = leaf(2.0)
    return grad(x * leaf([1.0, 2.0, 3.0]), x).shape == () and grad(x * leaf([1.0, 2.0, 3.0]), x) == 6


@asks(41)
def _() -> bool:
    x = leaf([1.0, 2.0, 3.0])
    return same(grad(x[[0, 0, 1]], x), [2, 1, 0])


@asks(42)
def _() -> bool:
    table, messages = torch.ones(3, 2), []
    for ids in ([0, -1], [3], [[0, 1], [2, 7]]):
        with pytest.raises(IndexError) as error:
            TF.embedding(torch.tensor(ids), table)
        messages.append(str(error.value))
    with pytest.raises(RuntimeError, match="scalar types"):
        TF.embedding(torch.tensor([0.0, 1.0]), table)
    assert set(messages) == {"index out of range in self"}
    return any(character.isdigit() for character in messages[0])


@asks(43)
def _() -> bool:
    table, good = leaf(np.ones((4, 3))), True
    for count in (10, 10_000):
        ids = torch.arange(count).reshape(2, -1) % 4
        found = grad(TF.embedding(ids, table, padding_idx=1), table)
        good = good and same(found[:, 0], [(ids == row).sum().item() * (row != 1) for row in range(4)])
    return good


@asks(44)
def _() -> bool:
    pairs = [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 1, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2)), ((4, 2, 3), (3,))]
    good = True
    for a, b in pairs:
        x, y = (torch.randn(*sides, dtype=torch.float64, requires_grad=True) for sides in (a, b))
        good = good and torch.autograd.gradcheck(torch.matmul, (x, y))
    x, y = leaf(np.zeros((2, 0))), leaf(np.zeros((0, 3)))
    return good and same((x @ y).detach(), np.zeros((2, 3))) and grad(x @ y, x).shape == (2, 0) and grad(x @ y, y).shape == (0, 3)


@asks(45)
def _() -> bool:
    x, y = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([1.0, -1.0, 2.0])
    once = torch.einsum("ij,k->i", x, y)
    twice = torch.einsum("ij,ij->", x, x)
    return same(grad(once, x), np.full((2, 2), 2)) and same(grad(once, y), [10] * 3) and same(grad(twice, x), [[2, 4], [6, 8]])


@asks(46)
def _() -> bool:
    x = leaf([[1.0], [2.0]])
    return same(grad(x.broadcast_to(3, 2, 4), x), [[12], [12]]) and same(grad(x.expand(2, 4), x), [[4], [4]])
