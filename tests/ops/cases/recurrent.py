"""Rows of `ops/recurrent.py`: sequences of several lengths, in both directions, with and without biases and first states."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, packings


def recurrence(draw: Any, gates: int, states: int, domain: str = "real", **constants: Any) -> Sample:
    sequences, length = draw(st.sampled_from([(2, 2), (3, 2), (1, 3)]))  # few steps, because a check runs all of them some hundred times
    packing = draw(packings(max_sequences=sequences, max_length=length, masked_first=False))
    inputs, hidden = draw(st.sampled_from([(1, 1), (2, 1), (1, 1 if gates > 2 and draw(st.integers(0, 3)) else 2)]))
    height = gates * hidden
    args = [draw(arrays(shape, domain)) for shape in ((packing.rows, inputs), (height, inputs), (height, hidden))]
    args += [draw(arrays((height,), domain)) if draw(st.booleans()) else None for _ in range(2)]
    args += [draw(arrays((len(packing), hidden), domain)) if draw(st.booleans()) else None for _ in range(states)]
    return Sample(tuple(args), {"packing": packing, "reverse": draw(st.booleans()), **constants})


@case
def lstm(draw: Any) -> Sample:
    return recurrence(draw, 4, 2)


@case
def gru(draw: Any) -> Sample:
    return recurrence(draw, 3, 1)


@case
def rnn(draw: Any) -> Sample:
    """relu stays away from its kink: every term is positive and no sum is near 0, except in units that a bias keeps far below it."""
    kind = draw(st.sampled_from(["tanh", "relu"]))
    sample = recurrence(draw, 1, 1, "real" if kind == "tanh" else "positive", nonlinearity=kind)
    bias = sample.args[3]
    if kind == "relu" and bias is not None:
        bias[draw(st.lists(st.integers(0, len(bias) - 1), max_size=1))] = -1000.0
    return sample
