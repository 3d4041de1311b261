"""BertConfig refuses by name whatever could not be computed as the file means it, and keeps what it does not know."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from models.cases import SIZES

from minigrad.errors import ConfigError
from minigrad.models import BertConfig, BertModel

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    *[({name: 0}, "config-limit", f"{name} = 0: must lie between 1 and") for name in ("vocab_size", "hidden_size", "type_vocab_size")],
    *[({name: 0}, "config-limit", name) for name in ("num_attention_heads", "intermediate_size", "max_position_embeddings")],
    ({"num_hidden_layers": -1}, "config-limit", "num_hidden_layers = -1"),
    ({"pad_token_id": -1}, "config-limit", "pad_token_id = -1"),
    ({"pad_token_id": 30}, "config", "pad_token_id = 30: the vocabulary has 30 tokens"),
    ({"vocab_size": 1 << 40}, "config-limit", "vocab_size = 1099511627776"),
    ({"hidden_size": 12.0}, "config-type", "hidden_size = 12.0: must be an integer"),
    ({"hidden_size": "12"}, "config-type", "hidden_size = '12'"),
    ({"num_hidden_layers": True}, "config-type", "num_hidden_layers = True"),
    ({"hidden_dropout_prob": 1.5}, "config-limit", "hidden_dropout_prob = 1.5: must lie between 0.0 and 1.0"),
    ({"hidden_dropout_prob": None}, "config-type", "hidden_dropout_prob = None: must be a number"),
    ({"attention_probs_dropout_prob": -0.1}, "config-limit", "attention_probs_dropout_prob"),
    ({"classifier_dropout": "0.1"}, "config-type", "classifier_dropout"),
    ({"initializer_range": float("nan")}, "config-limit", "initializer_range = nan"),
    ({"layer_norm_eps": float("inf")}, "config-limit", "layer_norm_eps = inf"),
    ({"hidden_act": "mish"}, "config", "hidden_act = 'mish': known are gelu, gelu_new, gelu_pytorch_tanh, relu, tanh, sigmoid"),
    ({"hidden_act": ["gelu"]}, "config", "hidden_act = ['gelu']"),
    ({"num_attention_heads": 5}, "config-limit", "num_attention_heads = 5: hidden_size 12 does not divide by it"),
    ({"problem_type": "ordinal"}, "config", "problem_type = 'ordinal'"),
    ({"problem_type": ["regression"]}, "config", "problem_type = ['regression']"),
    ({"model_type": "roberta"}, "config", "model_type = 'roberta' is not supported by minigrad; supported: 'bert'"),
    ({"position_embedding_type": "relative_key"}, "config", "position_embedding_type"),
    ({"is_decoder": "yes"}, "config-type", "is_decoder = 'yes': must be true or false"),
    ({"tie_word_embeddings": 1}, "config-type", "tie_word_embeddings = 1: must be true or false"),
    ({"add_cross_attention": True}, "config", "add_cross_attention"),
    ({"pruned_heads": {"0": [1]}}, "config", "pruned_heads"),
    ({"quantization_config": {"bits": 8}}, "config", "quantization_config"),
    ({"id2label": {}}, "label-map-mismatch", "id2label"),
    ({"id2label": {"0": "a", "2": "b"}}, "label-map-mismatch", "its keys must be 0, 1, 2"),
    ({"id2label": {"zero": "a"}}, "label-map-mismatch", "a key that is no number"),
    ({"id2label": {" 0": "a"}}, "label-map-mismatch", "the key ' 0', a key that is no number"),
    ({"id2label": {"\u0660": "a"}}, "label-map-mismatch", "a key that is no number"),
    ({"id2label": {0.0: "a"}}, "label-map-mismatch", "the key 0.0, a key that is no number"),
    ({"id2label": {"9" * 5000: "a"}}, "label-map-mismatch", "a key that is no number"),
    ({"id2label": ["a", "b"]}, "label-map-mismatch", "must be an object"),
    ({"id2label": {"0": "a", "00": "b"}}, "label-map-mismatch", "names the label 0 twice"),
    ({"num_labels": 0}, "config-type", "num_labels = 0 must be an integer of at least 1"),
    ({"num_labels": "3"}, "config-type", "num_labels = '3'"),
    ({"num_labels": 1 << 20}, "config-limit", "num_labels = 1048576: at most 65536"),
    ({"id2label": {str(i): "" for i in range(70_000)}}, "config-limit", "70000 labels, at most 65536"),
    ({"num_hidden_layers": 1001}, "config-limit", "num_hidden_layers = 1001: must lie between 0 and 1000"),
    ({"id2label": {"0": "a", "1": "\ud800"}}, "config-text", "id2label[1] = '\\ud800'"),
    ({"note": "\udfff"}, "config-text", "'note' = '\\udfff'"),
    ({"note": {"a": ["\udfff"]}}, "config-text", "'note'"),
    ({"\udfff": 1}, "config-text", "'\\udfff' = 1"),
    ({"note": float("nan")}, "config-text", "'note' = nan"),
    ({"note": {1, 2}}, "config-text", "'note' = {1, 2}"),
]


@pytest.mark.parametrize(("values", "code", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_refused(values: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_dict(SIZES | values, source="somewhere/config.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("somewhere/config.json: ")
    assert caught.value.code == code


def test_defaults_are_those_of_bert_base() -> None:
    config = BertConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.layer_norm_eps) == (30522, 768, 12, 1e-12)
    assert (config.hidden_act, config.num_labels) == ("gelu", 2)


def test_labels_in_any_order_and_of_any_key_type() -> None:
    config = BertConfig.from_dict(SIZES | {"id2label": {"2": "c", "10": "k", **{str(i): "x" for i in (0, 1, 3, 4, 5, 6, 7, 8, 9)}}})
    assert (config.id2label[2], config.id2label[10], config.num_labels) == ("c", "k", 11)
    assert list(config.id2label) == list(range(11))
    assert BertConfig.from_dict(SIZES | {"num_labels": 3}).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_unknown_keys_are_kept() -> None:
    config = BertConfig.from_dict(SIZES | {"gradient_checkpointing": False, "model_type": "bert", "architectures": ["BertForMaskedLM"]})
    assert config.extra == {"gradient_checkpointing": False}
    written = config.to_dict("BertModel")
    assert written["gradient_checkpointing"] is False
    assert written["architectures"] == ["BertModel"]
    assert BertConfig.from_dict(written).to_dict("BertModel") == written


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "bad-json"),
        (b"[1]", "bad-json"),
        (b"\xff", "bad-json"),
        (b"[" * 100_000, "bad-json"),
        (b'{"hidden_size": 12, "hidden_size": 24}', "bad-json"),
        (b'{"initializer_range": NaN}', "bad-json"),
        (b'{"note": -Infinity}', "bad-json"),
        (b'{"note": ' + b"[" * 200 + b"]" * 200 + b"}", "bad-json"),
        (b" " * (1 << 24) + b"{}", "config-limit"),
        (None, "missing-file"),
    ],
    ids=[
        "cut off",
        "a list",
        "not UTF-8",
        "nested too deeply",
        "a key twice",
        "NaN",
        "Infinity",
        "too deep to write",
        "too large",
        "no file",
    ],
)
def test_broken_files(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_file(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError) as caught:
        BertConfig.from_file(tmp_path / "config.json")
    assert caught.value.code == "not-a-regular-file"


def test_what_was_changed_afterwards_is_checked_before_it_is_written() -> None:
    config = BertConfig.from_dict(SIZES)
    config.id2label[1] = "\ud800"
    with pytest.raises(ConfigError, match=r"id2label\[1\]"):
        config.to_text("BertModel")


@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 0}, {"intermediate_size": 7, "type_vocab_size": 5}])
def test_the_size_is_counted_without_building(changes: dict[str, Any]) -> None:
    config = BertConfig(**(SIZES | changes))
    assert config.encoder_size() == BertModel(config, add_pooling_layer=False).num_parameters()


def test_a_null_model_type_is_none() -> None:
    assert BertConfig.from_dict(SIZES | {"model_type": None}).to_dict("BertModel")["model_type"] == "bert"


def test_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZES), encoding="utf-8")
    config = BertConfig.from_file(tmp_path / "config.json")
    assert (config.hidden_size, config.source) == (12, str(tmp_path / "config.json"))
