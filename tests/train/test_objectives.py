"""The objectives: parts add up to the whole, values are those of the formulas in float64, and several of them mix."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.data.loader import Batch, PackedLoader
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError
from minigrad.nn import Embedding, Module
from minigrad.optim import AdamW
from minigrad.packing import PackedTokens
from minigrad.tensor import Tensor
from minigrad.train.objectives import Mixed, Objective, SequenceChoices, SequenceClasses, SequenceNumbers, TokenClasses
from minigrad.train.settings import TrainingSettings
from minigrad.train.team import Team
from minigrad.train.trainer import Trainer

CLASSES = 3
WEIGHTS = [0.5, 2.0, 1.25]
EPSILON = 1e-6  # float32 sums in another order, of losses around 1


class Scores(Module):
    """Logits straight from a table: of each token, or of each sequence's first token."""

    def __init__(self, outputs: int = CLASSES, of_tokens: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.table = Embedding(50, outputs)
        self.table.weight.assign(np.random.default_rng(seed).standard_normal((50, outputs)).astype(np.float32))
        self.of_tokens = of_tokens

    def forward(self, tokens: PackedTokens) -> Any:
        rows = tokens.input_ids if self.of_tokens else tokens.input_ids[tokens.packing.offsets[:-1]]
        return SimpleNamespace(logits=self.table(rows))

    def expected(self, batch: Batch) -> np.ndarray:
        return np.asarray(self(batch.tokens).logits.numpy(), np.float64)


def batch_of(seed: int, count: int = 7, **labels: Any) -> Batch:
    """Sequences of 1 to 9 tokens; token labels of which some are -100."""
    generator = np.random.default_rng(seed)
    sequences = [generator.integers(0, 50, generator.integers(1, 10)) for _ in range(count)]
    tags = [np.where(generator.random(len(s)) < 0.4, -100, generator.integers(0, CLASSES, len(s))) for s in sequences]
    tags[0][0] = 1  # at least one
    classes = generator.integers(0, CLASSES, count)
    classes[2] = -100
    loader = PackedLoader(sequences, labels.get("labels", classes), token_labels=tags, batch_size=count)
    return next(loader.epoch(0))


def cross_entropy(logits: np.ndarray, labels: np.ndarray, weights: Any, smoothing: float) -> float:
    """PyTorch's: the weights of all classes count in the smoothed part, those of the labels in the divisor."""
    weights = np.ones(CLASSES) if weights is None else np.asarray(weights, np.float64)
    total, divisor = 0.0, 0.0
    for row, label in zip(logits, labels, strict=True):
        if label == -100:
            continue
        logs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        total += (1 - smoothing) * weights[label] * -logs[label] + smoothing / CLASSES * (weights * -logs).sum()
        divisor += weights[label]
    return total / divisor


CASES: dict[str, tuple[Objective, dict[str, Any]]] = {
    "classes": (SequenceClasses(), {}),
    "weighted smooth classes": (SequenceClasses(WEIGHTS, 0.1), {}),
    "tags": (TokenClasses(), {"of_tokens": True}),
    "weighted smooth tags": (TokenClasses(WEIGHTS, 0.2), {"of_tokens": True}),
    "numbers": (SequenceNumbers(), {"outputs": 1}),
    "choices": (SequenceChoices(), {}),
    "mixed": (Mixed([(0.3, SequenceClasses()), (2.0, SequenceClasses(WEIGHTS, 0.1))]), {}),
}


def batch_for(case: str, seed: int) -> Batch:
    generator = np.random.default_rng(seed + 1)
    if case == "numbers":
        return batch_of(seed, labels=generator.standard_normal(7))
    return batch_of(seed, labels=generator.integers(0, 2, (7, CLASSES))) if case == "choices" else batch_of(seed)


@pytest.mark.parametrize("case", CASES)
@given(seed=st.integers(0, 10**6), parts=st.integers(2, 7))
def test_parts_add_up_to_the_whole(case: str, seed: int, parts: int) -> None:
    objective, options = CASES[case]
    model, batch = Scores(**options, seed=seed), batch_for(case, seed)
    whole = objective.loss(model, batch, batch)
    whole.backward()
    wanted = model.table.weight.grad.numpy().copy()
    model.zero_grad()
    total = 0.0
    for part in batch.split(parts):
        share = objective.loss(model, part, batch)
        share.backward()
        total += share.item()
    assert total == pytest.approx(whole.item(), rel=EPSILON, abs=EPSILON)
    np.testing.assert_allclose(model.table.weight.grad.numpy(), wanted, atol=EPSILON)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("of_tokens", [False, True])
def test_classes_are_the_formula(of_tokens: bool, weights: Any, smoothing: float) -> None:
    kind = TokenClasses if of_tokens else SequenceClasses
    for seed in range(5):
        model, batch = Scores(of_tokens=of_tokens, seed=seed), batch_of(seed)
        labels = batch.token_labels if of_tokens else batch.labels
        assert labels is not None
        wanted = cross_entropy(model.expected(batch), labels, weights, smoothing)
        assert kind(weights, smoothing).loss(model, batch, batch).item() == pytest.approx(wanted, rel=EPSILON)


def test_numbers_and_choices_are_the_formulas() -> None:
    model, batch = Scores(outputs=1), batch_for("numbers", 3)
    wanted = np.mean((model.expected(batch)[:, 0] - batch.labels) ** 2)
    assert SequenceNumbers().loss(model, batch, batch).item() == pytest.approx(wanted, rel=EPSILON)
    model, batch = Scores(), batch_for("choices", 3)
    x, y = model.expected(batch), np.asarray(batch.labels)
    wanted = np.mean(np.log1p(np.exp(x)) - x * y)
    assert SequenceChoices().loss(model, batch, batch).item() == pytest.approx(wanted, rel=EPSILON)


@pytest.mark.parametrize("case", ["numbers", "choices"])
def test_what_has_the_label_nan_counts_nowhere(case: str) -> None:
    """Whatever the model makes of it."""
    objective, options = CASES[case]
    model, batch = Scores(**options), batch_for(case, 3)
    labels = np.asarray(batch.labels, np.float32)
    missing = np.zeros(labels.shape, bool)
    missing.reshape(-1)[::3] = missing[1] = True
    batch = replace(batch, labels=np.where(missing, np.nan, labels))
    first = batch.tokens.input_ids[batch.tokens.packing.offsets[1]]
    model.table.weight.assign(np.where(np.arange(50)[:, None] == first, np.inf, model.table.weight.numpy()))
    x = model.expected(batch).reshape(labels.shape)[~missing]
    y = labels[~missing]
    wanted = np.mean((x - y) ** 2) if case == "numbers" else np.mean(np.log1p(np.exp(x)) - x * y)
    loss = objective.loss(model, batch, batch)
    assert objective.count(batch) == len(y) and loss.item() == pytest.approx(wanted, rel=EPSILON)
    loss.backward()
    gradient = model.table.weight.grad.numpy()
    assert np.isfinite(gradient).all() and not gradient[first].any()
    assert objective.count(replace(batch, labels=np.full_like(labels, np.nan))) == 0


@pytest.mark.parametrize("label", [-100, 1.5])
def test_a_choice_that_is_none(label: float) -> None:
    batch = replace(batch_of(0), labels=np.full((7, CLASSES), label))
    with pytest.raises(IndexRangeError, match=f"between 0 .no. and 1 .yes., or is NaN for neither; got {label}"):
        SequenceChoices().loss(Scores(), batch, batch)


def test_what_the_sum_is_divided_by() -> None:
    batch = batch_of(0)
    assert batch.labels is not None and batch.token_labels is not None
    labelled = batch.labels[batch.labels != -100]
    assert SequenceClasses().count(batch) == 6
    assert SequenceClasses(WEIGHTS).count(batch) == pytest.approx(sum(WEIGHTS[label] for label in labelled))
    assert TokenClasses().count(batch) == (batch.token_labels != -100).sum()
    assert SequenceClasses().count(replace(batch, labels=np.full(7, -100))) == 0
    assert SequenceNumbers().count(batch_for("numbers", 0)) == 7 and SequenceChoices().count(batch_for("choices", 0)) == 21


class TwoHeads(Module):
    """Classes of sequences and of tokens from one table."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = Scores()

    def forward(self, tokens: PackedTokens, of_tokens: bool) -> Any:
        self.scores.of_tokens = of_tokens
        return self.scores(tokens)


class Headed(Objective):
    def __init__(self, inner: Objective, of_tokens: bool) -> None:
        self.inner, self.of_tokens = inner, of_tokens

    def count(self, batch: Batch) -> float:
        return self.inner.count(batch)

    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        return self.inner.share(lambda tokens: model(tokens, self.of_tokens), part, count)


MIXED = Mixed([(0.25, Headed(SequenceClasses(), False)), (3.0, Headed(TokenClasses(WEIGHTS), True))])


def test_mixed_is_the_weighted_sum() -> None:
    model, batch = TwoHeads(), batch_of(4)
    (_, first), (_, second) = MIXED.parts
    wanted = 0.25 * first.loss(model, batch, batch).item() + 3 * second.loss(model, batch, batch).item()
    assert MIXED.loss(model, batch, batch).item() == pytest.approx(wanted, rel=EPSILON)
    without = replace(batch, labels=np.full(7, -100))
    assert MIXED.loss(model, without, without).item() == pytest.approx(3 * second.loss(model, batch, batch).item(), rel=EPSILON)
    assert MIXED.count(replace(without, token_labels=np.full(batch.tokens.packing.rows, -100))) == 0


def test_a_mixture_in_a_mixture_counts_as_its_parts() -> None:
    """In the order in which they stand, by their weights' products, so that a captured step is the plain one to the last bit."""
    model, batch, (first, second) = TwoHeads(), batch_of(4), MIXED.parts
    nested = Mixed([(0.5, first[1]), (3.0, Mixed([(0.7, second[1]), (1.1, Mixed([(0.2, first[1])]))]))])
    flat = Mixed([(0.5, first[1]), (3.0 * 0.7, second[1]), (3.0 * (1.1 * 0.2), first[1])])
    assert nested.terms() == list(flat.parts)
    assert nested.loss(model, batch, batch).item() == flat.loss(model, batch, batch).item()
    without = replace(batch, token_labels=np.full(batch.tokens.packing.rows, -100))
    assert nested.loss(model, without, without).item() == flat.loss(model, without, without).item()
    outer = Mixed([(2.0, first[1]), (1.0, Mixed([(4.0, second[1])]))])  # whose inner one has nothing there
    assert outer.loss(model, without, without).item() == Mixed([(2.0, first[1])]).loss(model, without, without).item()


class Penalised(Mixed):
    def loss(self, model: Any, part: Batch, whole: Batch) -> Tensor:
        return super().loss(model, part, whole) + 10.0


def test_a_mixture_with_a_loss_of_its_own_is_asked_for_it() -> None:
    model, batch = TwoHeads(), batch_of(4)
    wanted = 2 * (MIXED.loss(model, batch, batch).item() + 10)
    assert Mixed([(2.0, Penalised(MIXED.parts))]).loss(model, batch, batch).item() == pytest.approx(wanted, rel=EPSILON)


@pytest.mark.parametrize(("workers", "parts"), [(1, 3), (2, 1), (2, 2)])
def test_mixed_through_a_team(workers: int, parts: int) -> None:
    model, batch = TwoHeads(), batch_of(5)
    loss = MIXED.loss(model, batch, batch)
    loss.backward()
    wanted = model.scores.table.weight.grad.numpy().copy()
    model.zero_grad()
    with Team(lambda part, whole: MIXED.loss(model, part, whole), AdamW(model.parameters()), workers=workers) as team:
        assert team.backward(batch, parts) == pytest.approx(loss.item(), rel=EPSILON)
        np.testing.assert_allclose(model.scores.table.weight.grad.numpy(), wanted, atol=EPSILON)


def test_mixed_through_a_trainer() -> None:
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 50, 5) for _ in range(12)]
    tags = [sequence % CLASSES for sequence in sequences]
    loader = PackedLoader(sequences, [int(tag[0]) for tag in tags], token_labels=tags, batch_size=4)
    losses: list[float] = []
    settings = TrainingSettings(epochs=20, lr=0.1, schedule="constant", warmup=0.0, parts=2)
    trainer = Trainer(TwoHeads(), MIXED, loader, settings, callbacks=[lambda e: losses.append(e["loss"]) if e["event"] == "step" else None])
    assert trainer.fit().step == 60
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [[1.0, 2.0]], 1.0, [0.0, 0.0]])
def test_impossible_weights(weights: Any) -> None:
    with pytest.raises(ArgumentError, match="class_weights must be finite numbers of at least 0"):
        SequenceClasses(weights)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_impossible_smoothing(smoothing: float) -> None:
    with pytest.raises(ArgumentError, match="label_smoothing lies between 0 and 1"):
        TokenClasses(label_smoothing=smoothing)


@pytest.mark.parametrize("parts", [[], [(0.0, SequenceClasses())], [(-1.0, SequenceClasses())], [(float("nan"), SequenceClasses())]])
def test_impossible_mixtures(parts: Any) -> None:
    with pytest.raises(ArgumentError, match="weights above 0"):
        Mixed(parts)


def test_a_mixture_without_items_has_no_loss() -> None:
    bare = replace(batch_of(0), labels=np.full(7, -100))
    for part in (SequenceClasses(), Mixed([(2.0, SequenceClasses())])):
        with pytest.raises(ArgumentError, match="no part of this mixture has an item"):
            Mixed([(1.0, part)]).loss(Scores(), bare, bare)


def test_a_mixture_has_no_one_count() -> None:
    with pytest.raises(ArgumentError, match="count their own items"):
        MIXED.share(TwoHeads(), batch_of(0), 1.0)


@pytest.mark.parametrize("label", [CLASSES, -1])
def test_labels_that_are_no_class(label: int) -> None:
    batch = batch_of(0)
    batch = replace(batch, labels=np.full(7, label))
    for objective in (SequenceClasses(), SequenceClasses(WEIGHTS)):
        with pytest.raises(IndexRangeError, match=str(label)):
            objective.loss(Scores(), batch, batch)


def test_batches_of_another_task() -> None:
    bare = replace(batch_of(0), labels=None, token_labels=None)
    for objective in (SequenceClasses(), TokenClasses(), SequenceNumbers(), SequenceChoices()):
        with pytest.raises(ShapeError, match="this objective needs a batch with"):
            objective.loss(Scores(), bare, bare)
    with pytest.raises(ShapeError, match="a model with one label"):
        SequenceNumbers().loss(Scores(), batch_for("numbers", 0), batch_for("numbers", 0))


def test_wrong_number_of_weights() -> None:
    batch = replace(batch_of(0), labels=np.zeros(7, np.int64))
    with pytest.raises(mg.errors.ShapeError, match="one number per class"):
        SequenceClasses([1.0, 2.0]).loss(Scores(), batch, batch)
