"""BERT computes a sequence the same way whatever it shares its batch with: padded, packed, alone, reordered, in parts, [CLS] only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models.cases import classifier, config, encoder, ragged
from support import absolute_error, gradient_errors, gradients_of, without_kernels

import minigrad as mg
from minigrad.backend import random
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.models import BertForSequenceClassification, BertModel
from minigrad.packing import PackedTokens, Packing

EXACT = 1e-12
"""Float64 rounding: the same sums in matrices of other heights."""

HOLES = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1]])


def step(model: BertForSequenceClassification, *feed: Any, labels: Any, **named: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and gradients, with the dropout units of a fixed (seed, step)."""
    with random.at(seed=7, step=3):
        output = model(*feed, labels=labels, **named)
        assert output.loss is not None
        output.loss.backward()
    return np.array(output.logits.numpy()), gradients_of(model)


# ---------------------------------------------------------------- one by one, padded, packed
@pytest.mark.parametrize("longest", [9, 10])
def test_padded_batch_equals_sequences_one_by_one(longest: int) -> None:
    model, batch = encoder().eval(), ragged()
    output = model(**batch.padded(longest))
    for i, ids in enumerate(batch.ids):
        alone = model(ids[None], token_type_ids=batch.types[i][None])
        assert absolute_error(output.last_hidden_state.numpy()[i, : len(ids)], alone.last_hidden_state.numpy()[0]) < EXACT
        assert absolute_error(output.pooler_output.numpy()[i], alone.pooler_output.numpy()[0]) < EXACT
        assert not output.last_hidden_state.numpy()[i, len(ids) :].any()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_packed_equals_padded(dropout: float) -> None:
    model, batch = classifier(dropout=dropout), ragged()
    padded = step(model, **batch.padded(10), labels=batch.labels)
    packed = step(model, batch.packed(), labels=batch.labels)
    assert absolute_error(padded[0], packed[0]) < EXACT
    assert max(gradient_errors(padded[1], packed[1]).values()) < EXACT


def test_packed_encoder_returns_packed_rows() -> None:
    model, batch = encoder().eval(), ragged()
    rows, padded = model(batch.packed()).last_hidden_state, model(**batch.padded()).last_hidden_state.numpy()
    assert absolute_error(rows.numpy(), padded[batch.padded()["attention_mask"] == 1]) < EXACT


def test_tokens_around_holes_keep_their_positions() -> None:
    """A row with holes equals its real tokens at their own positions; a masked first token is computed and attended to by nobody."""
    model = encoder().eval()
    ids = np.random.default_rng(0).integers(1, 30, HOLES.shape)
    output = model(ids, HOLES)
    changed = np.where(HOLES == 1, ids, 29)  # what stands at the padding must not matter …
    changed[:, 0] = ids[:, 0]  # … except in column 0, which the pooled head reads
    again = model(changed, HOLES)
    assert absolute_error(again.last_hidden_state.numpy(), output.last_hidden_state.numpy()) == 0.0
    kept = np.flatnonzero(HOLES[0])
    alone = model(PackedTokens(ids[0, kept], Packing([len(kept)]), np.zeros(len(kept), np.int64), kept))
    assert absolute_error(output.last_hidden_state.numpy()[0, kept], alone.last_hidden_state.numpy()) < EXACT
    ids[2, 0] += 1 if ids[2, 0] < 29 else -1
    moved = model(ids, HOLES)
    assert absolute_error(moved.last_hidden_state.numpy(), output.last_hidden_state.numpy()) < EXACT
    assert absolute_error(moved.pooler_output.numpy()[2], output.pooler_output.numpy()[2]) > 1e-3


def test_token_types_default_to_zeros_and_tensors_are_welcome() -> None:
    model, batch = encoder().eval(), ragged()
    feed = batch.padded()
    zeros = model(feed["input_ids"], feed["attention_mask"], np.zeros_like(feed["input_ids"]))
    bare = model(mg.Tensor(feed["input_ids"]), mg.Tensor(feed["attention_mask"]))
    assert absolute_error(zeros.pooler_output.numpy(), bare.pooler_output.numpy()) == 0.0


# ---------------------------------------------------------------- [CLS] only
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("masked_first", [False, True])
def test_first_only_last_layer_equals_all_rows(dropout: float, layers: int, masked_first: bool) -> None:
    model = encoder(dropout=dropout, num_hidden_layers=layers)
    ids = np.random.default_rng(0).integers(1, 30, HOLES.shape)
    mask = HOLES if masked_first else np.maximum(HOLES, np.eye(1, 5, dtype=np.int64))
    tokens = mg.data.pack(ids, mask)
    found = []
    for pooled_of in (lambda: model.pooled(tokens), lambda: model(tokens).pooler_output):
        with random.at(seed=5, step=2):
            pooled = pooled_of()
            (pooled * np.linspace(-1.0, 1.0, pooled.size).reshape(pooled.shape)).sum().backward()
        found.append((np.array(pooled.numpy()), gradients_of(model)))
    assert absolute_error(found[0][0], found[1][0]) < EXACT
    assert max(gradient_errors(found[0][1], found[1][1]).values()) < EXACT


# ---------------------------------------------------------------- reordered, in parts
def test_reordered_batch_drops_the_same_units() -> None:
    model, batch = classifier(dropout=0.4), ragged()
    order = np.array([2, 0, 3, 1])
    whole = step(model, batch.packed(), labels=batch.labels)
    moved = step(model, batch.packed(order, numbers=order), labels=batch.labels[order])
    assert absolute_error(whole[0][order], moved[0]) < EXACT
    assert max(gradient_errors(moved[1], whole[1]).values()) < EXACT
    others = step(model, batch.packed(order), labels=batch.labels[order])  # without its numbers a batch draws other units
    assert absolute_error(whole[0][order], others[0]) > 1e-3


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[3], [0, 2], [1]]])
def test_split_batch_adds_up_to_the_whole(parts: list[list[int]]) -> None:
    """The same units drop in parts of a batch, and their gradients, weighted by the labels in each part, add up to the whole batch's."""
    model, batch = classifier(dropout=0.4), ragged()
    whole = step(model, batch.packed(), labels=batch.labels)
    with random.at(seed=7, step=3):
        for part in parts:
            output = model(batch.packed(part, numbers=part), labels=batch.labels[part])
            assert absolute_error(output.logits.numpy(), whole[0][part]) < EXACT
            (output.loss * (len(part) / len(batch.ids))).backward()
    assert max(gradient_errors(gradients_of(model), whole[1]).values()) < EXACT


def test_dropout_follows_seed_and_step_and_eval_switches_it_off() -> None:
    model, batch = classifier(dropout=0.4), ragged()

    def logits(seed: int, number: int) -> np.ndarray:
        with random.at(seed, number):
            return np.array(model(batch.packed()).logits.numpy())

    assert absolute_error(logits(0, 0), logits(0, 0)) == 0.0
    assert absolute_error(logits(0, 0), logits(0, 1)) > 1e-3
    assert absolute_error(logits(0, 0), logits(1, 0)) > 1e-3
    with model.evaluating():
        assert absolute_error(logits(0, 0), logits(1, 1)) == 0.0
    again = model(batch.packed()).logits.numpy()  # outside a training loop the ordinal grows: no two draws are the same
    assert absolute_error(again, model(batch.packed()).logits.numpy()) > 1e-3


@pytest.mark.parametrize("call", ["pooled", "forward"])
def test_the_first_call_drops_the_same_units_as_a_call_after_a_walk(call: str) -> None:
    found = []
    for walked in (False, True):
        mg.manual_seed(1)
        model = BertModel(config(hidden_dropout_prob=0.4, attention_probs_dropout_prob=0.4))
        if walked:
            model.parameters()
        with random.at(seed=3, step=1):
            tokens = ragged().packed()
            found.append(np.array((model.pooled(tokens) if call == "pooled" else model(tokens).pooler_output).numpy()))
    np.testing.assert_array_equal(found[0], found[1])


# ---------------------------------------------------------------- kernels
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_kernels_equal_bodies(dropout: float, activation: str) -> None:
    """Float32 rounding through two layers; dropout drops the same units on both sides."""
    batch = ragged()
    model = classifier("float32", dropout, hidden_act=activation)
    fast = step(model, batch.packed(), labels=batch.labels)
    with without_kernels():
        plain = step(model, batch.packed(), labels=batch.labels)
    assert absolute_error(fast[0], plain[0]) < 2e-6
    assert max(gradient_errors(fast[1], plain[1]).values()) < 1e-5


# ---------------------------------------------------------------- losses
def test_regression_is_the_mean_squared_error() -> None:
    model, batch = classifier(num_labels=1), ragged()
    wanted = np.array([0.5, -1.0, 2.0, 0.0])
    output = model(batch.packed(), labels=wanted)
    assert output.logits.shape == (4, 1)
    assert float(output.loss) == pytest.approx(((output.logits.numpy()[:, 0] - wanted) ** 2).mean(), rel=1e-12)


def test_regression_with_several_outputs() -> None:
    model, batch = classifier(num_labels=2, problem_type="regression"), ragged()
    wanted = np.arange(8.0).reshape(4, 2)
    output = model(batch.packed(), labels=wanted)
    assert float(output.loss) == pytest.approx(((output.logits.numpy() - wanted) ** 2).mean(), rel=1e-12)
    for wrong in (np.zeros(4), np.zeros(8), np.zeros((2, 4)), np.zeros((1, 2)), 1.0, []):
        with pytest.raises(ShapeError, match=r"labels of a regression have shape .*, the logits \(4, 2\)"):
            model(batch.packed(), labels=wrong)


@pytest.mark.parametrize("integers", [np.zeros(4, np.int64), [0, 0, 0, 0], mg.tensor([0, 0, 0, 0]), np.zeros(4, bool)])
def test_integer_labels_with_one_label_are_a_mistake_unless_regression_is_asked_for(integers: Any) -> None:
    batch = ragged()
    with pytest.raises(ArgumentError, match='set problem_type="regression"; for classes the configuration needs two labels or more'):
        classifier(num_labels=1)(batch.packed(), labels=integers)
    output = classifier(num_labels=1, problem_type="regression")(batch.packed(), labels=integers)
    assert float(output.loss) == pytest.approx((output.logits.numpy() ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_of_a_regression_with_one_output(shape: tuple[int, ...]) -> None:
    model, batch = classifier(num_labels=1), ragged()
    wanted = [0.1, -1.0, 2.0, 0.0]  # 0.1 as a float64, which the model computes in
    output = model(batch.packed(), labels=np.reshape(wanted, shape).tolist())
    assert float(output.loss) == pytest.approx(((output.logits.numpy()[:, 0] - wanted) ** 2).mean(), rel=1e-12)
    for wrong in ((1, 4), (2, 2), (5,)):
        with pytest.raises(ShapeError, match="labels of a regression"):
            model(batch.packed(), labels=np.zeros(wrong))


def test_classification_ignores_minus_100() -> None:
    model, batch = classifier(), ragged()
    output = model(batch.packed(), labels=np.array([0, -100, 2, -100]))
    logits = output.logits.numpy()[[0, 2]]
    expected = -(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[[0, 1], [0, 2]].mean()
    assert float(output.loss) == pytest.approx(expected, rel=1e-12)
    assert model(batch.packed()).loss is None


def test_problem_type_decides_before_the_number_of_labels() -> None:
    model, batch = classifier(num_labels=1, problem_type="single_label_classification"), ragged()
    assert float(model(batch.packed(), labels=np.zeros(4, np.int64)).loss) == 0.0


def test_classifier_dropout_falls_back_to_hidden_dropout() -> None:
    assert BertForSequenceClassification(config(hidden_dropout_prob=0.3)).dropout.p == 0.3
    assert BertForSequenceClassification(config(hidden_dropout_prob=0.3, classifier_dropout=0.0)).dropout.p == 0.0


def test_padding_row_is_not_trained() -> None:
    """As in the published model: where [PAD] is computed (column 0, read by the pooled head) its embedding receives no gradient."""
    model = classifier()
    model(np.array([[0, 4, 5]]), np.array([[0, 1, 1]]), labels=[1]).loss.backward()
    gradient = gradients_of(model)["bert.embeddings.word_embeddings.weight"]
    assert np.flatnonzero(gradient.any(axis=1)).tolist() == [4, 5]


# ---------------------------------------------------------------- errors
TOO_LONG = np.ones((2, 11), np.int64)
INVALID: list[tuple[dict[str, Any], type[Exception], str, str]] = [
    ({"input_ids": TOO_LONG, "attention_mask": np.arange(11) < [[5], [11]]}, ShapeError, "too-long", "sequence 1 reaches position 10"),
    ({"input_ids": [[1, 30]]}, IndexRangeError, "index-range", "input_ids holds 30, this model knows 0..29"),
    ({"input_ids": [[1, -1]]}, IndexRangeError, "index-range", "input_ids holds -1"),
    ({"input_ids": [[1, 2]], "token_type_ids": [[0, 2]]}, IndexRangeError, "index-range", "token_type_ids holds 2, this model knows 0..1"),
    ({"input_ids": [[1.0, 2.0]]}, DTypeError, "dtype", "input_ids must be integers, got float64"),
    ({"input_ids": [["a"]]}, DTypeError, "dtype", "input_ids must be integers"),
    ({"input_ids": None}, DTypeError, "dtype", "input_ids must be integers, got NoneType"),
    ({"input_ids": [[1, 2], [3]]}, ShapeError, "shape", "input_ids: rows of different lengths"),
    ({"input_ids": [1, 2]}, ShapeError, "shape", "must have shape (batch, longest)"),
    ({"input_ids": np.zeros((0, 3), np.int64)}, ShapeError, "shape", "hold something"),
    ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, ShapeError, "shape", "attention_mask has shape (1, 1)"),
    ({"input_ids": [[1, 2]], "token_type_ids": [0, 0]}, ShapeError, "shape", "token_type_ids has shape (2,)"),
    ({"input_ids": [[1, 2]], "token_type_ids": [[0.0, 0.5]]}, DTypeError, "dtype", "token_type_ids must be integers, got float64"),
    ({"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [0, 0]]}, ArgumentError, "empty-row", "row 1 of attention_mask"),
    ({"input_ids": PackedTokens.of([[1]]), "attention_mask": [[1]]}, ArgumentError, "argument", "PackedTokens carry their own"),
    ({"input_ids": [[1, 2]], "labels": [3]}, IndexRangeError, "index-range", "value 3 at place 0"),
    ({"input_ids": [[1, 2]], "labels": [0, 1]}, ShapeError, "shape", "labels have shape (2,)"),
    ({"input_ids": [[1, 2]], "labels": [0.5]}, DTypeError, "dtype", "must be integers"),
]


@pytest.mark.parametrize(("feed", "kind", "code", "words"), INVALID, ids=[words for *_, words in INVALID])
def test_bad_input_is_refused_by_name(feed: dict[str, Any], kind: type[Exception], code: str, words: str) -> None:
    with pytest.raises(kind) as caught:
        classifier()(**feed)
    assert words in str(caught.value)
    assert caught.value.code == code


def test_packed_sequences_are_checked() -> None:
    for sequences, kind in (([], ShapeError), ([[1], []], ShapeError), ([[1.5]], DTypeError), ([["a"]], DTypeError), ([[[1]]], ShapeError)):
        with pytest.raises(kind):
            PackedTokens.of(sequences)
    with pytest.raises(ShapeError, match="sequence 1 has 2 token ids but 1 token type ids"):
        PackedTokens.of([[1], [1, 2]], [[0], [0]])
    with pytest.raises(ShapeError, match="2 lengths but 3 flags of masked first tokens"):
        Packing([2, 2], masked_first=[True, False, False])
    with pytest.raises(ArgumentError, match="sequence numbers must be distinct and lie in 0"):
        Packing([2, 2], numbers=[0, -1])


def test_pooled_needs_a_pooler() -> None:
    model = encoder(add_pooling_layer=False)
    assert model(ragged().packed()).pooler_output is None
    with pytest.raises(ArgumentError, match="without a pooling layer"):
        model.pooled(ragged().packed())


def test_parameter_paths_are_the_published_names() -> None:
    names = [name for name, _ in BertModel(config(num_hidden_layers=1)).named_parameters()]
    block = "encoder.layer.0"
    assert names == [
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        *[f"embeddings.LayerNorm.{k}" for k in ("weight", "bias")],
        *[f"{block}.attention.self.{m}.{k}" for m in ("query", "key", "value") for k in ("weight", "bias")],
        *[f"{block}.attention.output.{m}.{k}" for m in ("dense", "LayerNorm") for k in ("weight", "bias")],
        *[f"{block}.intermediate.dense.{k}" for k in ("weight", "bias")],
        *[f"{block}.output.{m}.{k}" for m in ("dense", "LayerNorm") for k in ("weight", "bias")],
        *[f"pooler.dense.{k}" for k in ("weight", "bias")],
    ]


# ---------------------------------------------------------------- second derivatives
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_hessian_vector_product(activation: str) -> None:
    """The whole model's second derivative, dropout on, against a central difference of its gradients along a random direction.

    Step 1e-5 in float64: the difference quotient is good to about 1e-9 of the largest entry.
    """
    model, batch = classifier(dropout=0.2, hidden_act=activation), ragged(lengths=(4, 2, 5))
    parameters = model.parameters()
    points = [np.array(p.numpy()) for p in parameters]
    generator = np.random.default_rng(3)
    directions = [generator.standard_normal(p.shape) for p in parameters]

    def loss() -> mg.Tensor:
        with random.at(seed=11, step=4):
            return model(batch.packed(), labels=batch.labels).loss

    def slopes(sign: float) -> list[np.ndarray]:
        for parameter, point, direction in zip(parameters, points, directions, strict=True):
            parameter.assign(point + sign * 1e-5 * direction)
        return [g.numpy() for g in mg.grad(loss(), parameters)]

    numeric = [(a - b) / 2e-5 for a, b in zip(slopes(1.0), slopes(-1.0), strict=True)]
    for parameter, point in zip(parameters, points, strict=True):
        parameter.assign(point)
    with mg.higher_order():
        gradients = mg.grad(loss(), parameters, create_graph=True)
        slope = mg.Tensor(np.zeros(()))
        for gradient, direction in zip(gradients, directions, strict=True):
            slope = slope + (gradient * direction).sum()
        products = mg.grad(slope, parameters)
    largest = max(np.abs(n).max() for n in numeric)
    for (name, _), product, expected in zip(model.named_parameters(), products, numeric, strict=True):
        assert absolute_error(product.numpy(), expected) < 1e-7 * largest, name
