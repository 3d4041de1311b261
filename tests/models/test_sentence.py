"""Sentence embeddings: MiniLM's equal their reference, poolings equal their formulas, and files that say something else are refused."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import TEXTS, directory

import minigrad as mg
from minigrad.errors import ArgumentError, ConfigError, DTypeError, WeightFileError
from minigrad.models import SentenceEncoder
from minigrad.models.sentence import SentenceSettings
from minigrad.packing import PackedTokens

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def published(folder: Path, modules: Any = MODULES, pooling: Any = None, limits: Any = None) -> Path:
    """A model directory as sentence-transformers saves it."""
    directory(folder, "BertModel")
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False} if pooling is None else pooling
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    if limits is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits), encoding="utf-8")
    return folder


def test_minilm_equals_its_reference(minilm: Path, shared_data: Path) -> None:
    reference = np.load(shared_data / "minilm_reference.npz")
    encoder = SentenceEncoder.from_pretrained(minilm)
    assert encoder.settings == mg.models.sentence.SentenceSettings("mean", normalise=True, max_length=256)
    found = encoder.encode([str(text) for text in reference["texts"]])
    for row, name in zip(found, ("sent0", "sent2", "sent4"), strict=True):
        assert np.abs(row - reference[name]).max() < 1e-6  # float32 against float64
        assert row @ reference[name] >= 0.999999


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_poolings_are_their_formulas(tmp_path: Path, pooling: str, normalise: bool) -> None:
    encoder = SentenceEncoder.from_pretrained(directory(tmp_path, "BertModel"), pooling=pooling, normalise=normalise)
    for text, found in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        ids = encoder.tokenizer.encode([text])[0].ids
        rows = encoder.encoder(ids[None]).last_hidden_state.numpy()[0]
        expected = {"mean": rows.mean(axis=0), "cls": rows[0], "max": rows.max(axis=0)}[pooling]
        np.testing.assert_allclose(found, expected / (np.linalg.norm(expected) if normalise else 1), atol=1e-5)  # float32 rounding


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls", "embedding_dimension": 24}, "cls"),
    ],
)
def test_the_files_say_how_to_pool(tmp_path: Path, pooling: dict[str, Any], name: str) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path, MODULES[:2], pooling, {"max_seq_length": 8, "do_lower_case": True}))
    assert encoder.settings == mg.models.sentence.SentenceSettings(name, normalise=False, max_length=8, lower_case=True)
    assert not encoder.training
    assert SentenceEncoder.from_pretrained(tmp_path, normalise=True, pooling="max", max_length=5).settings.max_length == 5


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_what_is_saved_makes_the_same_vectors(tmp_path: Path, pooling: str, normalise: bool) -> None:
    limits = {"max_seq_length": 5, "do_lower_case": True}
    encoder = SentenceEncoder.from_pretrained(published(tmp_path / "old", limits=limits), pooling=pooling, normalise=normalise)
    for parameter in encoder.parameters():
        parameter.assign(parameter * 1.5)
    SentenceEncoder.from_pretrained(published(tmp_path / "new")).save_pretrained(tmp_path / "new")  # what it says is written over
    encoder.save_pretrained(tmp_path / "new")
    again = SentenceEncoder.from_pretrained(tmp_path / "new")
    assert again.settings == encoder.settings == SentenceSettings(pooling, normalise, 5, lower_case=True)
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    modules = json.loads((tmp_path / "new" / "modules.json").read_text(encoding="utf-8"))
    assert modules == MODULES[: 2 + normalise]
    said = json.loads((tmp_path / "new" / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert said.pop("word_embedding_dimension") == 24 and sum(said.values()) == 1


def test_an_encoder_without_a_limit_is_saved_without_one(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path / "old"))
    SentenceEncoder(encoder.encoder, encoder.tokenizer, SentenceSettings("mean", True)).save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "sentence_bert_config.json").read_text(encoding="utf-8")) == {"do_lower_case": False}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path / "old"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1_Pooling").write_text("a file", encoding="utf-8")
    with pytest.raises(WeightFileError, match="cannot be written") as caught:
        encoder.save_pretrained(tmp_path / "new")
    assert caught.value.code == "write-failed"


def test_a_pooler_that_the_file_lacks_is_not_made_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = SentenceEncoder.from_pretrained(directory(tmp_path, "BertForMaskedLM"), pooling="mean", normalise=True)
    assert encoder.encode(TEXTS[:1]).shape == (1, 24)
    assert not caplog.records and not any("pooler" in name for name in encoder.state_dict())


def test_texts_are_cut_where_the_files_say(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path, limits={"max_seq_length": 6}))
    long, cut = encoder.encode(["the pump was in the pump", "the pump was in"])
    np.testing.assert_allclose(long, cut, atol=1e-6)  # float32 rounding: a row's sum may run in another order than its neighbour's


def test_order_and_batches_do_not_matter(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path))
    texts = [" ".join(TEXTS[: 1 + i % 4]) for i in range(11)]
    alone = np.stack([encoder.encode([text])[0] for text in texts])
    for batch_tokens in (1, 40, 10**6):
        np.testing.assert_allclose(encoder.encode(texts, batch_tokens=batch_tokens, progress=False), alone, atol=1e-6)  # float32 rounding
    assert encoder.encode([]).shape == (0, 24)


def test_it_can_be_trained(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path)).train()
    tokens = PackedTokens.of([encoding.ids for encoding in encoder.tokenizer.encode(TEXTS[:2])])
    vectors = encoder(tokens)
    (vectors[0] * vectors[1]).sum().backward()
    gradient = encoder.encoder.embeddings.word_embeddings.weight.grad
    assert gradient is not None and np.abs(gradient.numpy()).max() > 0
    assert encoder.encode(TEXTS[:1]).shape == (1, 24) and encoder.training


def test_a_copy_has_settings_of_its_own(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path))
    other = copy.copy(encoder)
    other.settings = SentenceSettings("cls", False)
    tokens = PackedTokens.of([encoding.ids for encoding in encoder.tokenizer.encode(TEXTS)])
    for one in (encoder, other):
        np.testing.assert_allclose(one.encode(TEXTS), one(tokens).numpy(), rtol=0, atol=1e-6)  # float32, sums in another order


def test_an_encoder_that_nobody_uses_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path))
    encoder.encode(TEXTS)
    known = weakref.ref(encoder)
    gc.disable()  # which would find it even in a cycle
    try:
        del encoder
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("modules", "code", "words"),
    [
        ([*MODULES[:2], {**MODULES[2], "type": "sentence_transformers.models.Dense"}], "unsupported-module", "models.Dense"),
        ([*MODULES[:2], {**MODULES[2], "type": "evil.Normalize"}], "unsupported-module", "evil.Normalize"),
        ([MODULES[0], {**MODULES[1], "path": "../../1_Pooling"}], "path-escapes-model-dir", "only '1_Pooling'"),
        ([{**MODULES[0], "path": "/etc"}, MODULES[1]], "path-escapes-model-dir", "'/etc'"),
        ([MODULES[1], MODULES[0]], "unsupported-module", "in this order"),
        ([MODULES[0]], "unsupported-module", "in this order"),
        ([{**MODULES[0], "type": 7}], "unsupported-module", "the module 7"),
        ({"a": 1}, "bad-json", "an array of objects, found an object"),
        ([1], "bad-json", "an array of objects"),
    ],
)
def test_modules_that_are_not_supported_are_named(tmp_path: Path, modules: Any, code: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        SentenceEncoder.from_pretrained(published(tmp_path, modules))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode_mean_tokens": False},
        {"pooling_mode": "lasttoken"},
        {},
    ],
)
def test_poolings_that_are_not_supported_are_named(tmp_path: Path, pooling: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="supported is one of 'mean', 'cls', 'max'") as caught:
        SentenceEncoder.from_pretrained(published(tmp_path, pooling=pooling))
    assert caught.value.code == "unsupported-module"


@pytest.mark.parametrize("limits", [{"max_seq_length": "long"}, {"max_seq_length": 0}, {"do_lower_case": "yes"}])
def test_limits_must_be_limits(tmp_path: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        SentenceEncoder.from_pretrained(published(tmp_path, limits=limits))
    assert caught.value.code == "config-type"


def test_a_directory_that_does_not_say_how_must_be_told(tmp_path: Path) -> None:
    folder = directory(tmp_path, "BertModel")
    with pytest.raises(ArgumentError, match=r"has no modules.json .* pass pooling"):
        SentenceEncoder.from_pretrained(folder, pooling="mean")
    for wrong in ("median", ["mean"], 5):
        with pytest.raises(ArgumentError, match="pooling must be one of 'mean', 'cls', 'max', got "):
            SentenceEncoder.from_pretrained(folder, pooling=wrong, normalise=True)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="normalise must be True or False, got 'yes'"):
        SentenceEncoder.from_pretrained(folder, pooling="mean", normalise="yes")  # type: ignore[arg-type]


def test_broken_json_is_refused(tmp_path: Path) -> None:
    (published(tmp_path) / "modules.json").write_bytes(b"[{\xff")
    with pytest.raises(ConfigError, match="not valid JSON"):
        SentenceEncoder.from_pretrained(tmp_path)


def test_arguments_are_checked(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(published(tmp_path))
    with pytest.raises(DTypeError, match="got one string"):
        encoder.encode("a text")
    for wrong in (0, True, 1.5):
        with pytest.raises(ArgumentError, match="batch_tokens must be an integer of at least 1"):
            encoder.encode(["a"], batch_tokens=wrong)  # type: ignore[arg-type]
