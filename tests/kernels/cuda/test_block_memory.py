"""A block in one operation takes no more of a GPU's memory than its parts, called one after the other.

Measured in float32, where nothing is stored as short: NumPy does as a GPU there, and makes no arrays that only an emulation needs.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording
from kernels.cuda.emulation import Emulator

import minigrad as mg
from minigrad.models import BertConfig, blocks
from minigrad.packing import Packing

HIDDEN, LENGTHS = 128, (60, 21, 47)

ROWS = 4 * sum(LENGTHS) * HIDDEN
"""Bytes of the rows that go into a layer."""

SUMS = 0.5
"""Of `ROWS`: a block has the sums over each 32 rows for all of its vectors at once, a part for its own; and Python's objects."""


def peak(work: Callable[[], Any]) -> float:
    """In units of `ROWS`, the most memory that is in use beyond what was before. NumPy reports all of its arrays."""
    work()  # what is kept for good is made
    gc.collect()
    gc.disable()  # so that it is the same whatever was before
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return (tracemalloc.get_traced_memory()[1] - before) / ROWS
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_a_layer_takes_no_more_memory_than_its_parts(
    rate: float, training: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording.install(emulator.kernel, monkeypatch)
    config = BertConfig(
        hidden_size=HIDDEN, num_attention_heads=2, intermediate_size=2 * HIDDEN, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate
    )
    layer, packing = blocks.Layer(config).train(training).to("cuda"), Packing(LENGTHS)
    optimizer = mg.optim.SGD(layer.parameters(), lr=0.1)  # gradients go to its buffer
    x = mg.Tensor(np.cos(np.arange(ROWS // 4, dtype=np.float32)).reshape(-1, HIDDEN)).to("cuda")

    def work() -> None:
        if not training:
            with mg.no_grad():
                layer(x, packing)
            return
        layer(x, packing).mean().backward()
        optimizer.zero_grad()

    in_one = peak(work)
    monkeypatch.setattr(blocks, "can_fuse", lambda *_: False)
    in_parts = peak(work)
    # Where nothing is dropped, parts share an array that a block has twice: the gradient of the sum at its end, which products add to.
    assert in_one <= in_parts + SUMS + (training and not rate), (in_one, in_parts)
