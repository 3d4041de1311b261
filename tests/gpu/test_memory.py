"""Out of memory on a GPU: a MemoryError, as on a CPU, after which more micro-batches fit. (The trainer doubles their number itself.)"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from models.cases import head

import minigrad as mg
from minigrad.data.loader import Batch
from minigrad.packing import PackedTokens
from minigrad.train import SequenceClasses, Team

SEQUENCES, LENGTH = 64, 96


@pytest.fixture
def memory_limit(device: str) -> Iterator[None]:
    """No memory is left over from other tests, and the limit is removed afterwards."""
    if device == "cpu":
        pytest.skip("the limit is one of CuPy's memory pool")
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    yield
    pool.set_limit(size=0)


def step(room: int | None, parts: int = 1) -> tuple[float, np.ndarray]:
    """The loss and a gradient of a training step, with so many bytes available besides model and optimizer."""
    import cupy

    mg.manual_seed(0)
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": LENGTH}
    model = head("BertForSequenceClassification", "float32", **sizes).to("cuda")
    optimizer, objective = mg.optim.AdamW(model.named_parameters(), lr=1e-4), SequenceClasses()
    generator = np.random.default_rng(0)
    tokens = PackedTokens.of([generator.integers(1, 20, LENGTH) for _ in range(SEQUENCES)])
    batch = Batch(tokens, generator.integers(0, 2, SEQUENCES), None, np.arange(SEQUENCES))
    team = Team(lambda part, whole: objective.loss(model, part, whole), optimizer)
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=0 if room is None else pool.used_bytes() + room)
    loss = team.backward(batch, parts)
    return loss, model.classifier.weight.grad.numpy()


def test_more_parts_need_less(memory_limit: None) -> None:
    expected, gradient = step(None)
    with pytest.raises(MemoryError):
        step(24 << 20)
    loss, found = step(24 << 20, parts=16)
    assert loss == pytest.approx(expected, rel=1e-5)  # float32 sums in another order
    np.testing.assert_allclose(found, gradient, atol=1e-5)
