"""The twenty-five mistakes that ports of BERT make, B01 to B25: one test each, that fails if it is made."""

from __future__ import annotations

import json
import re
import struct
from math import erf, log, pi, sqrt, tanh
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import HEADS, TOKEN_HEADS, config, encoder, head, loss_of, ragged, results
from support import absolute_error, gradient_errors, gradients_of

import minigrad as mg
from minigrad.backend import random
from minigrad.errors import ArgumentError, ConfigError, IndexRangeError, ShapeError, WeightFileError
from minigrad.io import load_file, save_file
from minigrad.models import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel
from minigrad.nn import Dropout, LayerNorm
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups
from minigrad.packing import PackedTokens, Packing

EXACT = 1e-12
"""Float64 rounding."""


def stored(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


def store(directory: Path, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, directory / "model.safetensors")


def layer_norm(x: np.ndarray, eps: float) -> np.ndarray:
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps)


def test_every_pitfall_has_its_test() -> None:
    numbers = [int(name[6:8]) for name in globals() if re.match(r"test_b\d\d_", name)]
    assert sorted(numbers) == list(range(1, 26))


def test_b01_gelu_is_the_exact_one_and_its_other_names_are_the_tanh_form() -> None:
    """hidden_act "gelu" is x·Φ(x) by erf; "gelu_new" and "gelu_pytorch_tanh" are the tanh formula; an unknown name is refused."""
    x = np.linspace(-3.0, 3.0, 13)
    exact = np.array([v * 0.5 * (1.0 + erf(v / sqrt(2.0))) for v in x])
    formula = np.array([0.5 * v * (1.0 + tanh(sqrt(2.0 / pi) * (v + 0.044715 * v**3))) for v in x])
    assert absolute_error(exact, formula) > 1e-4
    for name, expected in (("gelu", exact), ("gelu_new", formula), ("gelu_pytorch_tanh", formula)):
        layer = encoder(hidden_act=name).encoder.layer[0].intermediate
        layer.dense.weight.assign(np.zeros((20, 12)))
        layer.dense.bias.assign(np.append(x, np.zeros(7)))
        assert absolute_error(layer(mg.Tensor(np.zeros((1, 12)))).numpy()[0, :13], expected) < EXACT
    with pytest.raises(ConfigError, match="hidden_act = 'gelu_fast'"):
        config(hidden_act="gelu_fast")


def test_b02_the_layer_norm_epsilon_is_the_configurations() -> None:
    """1e-12 unless config.json says otherwise, in every normalisation; not the usual 1e-5."""
    assert BertConfig().layer_norm_eps == 1e-12
    model = head("BertForPreTraining", layer_norm_eps=0.5)
    assert {module.eps for _, module in model.named_modules() if isinstance(module, LayerNorm)} == {0.5}
    embeddings, ids = model.bert.embeddings, np.array([[3, 4]])
    tables = (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    x = sum(table.weight.numpy()[rows] for table, rows in zip(tables, (ids[0], [0, 1], [0, 0]), strict=True))
    expected = layer_norm(x, 0.5) * embeddings.LayerNorm.weight.numpy() + embeddings.LayerNorm.bias.numpy()
    assert absolute_error(embeddings(PackedTokens.of(ids)).numpy(), expected) < EXACT


def test_b03_gamma_and_beta_are_old_names_in_layer_normalisations_alone(tmp_path: Path) -> None:
    """Files of 2018 call LayerNorm's weight gamma and its bias beta. Elsewhere these are other parameters, and are not renamed."""
    model = head("BertForMaskedLM", "float32").eval()
    model.save_pretrained(tmp_path)
    arrays = stored(tmp_path)
    old = {re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", n)): a for n, a in arrays.items()}
    assert "cls.predictions.transform.LayerNorm.gamma" in old
    store(tmp_path, old)
    for name, array in BertForMaskedLM.from_pretrained(tmp_path).state_dict().items():
        np.testing.assert_array_equal(array, arrays[name])
    dense = "bert.encoder.layer.0.output.dense"
    store(tmp_path, {name.replace(f"{dense}.weight", f"{dense}.gamma"): a for name, a in arrays.items()})
    with pytest.raises(WeightFileError, match=r"encoder\.layer\.0\.output\.dense\.gamma"):
        BertForMaskedLM.from_pretrained(tmp_path)


def test_b04_the_prefix_of_the_encoder_may_be_there_or_not(tmp_path: Path) -> None:
    """A model with a head loads an encoder's file, an encoder a file of a model with a head."""
    bare, headed = head("BertModel", "float32").eval(), head("BertForSequenceClassification", "float32").eval()
    bare.save_pretrained(tmp_path / "bare")
    headed.save_pretrained(tmp_path / "headed")
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "bare").bert.state_dict()
    assert all((array == bare.state_dict()[name]).all() for name, array in loaded.items())
    loaded = BertModel.from_pretrained(tmp_path / "headed").state_dict()
    assert all((array == headed.bert.state_dict()[name]).all() for name, array in loaded.items())


def test_b05_the_decoder_is_the_table_of_word_embeddings_unless_the_configuration_unties_it(tmp_path: Path) -> None:
    """Of a tied model the file's decoder does not matter: absent, equal or another. Untied, it is read and saved. One bias, two names."""
    model = head("BertForMaskedLM", "float32").eval()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    model.save_pretrained(tmp_path)
    arrays, batch = stored(tmp_path), ragged()
    assert not any("decoder" in name for name in arrays)
    expected = model(batch.packed()).logits.numpy()
    table, bias = arrays["bert.embeddings.word_embeddings.weight"], arrays["cls.predictions.bias"]
    for decoder in (table, table + 1.0):
        store(tmp_path, arrays | {"cls.predictions.decoder.weight": decoder, "cls.predictions.decoder.bias": bias})
        np.testing.assert_array_equal(BertForMaskedLM.from_pretrained(tmp_path)(batch.packed()).logits.numpy(), expected)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": False}), encoding="utf-8")
    untied = BertForMaskedLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(untied.cls.predictions.decoder.weight.numpy(), table + 1.0)
    np.testing.assert_array_equal(untied.bert.embeddings.word_embeddings.weight.numpy(), table)
    assert untied.cls.predictions.decoder.bias is untied.cls.predictions.bias
    untied.save_pretrained(tmp_path)
    np.testing.assert_array_equal(stored(tmp_path)["cls.predictions.decoder.bias"], bias)


def test_b06_buffers_of_old_files_are_ignored_quietly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """position_ids and token_type_ids are counters, no parameters."""
    head("BertForTokenClassification", "float32").save_pretrained(tmp_path)
    arrays = stored(tmp_path)
    counters = {f"bert.embeddings.{name}": np.arange(10)[None] for name in ("position_ids", "token_type_ids")}
    store(tmp_path, arrays | counters)
    assert mg.models.BertForTokenClassification.from_pretrained(tmp_path).state_dict().keys() == arrays.keys()
    assert not caplog.records


def test_b07_token_types_default_to_zeros_and_have_a_limit() -> None:
    """Absent types are type 0; a type that the table does not have raises."""
    model, ids = encoder().eval(), np.array([[3, 4, 5]])
    bare, zeros, ones = (model(ids, token_type_ids=types).last_hidden_state.numpy() for types in (None, ids * 0, ids * 0 + 1))
    np.testing.assert_array_equal(bare, zeros)
    assert absolute_error(bare, ones) > 1e-3
    with pytest.raises(IndexRangeError, match=r"token_type_ids holds 2, this model knows 0\.\.1"):
        model(ids, token_type_ids=ids * 0 + 2)


def test_b08_a_sequence_longer_than_the_positions_raises_by_name() -> None:
    """Nothing is cut off and no position wraps."""
    model = encoder().eval()
    model(np.ones((1, 10), np.int64))
    with pytest.raises(ShapeError, match=r"sequence 0 reaches position 10, this model has 10: truncate it \(max_length=10\)") as caught:
        model(np.ones((1, 11), np.int64))
    assert caught.value.code == "too-long"


@pytest.mark.parametrize("causal", [False, True])
def test_b09_masking_holds_for_scores_of_any_size(causal: bool) -> None:
    """No constant such as -1e4 stands for the mask: with scores near ±1e6 what stands at the padding still changes nothing."""
    model = encoder(is_decoder=causal).eval()
    for layer in model.encoder.layer:
        layer.attention.self.query.weight.assign(layer.attention.self.query.weight.numpy() * 1e6)
    ids, mask = np.array([[3, 4, 5, 6, 7]]), np.array([[1, 1, 0, 1, 0]])
    first, second = (model(np.where(mask == 1, ids, pad), mask).last_hidden_state.numpy() for pad in (0, 29))
    np.testing.assert_array_equal(first, second)
    kept = np.flatnonzero(mask[0])
    alone = model(PackedTokens(ids[0, kept], Packing([3]), kept * 0, kept)).last_hidden_state.numpy()
    assert absolute_error(first[0, kept], alone) < EXACT
    assert np.isfinite(first).all()


def test_b10_a_row_without_a_key_is_refused_or_finite() -> None:
    """A sequence without a real token raises. A query without a key (a decoder's masked first token) mixes nothing: zeros, no NaN."""
    with pytest.raises(ArgumentError, match="row 1 of attention_mask has no real token") as caught:
        encoder()(np.ones((2, 3), np.int64), np.array([[1, 1, 1], [0, 0, 0]]))
    assert caught.value.code == "empty-row"
    model = encoder(is_decoder=True)
    output = model(np.array([[3, 4, 5]]), np.array([[0, 1, 1]]))
    assert np.isfinite(output.pooler_output.numpy()).all()
    loss_of(output).backward()
    assert all(np.isfinite(gradient).all() for gradient in gradients_of(model).values())
    mixed = model.encoder.layer[0].attention.self(mg.Tensor(np.ones((3, 12))), Packing([3], masked_first=[True])).numpy()
    assert not mixed[0].any()
    assert mixed[1:].any()


def test_b11_padding_without_a_mask_is_warned_of() -> None:
    """ids that begin or end with the padding id, and no attention_mask: computed as text, but said aloud."""
    model = encoder(pad_token_id=7).eval()
    for ids in ([[3, 4, 5], [3, 4, 7]], [[7, 3, 4]]):
        with pytest.warns(UserWarning, match="begin or end with the padding id 7, and no attention_mask"):
            model(np.array(ids))
        model(np.array(ids), np.array(ids) != 7)  # warnings are errors in this suite
    model(np.array([[3, 7, 4]]))


def test_b12_heads_on_tokens_have_no_pooler_and_a_missing_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So no parameter lies idle; and where a pooler is wanted but not in the file, the log says that it was drawn."""
    for kind in HEADS:
        wants_none = kind in (*TOKEN_HEADS, "BertForQuestionAnswering")
        assert any("pooler" in name for name in head(kind).state_dict()) != wants_none, kind
    head("BertForTokenClassification", "float32").save_pretrained(tmp_path)
    caplog.clear()
    model = BertForSequenceClassification.from_pretrained(tmp_path)
    assert "bert.pooler.dense.weight" in caplog.text
    assert model.bert.pooler.dense.weight.numpy().any()


def test_b13_dropout_stands_in_its_published_places() -> None:
    """After the embeddings' normalisation, on attention weights, on each dense output before its residual, and before the classifier."""
    model = head("BertForSequenceClassification", dropout=1.0, num_hidden_layers=1)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, Dropout)}
    layer = "bert.encoder.layer.0"
    places = ("bert.embeddings", f"{layer}.attention.self", f"{layer}.attention.output", f"{layer}.output", "")
    assert rates == {f"{place}.dropout".lstrip("."): 1.0 for place in places}
    tokens, x = PackedTokens.of([[3, 4]]), mg.Tensor(np.random.default_rng(0).standard_normal((2, 12)))
    block = model.bert.encoder.layer[0]
    assert not model.bert.embeddings(tokens).numpy().any()  # dropped after the normalisation: not even its bias is left
    assert not block.attention.self(x, tokens.packing).numpy().any()  # the weights, so all that they would mix
    for part in (block.attention.output, block.output):
        wide = mg.Tensor(np.ones((2, part.dense.weight.shape[1])))
        assert absolute_error(part(wide, x, tokens.packing).numpy(), part.LayerNorm(x).numpy()) < EXACT  # only the residual is left
    assert absolute_error(model(tokens).logits.numpy()[0], model.classifier.bias.numpy()) < EXACT
    assert head("BertForTokenClassification", dropout=0.3).dropout.p == 0.3
    assert head("BertForTokenClassification", dropout=0.3, classifier_dropout=0.5).dropout.p == 0.5


@pytest.mark.parametrize("kind", HEADS)
def test_b14_eval_switches_all_dropout_off_and_the_limits_work(kind: str) -> None:
    """In eval mode rates of 0, 0.5 and 1 compute the same; rate 1 in training is finite, with finite gradients."""
    feed = ragged().feed(kind, packed=True)
    plain = results(head(kind).eval()(**feed))
    for rate in (0.5, 1.0):
        model = head(kind, dropout=rate)
        loss = loss_of(model(**feed))
        loss.backward()
        assert np.isfinite(loss.numpy())
        assert all(np.isfinite(gradient).all() for gradient in gradients_of(model).values())
        for name, value in results(model.eval()(**feed)).items():
            np.testing.assert_array_equal(value.numpy(), plain[name].numpy())


def test_b15_which_loss_the_labels_mean() -> None:
    """-100 is ignored by heads on tokens; one label is a regression; floats for several labels are a yes or no for each."""
    batch = ragged()
    for kind in TOKEN_HEADS[::2]:
        feed = batch.feed(kind, packed=True)
        output = head(kind)(**feed)
        kept = feed["labels"] != -100
        scores = output.logits.numpy()[kept]
        expected = -(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))[np.arange(kept.sum()), feed["labels"][kept]].mean()
        assert float(output.loss) == pytest.approx(expected, rel=1e-12)
    wanted = np.array([0.5, -1.0, 2.0, 0.0])
    output = head("BertForSequenceClassification", num_labels=1)(batch.packed(), labels=wanted)
    assert float(output.loss) == pytest.approx(((output.logits.numpy()[:, 0] - wanted) ** 2).mean(), rel=1e-12)
    yes = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    for problem, labels in (("multi_label_classification", yes), ("multi_label_classification", yes * 1.0), (None, yes * 1.0)):
        output = head("BertForSequenceClassification", problem_type=problem)(batch.packed(), labels=labels)
        chance = 1.0 / (1.0 + np.exp(-output.logits.numpy()))
        assert float(output.loss) == pytest.approx(-np.log(np.where(yes == 1, chance, 1.0 - chance)).mean(), rel=1e-12)


def test_b16_positions_of_answers_outside_the_sequence_are_ignored() -> None:
    """Below 0 counts as 0; from the sequence's own length on, however wide its padding, an answer takes no part in the loss."""
    batch, model = ragged(lengths=(5, 9, 4)), head("BertForQuestionAnswering").eval()
    starts, ends = np.array([-3, 2, 4]), np.array([4, 100, 9])
    output = model(**batch.padded(10), start_positions=starts, end_positions=ends)
    packed = model(batch.packed(), start_positions=starts[:, None], end_positions=ends)

    def lost(logits: np.ndarray, row: int, place: int) -> float:
        own = logits[row, : len(batch.ids[row])]
        return float(log(np.exp(own).sum()) - own[place])

    start, end = output.start_logits.numpy(), output.end_logits.numpy()
    expected = ((lost(start, 0, 0) + lost(start, 1, 2)) / 2 + lost(end, 0, 4)) / 2
    assert float(output.loss) == pytest.approx(expected, rel=1e-12)
    assert float(packed.loss) == pytest.approx(expected, rel=1e-12)
    model.train()
    nobody = model(batch.packed(), start_positions=[9, 9, 9], end_positions=[0, 0, 0])
    assert np.isnan(float(nobody.loss))  # the mean of no losses, as in PyTorch
    model(batch.packed(), start_positions=[9, 9, 9], end_positions=[9, 9, 9]).loss.backward()
    assert not any(gradient.any() for gradient in gradients_of(model).values())


def test_b17_adamw_decays_apart_corrects_its_moments_and_adds_epsilon_last() -> None:
    """p ← p - lr·wd·p, then p ← p - lr·(m / (1 - b1^t)) / (√(v / (1 - b2^t)) + eps). A large eps shows where it stands."""
    p, m, v, lr, decay, eps = np.array([2.0, -3.0]), 0.0, 0.0, 0.1, 0.5, 0.7
    parameter = mg.Parameter(p.copy())
    optimizer = AdamW([parameter], lr=lr, weight_decay=decay, eps=eps)
    for t in range(1, 5):
        g = 2.0 * p * t
        (parameter * parameter * t).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - lr * decay * p
        p = p - lr * (m / (1.0 - 0.9**t)) / (np.sqrt(v / (1.0 - 0.999**t)) + eps)
        assert absolute_error(parameter.numpy(), p) < EXACT


def test_b18_biases_and_normalisations_are_not_decayed() -> None:
    """Every matrix decays, among them the embeddings; no bias and no LayerNorm weight does, in the heads either."""
    for kind in HEADS:
        decayed, spared = decay_groups(head(kind).named_parameters(), 0.01)
        names = {name for name, _ in spared["params"]}
        assert names == {name for name, _ in head(kind).named_parameters() if name.endswith((".bias", "LayerNorm.weight"))}, kind
        assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
        assert all(parameter.ndim == 2 for _, parameter in decayed["params"])


def test_b19_gradients_are_clipped_to_a_global_norm_of_one() -> None:
    """One norm over all parameters, tied ones once; above 1 everything shrinks by the same factor."""
    model = head("BertForMaskedLM")
    (model(**ragged().feed("BertForMaskedLM", True)).loss * 10.0).backward()
    before = {name: np.array(p.grad.numpy()) for name, p in model.named_parameters() if p.grad is not None}
    norm = sqrt(sum((g * g).sum() for g in before.values()))
    assert norm > 1.0
    assert float(clip_grad_norm(model.parameters(), 1.0)) == pytest.approx(norm, rel=1e-12)
    after = gradients_of(model)
    assert sqrt(sum((g * g).sum() for g in after.values())) == pytest.approx(1.0, rel=1e-6)
    for name, gradient in before.items():
        assert absolute_error(after[name] * norm, gradient) < 1e-5 * np.abs(gradient).max() + 1e-15, name


def test_b20_warm_up_starts_from_a_rate_of_zero() -> None:
    """The first step of a linear warm-up moves nothing, the next by 1/warm-up of the rate."""
    parameter = mg.Parameter(np.ones(2))
    optimizer = AdamW([parameter], lr=0.4, weight_decay=0.0)
    schedule = LinearSchedule(optimizer, warmup_steps=4, total_steps=8)
    rates = []
    for step in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert step > 0 or (parameter.numpy() == 1.0).all()
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.3])


def test_b21_accumulated_parts_are_the_whole_batch() -> None:
    """Parts with different numbers of labels, each divided by the whole's count, add up; the mean of their means does not."""
    batch, model = ragged(), head("BertForTokenClassification")
    labels = np.full((4, 9), -100)
    labels[0, :5], labels[1, 3] = 1, 2
    feed = batch.padded(9)
    model(**feed, labels=labels).loss.backward()
    expected = gradients_of(model)
    for given, fits in ((6, True), (None, False)):
        for part in (slice(0, 1), slice(1, 4)):
            own = {name: array[part] for name, array in feed.items()}
            loss = model(**own, labels=labels[part], num_items_in_batch=given).loss
            (loss if given else loss / 2).backward()
        error = max(gradient_errors(gradients_of(model), expected).values())
        assert error < EXACT if fits else error > 1e-2


def test_b22_label_names_keep_their_numbers_whatever_their_order_and_type() -> None:
    """JSON makes the keys of id2label strings and may order them as such: "10" before "2"."""
    values = {"hidden_size": 12, "num_attention_heads": 3}
    names = {str(i): f"name {i}" for i in (0, 1, 10, 11, *range(2, 10))}
    read = BertConfig.from_dict(values | {"id2label": names})
    assert read.id2label == BertConfig.from_dict(values | {"id2label": {int(i): name for i, name in names.items()}}).id2label
    assert list(read.id2label.items()) == [(i, f"name {i}") for i in range(12)]
    assert read.label2id["name 10"] == 10
    assert list(read.to_dict("x")["id2label"]) == [str(i) for i in range(12)]


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_b23_half_precision_is_widened_exactly(tmp_path: Path, kind: str) -> None:
    """Every float16 and bfloat16 number is a float32 number: none is rounded on the way, subnormal ones included."""
    model = head("BertForTokenClassification", "float32")
    model.save_pretrained(tmp_path)
    header: dict[str, Any] = {}
    body, expected = b"", {}
    for name, array in stored(tmp_path).items():
        if kind == "F16":
            raw = array.astype(np.float16)
            expected[name] = raw.astype(np.float32)
        else:
            raw = (array.view(np.uint32) >> 16).astype(np.uint16)
            raw.reshape(-1)[0] = 1  # the smallest number there is
            expected[name] = (raw.astype(np.uint32) << 16).view(np.float32)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(body), len(body) + raw.nbytes]}
        body += raw.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    for name, array in mg.models.BertForTokenClassification.from_pretrained(tmp_path).state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def test_b24_heads_are_consecutive_channels() -> None:
    """Head h owns channels h·d … (h+1)·d - 1 of query, key, value and result, by a plain loop; sizes that do not divide are refused."""
    layer = encoder().eval().encoder.layer[0].attention.self
    x = np.random.default_rng(0).standard_normal((5, 12))
    q, k, v = (x @ part.weight.numpy().T + part.bias.numpy() for part in (layer.query, layer.key, layer.value))
    mixed = np.empty((5, 12))
    for h in range(3):
        own = slice(4 * h, 4 * h + 4)
        weights = np.exp(q[:, own] @ k[:, own].T / 2.0)
        mixed[:, own] = weights / weights.sum(axis=1, keepdims=True) @ v[:, own]
    assert absolute_error(layer(mg.Tensor(x), Packing([5])).numpy(), mixed) < EXACT
    with pytest.raises(ConfigError, match="num_attention_heads = 5: hidden_size 12 does not divide by it"):
        config(num_attention_heads=5)


@pytest.mark.parametrize("kind", HEADS)
def test_b25_the_gradient_of_a_key_bias_is_rounding(kind: str) -> None:
    """A softmax does not see a number added to all its scores: nothing may be concluded from this gradient but that it is tiny."""
    model = head(kind, dropout=0.2)
    with random.at(seed=1, step=1):
        loss_of(model(**ragged().feed(kind, True))).backward()
    gradients = gradients_of(model)
    for name, gradient in gradients.items():
        if name.endswith("key.bias"):
            assert np.abs(gradient).max() < 1e-12 * np.abs(gradients[name.replace("key", "query")]).max()
