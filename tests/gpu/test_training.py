"""A BERT trains on a GPU as on the CPU: the same units are dropped, the losses agree, and files and states can be exchanged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import directory

import minigrad as mg
from minigrad import ops
from minigrad.backend import to_numpy
from minigrad.backend.layout import neighbours
from minigrad.backend.random import Draw
from minigrad.backend.transfers import to_gpu
from minigrad.data import PackedTokens
from minigrad.packing import Packing
from minigrad.tape import accumulate_neighbours

STEPS = 20
CLOSE = 1e-4
"""For losses of order 1 and weights of order 0.1 to 1 after twenty float32 steps with learning rate 1e-4."""


def batches(vocabulary: int, steps: int = STEPS) -> list[tuple[PackedTokens, np.ndarray]]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(steps):
        lengths = generator.integers(3, 40, 8)
        found.append((PackedTokens.of([generator.integers(5, vocabulary, n) for n in lengths]), generator.integers(0, 2, 8)))
    return found


def model_from(folder: Path, device: str) -> Any:
    return mg.models.BertForSequenceClassification.from_pretrained(folder).to(device)


def trained(folder: Path, device: str, optimizer: str = "AdamW") -> tuple[list[float], Any, Any]:
    """(losses, model, optimizer) after twenty steps with dropout and clipping."""
    mg.manual_seed(0)
    model = model_from(folder, device)
    update = getattr(mg.optim, optimizer)(model.named_parameters(), lr=1e-4)
    return train(model, update), model, update


def train(model: Any, update: Any) -> list[float]:
    """The losses of twenty steps."""
    losses = []
    for tokens, labels in batches(model.config.vocab_size):
        loss = model(tokens, labels=labels).loss
        loss.backward()
        mg.optim.clip_grad_norm(model.parameters(), 1.0)
        update.step()
        update.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 5000}  # a table of its own
    return directory(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification", scale=0.05, **sizes)


def test_what_is_read_or_written_at_once_lies_side_by_side(folder: Path, device: str) -> None:
    """Queries, keys and values of a model that was moved; with an optimizer, the gradients of a layer's vectors."""
    if device == "cpu":
        pytest.skip("a CPU joins no gradients")
    model = model_from(folder, device)
    layer = model.bert.encoder.layer[0]
    inner, end = layer.attention.self, layer.attention.output
    asking = (inner.query, inner.key, inner.value)
    for together in ([part.weight for part in asking], [part.bias for part in asking]):
        assert neighbours([p.array for p in together]) is not None
    optimizer = mg.optim.AdamW(model.named_parameters())
    vectors = [p.leaf for p in (*[part.bias for part in asking], end.dense.bias, end.LayerNorm.weight, end.LayerNorm.bias)]
    sizes = np.cumsum([0, *[leaf.shape[0] for leaf in vectors]])
    sums = to_gpu(np.arange(sizes[-1], dtype=np.float32).reshape(1, -1))[0]
    pieces = [sums[start:stop] for start, stop in pairwise(sizes.tolist())]
    assert sorted(accumulate_neighbours(vectors, pieces)) == list(range(6))
    np.testing.assert_array_equal(np.concatenate([to_numpy(leaf.grad) for leaf in vectors]), np.arange(sizes[-1]))
    optimizer.zero_grad()


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam", "SGD", "Adagrad", "RMSprop", "Lion"])
def test_twenty_steps_are_those_of_the_cpu(folder: Path, device: str, optimizer: str) -> None:
    (expected, on_cpu, _), (found, on_gpu, _) = (trained(folder, where, optimizer) for where in ("cpu", device))
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)
    other = on_gpu.state_dict()
    for name, value in on_cpu.state_dict().items():
        if not name.endswith("key.bias"):  # its gradient is rounding noise, amplified by the division by its size
            np.testing.assert_allclose(to_numpy(other[name]), value, atol=10 * CLOSE, err_msg=name)


def test_an_optimizer_moves_in_the_middle_of_a_training(folder: Path, device: str) -> None:
    _, stayed, theirs = trained(folder, "cpu")
    expected = train(stayed, theirs)
    _, model, optimizer = trained(folder, "cpu")
    optimizer.to(device)
    found = train(model.to(device), optimizer)
    assert {p.device for p in model.parameters()} == {device}
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    optimizer.to("cpu")
    for (name, array), other in zip(model.to("cpu").state_dict().items(), stayed.state_dict().values(), strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_second_run_has_the_same_bits(folder: Path, device: str) -> None:
    (losses, model, _), (again, other, _) = (trained(folder, device) for _ in range(2))
    assert losses == again
    state = other.state_dict()
    assert all(np.array_equal(to_numpy(value), to_numpy(state[name])) for name, value in model.state_dict().items())


def test_files_and_optimizers_go_from_one_to_the_other(folder: Path, device: str, tmp_path: Path) -> None:
    _, model, update = trained(folder, device)
    model.save_pretrained(tmp_path / "saved")
    tokens, labels = batches(model.config.vocab_size, 1)[0]
    here = model_from(tmp_path / "saved", "cpu")
    again = mg.optim.AdamW(here.named_parameters(), lr=1e-4)
    again.load_state_dict(update.state_dict())
    losses = []
    for one, step in ((model, update), (here, again)):
        for _ in range(2):
            with one.evaluating():
                loss = one(tokens, labels=labels).loss
            loss.backward()
            step.step()
            step.zero_grad()
            losses.append(loss.item())
    np.testing.assert_allclose(losses[2:], losses[:2], rtol=CLOSE)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("width", [1, 16, 96, 100])
def test_dropped_units_are_the_same(device: str, rate: float, width: int) -> None:
    """Bit for bit."""
    packing = Packing([1, 5, 17, 40], numbers=[3, 0, 7, 1])
    kept = []
    for where in ("cpu", device):
        mg.manual_seed(3)
        draw = Draw("somewhere", rate, packing, width)
        kept.append(ops.dropout(mg.ones((packing.rows, width), device=where), draw=draw).numpy())
    assert np.array_equal(*kept)


@pytest.mark.parametrize("apart", [False, True])
def test_dropped_attention_weights_are_the_same(device: str, apart: bool) -> None:
    """Values are ones, so a query's output is the sum of its surviving weights: a single different unit changes it."""
    packing, heads, d = Packing([1, 5, 17, 40]), 2, 32
    generator = np.random.default_rng(2)
    asking = packing.first if apart else packing
    kv = np.concatenate([generator.standard_normal((packing.rows, heads * d)), np.ones((packing.rows, heads * d))], axis=1)
    q = generator.standard_normal((asking.rows, heads * d))
    found = []
    for where in ("cpu", device):
        mg.manual_seed(4)
        draw = Draw("somewhere", 0.3, asking, heads, packing)
        arrays = [mg.Tensor(a, dtype="float32", device=where) for a in (q, kv)]
        found.append(ops.attention(*arrays, packing=packing, queries=asking, heads=heads, draw=draw).numpy())
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)  # float32 sums of up to forty weights
