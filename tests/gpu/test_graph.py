"""Captured steps on a GPU: replays are the steps to the last bit, whatever is allocated in between."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu.test_training import model_from
from small_models import directory

import minigrad as mg
from minigrad.backend import graphs, transfers
from minigrad.data.loader import Batch
from minigrad.errors import DeviceError
from minigrad.packing import PackedTokens
from minigrad.train.buckets import bucket_for, filled
from minigrad.train.objectives import LossOf, SequenceClasses
from minigrad.train.team import Team


@pytest.fixture(autouse=True)
def on_gpu(device: str) -> None:
    if device == "cpu":
        pytest.skip("a CPU has no CUDA graphs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 5000}
    return directory(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification", scale=0.05, **sizes)


def batches(count: int) -> list[Batch]:
    """Of two buckets, in turn."""
    generator, found = np.random.default_rng(0), []
    for number in range(count):
        lengths = generator.permutation([30, 3, 17, 25, 9, 33, 2, 38] if number % 5 else [39, 38, 37, 36, 35, 34, 33, 32])
        tokens = PackedTokens.of([generator.integers(5, 5000, n) for n in lengths])
        found.append(Batch(tokens, generator.integers(0, 2, 8), None, np.arange(8)))
    return found


def trained(folder: Path, given: list[Batch], capture: bool, precision: str = "float32", between: Any = None) -> Any:
    """(losses, norms, weights) of one step for each batch, with dropout, clipping and a schedule."""
    mg.manual_seed(0)
    model = model_from(folder, "cuda").train()
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3)
    schedule = mg.optim.LinearSchedule(optimizer, 5, len(given))
    team = Team(LossOf(model, SequenceClasses()), optimizer, max_norm=1.0, capture=capture)
    losses, norms = [], []
    for batch in given:
        bucket = bucket_for(batch.tokens.packing.lengths)
        assert bucket is not None
        with mg.precision(precision):
            losses.append(team.backward(batch if capture else filled(batch, bucket)))
        norms.append(team.grad_norm)
        if between is not None:
            between()
        team.step()
        schedule.step()
    return losses, norms, {name: p.numpy() for name, p in model.named_parameters()}


def check_equal(ours: Any, expected: Any) -> None:
    assert ours[:2] == expected[:2]
    for name, weight in expected[2].items():
        assert np.array_equal(ours[2][name], weight), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fifty_replays_are_fifty_steps(folder: Path, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    given = batches(50)
    expected = trained(folder, given, False, precision)
    with caplog.at_level(logging.WARNING, "minigrad"):
        ours = trained(folder, given, True, precision)
    assert not caplog.messages  # which would say why steps were not captured
    check_equal(ours, expected)


def test_each_bucket_is_captured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, recorded = [], graphs.Recorder.recorded
    monkeypatch.setattr(graphs.Recorder, "recorded", lambda self, function: made.append(1) or recorded(self, function))
    given = batches(12)
    trained(folder, given, True)
    assert len(made) == len({bucket_for(batch.tokens.packing.lengths) for batch in given}) == 2


def test_what_is_allocated_between_replays_changes_nothing(folder: Path) -> None:
    import cupy

    def storm() -> None:
        kept = [cupy.full(n, np.nan, np.float32) for n in (1 << 10, 1 << 16, 1 << 20, 1 << 24)]
        del kept
        cupy.get_default_memory_pool().free_all_blocks()
        [cupy.full(1 << 18, np.nan, np.float32) for _ in range(20)]

    given = batches(10)
    check_equal(trained(folder, given, True, between=storm), trained(folder, given, True))


@pytest.mark.parametrize("copy", ["to the GPU", "back"])
def test_copies_inside_of_a_recording_are_named(copy: str) -> None:
    x = mg.ones(4).to("cuda")
    recorder = graphs.Recorder()

    def function() -> Any:
        return (x + mg.Tensor(np.ones(4, np.float32), device="cuda")).array if copy == "to the GPU" else x.sum().item()

    with recorder.entered(), pytest.raises(DeviceError) as caught:
        recorder.recorded(function)
    assert caught.value.code == "captured-copy"
    with recorder.entered():  # the stream is of use still
        result, replay = recorder.recorded(lambda: (x * 2).array)
        replay()
        assert transfers.to_host(result).tolist() == [2, 2, 2, 2]
