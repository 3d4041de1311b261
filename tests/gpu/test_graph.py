"""Captured steps on a GPU: replays equal eager steps to the last bit, whatever is allocated in between."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu.test_training import model_from
from models.cases import head
from small_models import directory

import minigrad as mg
from minigrad.backend import graph_memory, graphs, to_numpy, transfers
from minigrad.data.loader import Batch
from minigrad.errors import DeviceError, IndexRangeError
from minigrad.models import DistilBertForSequenceClassification, ElectraForSequenceClassification, RobertaForSequenceClassification
from minigrad.models.losses import IGNORED
from minigrad.packing import PackedTokens, Packing
from minigrad.train.average import Average
from minigrad.train.captured.inputs import padded
from minigrad.train.captured.steps import AHEAD
from minigrad.train.loss_scale import LossScaler
from minigrad.train.objectives import LossOf, Mixed, Objective, SequenceChoices, SequenceClasses, SequenceNumbers, padding_label
from minigrad.train.team import Team
from minigrad.workers.graphs.buckets import bucket_for

HUGE = 4999
"""The id of a token that makes every loss overflow."""


@pytest.fixture(autouse=True)
def on_gpu(device: str) -> None:
    if device == "cpu":
        pytest.skip("a CPU has no CUDA graphs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 5000}
    return directory(tmp_path_factory.mktemp("bert"), "BertForSequenceClassification", scale=0.05, **sizes)


def batches(count: int) -> list[Batch]:
    """Batches of two bucket sizes, alternating."""
    generator, found = np.random.default_rng(0), []
    for number in range(count):
        lengths = generator.permutation([30, 3, 17, 25, 9, 33, 2, 38] if number % 5 else [39, 38, 37, 36, 35, 34, 33, 32])
        tokens = PackedTokens.of([generator.integers(5, HUGE, n) for n in lengths])
        found.append(Batch(tokens, generator.integers(0, 2, 8), None, np.arange(8)))
    return found


def trained(folder: Path, given: list[Batch], capture: bool, precision: str = "float32", between: Any = None) -> Any:
    """(losses, norms, weights) after one step for each batch, with dropout, clipping and a schedule."""
    mg.manual_seed(0)
    model = model_from(folder, "cuda").train()
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3)
    schedule = mg.optim.LinearSchedule(optimizer, 5, len(given))
    team = Team(LossOf(model, SequenceClasses()), optimizer, max_norm=1.0, capture=capture)
    losses, norms = [], []
    for batch in given:
        bucket = bucket_for(batch.tokens.packing.lengths)
        with mg.precision(precision):
            losses.append(team.backward(batch if capture else padded(batch, bucket)))
        norms.append(team.grad_norm)
        if between is not None:
            between()
        team.step()
        schedule.step()
    return losses, norms, {name: p.numpy() for name, p in model.named_parameters()}


def filled_part(part: Batch) -> Batch:
    """A micro-batch filled as for a capture, by sequences whose numbers are used by no other part of the step."""
    if HUGE in part.tokens.input_ids:
        return part
    whole = padded(part, bucket_for(part.tokens.packing.lengths))
    numbers = whole.tokens.packing.numbers + 1000 * (whole.rows < 0)
    return replace(whole, tokens=replace(whole.tokens, packing=Packing(whole.tokens.packing.lengths, numbers)))


def made_ahead(
    folder: Path, given: list[Batch], capture: bool, precision: str = "float32", max_norm: float | None = 1.0, parts: int = 1
) -> Any:
    """(losses, norms, weights) of steps that run ahead, with dropout, clipping and a schedule; no update for a loss that is not finite."""
    mg.manual_seed(0)
    model = model_from(folder, "cuda").train()
    table = model.bert.embeddings.word_embeddings.weight
    overflowing = np.resize(np.array([3e38, -3e38], np.float32), table.shape[1])  # too large for normalisation to subtract
    table.assign(np.where(np.arange(len(table))[:, None] == HUGE, overflowing, table.numpy()))
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3)
    loss_of = LossOf(model, SequenceClasses())
    how: Any = {"max_norm": max_norm, "capture": capture}
    team = Team(loss_of if capture else lambda part, whole: loss_of(filled_part(part), whole), optimizer, **how)

    def source() -> Iterator[Batch]:
        for number, batch in enumerate(given):
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + number % 7)
            yield batch

    with mg.precision(precision):
        results = list(team.steps(source(), parts, check=lambda _, loss: isfinite(loss)))
    assert [result.applied for result in results] == [isfinite(result.loss) for result in results]
    weights = {name: p.numpy() for name, p in model.named_parameters()}
    return [result.loss for result in results], [result.grad_norm for result in results], weights, optimizer


def check_equal(ours: Any, expected: Any) -> None:
    assert np.array_equal(*(np.array(numbers[:2], float) for numbers in (ours, expected)), equal_nan=True)
    for name, weight in expected[2].items():
        assert np.array_equal(ours[2][name], weight), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fifty_replays_are_fifty_steps(folder: Path, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    given = batches(50)
    expected = trained(folder, given, False, precision)
    with caplog.at_level(logging.WARNING, "minigrad"):
        ours = trained(folder, given, True, precision)
    assert not caplog.messages  # they would say why steps were not captured
    check_equal(ours, expected)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("parts", [2, 3])
def test_steps_in_parts(folder: Path, parts: int, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also with a micro-batch that overflows while others are in flight."""
    given = batches(20)
    given[11].tokens.input_ids[-1] = HUGE
    with caplog.at_level(logging.WARNING, "minigrad"):
        ours = made_ahead(folder, given, True, precision, parts=parts)
    assert not caplog.messages
    check_equal(ours, made_ahead(folder, given, False, precision, parts=parts))


def labels_of(case: str, generator: np.random.Generator) -> np.ndarray:
    """Labels of eight sequences, the first without one."""
    if case == "numbers":
        return np.append(np.nan, generator.standard_normal(7))
    if case == "choices":
        return np.vstack([[np.nan] * 3, generator.integers(0, 2, (7, 3))])
    return np.append(IGNORED, generator.integers(0, 3, 7))


@pytest.mark.parametrize(
    ("case", "objective"),
    [
        ("weighted classes", SequenceClasses([0.5, 2.0, 1.3], 0.1)),
        ("numbers", SequenceNumbers()),
        ("choices", SequenceChoices()),
        ("mixed", Mixed([(0.3, SequenceClasses([0.5, 2.0, 1.3])), (0.5, Mixed([(3.4, SequenceClasses(label_smoothing=0.2))]))])),
    ],
)
def test_steps_of_every_objective(case: str, objective: Objective, caplog: pytest.LogCaptureFixture) -> None:
    generator, given, runs = np.random.default_rng(0), [], []
    for batch in batches(20):
        tokens = replace(batch.tokens, input_ids=batch.tokens.input_ids % 30)
        given.append(replace(batch, tokens=tokens, labels=labels_of(case, generator)))
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "vocab_size": 30, "max_position_embeddings": 40}
    names = {i: str(i) for i in range(1 if case == "numbers" else 3)}
    for capture in (False, True):
        model = head("BertForSequenceClassification", "float32", 0.1, **sizes, id2label=names).to("cuda")
        team = Team(LossOf(model, objective), mg.optim.AdamW(model.named_parameters(), lr=1e-3), max_norm=1.0, capture=capture)
        label = padding_label(objective.terms())
        assert label is not None
        full = [padded(one, bucket_for(one.tokens.packing.lengths), label) for one in given]
        with caplog.at_level(logging.INFO, "minigrad"):
            steps = [(step.loss, step.grad_norm) for step in team.steps(given if capture else full)]
        runs.append((*zip(*steps, strict=True), {name: p.numpy() for name, p in model.named_parameters()}))
    assert "captured" not in caplog.text
    check_equal(runs[1], runs[0])


@pytest.mark.parametrize("max_norm", [1.0, None])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fifty_steps_that_run_ahead(folder: Path, precision: str, max_norm: float | None, caplog: pytest.LogCaptureFixture) -> None:
    given = batches(50)
    expected = made_ahead(folder, given, False, precision, max_norm)
    with caplog.at_level(logging.WARNING, "minigrad"), transfers.strict(), transfers.counting() as counts:
        ours = made_ahead(folder, given, True, precision, max_norm)
    assert not caplog.messages
    check_equal(ours, expected)
    assert counts.to_host == 50 + len(ours[2]) + 1  # results, the weights at the end, and the table that is changed before


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_fifty_steps_with_an_average_and_a_scaler(folder: Path, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    given, runs = batches(50), []
    full = [padded(batch, bucket_for(batch.tokens.packing.lengths)) for batch in given]
    for capture in (False, True):
        mg.manual_seed(0)
        model = model_from(folder, "cuda").train()
        optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3)
        average = Average(optimizer, 0.9)
        scaler = LossScaler(2.0**10) if precision == "fp16" else None
        team = Team(LossOf(model, SequenceClasses()), optimizer, max_norm=1.0, scaler=scaler, average=average, capture=capture)
        with mg.precision(precision), caplog.at_level(logging.WARNING, "minigrad"):
            results = list(team.steps(given if capture else full))
        assert all(result.applied for result in results)
        arrays = {name: p.numpy() for name, p in model.named_parameters()}
        arrays |= {f"the average of {name}": to_numpy(array) for name, array in average.arrays.items()}
        runs.append(([result.loss for result in results], [result.grad_norm for result in results], arrays))
    assert not caplog.messages
    check_equal(runs[1], runs[0])


@pytest.mark.parametrize("kind", [DistilBertForSequenceClassification, ElectraForSequenceClassification, RobertaForSequenceClassification])
def test_steps_of_other_models(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    """RoBERTa's positions are counted on the GPU: [PAD], which has id 1 there, occurs in the middle of texts."""
    sizes = {"vocab_size": 5000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    given, runs = batches(20), []
    for batch in given:
        batch.tokens.input_ids[::5] = 1
    for capture in (False, True):
        mg.manual_seed(0)
        model = kind(kind.config_class(**sizes)).train().to("cuda")
        team = Team(LossOf(model, SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-3), max_norm=1.0, capture=capture)
        full = [padded(batch, bucket_for(batch.tokens.packing.lengths)) for batch in given]
        with caplog.at_level(logging.WARNING, "minigrad"):
            results = list(team.steps(given if capture else full))
        weights = {name: p.numpy() for name, p in model.named_parameters()}
        runs.append(([result.loss for result in results], [result.grad_norm for result in results], weights))
    assert not caplog.messages
    check_equal(runs[1], runs[0])


@pytest.mark.parametrize("positions", [(0,), (24,), (24, 25), (20, 22, 30), (49,)])
def test_overflows_while_it_runs_ahead(folder: Path, positions: tuple[int, ...]) -> None:
    given = batches(50)
    for position in positions:
        given[position].tokens.input_ids[-1] = HUGE
    ours, expected = made_ahead(folder, given, True), made_ahead(folder, given, False)
    check_equal(ours, expected)
    for run in (ours, expected):
        assert [number for number, loss in enumerate(run[0]) if not isfinite(loss)] == list(positions)
        assert set(run[3].steps.values()) == {50 - len(positions)}


def test_closed_while_steps_are_on_their_way(folder: Path) -> None:
    mg.manual_seed(0)
    model = model_from(folder, "cuda").train()
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3)
    steps = Team(LossOf(model, SequenceClasses()), optimizer, capture=True).steps(batches(20))
    losses = [next(steps).loss for _ in range(8)]
    steps.close()
    made = next(iter(optimizer.steps.values()))
    assert 8 < made <= 8 + AHEAD
    again = made_plainly(folder, batches(20)[:made])
    assert losses == again[0][:8]
    for name, p in model.named_parameters():
        assert np.array_equal(p.numpy(), again[1][name]), name


def test_a_wrong_id_where_no_label_is(folder: Path) -> None:
    """The loss stays finite and no norm is computed: the host notices the id before it launches the step."""
    given = batches(10)
    given[6].labels[0], given[6].tokens.input_ids[1] = IGNORED, 5000
    mg.manual_seed(0)
    model, losses = model_from(folder, "cuda").train(), []
    team = Team(LossOf(model, SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-3), capture=True)
    with pytest.raises(IndexRangeError, match="input_ids holds 5000"):
        for step in team.steps(given):
            losses.append(step.loss)
    again = made_plainly(folder, batches(10)[:6])
    assert losses == again[0]
    for name, p in model.named_parameters():
        assert np.array_equal(p.numpy(), again[1][name]), name


def made_plainly(folder: Path, given: list[Batch]) -> Any:
    mg.manual_seed(0)
    model = model_from(folder, "cuda").train()
    team = Team(LossOf(model, SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-3))
    full = [padded(batch, bucket_for(batch.tokens.packing.lengths)) for batch in given]
    return [result.loss for result in team.steps(full)], {name: p.numpy() for name, p in model.named_parameters()}


def test_batches_are_prepared_while_the_gpu_computes() -> None:
    """Checked by events: whenever a batch is pulled, after those whose step did not run ahead, the previous step is not over."""
    import cupy

    sizes = {
        "hidden_size": 512,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "max_position_embeddings": 128,
    }
    model = head("BertForSequenceClassification", "float32", **sizes).to("cuda")  # a step takes some hundred times as long as a launch
    tokens = PackedTokens.of([np.arange(128) % 20 + 5 for _ in range(64)])
    busy: list[bool] = []

    def source() -> Iterator[Batch]:
        for _ in range(12):
            busy.append(not cupy.cuda.get_current_stream().record().done)
            yield Batch(tokens, np.zeros(64, np.int64), None, np.arange(64))

    team = Team(LossOf(model, SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-4), capture=True)
    assert all(isfinite(step.loss) for step in team.steps(source()))
    assert all(busy[2:]), busy


def test_each_bucket_is_captured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, recorded = [], graphs.Recorder.capture
    monkeypatch.setattr(graphs.Recorder, "capture", lambda self, function: made.append(1) or recorded(self, function))
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
        return ((x + mg.Tensor(np.ones(4, np.float32), device="cuda")).array if copy == "to the GPU" else x.sum().item(),)

    with recorder.entered(), pytest.raises(DeviceError) as caught:
        recorder.capture(function)
    assert caught.value.code == "captured-copy"
    with recorder.entered():  # the stream is still usable
        (result,), replay = recorder.capture(lambda: ((x * 2).array,))
        replay()
        assert transfers.to_host(result).tolist() == [2, 2, 2, 2]


def test_streams_are_used_again() -> None:
    """Streams are reused, because cuBLAS keeps 32 MiB for every stream it has computed on."""
    gc.collect()  # recorders of earlier tests release their memory now, not during this one
    found = set()
    for _ in range(3):
        recorder = graphs.Recorder()
        found.add(recorder._stream.ptr)
        x = mg.ones((8, 8)).to("cuda")
        with recorder.entered():
            _, replay = recorder.capture(lambda x=x: ((x @ x).array,))
            replay()
        del recorder, replay, _
    assert len(found) == 1


def test_the_memory_of_recordings_that_are_gone_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by minigrad: other processes also influence how much of a GPU is free."""
    import cupy

    class Counted(cupy.cuda.Memory):
        held = 0

        def __init__(self, size: int) -> None:
            super().__init__(size)
            Counted.held += size

        def __del__(self) -> None:
            Counted.held -= self.size

    monkeypatch.setattr(cupy.cuda, "Memory", Counted)
    x, recorder = mg.ones(1 << 24).to("cuda"), graphs.Recorder()
    for _ in range(3):
        with recorder.entered():
            _, replay = recorder.capture(lambda: ((x * 2 + 1).sum().array,))
            replay()
        assert Counted.held >= x.array.nbytes
        del replay, _
        with recorder.entered():
            pass
        assert Counted.held == 0


def test_graphs_of_one_recorder_share_memory() -> None:
    """They take as much as the largest needs, and each computes correctly after others have written there."""
    gc.collect()  # memory held by earlier tests is freed now, not between two captures
    x, recorder = mg.Tensor(np.arange(1 << 22, dtype=np.float32), device="cuda"), graphs.Recorder()
    lengths, made, held = (1 << 22, 1 << 20, 3 << 20, 1 << 21), {}, []
    for n in lengths:
        with recorder.entered():
            made[n] = recorder.capture(lambda part=x[:n]: (((part * 2 + 1) * (part - 3)).sum().array,))
        held.append(graph_memory.gpu_memory())
    assert len(set(held)) == 1
    for n in (*lengths, *lengths[::-1]):
        (result,), replay = made[n]
        with recorder.entered():
            replay()
            found = transfers.to_host(result).item()
        numbers = np.arange(n, dtype=np.float64)
        np.testing.assert_allclose(found, ((2 * numbers + 1) * (numbers - 3)).sum(), rtol=1e-4)
