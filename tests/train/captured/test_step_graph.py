"""What is recorded of a step, for every kind of objective and without a GPU: a replay is the plain step to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording, streams
from train.captured.test_steps import CONFIG, batches, trained

import minigrad as mg
from minigrad.backend import transfers
from minigrad.backend.gemm import SHORT
from minigrad.backend.side_stream import SideStream
from minigrad.data.loader import Batch
from minigrad.kernels.cuda.table import TABLE
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.models.losses import IGNORED
from minigrad.train.captured.inputs import padded
from minigrad.train.objectives import (
    Count,
    LossOf,
    Mixed,
    Objective,
    SequenceChoices,
    SequenceClasses,
    SequenceNumbers,
    TokenClasses,
    padding_label,
)
from minigrad.train.team import Team
from minigrad.workers.graphs.buckets import bucket_for

LENGTHS = [(5, 9, 3), (6, 9, 2), (4, 4, 9), (9, 7, 1)]
"""Of one bucket, of which 15 tokens in 3 sequences would be missing one: so all are filled up."""

WEIGHTS = [0.5, 2.0, 1.3]


class Tags(TokenClasses):
    """A second head of the same model."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        return super().share(lambda tokens: SimpleNamespace(logits=model.tags(model.bert(tokens).last_hidden_state)), part, count)


class Divided(SequenceClasses):
    """Divides by the count itself, as objectives of users may."""

    def share(self, model: Any, part: Batch, count: Count) -> mg.Tensor:
        return super().share(model, part, 1.0) / count


def model_of(classes: int) -> Any:
    mg.manual_seed(3)
    model: Any = BertForSequenceClassification(BertConfig(**CONFIG | {"id2label": {i: str(i) for i in range(classes)}})).train()
    model.tags = mg.nn.Linear(CONFIG["hidden_size"], 3)
    return model.to("cuda")


def made(objective: Objective, given: list[Batch], capture: bool, ahead: bool) -> Any:
    """(loss, norm) of a step for each batch, filled up in both cases, and the weights and moments afterwards."""
    model = model_of(1 if isinstance(objective, SequenceNumbers) else 3)
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-2)
    team = Team(LossOf(model, objective), optimizer, max_norm=0.5, capture=capture)
    label = padding_label(objective.terms())
    assert label is not None
    if not capture:
        given = [padded(batch, bucket_for(batch.tokens.packing.lengths), label) for batch in given]
    if ahead:
        numbers = [(step.loss, step.grad_norm) for step in team.steps(given)]
    else:
        numbers = [(team.backward(batch), team.grad_norm, team.step())[:2] for batch in given]
    arrays = {name: p.numpy().copy() for name, p in model.named_parameters()}
    return numbers, arrays | {name: np.array(moment) for name, moment in optimizer.moments.items()}


def with_labels(draw: Callable[[np.random.Generator, int], np.ndarray]) -> list[Batch]:
    generator = np.random.default_rng(1)
    return [replace(batch, labels=draw(generator, len(batch.rows))) for batch in batches(LENGTHS)]


def numbers_with_gaps(generator: np.random.Generator, count: int) -> np.ndarray:
    return np.where(np.arange(count) == 1, np.nan, generator.standard_normal(count))


def choices_with_gaps(generator: np.random.Generator, count: int) -> np.ndarray:
    found = generator.integers(0, 2, (count, 3)).astype(np.float32)
    found[0, 1] = found[1] = np.nan
    return found


CASES: dict[str, tuple[Objective, list[Batch]]] = {
    "weighted smooth classes": (SequenceClasses(WEIGHTS, 0.1), batches(LENGTHS)),
    "classes of one's own": (Divided(), batches(LENGTHS)),
    "numbers": (SequenceNumbers(), with_labels(numbers_with_gaps)),
    "whole numbers, of which -100 is one": (SequenceNumbers(), with_labels(lambda generator, count: np.arange(count) - 100)),
    "choices": (SequenceChoices(), with_labels(choices_with_gaps)),
    "whole choices": (SequenceChoices(), with_labels(lambda generator, count: generator.integers(0, 2, (count, 3)))),
    "mixed": (Mixed([(0.3, SequenceClasses(WEIGHTS, 0.1)), (1.7, Tags(WEIGHTS))]), batches(LENGTHS)),
    "mixed in a mixture": (
        Mixed([(0.3, SequenceClasses()), (0.7, Mixed([(1.7, Tags(WEIGHTS)), (0.1, SequenceClasses(WEIGHTS, 0.1))]))]),
        batches(LENGTHS),
    ),
}


@pytest.mark.parametrize(("case", "ahead"), [*((case, True) for case in CASES), ("mixed", False)])
def test_every_objective_to_the_last_bit(case: str, ahead: bool, gpu: type[recording.Recorder]) -> None:
    """Dropout, clipping, other lengths, labels and counts in every step."""
    objective, given = CASES[case]
    numbers, arrays = made(objective, given, False, ahead)
    assert not gpu.lengths
    ours, found = made(objective, given, True, ahead)
    assert len(gpu.lengths) == 1
    assert ours == numbers and len({loss for loss, _ in ours}) == len(given)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_gradients_of_parameters_are_computed_beside_the_walk_back(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    beside: Counter[str] = Counter()

    def settle(stream: streams.SecondStream) -> None:
        beside.update(work.name for work in stream.waiting)
        plain(stream)

    plain = streams.SecondStream.settle
    monkeypatch.setattr(streams.SecondStream, "settle", settle)
    made(SequenceClasses(), batches(LENGTHS), True, True)
    assert beside["sort_ids"] == 1  # of all tables, beside the forward pass
    assert beside["matmul"] == 7  # of queries, of keys with values, of the three other matrices of a layer, of pooler and classifier
    for kernel in ("norm_sums_float32", "column_sums_float32", "total_rows"):
        assert beside[kernel] == gpu.lengths[0][kernel] > 0


def test_what_is_one_launch_does_not_become_several_unseen(gpu: type[recording.Recorder]) -> None:
    """Beside products nothing but kernels of ours, and those that serve all tables of embeddings serve them once."""
    trained(BertForSequenceClassification, SequenceClasses(), batches(LENGTHS), True, max_norm=0.5)
    found = gpu.lengths[0]
    assert {name: count for name, count in found.items() if name not in TABLE and name != "matmul"} == {"setitem": 1}
    for kernel in ("gather_rows", "scatter_rows", "sort_ids", "sum_bundles", "sum_rows", "bias_tanh", "sum_of_squares", "begin_captured"):
        assert found[kernel] == 1
    assert not found["sum_doubles"]


@pytest.mark.parametrize("precision", SHORT)
def test_short_products_to_the_last_bit(precision: str, gpu: type[recording.Recorder]) -> None:
    """Weights are shortened beside the embeddings, and what kernels leave short is not shortened again."""
    objective, given = SequenceClasses(), batches(LENGTHS)
    with mg.precision(precision):
        numbers, arrays = made(objective, given, False, True)
        ours, found = made(objective, given, True, True)
    assert ours == numbers and gpu.lengths[0]["shortened"] == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("case", ["mixed", "mixed in a mixture"])
def test_a_term_without_items_is_left_out(case: str, gpu: type[recording.Recorder]) -> None:
    """Its head gets no gradient then, and no update, which would not be 0 by Adam's rule."""
    objective, given = CASES[case][0], batches([*LENGTHS, LENGTHS[0], LENGTHS[1]])
    for position in (1, 4):
        given[position] = replace(given[position], labels=np.full(3, IGNORED))
    numbers, arrays = made(objective, given, False, True)
    ours, found = made(objective, given, True, True)
    assert ours == numbers
    assert (
        len(gpu.lengths) == 3
    )  # with all terms, without one, and again with all once their parameters have had unequal numbers of updates
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_a_recording_has_made_does_not_last_from_one_replay_to_the_next(gpu: type[recording.Recorder]) -> None:
    """That the emulated GPU shows it: other graphs compute in the same memory."""
    x, kept = recording.xp.full((3,), 2.0), []

    def once() -> tuple[Any, ...]:
        if not kept:
            kept.append(x * 2)
        return (kept[0] + 1,)

    for function, is_right in ((lambda: (x * 2 + 1,), True), (once, False)):
        (found,), replay = gpu().capture(function)
        replay()
        assert (transfers.to_host(found) == 5).all() == is_right


def test_what_is_read_beside_is_held(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A side stream that keeps no operands alive reads memory that another array has overwritten, which the emulator shows."""
    plain, _ = made(SequenceClasses(), batches(LENGTHS), False, True)
    run = SideStream.run
    monkeypatch.setattr(SideStream, "run", lambda stream, work, holder, size: run(stream, work, object(), size))
    ours, _ = made(SequenceClasses(), batches(LENGTHS), True, True)
    assert not np.array_equal(np.array(ours), np.array(plain), equal_nan=True)
    assert "matmul beside freed" in streams.SecondStream.disturbed
    streams.SecondStream.disturbed.clear()


def set_first(x: Any) -> None:
    x[:1] = 5


MEANWHILE: dict[str, tuple[Callable[[Any, Any], object], list[str]]] = {
    "nothing": (lambda x, y: None, []),
    "what is read is written": (lambda x, y: set_first(x), ["add beside setitem"]),
    "what is written is written": (lambda x, y: set_first(y), ["add beside setitem"]),
    "what is written is read": (lambda x, y: y.sum(), ["add beside sum"]),
    "what is read is read": (lambda x, y: x.sum(), []),
    "their other halves are written": (lambda x, y: (set_first(x[2:]), set_first(y[2:])), []),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_two_streams_in_the_same_memory_are_found(case: str, gpu: type[recording.Recorder]) -> None:
    """What the first does while the second adds 1 to the first half of x, and makes it that of y."""
    recorder, xp, (meanwhile, expected) = gpu(), recording.xp, MEANWHILE[case]

    def function() -> tuple[Any, ...]:
        x, y = xp.zeros(4, np.float32), xp.zeros(4, np.float32)
        recorder.side_stream.run(lambda: np.add(x[:2], 1, out=y[:2]), x, 0)
        meanwhile(x, y)
        recorder.side_stream.join()
        return (y,)

    recorder.capture(function)
    assert streams.SecondStream.disturbed == expected
    streams.SecondStream.disturbed.clear()
