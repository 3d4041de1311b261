"""Captured steps, without a GPU: what a step does is recorded and done again without its Python, and is the step to the last bit.

That CUDA captures it is for `tests/gpu`. Here is checked what CUDA cannot know: that nothing which changes from step to step was left
outside of the arrays that are filled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording

import minigrad as mg
from minigrad import functional as F
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, GraphError, IndexRangeError, ShapeError
from minigrad.models import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)
from minigrad.models.losses import IGNORED
from minigrad.models.outputs import LogitsOutput
from minigrad.packing import PackedTokens
from minigrad.train.captured import graph_cache, steps
from minigrad.train.captured.inputs import padded
from minigrad.train.loss_scale import LossScaler
from minigrad.train.objectives import Count, LossOf, SequenceClasses, TokenClasses
from minigrad.train.team import Team
from minigrad.workers.graphs.buckets import bucket_for

CONFIG = {
    "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 80, "id2label": {0: "a", 1: "b", 2: "c"},
}  # fmt: skip


def batches(lengths: list[tuple[int, ...]]) -> list[Batch]:
    generator, found = np.random.default_rng(0), []
    for number, some in enumerate(lengths):
        tokens = PackedTokens.of([generator.integers(0, 40, n) for n in some], [generator.integers(0, 2, n) for n in some])
        labels, token_labels = generator.integers(0, 3, len(some)), generator.integers(0, 3, tokens.packing.rows)
        labels[: 1 + number % 2], token_labels[:: 3 + number] = IGNORED, IGNORED
        found.append(Batch(tokens, labels, token_labels, np.arange(len(some))))
    return found


def trained(kind: Any, objective: Any, given: list[Batch], capture: bool, precision: str = "float32", layers: int = 1, **how: Any) -> Any:
    """(losses, norms, whether each step was made, weights) of one step for each batch, filled up in both cases."""
    mg.manual_seed(3)
    model = kind(kind.config_class(**CONFIG | {"num_hidden_layers": layers})).train().to("cuda")
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-2)
    schedule = mg.optim.LinearSchedule(optimizer, 1, len(given) + 1)
    team = Team(LossOf(model, objective), optimizer, capture=capture, **how)
    losses, norms, updated = [], [], []
    for batch in given:
        bucket = bucket_for(batch.tokens.packing.lengths)
        with mg.precision(precision):
            losses.append(team.backward(batch if capture else padded(batch, bucket)))
        norms.append(team.grad_norm)
        updated.append(team.step())
        schedule.step()
    return losses, norms, updated, {name: p.numpy().copy() for name, p in model.named_parameters()}


def check_equal(ours: Any, expected: Any) -> None:
    assert (ours[0], ours[2]) == (expected[0], expected[2])
    np.testing.assert_array_equal(np.array(ours[1], float), np.array(expected[1], float))  # NaN, where a gradient overflowed
    for name, weight in expected[3].items():
        np.testing.assert_array_equal(ours[3][name], weight, err_msg=name)


def team_of(objective: Any = None, kind: Any = BertForSequenceClassification) -> tuple[Any, Team]:
    mg.manual_seed(3)
    model = kind(kind.config_class(**CONFIG)).train().to("cuda")
    return model, Team(LossOf(model, objective or SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-2), capture=True)


def made(team: Team, batch: Batch) -> float:
    loss = team.backward(batch)
    team.step()
    return loss


class PooledRoberta(mg.nn.Module):
    """Classifies sequences by all of their rows."""

    config_class = RobertaConfig

    def __init__(self, config: RobertaConfig) -> None:
        self.encoder = RobertaModel(config, add_pooling_layer=False)
        self.classifier = mg.nn.Linear(2 * config.hidden_size, config.num_labels)

    def forward(self, tokens: PackedTokens) -> LogitsOutput:
        rows = self.encoder(tokens).last_hidden_state
        pooled = [pool(rows, packing=tokens.packing) for pool in (F.segment_mean, F.segment_max)]
        return LogitsOutput(self.classifier(F.concatenate(pooled, axis=1)))


def test_graphs_of_an_optimizer_that_has_moved_are_not_replayed(gpu: type[recording.Recorder]) -> None:
    """They read and write its old arrays, also if it has come back."""
    (batch,), (model, team) = batches([(5, 9, 3)]), team_of()
    made(team, batch)
    for device in "cpu", "cuda":
        team.optimizer.to(device)
        model.to(device)
    before = model.classifier.weight.numpy().copy()
    with pytest.raises(GraphError, match="since this team was made: make a new one"):
        made(team, batch)
    np.testing.assert_array_equal(model.classifier.weight.numpy(), before)


# ---------------------------------------------------------------- to the last bit
SAME_BUCKET = [(5, 9, 3), (6, 9, 2), (4, 4, 9), (9, 7, 1)]


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        (BertForSequenceClassification, SequenceClasses(label_smoothing=0.1)),
        (BertForTokenClassification, TokenClasses()),
        (DistilBertForSequenceClassification, SequenceClasses()),
        (ElectraForSequenceClassification, SequenceClasses()),
        (RobertaForSequenceClassification, SequenceClasses()),
        (PooledRoberta, SequenceClasses()),
    ],
)
def test_replays_are_the_steps_to_the_last_bit(kind: type, objective: Any, gpu: type[recording.Recorder]) -> None:
    """Dropout, clipping, a schedule of the learning rate, other lengths and labels in every step."""
    given = batches(SAME_BUCKET)
    assert len({bucket_for(batch.tokens.packing.lengths) for batch in given}) == 1
    expected = trained(kind, objective, given, False, layers=2, max_norm=0.5)
    assert not gpu.lengths
    check_equal(trained(kind, objective, given, True, layers=2, max_norm=0.5), expected)
    assert len(gpu.lengths) == 1
    print("\nrecorded:", dict(gpu.lengths[0]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_and_an_overflow(precision: str, gpu: type[recording.Recorder]) -> None:
    """A factor of the loss that is far too large at first: some updates are left out, and the factor is halved without a new recording."""
    given = batches(SAME_BUCKET)
    first = 2.0**19 if precision == "fp16" else 2.0**4
    runs = [
        trained(BertForSequenceClassification, SequenceClasses(), given, capture, precision, max_norm=1.0, scaler=LossScaler(first))
        for capture in (False, True)
    ]
    check_equal(runs[1], runs[0])
    assert set(runs[0][2]) == ({True, False} if precision == "fp16" else {True})
    assert len(gpu.lengths) == 1


def test_every_bucket_has_its_recording_and_the_oldest_goes(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MAX_GRAPHS", 2)
    sizes = [(5, 9, 3), (1, 6), (6, 9, 2), (9, 9, 9, 9), (2, 5), (7, 9, 1)]
    given = batches(sizes)
    expected = trained(BertForTokenClassification, TokenClasses(), given, False)
    ours = trained(BertForTokenClassification, TokenClasses(), given, True)
    check_equal(ours, expected)
    buckets = [bucket_for(batch.tokens.packing.lengths) for batch in given]
    assert len(set(buckets)) == 3
    assert len(gpu.lengths) == 5  # the second goes for the third, comes back for the first, which comes back for the third


@pytest.mark.parametrize(
    "forgotten",
    ["clock", "counts", "labels", "input_ids", "token_type_ids", "positions", "all_places", "all_keys", "first_keys", "first_rows"],
)
def test_whatever_is_not_filled_would_be_seen(forgotten: str, gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    given, layers = batches(SAME_BUCKET[:2]), 2 if forgotten == "all_keys" else 1  # the last layer computes first rows alone
    expected = trained(BertForSequenceClassification, SequenceClasses(), given, False, layers=layers)
    whole, first = steps._write_inputs, {}

    def stale(*given: Any) -> dict[str, np.ndarray]:
        out = whole(*given)
        assert out is not None
        out[forgotten][...] = first.setdefault(forgotten, out[forgotten].copy())
        return out

    monkeypatch.setattr(steps, "_write_inputs", stale)
    ours = trained(BertForSequenceClassification, SequenceClasses(), given, True, layers=layers)
    assert ours[0][0] == expected[0][0] and any((ours[3][name] != weight).any() for name, weight in expected[3].items())


# ---------------------------------------------------------------- when it cannot be done
def test_an_id_that_the_model_does_not_have_is_named(gpu: type[recording.Recorder]) -> None:
    good, bad = batches([(5, 9, 3), (5, 9, 3)])
    _, team = team_of()
    made(team, good)
    bad.tokens.input_ids[4] = 40
    with pytest.raises(IndexRangeError, match="input_ids holds 40"):
        team.backward(bad)
    assert np.isfinite(made(team, good))


def test_a_sequence_that_is_too_long_is_named(gpu: type[recording.Recorder]) -> None:
    """Positions of RoBERTa are computed on the GPU, and begin behind that of [PAD], which is 1: of 80 there are 78 left."""
    longest, longer = batches([(78, 2), (79, 1)])
    longer.labels[:] = 1
    _, team = team_of(kind=RobertaForSequenceClassification)
    made(team, longest)
    longer.tokens.input_ids[:] = np.maximum(longer.tokens.input_ids, 2)
    with pytest.raises(ShapeError, match="sequence 0 reaches position 78, this model has 78"):
        team.backward(longer)
    longer.tokens.input_ids[40] = 1  # which has no position of its own
    assert np.isfinite(made(team, longer)) and np.isfinite(made(team, longest))
    assert len(gpu.lengths) == 1


def test_memory_that_does_not_suffice_for_a_plain_step_is_the_callers_business(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batches([(5, 9, 3)])[0]
    _, team = team_of(Starving())
    with pytest.raises(MemoryError, match="no room for 3 sequences"):
        team.backward(batch)
    assert not gpu.lengths
    assert np.isfinite(team.backward(batch, parts=2))
    assert len(gpu.lengths) == 3


class Starving(SequenceClasses):
    """Has room for two sequences."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        if len(part.tokens.packing) > 2:
            raise MemoryError(f"no room for {len(part.tokens.packing)} sequences")
        return super().share(model, part, count)


def test_a_cpu_makes_no_graphs() -> None:
    model = BertForSequenceClassification(BertConfig(**CONFIG))
    with pytest.raises(ArgumentError, match="move the model to a GPU first"):
        Team(LossOf(model, SequenceClasses()), mg.optim.AdamW(model.named_parameters(), lr=1e-2), capture=True)
