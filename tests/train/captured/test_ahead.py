"""Running ahead, without a GPU: steps that are launched before the results of those before them are the plain steps to the last bit.

The emulated GPU does nothing before somebody waits for it, so the host is as far ahead as it ever can be.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, isfinite
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from kernels.cuda import recording, streams
from train.captured import test_steps
from train.captured.test_steps import CONFIG, SAME_BUCKET

import minigrad as mg
from minigrad.backend import precision as precision_module
from minigrad.backend import to_numpy
from minigrad.backend.probe import Gpu, Probe
from minigrad.data.loader import Batch, PackedLoader
from minigrad.errors import ArgumentError, DeviceError, IndexRangeError, ShapeError
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.models.losses import IGNORED
from minigrad.packing import PackedTokens, Packing
from minigrad.train import loss_scale
from minigrad.train.average import Average
from minigrad.train.captured import graph_cache
from minigrad.train.captured.ahead import StepResult
from minigrad.train.captured.inputs import padded
from minigrad.train.captured.steps import AHEAD
from minigrad.train.loss_scale import LossScaler
from minigrad.train.objectives import LossOf, SequenceClasses
from minigrad.train.settings import TrainingSettings
from minigrad.train.team import Team
from minigrad.train.trainer import Trainer
from minigrad.workers.graphs.buckets import bucket_for

MANY = [(5, 9, 3), (6, 9, 2), (4, 4, 9), (9, 7, 1), (5, 9, 3), (6, 9, 2)]
"""Of one bucket."""

HUGE = 39
"""The id of a token that makes every loss overflow."""

OVERFLOWING = np.resize(np.array([3e38, -3e38], np.float32), CONFIG["hidden_size"])
"""Its embedding: normalisation cannot subtract these numbers, as it could if all were the same."""


def batches(lengths: list[tuple[int, ...]]) -> list[Batch]:
    given = test_steps.batches(lengths)
    for batch in given:
        np.minimum(batch.tokens.input_ids, HUGE - 1, out=batch.tokens.input_ids)
    return given


def overflowing(*positions: int, number: int = HUGE) -> list[Batch]:
    given = batches(MANY)
    for position in positions:
        given[position].tokens.input_ids[-1] = number  # of a sequence with a label
    return given


class Run:
    """A model in training. Without `capture` batches are filled up before, as captured steps fill them; others are made as they are."""

    def __init__(self, capture: bool, kind: Any = mg.optim.AdamW, objective: Any = None, **how: Any) -> None:
        mg.manual_seed(3)
        self.model = BertForSequenceClassification(BertConfig(**CONFIG)).train()
        table = self.model.bert.embeddings.word_embeddings.weight
        table.assign(np.where(np.arange(40)[:, None] == HUGE, OVERFLOWING, table.numpy()))
        self.model.to("cuda")
        self.optimizer = kind(self.model.named_parameters(), lr=1e-2)
        self.team = Team(LossOf(self.model, objective or SequenceClasses()), self.optimizer, capture=capture, **how)
        self.capture = capture
        self.pulled = self.step = 0
        self.results: list[StepResult] = []

    def source(self, given: list[Batch], rates: list[float] | None = None, filling: bool = True) -> Iterator[Batch]:
        """The batches, and before each another learning rate."""
        for number, batch in enumerate(given):
            self.optimizer.param_groups[0]["lr"] = 1e-2 / (number + 1) if rates is None else rates[number]
            self.pulled += 1
            bucket = bucket_for(batch.tokens.packing.lengths)
            plain = batch.tokens.packing.masked_first is not None or (batch.tokens.input_ids >= HUGE).any()
            yield batch if self.capture or plain or not filling else padded(batch, bucket)

    def make(self, given: Any, most: int | None = None, check: Any = None) -> Run:
        mg.manual_seed(3)
        mg.backend.random.current().step = self.step  # where this run's random numbers stand
        try:
            return self._made(given, most, check)
        finally:
            self.step = mg.backend.random.current().step

    def _made(self, given: Any, most: int | None, check: Any) -> Run:
        steps = self.team.steps(given if isinstance(given, Iterator) else self.source(given), check=check)
        for result in steps:
            self.results.append(result)
            if len(self.results) == most:
                steps.close()
        return self

    @property
    def numbers(self) -> list[Any]:
        return [(result.loss, result.grad_norm, result.applied) for result in self.results]

    @property
    def factors(self) -> list[float | None]:
        return [result.loss_scale for result in self.results]


def check_equal(ours: Run, expected: Run, *, results: bool = True) -> None:
    recorded = (ours.numbers, expected.numbers) if results else ([], [])
    np.testing.assert_array_equal(*(np.array(numbers, float) for numbers in recorded))
    assert not streams.queue
    assert list(ours.optimizer.steps.values()) == list(expected.optimizer.steps.values())
    assert all(p.grad is None for p in ours.optimizer.steps)
    for (name, mine), (_, theirs) in zip(ours.model.named_parameters(), expected.model.named_parameters(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=name)
    for name, moment in expected.optimizer.moments.items():
        np.testing.assert_array_equal(ours.optimizer.moments[name], moment, err_msg=name)


# ---------------------------------------------------------------- to the last bit
@pytest.mark.parametrize("max_norm", [0.5, None])
def test_steps_ahead_are_plain_steps_to_the_last_bit(max_norm: float | None, gpu: type[recording.Recorder]) -> None:
    """With dropout, clipping, and a learning rate that is another in every step."""
    expected = Run(False, max_norm=max_norm).make(batches(MANY))
    assert expected.pulled == len(MANY) and not gpu.lengths
    check_equal(Run(True, max_norm=max_norm).make(batches(MANY)), expected)
    assert len(gpu.lengths) == 1 and gpu.lengths[0]["adam_captured"]


@pytest.mark.parametrize("max_norm", [0.5, None])
def test_a_factor_of_the_loss_that_grows_and_overflows(
    max_norm: float | None, gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows with every second step, those on their way among them, and is halved when one overflows. That one is made anew, and not
    filled up, so its loss has another last bit."""
    monkeypatch.setattr(loss_scale, "GROW_AFTER", 2)
    runs = []
    for capture in (True, False):
        runs.append(Run(capture, max_norm=max_norm, scaler=LossScaler(2.0**16)))
        with mg.precision("fp16"):
            runs[-1].make(batches(MANY * 2))
    ours, expected = runs
    assert ours.factors == expected.factors and set(ours.factors) == {2.0**16, 2.0**17}
    assert [applied for *_, applied in ours.numbers] == [applied for *_, applied in expected.numbers]
    made = [[step for step in run.numbers if step[2]] for run in runs]
    assert made[0] == made[1] and 6 < len(made[0]) < 12
    check_equal(ours, expected, results=False)
    assert ours.team.scaler.state_dict() == expected.team.scaler.state_dict()  # type: ignore[union-attr]
    assert len(gpu.lengths) == 1 and gpu.lengths[0]["adam_captured"]


def test_a_loop_that_is_left_while_an_overflow_is_on_its_way(gpu: type[recording.Recorder]) -> None:
    runs = [Run(capture, scaler=LossScaler(2.0**8)) for capture in (True, False)]
    for run in runs:
        run.make(overflowing(2), most=2)
    check_equal(*runs)
    assert [run.team.scaler.state_dict() for run in runs] == [{"scale": 2.0**8, "good": 2}] * 2  # type: ignore[union-attr]
    assert runs[0].pulled == 4


@pytest.mark.parametrize("options", [{"amsgrad": True}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}])
def test_other_options_of_the_rule(options: dict[str, Any], gpu: type[recording.Recorder]) -> None:
    def kind(parameters: Any, lr: float) -> mg.optim.Optimizer:
        named = list(parameters)
        return mg.optim.Adam([{"params": named[:7]}, {"params": named[7:], "eps": 1e-3}], lr=lr, **options)

    given = batches(MANY[:4])
    check_equal(Run(True, kind, max_norm=1.0).make(given), Run(False, kind, max_norm=1.0).make(given))
    assert len(gpu.lengths) == 1 and gpu.lengths[0]["adam_captured"] >= 2


def test_a_model_that_is_frozen_in_part_is_measured_and_updated_by_runs(gpu: type[recording.Recorder]) -> None:
    """Of its gradients those that lie side by side: matrices, and vectors."""
    runs = [Run(capture, max_norm=0.5) for capture in (True, False)]
    for run in runs:
        run.model.freeze("bert.embeddings*")
        run.make(batches(MANY[:4]))
    check_equal(*runs)
    [launched] = gpu.lengths
    assert launched["sum_of_squares"] == launched["sum_doubles"] == launched["adam_captured"] == 2


def test_other_buckets_evicted_graphs_and_batches_without_one(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MAX_GRAPHS", 2)
    given = batches([(5, 9, 3), (6, 9, 2), (1, 6), (9, 9, 9, 9), (2, 5), (7, 9, 1), (7, 9, 1)])
    tokens = given[1].tokens
    given[1] = Batch(
        PackedTokens(tokens.input_ids, Packing((6, 9, 2), masked_first=(False, True, False)), tokens.token_type_ids, tokens.positions),
        given[1].labels, None, given[1].rows,
    )  # fmt: skip
    ours = Run(True, max_norm=0.5).make(given)
    check_equal(ours, Run(False, max_norm=0.5).make(given))
    assert len(gpu.lengths) == 4  # the first goes for the third, and comes back
    assert all(isfinite(p.numpy().sum()) for p in ours.model.parameters() if len(p) != 40)


def test_results_are_waited_for_later(gpu: type[recording.Recorder]) -> None:
    run, pulled = Run(True), []
    for result in run.team.steps(run.source(batches(MANY))):
        pulled.append(run.pulled)
        assert isfinite(result.loss)
    assert pulled == [min(number + AHEAD, len(MANY)) for number in range(1, len(MANY) + 1)]


# ---------------------------------------------------------------- what is not finite
@pytest.mark.parametrize("positions", [(0,), (1,), (2,), (3,), (5,), (1, 2), (0, 3, 5)])
def test_a_step_that_overflows_is_left_out_and_the_others_are_made(positions: tuple[int, ...], gpu: type[recording.Recorder]) -> None:
    given = overflowing(*positions)

    def check(batch: Batch, loss: float) -> bool:
        return isfinite(loss)

    expected = Run(False, max_norm=0.5).make(given, check=check)
    assert [number for number, result in enumerate(expected.results) if not result.applied] == list(positions)
    ours = Run(True, max_norm=0.5).make(given, check=check)
    check_equal(ours, expected)
    assert [result.batch for result in ours.results] == given
    assert len(gpu.lengths) == 1


def test_without_a_check_it_does_what_a_plain_step_does(gpu: type[recording.Recorder]) -> None:
    given = overflowing(2)
    ours, expected = Run(True, max_norm=0.5).make(given), Run(False, max_norm=0.5).make(given)
    check_equal(ours, expected)
    assert not isfinite(ours.results[2].loss) and not isfinite(ours.results[5].loss)


@pytest.mark.parametrize("position", [0, 3])
def test_an_id_that_the_model_does_not_have_is_named(position: int, gpu: type[recording.Recorder]) -> None:
    given = overflowing(position, number=40)
    ours, expected = Run(True), Run(False)
    for run in (ours, expected):
        with pytest.raises(IndexRangeError, match="input_ids holds 40"):
            run.make(given)
    check_equal(ours, expected)
    assert len(ours.results) == position
    after = batches(MANY[:2])
    check_equal(ours.make(after), expected.make(after))


@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize(("name", "number"), [("input_ids", 40), ("input_ids", -1), ("token_type_ids", 2), ("positions", 80)])
def test_a_wrong_id_where_no_label_is(name: str, number: int, position: int, gpu: type[recording.Recorder]) -> None:
    """The loss stays finite then, and the norm, which would not, is not computed."""
    given = batches(MANY)
    getattr(given[position].tokens, name)[1] = number
    assert given[position].labels[0] == IGNORED
    ours, expected = Run(True), Run(False)
    for run in (ours, expected):
        with pytest.raises((IndexRangeError, ShapeError), match=f"(holds|position) {number}"):
            run.make(given)
    check_equal(ours, expected)
    assert len(ours.results) == position and len(gpu.lengths) == 1


class Elsewhere(SequenceClasses):
    """Computes the ids on the GPU, where nobody sees them."""

    def share(self, model: Any, part: Batch, count: float) -> mg.Tensor:
        return super().share(model, replace(part, tokens=replace(part.tokens, input_ids=part.tokens.input_ids + 0)), count)


@pytest.mark.parametrize(("objective", "max_norm", "is_computed"), [(None, None, False), (None, inf, True), (Elsewhere(), None, True)])
def test_a_norm_is_computed_where_somebody_reads_it(
    objective: Any, max_norm: float | None, is_computed: bool, gpu: type[recording.Recorder]
) -> None:
    given = batches(MANY[:3])
    ours, expected = Run(True, objective=objective, max_norm=max_norm), Run(False, objective=objective, max_norm=max_norm)
    check_equal(ours.make(given), expected.make(given))
    assert bool(gpu.lengths[0]["sum_of_squares"]) == is_computed


# ---------------------------------------------------------------- how it ends
@pytest.mark.parametrize("most", [1, 3])
def test_closed_early(most: int, gpu: type[recording.Recorder]) -> None:
    """What was launched is made; what overflowed meanwhile is not, nor what came behind it."""
    for given in (batches(MANY), overflowing(3)):
        most = min(most, 3) if given[3].tokens.input_ids[-1] == HUGE else most
        ours = Run(True, max_norm=0.5).make(given, most)
        made = next(iter(ours.optimizer.steps.values()))
        assert most <= made <= min(most + AHEAD, len(MANY))
        expected = Run(False, max_norm=0.5).make(given[:made])
        check_equal(ours, expected, results=False)
        assert [loss for loss, _, _ in ours.numbers] == [loss for loss, _, _ in expected.numbers[:most]]
        assert mg.backend.random.current().step == made
        more = batches(MANY[:3])
        check_equal(ours.make(more), expected.make(more), results=False)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_an_exception_of_the_batches_comes_behind_the_results(position: int, gpu: type[recording.Recorder]) -> None:
    def broken(run: Run) -> Iterator[Batch]:
        yield from run.source(batches(MANY)[:position])
        raise KeyError("no more")

    ours = Run(True, max_norm=0.5)
    with pytest.raises(KeyError, match="no more"):
        ours.make(broken(ours))
    check_equal(ours, Run(False, max_norm=0.5).make(batches(MANY)[:position]))


def test_an_exception_of_the_consumer(gpu: type[recording.Recorder]) -> None:
    ours = Run(True)
    with pytest.raises(KeyError):
        for _ in ours.team.steps(ours.source(batches(MANY))):
            raise KeyError
    made = next(iter(ours.optimizer.steps.values()))
    check_equal(ours, Run(False).make(batches(MANY)[:made]), results=False)


def test_an_impossible_rate_comes_behind_the_results(gpu: type[recording.Recorder]) -> None:
    ours, expected = Run(True), Run(False)
    for run in (ours, expected):
        with pytest.raises(ArgumentError, match="lr must be"):
            run.make(run.source(batches(MANY), [1e-2, 1e-2, 1e-2, -1.0, 1e-2, 1e-2]))
    check_equal(ours, expected)
    assert len(ours.results) == 3


@pytest.mark.parametrize("at", range(3))
def test_options_of_the_consumer_count_from_the_next_batch_that_is_pulled(at: int, gpu: type[recording.Recorder]) -> None:
    """Also when a batch that was pulled before waits for its recording."""
    given = batches([*MANY[:3], (5, 20, 13, 9, 9), (5, 20, 13, 9, 9), (6, 9, 2)])
    ours, expected, changed_from = Run(True), Run(False), 0
    for number, _ in enumerate(ours.team.steps(ours.source(given))):
        if number == at:
            ours.optimizer.param_groups[0]["weight_decay"], changed_from = 0.5, ours.pulled

    def changing() -> Iterator[Batch]:
        for number, batch in enumerate(expected.source(given)):
            if number == changed_from:
                expected.optimizer.param_groups[0]["weight_decay"] = 0.5
            yield batch

    expected.make(changing())
    assert ours.optimizer.param_groups[0]["weight_decay"] == 0.5 and changed_from < len(given)
    check_equal(ours, expected, results=False)


def test_memory_that_does_not_suffice_for_another_graph(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one at a time: the first goes for the other, and comes back."""
    given = batches([(5, 9, 3), (6, 9, 2), (4, 4, 9), (9, 9, 9, 9), (5, 9, 3)])
    recorded, alive = recording.Recorder.capture, WeakSet[Any]()

    def starving(self: Any, function: Callable[[], Any]) -> Any:
        if alive:
            raise MemoryError("no room")
        result, replay = recorded(self, function)
        alive.add(replay)
        return result, replay

    monkeypatch.setattr(recording.Recorder, "capture", starving)
    check_equal(Run(True).make(given), Run(False).make(given))
    assert len(gpu.lengths) == 3


def test_a_recording_that_fails_means_plain_steps(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(self: Any, function: Callable[[], Any]) -> Any:
        function()
        raise RuntimeError("CUDA will not")

    monkeypatch.setattr(recording.Recorder, "capture", refusing)
    given = batches(SAME_BUCKET)
    ours, expected = Run(True, max_norm=0.5).make(given), Run(False, max_norm=0.5)
    check_equal(ours, expected.make(expected.source(given, filling=False)))


def test_after_an_interrupted_recording_steps_update(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, while kernels for another size are compiled."""

    def interrupted(self: Any, function: Callable[[], Any]) -> Any:
        function()
        raise KeyboardInterrupt

    ours, expected = Run(True).make(batches(SAME_BUCKET)), Run(False).make(batches(SAME_BUCKET))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recording.Recorder, "capture", interrupted)
        ours.make(batches([(9, 9, 9, 9)]))
    ours.step = expected.step
    check_equal(ours.make(batches(SAME_BUCKET)), expected.make(batches(SAME_BUCKET)))
    assert len(gpu.lengths) == 1


def test_no_gradient_of_a_recording_that_is_given_up_stays(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    """They lie in memory that is given back."""
    run = Run(True)
    head = mg.optim.AdamW(run.model.classifier.named_parameters(), lr=1e-2)
    team = Team(LossOf(run.model, SequenceClasses()), head, capture=True)
    assert team._captured is not None and not team._captured.capture(batches(SAME_BUCKET)[0], 1, None, None)
    assert "gets a gradient but is none of the optimizer's" in caplog.text
    assert all(p.leaf.grad is None for p in run.model.parameters())


# ---------------------------------------------------------------- when it does not run ahead
def test_what_was_loaded_is_what_is_updated(gpu: type[recording.Recorder]) -> None:
    given, runs = batches(SAME_BUCKET), [Run(True), Run(False)]
    for run in runs:
        run.make(given)
        state, kept = run.optimizer.state_dict(), [p.numpy().copy() for p in run.model.parameters()]
        run.make(given)
        run.optimizer.load_state_dict(state)
        for p, numbers in zip(run.model.parameters(), kept, strict=True):
            p.assign(numbers)
        run.make(given)
    check_equal(*runs)
    assert len(gpu.lengths) == 2


@pytest.mark.parametrize("kind", [mg.optim.SGD, mg.optim.Lion])
def test_rules_without_a_captured_kernel(kind: type[mg.optim.Optimizer], gpu: type[recording.Recorder]) -> None:
    given = batches(SAME_BUCKET)
    ours, expected = Run(True, kind, max_norm=0.5).make(given), Run(False, kind, max_norm=0.5).make(given)
    check_equal(ours, expected)
    assert len(gpu.lengths) == 1 and not gpu.lengths[0]["adam_captured"]


def test_steps_of_a_cpu_and_in_parts() -> None:
    found = []
    for parts in (1, 2):
        mg.manual_seed(3)
        model = BertForSequenceClassification(BertConfig(**CONFIG)).train()
        team = Team(LossOf(model, SequenceClasses()), mg.optim.SGD(model.named_parameters(), lr=1e-2), max_norm=1.0)
        found.append([result.loss for result in team.steps(batches(SAME_BUCKET), parts)])
        team.close()
        with pytest.raises(ArgumentError, match="closed"):
            next(team.steps([]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)  # float32, and sums in another order


# ---------------------------------------------------------------- a trainer
def test_a_precision_that_the_gpu_lacks_is_refused_before_anything_is_computed(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    t4 = Gpu(name="Tesla T4", compute_capability=(7, 5), memory_total=1, memory_free=1)
    monkeypatch.setattr(precision_module, "probe", lambda: Probe(gpus=(t4,)))

    def made(name: str) -> Trainer:
        loader = PackedLoader([np.array([1, 2])], [0])
        settings = TrainingSettings(device="cuda", precision=name)
        return Trainer(BertForSequenceClassification(BertConfig(**CONFIG)), SequenceClasses(), loader, settings)

    assert made("fp16").device == made("float32").device == "cuda"
    with pytest.raises(DeviceError, match="'bf16': Tesla T4 has no tensor cores for it") as error:
        made("bf16")
    assert error.value.code == "gpu-precision"


def logged(capture: bool, texts: list[np.ndarray], **settings: Any) -> tuple[list[dict[str, Any]], list[np.ndarray], Any]:
    """What a trainer tells, the weights at the end and their average, and where its optimizer stands. Batches have the size of their
    bucket."""
    mg.manual_seed(3)
    model = BertForSequenceClassification(BertConfig(**CONFIG))
    table = model.bert.embeddings.word_embeddings.weight
    table.assign(np.where(np.arange(40)[:, None] == HUGE, OVERFLOWING, table.numpy()))
    labels = [IGNORED] * 4 + [0, 1, 2, 0] * (len(texts) // 4 - 1)
    loader, events = PackedLoader(texts, labels, batch_size=4), []
    given = TrainingSettings(epochs=2, device="cuda", capture=capture, lr=1e-2, clip=0.5, warmup=0.3, **settings)

    def evaluate() -> dict[str, float]:
        return {"loss": float(np.abs(model.classifier.weight.numpy()).sum())}

    trainer = Trainer(model, SequenceClasses(), loader, given, evaluate=evaluate, callbacks=[events.append])
    trainer.fit()
    stable = [{key: value for key, value in event.items() if not key.startswith(("seconds", "tokens_per", "memory"))} for event in events]
    standing = list(trainer.optimizer.steps.values()), trainer.schedule.steps, trainer.at.skipped, mg.backend.random.current().step
    average = [] if trainer.average is None else [np.array(to_numpy(array)) for array in trainer.average.arrays.values()]
    return stable, [p.numpy() for p in model.parameters()] + average, standing


SETTINGS: list[dict[str, Any]] = [
    {}, {"evaluate_every": 2}, {"ema": 0.9}, {"on_nonfinite": "skip"}, {"ema": 0.9, "on_nonfinite": "skip"}, {"precision": "fp16"},
    {"precision": "fp16", "ema": 0.9}, {"parts": 2}, {"parts": 2, "ema": 0.9, "on_nonfinite": "skip"}, {"parts": 2, "precision": "fp16"},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_trainer_runs_ahead_and_tells_the_same(
    settings: dict[str, Any], gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch of an epoch has no labels; with "skip" the fourth overflows, and those behind it are on their way. In fp16 the factor
    of the loss grows until gradients overflow."""
    monkeypatch.setattr(loss_scale, "GROW_AFTER", 2)
    generator = np.random.default_rng(0)
    texts = [generator.integers(1, HUGE, 4) for _ in range(24)]
    if "on_nonfinite" in settings:
        texts[13][2] = HUGE
    (events, weights, standing), (expected, theirs, stood) = (logged(capture, texts, **settings) for capture in (True, False))
    assert (repr(events), standing) == (repr(expected), stood)  # as text, since a loss is not a number
    assert {event["gpu_memory_mb"] for event in events if event["event"] == "step"} == {recording.GPU_MEMORY / 2**20}
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 13))
    for mine, other in zip(weights, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert any(recorded["adam_captured"] for recorded in gpu.lengths)


def test_the_average_of_the_weights_is_part_of_the_graph(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    calls, update = list[Average](), Average.update
    monkeypatch.setattr(Average, "update", lambda self: calls.append(self) or update(self))
    generator = np.random.default_rng(0)
    logged(True, [generator.integers(1, HUGE, 4) for _ in range(24)], ema=0.9)
    assert [recorded["average_captured"] for recorded in gpu.lengths] == [1]
    assert len(calls) == 2  # after the batch without labels of each epoch


def test_batches_that_were_pulled_when_a_signal_came_are_not_counted(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step before them overflowed, and the memory did not suffice to make it again but in parts."""
    generator, plain = np.random.default_rng(0), Team._backward
    texts = [generator.integers(1, HUGE, 4) for _ in range(24)]
    texts[13][2] = HUGE

    def starving(self: Team, batch: Batch, parts: int, captured: Any) -> float:
        if parts == 1 and (batch.tokens.input_ids == HUGE).any():
            os.kill(os.getpid(), signal.SIGTERM)
            raise MemoryError("no room")
        return plain(self, batch, parts, captured)

    monkeypatch.setattr(Team, "_backward", starving)
    events, _, (counts, scheduled, skipped, drawn) = logged(True, texts, on_nonfinite="skip")
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4]
    assert events[-1]["reason"] == "interrupted" and (counts[0], scheduled, skipped, drawn) == (2, 4, 1, 4)
