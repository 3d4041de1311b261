"""Every head of BERT: proved derivatives, no trace of padding or of the rest of the batch, and what may be asked for on the way."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import HEADS, TOKEN_HEADS, Ragged, config, head, loss_of, ragged, results
from support import absolute_error, gradient_errors, gradients_of

import minigrad as mg
from minigrad import models
from minigrad.backend import random
from minigrad.errors import ArgumentError, DTypeError, FieldError, IndexRangeError, MinigradError, ShapeError
from minigrad.packing import PackedTokens, Packing

EXACT = 1e-12
"""Float64 rounding: the same sums in matrices of other heights."""

HOLES = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1]])

every_head = pytest.mark.parametrize("kind", HEADS)


def step(model: Any, feed: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Results and gradients, with the dropout units of a fixed (seed, step)."""
    with random.at(seed=7, step=3):
        output = model(**feed)
        loss_of(output).backward()
    return {name: np.array(value.numpy()) for name, value in results(output).items()}, gradients_of(model)


def real_rows(batch: Ragged, values: np.ndarray) -> np.ndarray:
    """The real tokens' part of a padded array. Shapes: (batch, longest, *s) → (rows, *s)."""
    return np.concatenate([values[i, : len(ids)] for i, ids in enumerate(batch.ids)])


# ---------------------------------------------------------------- derivatives
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@every_head
def test_every_gradient_is_proved(kind: str, packed: bool) -> None:
    """Each parameter's gradient is the change of the real loss, dropout on, and nothing lies idle.

    Zero are only numbers that a softmax does not see because they are added to all it compares: the biases of keys; of the scores that
    tokens or choices are given; and for tokens, through the linear layer, of the last normalisation.
    """
    audit = mg.audit(head(kind, dropout=0.2), ragged(lengths=(4, 6, 2, 3)).feed(kind, packed), lambda model, feed: loss_of(model(**feed)))
    assert {row.verdict for row in audit.rows} == {"ok", "zero"}
    unseen = {
        "BertForQuestionAnswering": {"qa_outputs.bias", "bert.encoder.layer.1.output.LayerNorm.bias"},
        "BertForMultipleChoice": {"classifier.bias"},
    }.get(kind, set())
    assert {row.name for row in audit.rows if row.verdict == "zero" and not row.name.endswith("key.bias")} == unseen


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("BertForMaskedLM", {"tie_word_embeddings": False}),
        ("BertForMaskedLM", {"is_decoder": True}),
        ("BertForPreTraining", {"tie_word_embeddings": False, "hidden_act": "relu"}),
        ("BertLMHeadModel", {"is_decoder": False}),
    ],
)
def test_gradients_of_other_configurations(kind: str, changes: dict[str, Any]) -> None:
    feed = ragged(lengths=(4, 6, 2, 3)).feed(kind, False)
    assert {row.verdict for row in mg.audit(head(kind, **changes), feed).rows} == {"ok", "zero"}


@pytest.mark.parametrize("problem_type", ["multi_label_classification", None])
def test_gradients_of_several_classes_at_once(problem_type: str | None) -> None:
    feed = ragged().padded() | {"labels": np.random.default_rng(0).integers(0, 2, (4, 3)).astype(float)}
    assert {row.verdict for row in mg.audit(head("BertForSequenceClassification", problem_type=problem_type), feed).rows} == {"ok", "zero"}


# ---------------------------------------------------------------- padding, packing and the rest of the batch
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_head
def test_packed_equals_padded(kind: str, dropout: float) -> None:
    batch = ragged()
    padded, padded_gradients = step(head(kind, dropout=dropout), batch.feed(kind, packed=False, longest=10))
    packed, packed_gradients = step(head(kind, dropout=dropout), batch.feed(kind, packed=True))
    assert padded.keys() == packed.keys()
    for name, value in padded.items():
        by_token = name in ("last_hidden_state", "prediction_logits", "start_logits", "end_logits") or (
            name == "logits" and kind in TOKEN_HEADS
        )
        assert absolute_error(packed[name], real_rows(batch, value) if by_token else value) < EXACT, name
        if by_token:
            assert not any(value[i, len(ids) :].any() for i, ids in enumerate(batch.ids)), name
    assert max(gradient_errors(packed_gradients, padded_gradients).values()) < EXACT


@every_head
def test_padding_changes_nothing(kind: str) -> None:
    """The same batch padded to three lengths: results at real tokens, losses and gradients."""
    batch, model = ragged(lengths=(5, 7, 1, 3)), head(kind)
    first, gradients = step(model, batch.feed(kind, packed=False, longest=7))
    for longest in (8, 10):
        again, more = step(model, batch.feed(kind, packed=False, longest=longest))
        for name, value in first.items():
            wider = again[name][:, : value.shape[1]] if value.ndim > 1 and again[name].shape != value.shape else again[name]
            assert absolute_error(wider, value) < EXACT, name
        assert max(gradient_errors(more, gradients).values()) < EXACT


@every_head
def test_the_rest_of_the_batch_changes_nothing(kind: str) -> None:
    """A sequence (for multiple choice: an example) alone, and first among thirty-two."""
    generator = np.random.default_rng(5)
    batch, model = ragged(3, tuple(generator.integers(1, 11, 32))), head(kind).eval()
    few = range(2) if kind == "BertForMultipleChoice" else range(1)
    alone = results(model(**batch.feed(kind, packed=True, rows=few)))
    among = results(model(**batch.feed(kind, packed=True)))
    for name in alone.keys() - {"loss"}:
        assert absolute_error(among[name].numpy()[: alone[name].shape[0]], alone[name].numpy()) < EXACT, name


@pytest.mark.parametrize("kind", TOKEN_HEADS)
def test_parts_of_a_step_add_up_to_the_whole(kind: str) -> None:
    """num_items_in_batch: parts with different numbers of labels, divided by the whole step's count."""
    batch, model = ragged(), head(kind, dropout=0.3)
    whole, expected = step(model, batch.feed(kind, packed=True))
    labels = batch.feed(kind, packed=True)["labels"]
    if kind == "BertLMHeadModel":  # a sequence's first label is asked for by nobody
        labels = np.delete(labels, batch.packed().packing.first_rows)
    count, total = int((labels != -100).sum()), 0.0
    with random.at(seed=7, step=3):
        for part in ([1], [0, 2], [3]):
            output = model(**batch.feed(kind, packed=True, rows=part), num_items_in_batch=count)
            output.loss.backward()
            total += float(output.loss)
    assert total == pytest.approx(float(whole["loss"]), rel=1e-12)
    assert max(gradient_errors(gradients_of(model), expected).values()) < EXACT


def test_labelled_tokens_alone_give_the_same_loss() -> None:
    batch, model = ragged(), head("BertForMaskedLM", dropout=0.3)
    for packed in (True, False):
        feed = batch.feed("BertForMaskedLM", packed)
        whole, expected = step(model, feed)
        few, gradients = step(model, feed | {"labelled_only": True})
        assert float(few["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-12)
        assert absolute_error(few["logits"], whole["logits"][feed["labels"] != -100]) < EXACT
        assert max(gradient_errors(gradients, expected).values()) < EXACT
    with pytest.raises(ArgumentError, match="labelled_only=True needs labels"):
        model(batch.packed(), labelled_only=True)


def test_rows_alone_have_the_same_logits() -> None:
    batch, model = ragged(), head("BertForMaskedLM").eval()
    whole, rows = model(batch.packed()).logits.numpy(), np.array([7, 0, 3])
    assert absolute_error(model(batch.packed(), rows=rows).logits.numpy(), whole[rows]) < EXACT
    with pytest.raises(ArgumentError, match="rows asks for logits alone"):
        model(**batch.feed("BertForMaskedLM", packed=True), rows=rows)
    with pytest.raises(IndexRangeError, match="rows: value"):
        model(batch.packed(), rows=[len(whole)])


# ---------------------------------------------------------------- from left to right
@pytest.mark.parametrize("kind", ["BertLMHeadModel", "BertModel"])
def test_a_decoder_sees_nothing_that_follows(kind: str) -> None:
    model = head(kind, is_decoder=True).eval()
    ids = ragged(lengths=(9,)).ids[0]
    changed = ids.copy()
    changed[5] = ids[5] % 29 + 1
    output = "logits" if kind == "BertLMHeadModel" else "last_hidden_state"
    rows, other = (results(model(PackedTokens.of([tokens])))[output].numpy() for tokens in (ids, changed))
    assert absolute_error(rows[:5], other[:5]) < EXACT
    assert np.abs(rows[5:] - other[5:]).max(axis=1).min() > 1e-6
    assert all(not np.triu(w[0].numpy(), 1).any() for w in model(PackedTokens.of([ids]), output_attentions=True).attentions)


def test_the_first_row_of_a_decoder_sees_itself_alone() -> None:
    """The shortcut for pooled heads must not let it see the others."""
    model, batch = head("BertForSequenceClassification", is_decoder=True).eval(), ragged()
    firsts = model(PackedTokens.of([ids[:1] for ids in batch.ids], [types[:1] for types in batch.types])).logits
    assert absolute_error(model(batch.packed()).logits.numpy(), firsts.numpy()) < EXACT


def test_padding_predicts_no_token() -> None:
    """Neither column 0, which is computed for pooled heads even where it is padding, nor a token with a gap behind it."""
    model = head("BertLMHeadModel", is_decoder=True).eval()
    ids = np.arange(3, 18).reshape(3, 5)
    mask = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 0, 1, 1]])
    asked = np.array([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 0, 0, 1]])  # the label of a place whose neighbour on the left is a token
    every, few = (np.where(chosen, ids, -100) for chosen in (mask, asked))
    output = model(ids, mask, labels=every)
    scores = mg.functional.log_softmax(output.logits, axis=-1).numpy()
    expected = -np.mean([scores[i, j - 1, ids[i, j]] for i, j in np.argwhere(asked)])
    assert float(output.loss) == pytest.approx(expected, rel=1e-12)
    assert float(model(ids, mask, labels=few).loss) == float(output.loss)


def test_a_language_model_that_looks_ahead_says_so(caplog: pytest.LogCaptureFixture) -> None:
    models.BertLMHeadModel(config(is_decoder=True))
    assert not caplog.records
    models.BertLMHeadModel(config())
    assert "a token also sees those that follow it" in caplog.text


# ---------------------------------------------------------------- asked for on the way
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@every_head
def test_hidden_states_and_attentions_on_request(kind: str, packed: bool) -> None:
    batch, model = ragged(), head(kind).eval()
    feed = batch.feed(kind, packed)
    plain, full = model(**feed), model(**feed, output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is None
    assert plain.attentions is None
    for name, value in results(plain).items():
        assert absolute_error(results(full)[name].numpy(), value.numpy()) < EXACT, name
    assert len(full.hidden_states) == 3
    assert len(full.attentions) == 2
    for states in full.hidden_states:
        assert states.shape == ((18, 12) if packed else (4, 9, 12))
    for weights in full.attentions:
        if packed:
            assert [w.shape for w in weights] == [(3, n, n) for n in (5, 9, 1, 3)]
        for i, n in enumerate((5, 9, 1, 3)):
            own = weights[i].numpy()
            assert own[:, :n, :n].sum(axis=-1) == pytest.approx(1.0, abs=1e-12)
            assert own.sum() == pytest.approx(3 * n, abs=1e-9)  # nothing at the pads


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("BertModel", ["last_hidden_state", "pooler_output"]),
        ("BertForPreTraining", ["loss", "prediction_logits", "seq_relationship_logits"]),
        ("BertForSequenceClassification", ["loss", "logits"]),
        ("BertForQuestionAnswering", ["loss", "start_logits", "end_logits"]),
    ],
)
def test_outputs_are_read_by_key_and_by_place_too(kind: str, first: list[str]) -> None:
    output = head(kind)(**ragged().feed(kind, packed=False), output_attentions=True)
    assert output.keys() == list(output) == [*first, "attentions"] == list(dict(output)), "without hidden_states, which is None"
    values = [getattr(output, name) for name in output]
    assert [output[name] for name in output] == [output[i] for i in range(len(values))] == list(output.to_tuple()) == values
    assert output[:2] == tuple(values[:2]) and output[-1] is output.attentions and "hidden_states" not in output
    listed = ", ".join(map(repr, output))
    with pytest.raises(KeyError) as unknown:
        output["hidden_states"]
    assert isinstance(unknown.value, FieldError) and str(unknown.value).endswith(f" has {listed} and no 'hidden_states'")
    with pytest.raises(IndexRangeError, match=f"has {listed} and no number {len(values)}, counted from 0"):
        output[len(values)]
    with pytest.raises(DTypeError, match=r"is read by names, places and slices, got 1\.0"):
        output[1.0]


def test_hidden_states_end_with_what_the_encoder_returns() -> None:
    model, batch = head("BertModel").eval(), ragged()
    output = model(**batch.padded(), output_hidden_states=True)
    np.testing.assert_array_equal(output.hidden_states[-1].numpy(), output.last_hidden_state.numpy())
    embedded = model(batch.packed(), output_hidden_states=True).hidden_states[0]
    np.testing.assert_array_equal(embedded.numpy(), model.embeddings(batch.packed()).numpy())


@pytest.mark.parametrize("causal", [False, True])
def test_attentions_are_those_that_the_layer_mixes_with(causal: bool) -> None:
    """The weights times the values, through what follows in the layer, are the layer's output: also with holes and masked first tokens."""
    model = head("BertModel", is_decoder=causal).eval()
    ids = np.random.default_rng(0).integers(1, 30, HOLES.shape)
    output = model(ids, HOLES, output_hidden_states=True, output_attentions=True)
    for layer, x, y, weights in zip(
        model.encoder.layer, output.hidden_states[:-1], output.hidden_states[1:], output.attentions, strict=True
    ):
        values = layer.attention.self.value(x.reshape((-1, 12))).reshape((3, 5, 3, 4)).transpose((0, 2, 1, 3))
        mixed = (weights @ values).transpose((0, 2, 1, 3)).reshape((15, 12))
        block, whole = layer.attention, Packing([15])
        z = block.output(mixed, x.reshape((15, 12)), whole)
        expected = layer.output(layer.intermediate(z), z, whole).reshape((3, 5, 12)).numpy()
        assert absolute_error(y.numpy()[HOLES == 1], expected[HOLES == 1]) < EXACT
        assert not weights.numpy().transpose(0, 2, 1, 3)[HOLES == 0].any()
        assert not weights.numpy().transpose(0, 3, 1, 2)[HOLES == 0].any()


@every_head
def test_word_vectors_in_place_of_ids(kind: str) -> None:
    batch, model = ragged(), head(kind)
    path = "embeddings.word_embeddings.weight" if kind == "BertModel" else "bert.embeddings.word_embeddings.weight"
    table = dict(model.named_parameters())[path]
    for packed in (True, False):
        feed = batch.feed(kind, packed)
        expected = {name: np.array(value.numpy()) for name, value in results(model(**feed)).items()}
        ids = feed["input_ids"].input_ids if packed else feed.pop("input_ids")
        vectors = mg.Tensor(table.numpy()[ids], requires_grad=True)
        output = model(**feed, inputs_embeds=vectors)
        for name, value in results(output).items():
            assert absolute_error(value.numpy(), expected[name]) < EXACT, name
        loss_of(output).backward()
        assert vectors.grad is not None
        arrived = vectors.grad.numpy()
        assert packed or not arrived[feed["attention_mask"] == 0].any()
        assert (np.abs(arrived).max(axis=-1) > 0).sum() > len(PACKED.input_ids) / 2
        in_table = gradients_of(model)[path]  # what it received as a decoder
        np.add.at(in_table, ids, arrived)
        loss_of(model(**(feed if packed else feed | {"input_ids": ids}))).backward()
        assert absolute_error(in_table, gradients_of(model)[path]) < EXACT


@pytest.mark.parametrize("given", [np.float64, np.float16, np.int64])
def test_word_vectors_take_the_dtype_of_the_model(given: type) -> None:
    vectors = np.ones((2, 3, 12), given)
    assert head("BertForMaskedLM", "float32")(inputs_embeds=vectors).logits.dtype == np.float32


# ---------------------------------------------------------------- names and files
def test_output_fields_are_those_of_the_head() -> None:
    batch = ragged()
    for kind in HEADS:
        output = head(kind)(**batch.feed(kind, True))
        names = {field.name for field in fields(output)}
        assert names >= {"hidden_states", "attentions"}
        assert ("loss" in names) == (kind != "BertModel")
        assert ("pooler_output" in names) == (kind == "BertModel")
        assert ({"start_logits", "end_logits"} <= names) == (kind == "BertForQuestionAnswering")
        assert ({"prediction_logits", "seq_relationship_logits"} <= names) == (kind == "BertForPreTraining")


def test_head_parameters_have_the_published_names() -> None:
    def names(kind: str, **changes: Any) -> list[str]:
        return [name for name, _ in head(kind, num_hidden_layers=0, **changes).named_parameters() if not name.startswith("bert.embeddings")]

    transform = [f"cls.predictions.transform.{k}" for k in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")]
    pairs = ["cls.seq_relationship.weight", "cls.seq_relationship.bias"]
    pooler = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert names("BertForMaskedLM") == [*transform, "cls.predictions.bias"]
    assert names("BertLMHeadModel") == names("BertForMaskedLM")
    untied = names("BertForMaskedLM", tie_word_embeddings=False)
    assert untied == [*transform, "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
    assert names("BertForPreTraining") == [*pooler, *transform, "cls.predictions.bias", *pairs]
    assert names("BertForNextSentencePrediction") == pooler + pairs
    assert names("BertForTokenClassification") == ["classifier.weight", "classifier.bias"]
    assert names("BertForQuestionAnswering") == ["qa_outputs.weight", "qa_outputs.bias"]
    assert names("BertForMultipleChoice") == [*pooler, "classifier.weight", "classifier.bias"]


@every_head
def test_saved_and_loaded_whole_and_without_its_last_layer(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch, model = ragged(), head(kind, "float32").eval()
    model.save_pretrained(tmp_path)
    again = getattr(models, kind).from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in results(again(**batch.feed(kind, True))).items():
        np.testing.assert_array_equal(value.numpy(), results(model(**batch.feed(kind, True)))[name].numpy())
    (model if kind == "BertModel" else model.bert).encoder.layer.pop()
    short = getattr(models, kind).from_pretrained(tmp_path, num_hidden_layers=1)
    for name, value in results(short(**batch.feed(kind, True))).items():
        np.testing.assert_array_equal(value.numpy(), results(model(**batch.feed(kind, True)))[name].numpy())
    assert not caplog.records  # nothing was newly initialised


# ---------------------------------------------------------------- errors
PACKED = ragged().packed()
ONES = np.ones((2, 3), np.int64)
INVALID: list[tuple[str, dict[str, Any], type[MinigradError], str]] = [
    ("BertForTokenClassification", {"input_ids": ONES, "labels": ONES[:, :2]}, ShapeError, "labels have shape (2, 2), the tokens (2, 3)"),
    ("BertForTokenClassification", {"input_ids": PACKED, "labels": ONES}, ShapeError, "labels have shape (2, 3), the tokens (18,)"),
    ("BertForTokenClassification", {"input_ids": ONES, "labels": ONES * 0.5}, DTypeError, "labels must be integers, got float64"),
    ("BertForTokenClassification", {"input_ids": ONES, "labels": [[0, 1, 2], [0, 3, 0]]}, IndexRangeError, "labels hold 3 at [1, 1]"),
    ("BertForTokenClassification", {"input_ids": ONES, "labels": [[0, -1, 2], [0, 0, 0]]}, IndexRangeError, "labels hold -1 at [0, 1]"),
    (
        "BertForTokenClassification",
        {"input_ids": ONES, "attention_mask": [[1, 1, 1], [1, 1, 0]], "labels": ONES},
        ArgumentError,
        "labels hold 1 at [1, 2], where attention_mask says padding: labels of padding must be -100",
    ),
    ("BertForMaskedLM", {"input_ids": ONES, "labels": ONES * 30}, IndexRangeError, "labels hold 30 at [0, 0], this head knows 0..29"),
    ("BertForPreTraining", {"input_ids": ONES, "labels": ONES}, ArgumentError, "needs both labels and next_sentence_label"),
    ("BertForNextSentencePrediction", {"input_ids": ONES, "labels": [0, 2]}, IndexRangeError, "2"),
    ("BertForQuestionAnswering", {"input_ids": ONES, "start_positions": [0, 1]}, ArgumentError, "both start_positions and end_positions"),
    ("BertForQuestionAnswering", {"input_ids": ONES, "start_positions": [0], "end_positions": [0]}, ShapeError, "2 sequences"),
    ("BertForQuestionAnswering", {"input_ids": ONES, "start_positions": [0.5, 1], "end_positions": [1, 1]}, DTypeError, "start_positions"),
    ("BertForMultipleChoice", {"input_ids": ONES}, ShapeError, "input_ids must have shape (batch, choices, longest)"),
    ("BertForMultipleChoice", {"input_ids": ONES[None], "attention_mask": ONES}, ShapeError, "attention_mask must have shape"),
    ("BertForMultipleChoice", {"input_ids": PACKED}, ShapeError, "4 sequences do not divide among num_choices=None"),
    ("BertForMultipleChoice", {"input_ids": PACKED, "num_choices": 3}, ShapeError, "do not divide among num_choices=3"),
    ("BertForMultipleChoice", {"input_ids": PACKED, "num_choices": "2"}, ShapeError, "do not divide among num_choices='2'"),
    ("BertForMultipleChoice", {"input_ids": ONES[None], "num_choices": 3}, ShapeError, "of choices differ: {'input_ids': (1, 2, 3)}"),
    (
        "BertForMultipleChoice",
        {"input_ids": np.ones((3, 2, 4), int), "attention_mask": np.ones((2, 3, 4))},
        ShapeError,
        "numbers of choices differ",
    ),
    ("BertForMultipleChoice", {}, DTypeError, "input_ids must be integers, got NoneType"),
    ("BertForMultipleChoice", {"inputs_embeds": np.ones((2, 3, 12))}, ShapeError, "(batch, choices, longest, hidden)"),
    ("BertModel", {"input_ids": ONES, "inputs_embeds": np.ones((2, 3, 12))}, ArgumentError, "exclude each other"),
    ("BertModel", {"input_ids": ONES, "position_ids": ONES}, ArgumentError, "a model takes no position_ids; beside inputs and labels"),
    ("BertForMaskedLM", {"input_ids": ONES, "return_dict": True}, ArgumentError, "a model takes no return_dict; beside"),
    ("BertModel", {"inputs_embeds": np.ones((2, 12))}, ShapeError, "inputs_embeds must have shape (batch, longest, hidden), got (2, 12)"),
    ("BertModel", {"inputs_embeds": np.ones((2, 3, 11))}, ShapeError, "rows of shape (6, 11), these tokens and this model need (6, 12)"),
    ("BertModel", {"input_ids": PACKED, "inputs_embeds": np.ones((17, 12))}, ShapeError, "need (18, 12)"),
    ("BertModel", {"inputs_embeds": np.ones((2, 3, 12)), "token_type_ids": ONES * 2}, IndexRangeError, "token_type_ids holds 2"),
    (
        "BertForSequenceClassification",
        {"input_ids": ONES, "labels": [[1, 0, -100], [0, 0, 1]], "problem_type": "multi_label_classification"},
        IndexRangeError,
        "the labels of several classes at once are 0 (no) to 1 (yes)",
    ),
    *[
        ("BertForTokenClassification", {"input_ids": ONES, "labels": ONES, "num_items_in_batch": count}, ArgumentError, "above 0; got")
        for count in (0, -1, "2", float("nan"), True)
    ],
    (
        "BertForSequenceClassification",
        {"input_ids": ONES, "labels": np.ones((2, 2)), "problem_type": "multi_label_classification"},
        ShapeError,
        "labels of several classes at once have shape (2, 2), the logits (2, 3)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "feed", "error", "words"), INVALID, ids=[f"{kind}: {words}" for kind, _, _, words in INVALID])
def test_bad_input_is_refused_by_name(kind: str, feed: dict[str, Any], error: type[MinigradError], words: str) -> None:
    model = head(kind, problem_type=feed.get("problem_type"))
    with pytest.raises(error) as caught:
        model(**{name: value for name, value in feed.items() if name != "problem_type"})
    assert words in str(caught.value)
