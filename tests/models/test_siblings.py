"""RoBERTa, DistilBERT and ELECTRA: proved derivatives, no trace of padding or of the rest of the batch, their own positions and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import loss_of, ragged, results
from models.sibling_cases import CONFIGS, KINDS, TOKEN_HEADS, config, family_of, feed, head
from support import absolute_error, gradients_of

import minigrad as mg
from minigrad import models
from minigrad.backend import random
from minigrad.errors import ArgumentError, ConfigError, IndexRangeError, ShapeError, WeightFileError
from minigrad.io import load_file, save_file
from minigrad.models.roberta import position_ids
from minigrad.packing import PackedTokens, pack

EXACT = 1e-12
"""Float64 rounding: the same sums in matrices of other heights."""

every_kind = pytest.mark.parametrize("kind", KINDS)
every_family = pytest.mark.parametrize("family", CONFIGS)
both_forms = pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])


def loss(output: Any) -> mg.Tensor:
    if hasattr(output, "loss") or output.pooler_output is not None:
        return loss_of(output)
    return (output.last_hidden_state * np.cos(np.arange(output.last_hidden_state.shape[-1]))).sum()


def step(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Results and gradients, with the dropout units of a fixed (seed, step)."""
    with random.at(seed=7, step=3):
        output = model(**inputs)
        loss(output).backward()
    return {name: np.array(value.numpy()) for name, value in results(output).items()}, gradients_of(model)


def assert_close(gradients: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Relative to each gradient's largest entry; those that only rounding makes differ from zero, to the largest of all."""
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for name, gradient in expected.items():
        scale = largest if name.endswith(("key.bias", "k_lin.bias")) else max(float(np.abs(gradient).max()), 1e-6 * largest)
        assert absolute_error(gradients[name], gradient) / scale < EXACT, name


# ---------------------------------------------------------------- derivatives
@both_forms
@every_kind
def test_every_gradient_is_proved(kind: str, packed: bool) -> None:
    """Each parameter's gradient is the change of the real loss, dropout on, and nothing lies idle.

    Zero are only numbers that a softmax does not see because they are added to all it compares: the biases of keys, of the scores of an
    answer, and through the linear layer the bias of the last normalisation.
    """
    batch = feed(ragged(lengths=(4, 6, 2, 3)), kind, packed)
    audit = mg.audit(head(kind, dropout=0.2), batch, lambda model, inputs: loss(model(**inputs)))
    assert {row.verdict for row in audit.rows} == {"ok", "zero"}
    zero = {row.name for row in audit.rows if row.verdict == "zero" and not row.name.endswith(("key.bias", "k_lin.bias"))}
    last_norm = {
        "RobertaForQuestionAnswering": "roberta.encoder.layer.1.output.LayerNorm.bias",
        "ElectraForQuestionAnswering": "electra.encoder.layer.1.output.LayerNorm.bias",
    }.get(kind)  # DistilBERT has dropout between the two, so that its bias is seen
    assert zero == ({"qa_outputs.bias"} if kind.endswith("ForQuestionAnswering") else set()) | ({last_norm} if last_norm else set())


@pytest.mark.parametrize("kind", ["RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_gradients_of_an_untied_decoder(kind: str) -> None:
    audit = mg.audit(head(kind, tie_word_embeddings=False), feed(ragged(lengths=(4, 6, 2)), kind, True))
    assert {row.verdict for row in audit.rows} == {"ok", "zero"}


# ---------------------------------------------------------------- padding, packing and the rest of the batch
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_kind
def test_packed_equals_padded_to_any_length(kind: str, dropout: float) -> None:
    batch = ragged()
    real = np.concatenate([np.arange(10) < len(ids) for ids in batch.ids]).reshape(4, 10)
    packed, gradients = step(head(kind, dropout=dropout), feed(batch, kind, packed=True))
    for longest in (9, 10):
        padded, padded_gradients = step(head(kind, dropout=dropout), feed(batch, kind, False, longest))
        assert padded.keys() == packed.keys()
        for name, value in padded.items():
            if name in ("last_hidden_state", "start_logits", "end_logits") or (name == "logits" and kind in TOKEN_HEADS):
                assert not value[~real[:, :longest]].any(), name
                value = value[real[:, :longest]]
            assert absolute_error(packed[name], value) < EXACT, name
        assert_close(padded_gradients, gradients)


@every_kind
def test_the_rest_of_the_batch_changes_nothing(kind: str) -> None:
    batch, model = ragged(3, tuple(np.random.default_rng(5).integers(1, 11, 32))), head(kind).eval()
    alone = results(model(**feed(batch, kind, True, rows=[0])))
    among = results(model(**feed(batch, kind, True)))
    for name in alone.keys() - {"loss"}:
        assert absolute_error(among[name].numpy()[: alone[name].shape[0]], alone[name].numpy()) < EXACT, name


@pytest.mark.parametrize("kind", TOKEN_HEADS)
def test_parts_of_a_step_add_up_to_the_whole(kind: str) -> None:
    """num_items_in_batch: parts with different numbers of labels, divided by the whole step's count."""
    batch, model = ragged(), head(kind, dropout=0.3)
    whole, expected = step(model, feed(batch, kind, True))
    count, total = int((feed(batch, kind, True)["labels"] != -100).sum()), 0.0
    with random.at(seed=7, step=3):
        for part in ([1], [0, 2], [3]):
            output = model(**feed(batch, kind, True, rows=part), num_items_in_batch=count)
            output.loss.backward()
            total += float(output.loss)
    assert total == pytest.approx(float(whole["loss"]), rel=1e-12)
    assert_close(gradients_of(model), expected)


@pytest.mark.parametrize("kind", ["RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_labelled_tokens_alone_give_the_same_loss(kind: str) -> None:
    batch, model = ragged(), head(kind, dropout=0.3)
    inputs = feed(batch, kind, packed=False)
    whole, expected = step(model, inputs)
    few, gradients = step(model, inputs | {"labelled_only": True})
    assert float(few["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-12)
    assert absolute_error(few["logits"], whole["logits"][inputs["labels"] != -100]) < EXACT
    assert_close(gradients, expected)
    with pytest.raises(ArgumentError, match="labelled_only=True needs labels"):
        model(batch.packed(), labelled_only=True)
    model.eval()
    assert absolute_error(model(batch.packed(), rows=[7, 0]).logits.numpy(), model(batch.packed()).logits.numpy()[[7, 0]]) < EXACT


@both_forms
@every_kind
def test_hidden_states_and_attentions_on_request(kind: str, packed: bool) -> None:
    model, inputs = head(kind).eval(), feed(ragged(), kind, packed)
    plain, full = model(**inputs), model(**inputs, output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is None and plain.attentions is None
    for name, value in results(plain).items():
        assert absolute_error(results(full)[name].numpy(), value.numpy()) < EXACT, name
    assert [states.shape for states in full.hidden_states] == [(18, 12) if packed else (4, 9, 12)] * 3
    assert len(full.attentions) == 2
    for weights in full.attentions:
        for i, n in enumerate((5, 9, 1, 3)):
            own = weights[i].numpy()
            assert own[:, :n, :n].sum(axis=-1) == pytest.approx(1.0, abs=1e-12)
            assert own.sum() == pytest.approx(3 * n, abs=1e-9)  # nothing at the pads


@every_kind
def test_word_vectors_in_place_of_ids(kind: str) -> None:
    batch, model = ragged(), head(kind)
    table = next(p for name, p in model.named_parameters() if name.endswith("word_embeddings.weight")).numpy()
    inputs = feed(batch, kind, packed=True)
    expected = {name: np.array(value.numpy()) for name, value in results(model(**inputs)).items()}
    output = model(**inputs, inputs_embeds=table[inputs["input_ids"].input_ids])
    for name, value in results(output).items():
        assert absolute_error(value.numpy(), expected[name]) < EXACT, name


# ---------------------------------------------------------------- positions and padding
def test_positions_of_roberta_begin_behind_the_padding_id_and_pass_over_padding() -> None:
    ids = np.array([[5, 1, 6, 7, 1], [1, 1, 5, 6, 7]])
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 1, 1, 1]])
    tokens = pack(ids, mask)
    assert position_ids(tokens, ids, 1).tolist() == [2, 1, 4, 1, 2, 3, 4]  # the hidden 6 counts; column 0 is kept
    assert position_ids(tokens, None, 1).tolist() == [2, 1, 3, 1, 2, 3, 4]  # tokens are counted as they are
    assert position_ids(PackedTokens.of([[5, 6], [5]]), None, 3).tolist() == [4, 5, 4]


def test_the_longest_text_of_roberta_is_said_in_tokens() -> None:
    model = head("RobertaModel").eval()
    assert model(np.full((1, 10), 5)).last_hidden_state.shape == (1, 10, 12)  # 12 positions, of which 2 are no token's
    with pytest.raises(ShapeError, match=r"sequence 1 reaches position 10, this model has 10: truncate it \(max_length=10\)") as caught:
        model(PackedTokens.of([[5] * 3, [5] * 11]))
    assert caught.value.code == "too-long"


@every_family
def test_what_no_embedding_has_is_refused(family: str) -> None:
    model = head(f"{family}Model").eval()
    with pytest.raises(IndexRangeError, match=r"input_ids holds 30, this model knows 0\.\.29"):
        model(np.array([[5, 30]]))
    with pytest.raises(ShapeError, match=r"reaches position 12|reaches position 10"):
        model(np.full((1, 13), 5))
    with pytest.raises(ShapeError, match=r"rows of shape \(6, 5\)"):
        model(inputs_embeds=np.ones((2, 3, 5)))


@every_family
def test_padding_is_not_trained(family: str) -> None:
    """Also where it is read as text: neither its word nor (in RoBERTa) its position."""
    model = head(f"{family}Model")
    pad = model.config.pad_token_id
    with pytest.warns(UserWarning, match=f"begin or end with the padding id {pad}"):
        loss(model(np.array([[5, 6, 7, pad]]))).backward()
    gradients = gradients_of(model)
    word, position = (gradients[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    assert not word[pad].any() and word[5].any()
    assert position[1].any() == (family != "Roberta")


def test_labels_of_replaced_tokens() -> None:
    model = head("ElectraForPreTraining").eval()
    ids, mask = np.full((2, 3), 5), np.array([[1, 1, 1], [1, 1, 0]])
    labels = np.array([[0, 1, -100], [1, 0, 77]])  # 77 stands at padding
    logits = model(ids, mask).logits.numpy()
    x, y = logits[[0, 0, 1, 1], [0, 1, 0, 1]], labels[[0, 0, 1, 1], [0, 1, 0, 1]]
    expected = np.mean(np.logaddexp(0.0, x) - x * y)
    assert float(model(ids, mask, labels=labels).loss) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(IndexRangeError, match=r"labels hold 77 at \[1, 2\], this head knows 0\.\.1"):
        model(ids, labels=labels)
    with pytest.raises(ShapeError, match=r"labels have shape \(2, 2\), the tokens \(2, 3\)"):
        model(ids, mask, labels=labels[:, :2])


def test_the_two_dropouts_of_a_head_drop_different_units() -> None:
    for kind in ("RobertaForSequenceClassification", "ElectraForSequenceClassification"):
        model = head(kind, dropout=0.5)
        x, packing = mg.Tensor(np.ones((4, 12))), ragged().packed().packing.first
        model(**feed(ragged(), kind, True))  # gives the layers their names
        kept = [layer(x, packing).numpy() > 0 for layer in (model.classifier.dropout, model.classifier.out_dropout)]
        assert (kept[0] != kept[1]).any()


# ---------------------------------------------------------------- configurations
REFUSED = [
    (
        "Roberta",
        {"model_type": "bert"},
        "model_type = 'bert' is not supported by minigrad; supported: 'roberta', 'xlm-roberta', 'camembert'",
    ),
    ("Roberta", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
    ("Roberta", {"hidden_act": "mish"}, "hidden_act = 'mish': known are"),
    ("Roberta", {"max_position_embeddings": 2}, "max_position_embeddings = 2: leaves no room behind pad_token_id 1"),
    ("Roberta", {"vocab_size": 1}, "pad_token_id = 1: the vocabulary has 1 tokens, 0 the first"),
    ("DistilBert", {"model_type": "roberta"}, "model_type = 'roberta' is not supported by minigrad; supported: 'distilbert'"),
    ("DistilBert", {"activation": "mish"}, "activation = 'mish': known are"),
    ("DistilBert", {"dim": 13}, "n_heads = 12: hidden_size 13 does not divide by it"),
    ("DistilBert", {"n_layers": -1}, "n_layers = -1: must lie between 0"),
    ("DistilBert", {"qa_dropout": 2.0}, "qa_dropout = 2.0: must lie between"),
    ("DistilBert", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ("Electra", {"embedding_size": 0}, "embedding_size = 0: must lie between 1"),
    ("Electra", {"position_embedding_type": "relative_key_query"}, "position_embedding_type"),
    ("Electra", {"hidden_act": "gelu_fast"}, "hidden_act = 'gelu_fast': known are"),
    ("Electra", {"add_cross_attention": True}, "add_cross_attention"),
]


@pytest.mark.parametrize(("family", "values", "words"), REFUSED, ids=[f"{family} {values}" for family, values, _ in REFUSED])
def test_unsupported_values_are_refused_by_name(family: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CONFIGS[family].from_dict(values, "config.json")
    assert words in str(caught.value)


def test_a_configuration_of_roberta_knows_its_names_only() -> None:
    with pytest.raises(ConfigError, match="model_type = 'bert': supported are roberta, xlm-roberta, camembert"):
        models.RobertaConfig(model_type="bert")


@every_family
def test_configurations_survive_their_own_file(family: str) -> None:
    own = config(family, extra={"note": 1})
    written = own.to_dict(f"{family}Model")
    again = CONFIGS[family].from_dict(written, own.source)
    assert again == own
    assert written["architectures"] == [f"{family}Model"]


def test_distilbert_has_keys_of_its_own_and_none_for_what_is_fixed() -> None:
    written = config("DistilBert").to_dict("DistilBertModel")
    assert (written["dim"], written["n_layers"], written["n_heads"], written["hidden_dim"], written["activation"]) == (12, 2, 3, 20, "gelu")
    assert not written.keys() & {"hidden_size", "type_vocab_size", "layer_norm_eps", "is_decoder", "classifier_dropout"}
    assert models.DistilBertConfig.from_dict({"layer_norm_eps": 0.5}).layer_norm_eps == 1e-12  # the published model does not read it


@pytest.mark.parametrize(("model_type", "published"), [("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert"), ("roberta", "Roberta")])
def test_a_roberta_is_saved_under_the_name_it_came_with(tmp_path: Path, model_type: str, published: str) -> None:
    head("RobertaForMaskedLM", "float32", model_type=model_type).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (written["model_type"], written["architectures"]) == (model_type, [f"{published}ForMaskedLM"])
    assert models.RobertaForMaskedLM.from_pretrained(tmp_path).config.model_type == model_type


@every_family
def test_the_size_of_an_encoder_is_counted_right(family: str) -> None:
    for changes in ({}, {"embedding_size": 12}) if family == "Electra" else ({},):
        model = head(f"{family}Model", **changes)
        numbers = sum(p.size for name, p in model.named_parameters() if not name.startswith("pooler"))
        assert model.config.encoder_size() == numbers


# ---------------------------------------------------------------- files
@every_kind
def test_saved_and_loaded_whole_and_without_its_last_layer(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch, model = ragged(), head(kind, "float32").eval()
    model.save_pretrained(tmp_path)
    again = getattr(models, kind).from_pretrained(tmp_path)
    assert list(again.state_dict()) == list(model.state_dict())
    for name, value in results(again(**feed(batch, kind, True))).items():
        np.testing.assert_array_equal(value.numpy(), results(model(**feed(batch, kind, True)))[name].numpy())
    encoder = model if kind.endswith("Model") else getattr(model, model.base_prefix)
    (encoder.transformer if family_of(kind) == "DistilBert" else encoder.encoder).layer.pop()
    short = getattr(models, kind).from_pretrained(tmp_path, num_hidden_layers=1)
    for name, value in results(short(**feed(batch, kind, True))).items():
        np.testing.assert_array_equal(value.numpy(), results(model(**feed(batch, kind, True)))[name].numpy())
    assert not caplog.records  # nothing was newly initialised


HEADS = {
    "Roberta": ("RobertaForMaskedLM", {"classifier.dense.weight", "classifier.out_proj.bias"}),
    "DistilBert": ("DistilBertForMaskedLM", {"pre_classifier.weight", "classifier.weight"}),
    "Electra": ("ElectraForPreTraining", {"classifier.dense.weight", "classifier.out_proj.bias"}),
}


@every_family
def test_a_new_head_on_a_published_encoder(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, new = HEADS[family]
    model = head(trained, "float32")
    model.save_pretrained(tmp_path)
    classifier = getattr(models, f"{family}ForSequenceClassification").from_pretrained(tmp_path, num_labels=5)
    assert new <= set(classifier.load_report.newly_initialised)
    assert "newly initialised" in caplog.text
    assert not any(name.startswith(classifier.base_prefix) for name in classifier.load_report.newly_initialised)
    assert set(classifier.load_report.ignored) == {name for name in model.state_dict() if not name.startswith(model.base_prefix)}
    assert classifier(**feed(ragged(), f"{family}ForSequenceClassification", True)).logits.shape == (4, 5)
    bare = getattr(models, f"{family}Model").from_pretrained(tmp_path)  # without the prefix of the file
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(bare.state_dict()[name], model.state_dict()[f"{model.base_prefix}.{name}"])
    classifier.save_pretrained(tmp_path / "again")
    resized = type(classifier).from_pretrained(tmp_path / "again", num_labels=2)
    assert all("dense" not in name and "pre_" not in name for name in resized.load_report.newly_initialised)


@every_family
def test_the_vocabulary_of_a_head_is_resized_with_the_embeddings(family: str) -> None:
    kind = HEADS[family][0]
    model = head(kind).eval()
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    model.resize_token_embeddings(33)
    changed = {name for name, value in model.state_dict().items() if value.shape != before[name].shape}
    bias = {"Roberta": {"lm_head.bias"}, "DistilBert": {"vocab_projector.bias"}, "Electra": set()}[family]
    assert changed == {f"{model.base_prefix}.embeddings.word_embeddings.weight"} | bias
    assert model.config.vocab_size == 33
    logits = model(np.full((1, 3), 32)).logits
    assert logits.shape == ((1, 3) if family == "Electra" else (1, 3, 33))


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [("Roberta", "hidden_size", 6), ("DistilBert", "dim", 6), ("DistilBert", "hidden_dim", 21), ("Electra", "embedding_size", 8),
     ("Electra", "hidden_size", 6), ("Electra", "num_hidden_layers", 3)],
)  # fmt: skip
def test_a_configuration_that_is_not_its_file_s_is_refused_before_anything_is_built(
    family: str, key: str, value: int, tmp_path: Path
) -> None:
    head(f"{family}Model", "float32").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{key} = {value}, but") as caught:
        getattr(models, f"{family}Model").from_pretrained(tmp_path)
    assert caught.value.code == "config-weights-mismatch"


@pytest.mark.parametrize("kind", ["RobertaForSequenceClassification", "ElectraForSequenceClassification"])
def test_only_the_rows_of_labels_may_be_of_another_number(kind: str, tmp_path: Path) -> None:
    """A dense layer of another size than the configuration's is a damaged file, also below `classifier`."""
    head(kind, "float32").save_pretrained(tmp_path)
    loaded = getattr(models, kind).from_pretrained(tmp_path, num_labels=7)
    assert loaded.load_report.newly_initialised == ("classifier.out_proj.weight", "classifier.out_proj.bias")
    arrays = load_file(tmp_path / "model.safetensors")
    save_file(arrays | {"classifier.dense.weight": arrays["classifier.dense.weight"][:5]}, tmp_path / "model.safetensors")
    with pytest.raises(WeightFileError, match=r"'classifier\.dense\.weight' has shape \(5, 12\)"):
        getattr(models, kind).from_pretrained(tmp_path, num_labels=7)


@pytest.mark.parametrize("source", KINDS)
def test_every_head_of_a_family_loads_from_every_other(source: str, tmp_path: Path) -> None:
    """The encoder is read whole, whatever stands on it; the report accounts for each tensor and each parameter once."""
    family = family_of(source)
    head(source, "float32").save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    for target in (kind for kind in KINDS if family_of(kind) == family):
        model = getattr(models, target).from_pretrained(tmp_path)
        report, state = model.load_report, model.state_dict()
        names = {path: name for name, path in report.renamed.items()}
        read = {names.get(path, path) for path in report.loaded}
        assert sorted((*report.loaded, *report.newly_initialised)) == sorted(state)
        assert sorted((*read, *report.ignored)) == sorted(stored)
        assert all((state[path] == stored[names.get(path, path)]).all() for path in report.loaded)
        assert not any("embeddings" in path or "layer." in path for path in report.newly_initialised)
        assert bool(report.newly_initialised) <= (source != target)


def test_the_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    head("RobertaModel", "float32").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model_type = 'roberta' is not supported by minigrad; supported: 'electra'"):
        models.ElectraModel.from_pretrained(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    save_file({f"bert.{name}": array for name, array in arrays.items()}, tmp_path / "model.safetensors")
    with pytest.raises(WeightFileError, match="missing: embeddings"):
        models.RobertaModel.from_pretrained(tmp_path)
