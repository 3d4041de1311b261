"""LSTM, GRU and RNN equal PyTorch's in float64, whose weights load by name: packed sequences of different lengths, all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.agreement import agree, agree_on_gradients, summary
from support import gradients_of

import minigrad as mg
from minigrad import nn
from minigrad.packing import Packing

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
pytestmark = pytest.mark.oracle

VALUE, GRADIENT = 1e-12, 1e-10
"""Float64 rounding and nothing else."""


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nagreement with PyTorch {torch.__version__}:\n{summary()}")


def states_of(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RNN relu"])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layers=st.integers(1, 3),
    both=st.booleans(),
    bias=st.booleans(),
    given_state=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_recurrent_layers(
    kind: str, lengths: list[int], sizes: tuple[int, int], layers: int, both: bool, bias: bool, given_state: bool, seed: int
) -> None:
    name, how = kind.split()[0], {"nonlinearity": "relu"} if kind == "RNN relu" else {}
    theirs = getattr(torch.nn, name)(*sizes, layers, bias=bias, bidirectional=both, batch_first=True, **how).double()
    ours: Any = getattr(nn, name)(*sizes, layers, bias=bias, bidirectional=both, **how).to("float64")
    rng, packing = np.random.default_rng(seed), Packing(lengths)
    for parameter in theirs.parameters():
        parameter.data = torch.from_numpy(rng.uniform(-0.7, 0.7, tuple(parameter.shape)))
    ours.load_state_dict({n: p.detach().numpy() for n, p in theirs.named_parameters()})

    x = [rng.standard_normal((packing.rows, sizes[0]))]
    x += [rng.standard_normal((layers * (1 + both), len(lengths), sizes[1])) for _ in range(ours.states if given_state else 0)]
    leaves, their_leaves = [mg.Tensor(a, requires_grad=True) for a in x], [torch.from_numpy(a).requires_grad_() for a in x]
    start, their_start = (tuple(ls[1:]) if len(ls) > 2 else ls[1] if len(ls) > 1 else None for ls in (leaves, their_leaves))
    y, last = ours(leaves[0], packing, state=start)
    sequences = torch.nn.utils.rnn.pack_sequence([their_leaves[0][a:b] for a, b in packing.spans], enforce_sorted=False)
    out, their_last = theirs(sequences, their_start)
    wide, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    expected = torch.cat([row[:n] for row, n in zip(wide, lengths, strict=True)])

    total, their_total = mg.Tensor(np.zeros(())), torch.zeros((), dtype=torch.float64)
    for a, b in zip([y, *states_of(last)], [expected, *states_of(their_last)], strict=True):
        agree(f"{kind}, values", a.numpy(), b.detach().numpy(), VALUE, max(1.0, float(np.abs(a.numpy()).max())))
        weights = np.cos(np.arange(a.size)).reshape(a.shape)
        total, their_total = total + (a * weights).sum(), their_total + (b * torch.from_numpy(weights)).sum()
    total.backward()
    their_total.backward()
    for leaf, their_leaf in zip(leaves, their_leaves, strict=True):
        assert leaf.grad is not None
        theirs_grad = their_leaf.grad.numpy()
        agree(f"{kind}, input and state gradients", leaf.grad.numpy(), theirs_grad, GRADIENT, max(1.0, float(np.abs(theirs_grad).max())))
    agree_on_gradients(
        f"{kind}, parameter gradients", gradients_of(ours), {n: p.grad.numpy() for n, p in theirs.named_parameters()}, GRADIENT
    )
