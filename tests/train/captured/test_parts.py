"""Captured steps in parts, without a GPU: the parts' gradients are added up by replays, and the step is the plain one to the last bit."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording
from train.captured import test_ahead
from train.captured.test_ahead import HUGE, OVERFLOWING, batches
from train.captured.test_step_graph import Tags
from train.captured.test_steps import CONFIG

import minigrad as mg
from minigrad.backend import to_numpy
from minigrad.backend.graphs import Feed
from minigrad.data.loader import Batch
from minigrad.errors import IndexRangeError
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.models.losses import IGNORED
from minigrad.packing import Packing
from minigrad.train.average import Average
from minigrad.train.captured import graph_cache
from minigrad.train.captured.inputs import padded
from minigrad.train.loss_scale import LossScaler
from minigrad.train.objectives import Count, LossOf, Mixed, Objective, SequenceClasses
from minigrad.train.team import Team
from minigrad.workers.graphs.buckets import bucket_for

LENGTHS = [(5, 9, 3, 7, 11), (6, 9, 2, 10, 8), (4, 4, 9, 12, 6), (9, 7, 1, 5, 13)]
"""Three parts each: of some the dearest sequence is one."""


def filled_part(part: Batch) -> Batch:
    """As captured parts are, by sequences whose numbers no other part has: their draws would be told apart from those of this one."""
    if (part.tokens.input_ids >= HUGE).any():
        return part
    whole = padded(part, bucket_for(part.tokens.packing.lengths))
    numbers = whole.tokens.packing.numbers + 1000 * (whole.rows < 0)
    return replace(whole, tokens=replace(whole.tokens, packing=Packing(whole.tokens.packing.lengths, numbers)))


class Run:
    """A model in training. Without `capture` the parts of a step are filled up before, as captured ones are."""

    def __init__(
        self, capture: bool, objective: Objective | None = None, kind: Any = mg.optim.AdamW, ema: bool = False, **how: Any
    ) -> None:
        mg.manual_seed(3)
        self.model: Any = BertForSequenceClassification(BertConfig(**CONFIG)).train()
        self.model.tags = mg.nn.Linear(CONFIG["hidden_size"], 3)
        table = self.model.bert.embeddings.word_embeddings.weight
        table.assign(np.where(np.arange(40)[:, None] == HUGE, OVERFLOWING, table.numpy()))
        self.model.to("cuda")
        self.optimizer = kind(self.model.named_parameters(), lr=1e-2)
        loss_of = LossOf(self.model, objective or SequenceClasses())

        average = Average(self.optimizer, 0.9) if ema else None
        self.team = Team(
            loss_of if capture else lambda part, whole: loss_of(filled_part(part), whole),
            self.optimizer,
            capture=capture,
            average=average,
            **how,
        )
        self.numbers: list[Any] = []

    def make(self, given: list[Batch], parts: int, ahead: bool = True) -> Run:
        """A step for each batch; when they do not run ahead, by `backward` and `step`."""
        mg.manual_seed(3)
        if ahead:
            self.numbers += [(step.loss, step.grad_norm, step.applied, step.loss_scale) for step in self.team.steps(given, parts)]
        else:
            self.numbers += [(self.team.backward(batch, parts), self.team.grad_norm, self.team.step(), None) for batch in given]
        return self


def check_equal(ours: Any, expected: Any, results: bool = True) -> None:
    assert not results or repr(ours.numbers) == repr(expected.numbers)  # as text, since a loss may be no number
    test_ahead.check_equal(ours, expected, results=False)
    if expected.team.average is not None and ours.team.average is not None:
        for name, array in expected.team.average.arrays.items():
            np.testing.assert_array_equal(to_numpy(ours.team.average.arrays[name]), to_numpy(array), err_msg=name)


# ---------------------------------------------------------------- to the last bit
@pytest.mark.parametrize("parts", [2, 3, 9])
@pytest.mark.parametrize("max_norm", [0.5, None])
def test_steps_in_parts_are_plain_steps_to_the_last_bit(parts: int, max_norm: float | None, gpu: type[recording.Recorder]) -> None:
    """With dropout and other lengths and labels in every step; nine parts are five, of one sequence each."""
    given = batches(LENGTHS)
    expected = Run(False, max_norm=max_norm).make(given, parts)
    assert not gpu.lengths
    check_equal(Run(True, max_norm=max_norm).make(given, parts), expected)
    pieces = [piece for batch in given for piece in batch.split(parts)]
    first = {bucket_for(piece.tokens.packing.lengths) for piece in pieces[:: min(parts, 5)]}
    further = {bucket_for(piece.tokens.packing.lengths) for number, piece in enumerate(pieces) if number % min(parts, 5)}
    assert len(gpu.lengths) == len(first) + len(further) + 1
    ends = [recorded for recorded in gpu.lengths if recorded["adam_captured"]]
    assert len(ends) == 1 and not ends[0]["matmul"] and ends[0]["begin_captured"] == 1


@pytest.mark.parametrize(
    "how",
    [{"ema": True}, {"objective": Mixed([(0.3, SequenceClasses(label_smoothing=0.1)), (1.7, Tags())])}, {"kind": mg.optim.SGD}],
    ids=str,
)
@pytest.mark.parametrize("ahead", [True, False])
def test_averages_mixtures_and_rules_without_a_captured_kernel(how: dict[str, Any], ahead: bool, gpu: type[recording.Recorder]) -> None:
    given = batches(LENGTHS)
    check_equal(Run(True, max_norm=0.5, **how).make(given, 2, ahead), Run(False, max_norm=0.5, **how).make(given, 2, ahead))
    updates = ahead and "kind" not in how
    for kernel, expected in (("adam_captured", updates), ("average_captured", updates and "ema" in how)):
        assert sum(recorded[kernel] > 0 for recorded in gpu.lengths) == expected


def test_a_part_of_which_no_item_counts(gpu: type[recording.Recorder]) -> None:
    """The others have all labels of one term of the mixture, or of both."""
    objective = Mixed([(0.3, SequenceClasses()), (1.7, Tags())])
    given = batches(LENGTHS)
    for number, batch in enumerate(given):
        assert batch.labels is not None and batch.token_labels is not None
        for sequence in batch.tokens.dealt(2)[number % 2]:
            batch.labels[sequence] = IGNORED
            if number > 1:
                batch.token_labels[slice(*batch.tokens.packing.spans[sequence])] = IGNORED
    check_equal(Run(True, objective, max_norm=0.5).make(given, 2), Run(False, objective, max_norm=0.5).make(given, 2))
    assert gpu.lengths


def test_a_term_of_which_no_item_of_the_batch_counts(gpu: type[recording.Recorder]) -> None:
    """Then its head has no gradient, and other steps' graphs are of no use."""
    objective = Mixed([(0.3, SequenceClasses()), (1.7, Tags())])
    given = batches([LENGTHS[0]] * 4)
    for batch in given[1:3]:
        assert batch.token_labels is not None
        batch.token_labels[:] = IGNORED
    check_equal(Run(True, objective, max_norm=0.5).make(given, 2), Run(False, objective, max_norm=0.5).make(given, 2))
    assert len(gpu.lengths) == 2 * 3 + 1  # the head has had fewer updates in the end, which is another update


def test_a_state_that_is_loaded_means_a_new_end(gpu: type[recording.Recorder]) -> None:
    given, runs = batches([LENGTHS[0]] * 2), [Run(capture, max_norm=0.5) for capture in (True, False)]
    for run in runs:
        state = run.make(given, 2).optimizer.state_dict()
        run.make(given, 2).optimizer.load_state_dict(state)
        run.make(given, 2)
    check_equal(*runs)
    assert [recorded["matmul"] > 0 for recorded in gpu.lengths] == [True, True, False, False]


def test_passes_are_the_same_with_and_without_an_update(gpu: type[recording.Recorder]) -> None:
    given, runs = batches([LENGTHS[0]] * 2), [Run(capture, max_norm=0.5) for capture in (True, False)]
    for run in runs:
        for ahead in (True, False, True):
            run.make(given, 2, ahead)
    check_equal(*runs)
    assert [recorded["adam_captured"] > 0 for recorded in gpu.lengths if not recorded["matmul"]] == [True, False]
    assert len(gpu.lengths) == 4


def test_steps_whole_and_in_parts_in_turn(gpu: type[recording.Recorder]) -> None:
    given, runs = batches(LENGTHS), [Run(capture, max_norm=0.5) for capture in (True, False)]
    for run in runs:
        for batch, parts in zip(given, (1, 2, 1, 3), strict=True):
            run.make([batch], parts)
    check_equal(*runs)


@pytest.mark.parametrize("max_norm", [0.5, None])
@pytest.mark.parametrize("bad", [[0], [1], [1, 2], [3]])
def test_a_part_that_overflows(bad: list[int], max_norm: float | None, gpu: type[recording.Recorder]) -> None:
    """In any part of a step, with others on their way behind it."""
    given = batches(LENGTHS)
    for number in bad:
        given[number].tokens.input_ids[-1 - number] = HUGE
    ours, expected = (Run(capture, max_norm=max_norm) for capture in (True, False))
    for run in (ours, expected):
        mg.manual_seed(3)
        run.numbers = [(step.applied,) for step in run.team.steps(given, 2, lambda batch, loss: bool(np.isfinite(loss)))]
    assert [not applied for (applied,) in ours.numbers] == [number in bad for number in range(4)]
    check_equal(ours, expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_and_a_factor_of_the_loss(precision: str, gpu: type[recording.Recorder]) -> None:
    """In fp16 the factor is far too large at first, so that some updates are left out."""
    runs, first = [], 2.0**19 if precision == "fp16" else 2.0**4
    for capture in (True, False):
        runs.append(Run(capture, max_norm=1.0, scaler=LossScaler(first)))
        with mg.precision(precision):
            runs[-1].make(batches(LENGTHS), 2)
    made = [[step for step in run.numbers if step[2]] for run in runs]  # what overflowed was made anew, and not filled up
    assert made[0] == made[1] and 0 < len(made[0]) < 4 + (precision == "bf16")
    check_equal(*runs, results=False)


# ---------------------------------------------------------------- when it cannot be done
def test_an_id_that_the_model_does_not_have_is_named(gpu: type[recording.Recorder]) -> None:
    """When the parts before it have been launched: nothing has changed, and steps go on."""
    given, bad = batches(LENGTHS), batches(LENGTHS[:1])[0]
    bad.tokens.input_ids[bad.tokens.rows_of(bad.tokens.dealt(2)[1])[0]] = 40
    ours, expected = (Run(capture, max_norm=0.5) for capture in (True, False))
    for run in (ours, expected):
        run.make(given[:2], 2)
        with pytest.raises(IndexRangeError, match="input_ids holds 40"):
            run.make([given[0], bad], 2)
        run.make(given[2:], 2)
    check_equal(ours, expected)


def test_a_wrong_id_of_which_nothing_depends(gpu: type[recording.Recorder]) -> None:
    """In a sequence without a label, in the second part, where nobody asks for a norm."""
    batch, bad = batches(LENGTHS[:1] * 2)
    sequence = bad.tokens.dealt(2)[1][0]
    assert bad.labels is not None
    bad.labels[sequence] = IGNORED
    run = Run(True).make([batch], 2)
    bad.tokens.input_ids[slice(*bad.tokens.packing.spans[sequence])] = 40
    for ahead in (True, False):
        with pytest.raises(IndexRangeError, match="input_ids holds 40"):
            run.make([bad], 2, ahead)
    assert set(run.optimizer.steps.values()) == {0, 1}  # the other head is not used


def test_a_batch_that_cannot_be_written_does_not_count(gpu: type[recording.Recorder]) -> None:
    given = batches([LENGTHS[0]] * 4)
    given[3] = replace(given[3], labels=np.zeros(9, np.int64))
    run = Run(True)
    with pytest.raises((ValueError, IndexError)):
        run.make(given, 1)
    assert set(run.optimizer.steps.values()) == {0, 3}


def test_an_interrupt_between_two_parts(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is not made, and does not count."""
    given = batches(LENGTHS)
    ours, expected = (Run(capture, max_norm=0.5) for capture in (True, False))
    ours.make(given, 2)
    sent, send = [], Feed.send

    def interrupted(self: Feed) -> None:
        if len(sent) == 4:  # three replays are a step
            raise KeyboardInterrupt
        sent.append(self)
        send(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Feed, "send", interrupted)
        ours.make(given, 2)
    expected.make(given, 2).make(given[:1], 2)
    ours.numbers = expected.numbers  # of the last step nobody has seen them
    mg.manual_seed(3)
    check_equal(ours.make(given[1:], 2), expected.make(given[1:], 2))


class Sized(SequenceClasses):
    """Has another head for batches of many tokens."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        loss = super().share(model, part, count)
        return loss + model.tags.weight.sum() if part.tokens.packing.rows > 12 else loss


def test_parts_that_give_different_parameters_a_gradient(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    given = batches([(13, 4, 5), (12, 5, 6)])
    assert [[piece.tokens.packing.rows for piece in batch.split(2)] for batch in given] == [[13, 9], [12, 11]]
    runs = [Run(capture, Sized(), max_norm=0.5) for capture in (True, False)]
    for run in runs:
        run.team.loss_of = LossOf(run.model, Sized())  # not filled up: it is all plain in the end
        run.make(given, 2)
    check_equal(*runs)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert graph_cache.DIFFERENT in caplog.text


def test_parts_of_more_sizes_than_graphs_are_kept(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = batches([(13, 4, 5)])
    for kept, recorded in ((2, 0), (3, 3)):
        monkeypatch.setattr(graph_cache, "MAX_GRAPHS", kept)
        assert np.isfinite([step[0] for step in Run(True).make(given * 3, 2).numbers]).all()
        assert len(gpu.lengths) == recorded
        assert caplog.messages == ["steps whose parts have more than 1 sizes are not captured"]


def test_a_mismatch_is_found_when_it_is_recorded(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not only when all of a step's graphs are there: the memory does not suffice for the third."""
    whole, room = recording.Recorder.capture, [1, 1, 0]

    def recorded(self: Any, function: Any) -> Any:
        if room and not room.pop(0):
            raise MemoryError("no room")
        return whole(self, function)

    monkeypatch.setattr(recording.Recorder, "capture", recorded)
    given = batches([(13, 4, 5), (12, 5, 6), (13, 13, 2)])
    given = [given[0], given[2], given[1]]
    runs = [Run(capture, Sized(), max_norm=0.5) for capture in (True, False)]
    for run in runs:
        run.team.loss_of = LossOf(run.model, Sized())
        run.make(given, 2)
    check_equal(*runs)
    assert len(caplog.messages) == 1 and graph_cache.DIFFERENT in caplog.text


def test_a_step_does_not_drive_its_own_graphs_out(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps in turn that have the end in common, and room for one of them: each is launched at once when it comes again."""
    monkeypatch.setattr(graph_cache, "MAX_GRAPHS", 3)
    one, other = batches([LENGTHS[0], (20, 14, 9)])
    run, recorded = Run(True), []
    for batch in (one, one, other, other, one, one, other, other):
        plain = run.team._backward
        monkeypatch.setattr(run.team, "_backward", None)  # no step is made plainly
        run.make([batch], 2)
        monkeypatch.setattr(run.team, "_backward", plain)
        recorded.append(len(gpu.lengths))
    assert recorded == [3, 3, 5, 5, 7, 7, 9, 9]


def test_memory_for_some_graphs_of_a_step_and_not_for_all(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once."""
    whole, run = recording.Recorder.capture, Run(True)

    def recorded(self: Any, function: Any) -> Any:
        if len(run.team._captured._cache._graphs) == 2:  # type: ignore[union-attr]
            raise MemoryError("no room for a third")
        return whole(self, function)

    monkeypatch.setattr(recording.Recorder, "capture", recorded)
    made = []
    for batch in batches([LENGTHS[0]] * 4):
        run.make([batch], 2)
        made.append(len(gpu.lengths))
    assert np.isfinite([step[0] for step in run.numbers]).all()
    assert made[0] == made[-1] <= 6
    assert caplog.messages == ["a step in 2 parts is not captured: its graphs do not fit in memory"]


def test_memory_that_does_not_suffice_for_the_graph_of_a_part(
    gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The step is made without graphs, which is tried once."""
    whole = recording.Recorder.capture

    def recorded(self: Any, function: Any) -> Any:
        if len(gpu.lengths) == 1:
            raise MemoryError("no room")
        return whole(self, function)

    monkeypatch.setattr(recording.Recorder, "capture", recorded)
    given = batches(LENGTHS[:1] * 3)
    expected = Run(False)
    expected.team.loss_of = LossOf(expected.model, SequenceClasses())
    check_equal(Run(True).make(given, 2), expected.make(given, 2))
    assert len(gpu.lengths) == 1
    assert caplog.messages == ["a part of a step of 20 tokens is not captured: its graph does not fit in memory"]
