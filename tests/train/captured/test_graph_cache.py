"""How long captured steps are kept, on a GPU of NumPy arrays: stale graphs are captured again, and steps run eagerly if capture fails."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording
from train.captured.test_steps import CONFIG, SAME_BUCKET, batches, made, team_of

import minigrad as mg
from minigrad import functional as F
from minigrad.data.loader import Batch
from minigrad.models import BertConfig, BertForSequenceClassification, BertForTokenClassification
from minigrad.models.losses import IGNORED
from minigrad.train.objectives import Count, LossOf, Mixed, Objective, SequenceClasses, TokenClasses
from minigrad.train.team import Team
from minigrad.workers import Replicas
from minigrad.workers.replicas import forget_graphs


# ---------------------------------------------------------------- when a graph is stale
def test_a_change_of_the_model_means_a_new_capture(gpu: type[recording.Recorder]) -> None:
    batch = batches([(5, 9, 3)])[0]
    model, team = team_of()
    changes = [
        lambda: None,
        lambda: model.freeze("bert.embeddings*"),
        lambda: model.eval(),
        lambda: setattr(model.train().dropout, "p", 0.5),
        lambda: mg.manual_seed(4),
    ]
    for number, change in enumerate(changes, 1):
        change()
        for _ in range(2):
            made(team, batch)
        assert len(gpu.lengths) == number
    with mg.precision("bf16"):
        made(team, batch)
    assert len(gpu.lengths) == len(changes) + 1


def test_a_change_of_the_objective_means_a_new_capture(gpu: type[recording.Recorder]) -> None:
    batch, objective = batches([(5, 9, 3)])[0], SequenceClasses()
    model, team = team_of(objective)
    model.eval()
    for number, smoothing in enumerate([0.0, 0.5, 0.9], 1):
        objective.label_smoothing = smoothing
        losses = [team.backward(batch) for _ in range(2)]
        assert len(gpu.lengths) == number
        assert losses == pytest.approx([objective.loss(model, batch, batch).item()] * 2, rel=1e-6)  # float32, sums in another order


@pytest.mark.parametrize("nested", [False, True])
def test_a_change_of_a_part_of_a_mixture_means_a_new_capture(nested: bool, gpu: type[recording.Recorder]) -> None:
    batch, part = batches([(5, 9, 3)])[0], SequenceClasses([1.0, 2.0, 3.0])
    model, team = team_of(Mixed([(1.0, SequenceClasses()), (2.0, Mixed([(1.0, part)]) if nested else part)]))
    model.eval()
    losses = [team.backward(batch) for _ in range(2)]
    part.class_weights = np.array([3.0, 2.0, 0.5], np.float32)
    losses += [team.backward(batch) for _ in range(2)]
    assert len(gpu.lengths) == 2
    assert losses[0] == losses[1] != losses[2] == losses[3]
    with pytest.raises(ValueError, match="read-only"):  # a copy on the GPU would not see it
        SequenceClasses([1.0, 2.0]).class_weights[0] = 5.0


def test_other_parts_of_a_mixture_in_a_mixture_mean_a_new_capture(gpu: type[recording.Recorder]) -> None:
    batch, part = batches([(5, 9, 3)])[0], SequenceClasses()
    inner = Mixed([(1.0, part)])
    model, team = team_of(Mixed([(1.0, inner)]))
    model.eval()
    losses = [team.backward(batch) for _ in range(2)]
    inner.parts = ((2.0, part),)
    losses += [team.backward(batch) for _ in range(2)]
    assert len(gpu.lengths) == 2
    assert losses == pytest.approx([losses[0]] * 2 + [2 * losses[0]] * 2)


class Held(Objective):
    """What another one is."""

    ignored = IGNORED

    def __init__(self, inner: Objective) -> None:
        self.inner = inner

    def count(self, batch: Batch) -> float:
        return self.inner.count(batch)

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        return self.inner.share(model, part, count)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_change_of_an_objective_that_another_holds(mixed: bool, gpu: type[recording.Recorder]) -> None:
    batch, inner = batches([(5, 9, 3)])[0], SequenceClasses([1.0, 2.0, 3.0])  # whose weights go to the GPU before
    objective = Mixed([(1.0, Held(inner)), (1.0, inner)]) if mixed else Held(inner)
    assert len(objective.made_of()) == 2 + mixed
    model, team = team_of(objective)
    model.eval()
    losses = [team.backward(batch) for _ in range(2)]
    inner.label_smoothing = 0.5
    losses += [team.backward(batch) for _ in range(2)]
    assert len(gpu.lengths) == 2
    assert losses[0] == losses[1] != losses[2] == losses[3]


class Floating(SequenceClasses):
    """Classes that come as floats; -100 is ignored among them, too."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        return super().share(model, replace(part, labels=part.labels.astype(np.int64)), count)  # type: ignore[union-attr]


def test_float_labels_are_padded_with_what_the_objective_ignores(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches([(5, 9, 3)])[0]
    floats = replace(batch, labels=batch.labels.astype(np.float32))
    model, team = team_of(Floating())
    model.eval()
    expected = SequenceClasses().loss(model, batch, batch).item()
    losses = [team.backward(floats)]
    monkeypatch.setattr(Floating, "share", None)  # a replay does without
    losses.append(team.backward(floats))
    assert losses == pytest.approx([expected] * 2, rel=1e-6)  # float32, sums in another order
    assert len(gpu.lengths) == 1


class Counting(SequenceClasses):
    """Another thing in every step."""

    steps = 0

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        self.steps += 1
        return super().share(model, part, count) * self.steps


def test_an_objective_that_changes_itself(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    assert "an attribute of the objective" in refused(team_of(Counting())[1], batches([(5, 9)])[0], caplog)


def test_hooks_are_called_in_every_step(gpu: type[recording.Recorder]) -> None:
    model, team = team_of()
    batch, seen = batches([(5, 9, 3)])[0], []
    made(team, batch)
    with model.register_forward_hook(lambda module, args, output: seen.append(module)):
        for calls in range(1, 4):
            made(team, batch)
            assert len(seen) == calls
    assert len(gpu.lengths) == 1
    made(team, batch)
    made(team, batch)
    assert len(seen) == 3 and len(gpu.lengths) == 2


def test_hooks_of_gradients_are_called_in_every_step(gpu: type[recording.Recorder]) -> None:
    model, team = team_of()
    batch, seen = batches([(5, 9, 3)])[0], []
    made(team, batch)
    with model.classifier.bias.register_hook(lambda gradient: seen.append(gradient.shape)):
        for calls in range(1, 4):
            made(team, batch)
            assert len(seen) == calls
    made(team, batch)
    assert len(seen) == 3 and len(gpu.lengths) == 1


def test_what_is_frozen_stays(gpu: type[recording.Recorder]) -> None:
    model, team = team_of()
    model.freeze("bert.embeddings*")
    table = model.bert.embeddings.word_embeddings.weight
    before = table.numpy().copy()
    for batch in batches(SAME_BUCKET[:2]):
        made(team, batch)
    np.testing.assert_array_equal(table.numpy(), before)
    assert len(gpu.lengths) == 1


# ---------------------------------------------------------------- when it cannot be done
def refused(team: Team, batch: Batch, caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> str:
    """The one line of the log about two steps that were made all the same."""
    with caplog.at_level(logging.INFO, "minigrad"):
        assert all(np.isfinite(made(team, batch)) for _ in range(2))
    records = [record for record in caplog.records if "not captured" in record.getMessage()]
    assert [record.levelno for record in records] == [level]
    return records[0].getMessage()


class Doubled(LossOf):
    """Another loss than its objective's."""

    def __call__(self, part: Batch, whole: Batch) -> mg.Tensor:
        return 2 * super().__call__(part, whole)


def test_a_loss_of_its_own(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    model, team = team_of()
    batch = batches([(5, 9, 3)])[0]
    other = Team(Doubled(model.eval(), SequenceClasses()), team.optimizer, capture=True)
    assert "not an objective's" in refused(other, batch, caplog)
    assert other.backward(batch) == pytest.approx(2 * team.backward(batch), rel=1e-6)  # float32, of a batch that is filled up or not


class Counted(SequenceClasses):
    """Every sequence counts, labelled or not."""

    ignored = None


class OwnLabel(Objective):
    """Differences from whole numbers of which -1 says that there is none: -100 is a number like others."""

    ignored = -1

    def count(self, batch: Batch) -> float:
        assert batch.labels is not None
        return float((batch.labels != -1).sum())

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        logits = model(part.tokens).logits.sum(axis=1)
        labels = mg.Tensor(part.labels, dtype="float32", device=logits.device)
        return F.where(F.equal(labels, -1.0), 0.0, F.square(logits - labels)).sum() / count


def test_an_objective_that_cannot_ignore_items(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minigrad")
    for objective in (Counted(), Mixed([(1.0, SequenceClasses()), (2.0, Counted())]), OwnLabel()):
        caplog.clear()
        message = refused(team_of(objective)[1], batches([(5, 9, 3)])[0], caplog, logging.INFO)
        assert f"{type(objective).__name__} cannot ignore an item" in message
    assert not gpu.lengths


class Penalised(SequenceClasses):
    """More than the sum over the items of a part."""

    def loss(self, model: Any, part: Batch, whole: Batch) -> mg.Tensor:
        return super().loss(model, part, whole) + 10.0


@pytest.mark.parametrize("of_the_class", [True, False])
def test_an_objective_with_a_loss_of_its_own(
    of_the_class: bool, gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "minigrad")
    batch = batches([(5, 9, 3)])[0]
    objective: SequenceClasses = Penalised()
    if not of_the_class:
        objective = SequenceClasses()
        monkeypatch.setattr(objective, "loss", Penalised().loss)
    _, team = team_of(objective)
    assert f"{type(objective).__name__} has a `loss` of its own" in refused(team, batch, caplog, logging.INFO)
    assert team.backward(batch) > 10 and not gpu.lengths


class PenalisedMixture(Mixed):
    """More than the weighted sum."""

    def loss(self, model: Any, part: Batch, whole: Batch) -> mg.Tensor:
        return super().loss(model, part, whole) + 10.0


@pytest.mark.parametrize("part", [Penalised(), PenalisedMixture([(1.0, SequenceClasses())])], ids=["alone", "a mixture"])
def test_a_mixture_of_which_a_part_has_one(part: Any, gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minigrad")
    _, team = team_of(Mixed([(1.0, SequenceClasses()), (2.0, part)]))
    assert "Mixed has a `loss` of its own" in refused(team, batches([(5, 9, 3)])[0], caplog, logging.INFO)
    assert not gpu.lengths


def test_a_loss_of_ones_own(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    model = BertForSequenceClassification(BertConfig(**CONFIG)).train().to("cuda")
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-2)
    team = Team(lambda part, whole: SequenceClasses().loss(model, part, whole), optimizer, capture=True)
    assert "LossOf" in refused(team, batches([(5, 9)])[0], caplog)


def test_an_operation_that_needs_lengths_on_the_host(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    """Heads of a size that attention's kernel does not know."""
    mg.manual_seed(3)
    model = BertForTokenClassification(BertConfig(**CONFIG | {"num_attention_heads": 1, "hidden_size": 48})).eval().to("cuda")
    team = Team(LossOf(model, TokenClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-2), capture=True)
    with caplog.at_level(logging.WARNING, "minigrad"):
        assert team._captured is not None and team._captured.backward(batches([(5, 9)])[0], 1, 1.0) is None
    assert "different in every replay" in caplog.text


class Measuring(SequenceClasses):
    """Changes a buffer in every step."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        model.steps.assign(model.steps + 1)
        return super().share(model, part, count)


def test_a_step_that_changes_a_buffer_changes_it_once(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    model, team = team_of(Measuring())
    model.steps = mg.nn.Buffer(np.zeros((), np.float32))
    model.steps.replace_storage(model.steps.to("cuda").array)
    assert "changes a buffer" in refused(team, batches([(5, 9)])[0], caplog)
    assert model.steps.item() == 2


class Fetching(SequenceClasses):
    """Looks at a number in every step."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        loss = super().share(model, part, count)
        assert loss.item() > 0
        return loss


def test_a_fetch_inside_of_a_step(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    message = refused(team_of(Fetching())[1], batches([(5, 9)])[0], caplog)
    assert "fetches numbers from the GPU while launches are recorded" in message


class Copying(SequenceClasses):
    """Takes a number along from the host in every step."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        return super().share(model, part, count) * mg.tensor(2.0, device="cuda")


def test_a_copy_to_the_gpu_inside_of_a_step(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    message = refused(team_of(Copying())[1], batches([(5, 9)])[0], caplog)
    assert "copies an array to the GPU while launches are recorded" in message


def test_memory_that_does_not_suffice_for_a_graph(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again once what was free is given back, then the plain step is made; other sizes have their graphs."""
    large, small = batches([(5, 20, 13, 9, 9), (5, 9, 3)])
    _, team = team_of()
    done: list[str] = []

    def starving(self: Any, function: Any) -> None:
        done.append("recorded")
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(recording.Recorder, "capture", starving)
        patch.setattr(recording.Recorder, "free_unused", lambda self: done.append("freed"))
        assert all(np.isfinite(made(team, large)) for _ in range(2))
    assert done == ["recorded", "freed", "recorded"] and not gpu.lengths
    assert sum("does not fit in memory" in message for message in caplog.messages) == 1
    made(team, small)
    assert len(gpu.lengths) == 1


def test_memory_of_evaluations_is_freed_first(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches([(5, 9, 3)])[0]
    model, team = team_of()
    replicas = Replicas(lambda tokens: model(tokens).logits, workers=1)
    for _ in range(3):
        replicas(batch.tokens)
    assert len(gpu.lengths) == 1
    whole = recording.Recorder.capture

    def recorded(self: Any, function: Any) -> Any:
        if replicas._captured is not None:
            raise MemoryError("no room beside the graphs of evaluations")
        return whole(self, function)

    monkeypatch.setattr(recording.Recorder, "capture", recorded)
    for _ in range(2):
        made(team, batch)
    assert len(gpu.lengths) == 2 and not forget_graphs()
