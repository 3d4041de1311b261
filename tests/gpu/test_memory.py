"""A GPU whose memory is full: the step is made in more parts, and what cannot be made ends with one clear error."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from models.cases import head

import minigrad as mg
from minigrad.data.loader import Batch
from minigrad.errors import OutOfMemoryError
from minigrad.packing import PackedTokens
from minigrad.train import SequenceClasses, Team

SEQUENCES, LENGTH = 64, 96


@pytest.fixture
def memory_limit(device: str) -> Iterator[None]:
    """Nothing is left over from other tests, and the limit goes again."""
    if device == "cpu":
        pytest.skip("the limit is one of CuPy's memory pool")
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    yield
    pool.set_limit(size=0)


def step(room: int | None) -> tuple[float, np.ndarray]:
    """The loss of a training step and a gradient, with so many bytes beside model and optimizer."""
    import cupy

    mg.manual_seed(0)
    model = head("BertForSequenceClassification", "float32", hidden_size=128, num_attention_heads=4, intermediate_size=512).to("cuda")
    optimizer, objective = mg.optim.AdamW(model.named_parameters(), lr=1e-4), SequenceClasses()
    generator = np.random.default_rng(0)
    tokens = PackedTokens.of([generator.integers(1, 20, LENGTH) for _ in range(SEQUENCES)])
    batch = Batch(tokens, generator.integers(0, 2, SEQUENCES), None, np.arange(SEQUENCES))
    team = Team(lambda part, whole: objective.loss(model, part, whole), optimizer)
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=0 if room is None else pool.used_bytes() + room)
    loss = team.backward(batch)
    return loss, model.classifier.weight.grad.numpy()


def test_a_step_in_more_parts(memory_limit: None, caplog: pytest.LogCaptureFixture) -> None:
    expected, gradient = step(None)
    with caplog.at_level(logging.WARNING, "minigrad"):
        loss, found = step(24 << 20)
    assert "no memory for a training step" in caplog.text
    assert loss == pytest.approx(expected, rel=1e-5)  # float32 sums in another order
    np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_no_part_is_small_enough(memory_limit: None) -> None:
    with pytest.raises(OutOfMemoryError):
        step(64 << 10)
    assert np.isfinite(step(None)[0])  # and the GPU is usable afterwards
