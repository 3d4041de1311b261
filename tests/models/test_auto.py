"""`load` finds the class that a directory names or the caller asks for, and says what exists where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import HEADS as PUBLISHED
from small_models import directory

import minigrad as mg
from minigrad.errors import ArgumentError, ConfigError
from minigrad.models.auto import FAMILIES, HEADS, forecast, load, max_tokens


def with_config(folder: Path, **changes: Any) -> Path:
    """The directory's config.json with keys changed, or left out where the value is None."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_architecture_names_the_class(tmp_path: Path, kind: str) -> None:
    model = mg.models.load(directory(tmp_path, kind))
    assert type(model).__name__ == kind and not model.training and not model.load_report.newly_initialised


@pytest.mark.parametrize(("head", "kind"), [("base", "BertModel"), ("masked-lm", "BertForMaskedLM"), ("causal-lm", "BertLMHeadModel")])
def test_a_head_may_be_asked_for(tmp_path: Path, head: str, kind: str) -> None:
    assert type(load(directory(tmp_path, "BertForPreTraining", is_decoder=True), head)).__name__ == kind


def test_options_reach_the_class(tmp_path: Path) -> None:
    model = load(directory(tmp_path, "BertModel"), "sequence-classification", num_labels=7, num_hidden_layers=1)
    assert model.config.num_labels == 7 and model.config.num_hidden_layers == 1


def test_every_family_has_a_base_and_heads_that_its_own_names_lead_back_to() -> None:
    for name, family in FAMILIES.items():
        classes = family.classes()
        assert {"base", "sequence-classification", "token-classification", "question-answering"} <= classes.keys(), name
        for head, cls in classes.items():
            published = (family.published_prefix or family.prefix) + cls.__name__.removeprefix(family.prefix)
            assert family.head_of(published) == head
    assert set(FAMILIES["bert"].classes()) == set(HEADS)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"bert"}))
def test_other_families_are_found_by_model_type(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    cls = family.classes()["token-classification"]
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 5}
    changes = {"model_type": name} if family.published_prefix else {}
    model = cls(cls.config_class(**(sizes | {"max_position_embeddings": 12} | changes)))
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert type(again) is cls
    longest = max_tokens(again.config)
    ids = np.full((1, longest), again.config.pad_token_id + 1)
    assert again(ids).logits.shape == (1, longest, 2)
    with pytest.raises(mg.errors.MinigradError):
        again(np.full((1, longest + 1), again.config.pad_token_id + 1))


def test_files_of_the_first_years_name_the_architecture_alone(tmp_path: Path) -> None:
    folder = with_config(directory(tmp_path, "BertForMaskedLM"), model_type=None)
    assert type(load(folder)).__name__ == "BertForMaskedLM"


def test_a_file_of_2018_that_names_nothing_is_bert_by_its_vocabulary(tmp_path: Path) -> None:
    """RoBERTa's file of that time would load as BERT, with its positions two places off: it has no vocab.txt."""
    folder = with_config(directory(tmp_path, "BertForMaskedLM"), model_type=None, architectures=None)
    with pytest.raises(ConfigError, match="names no architectures: pass head"):
        load(folder)
    assert type(load(folder, "masked-lm")).__name__ == "BertForMaskedLM"
    (folder / "vocab.txt").rename(folder / "vocab.json")
    with pytest.raises(ConfigError, match="names no model_type and no known architecture") as caught:
        load(folder, "masked-lm")
    assert caught.value.code == "unknown-family"


def test_a_tensorflow_checkpoint_is_bert(shared_data: Path) -> None:
    folder = shared_data / "ckpt_tf_tiny"
    with pytest.raises(ConfigError, match="names no architectures: pass head, one of 'base', 'pretraining'"):
        load(folder)
    assert type(load(folder, "pretraining")).__name__ == "BertForPreTraining"


@pytest.mark.parametrize(
    ("changes", "head", "error", "code", "words"),
    [
        ({"model_type": "gpt2"}, None, ConfigError, "unknown-family", "'gpt2' is a family that minigrad does not have; it has 'bert'"),
        ({"model_type": 7}, None, ConfigError, "unknown-family", "model_type = 7"),
        ({"model_type": None, "architectures": ["GPT2Model"]}, None, ConfigError, "unknown-family", "names no model_type"),
        ({"architectures": None}, None, ConfigError, "unknown-architecture", "pass head, one of 'base'"),
        ({"architectures": ["BertForEverything"]}, None, ConfigError, "unknown-architecture", "BertForEverything"),
        ({"architectures": ["ForMaskedLM"]}, None, ConfigError, "unknown-architecture", "names no class"),
        ({"architectures": "BertModel"}, None, ConfigError, "config-type", "list of strings"),
        ({}, "everything", ArgumentError, "argument", "Bert has 'base'"),
    ],
)
def test_what_cannot_be_found_is_named(
    tmp_path: Path, changes: dict[str, Any], head: str | None, error: type[Exception], code: str, words: str
) -> None:
    folder = with_config(directory(tmp_path, "BertModel"), **changes)
    with pytest.raises(error, match=words) as caught:
        load(folder, head)
    assert caught.value.code == code  # type: ignore[attr-defined]


def test_a_forecast_is_what_loading_then_does(tmp_path: Path) -> None:
    folder = directory(tmp_path, "BertForPreTraining")
    for head in (None, "base", "token-classification"):
        found, model = forecast(folder, head), load(folder, head)
        assert found.cls is type(model) and found.report == model.load_report and found.num_parameters == model.num_parameters()
        assert sum(found.stored.values()) + sum(dict(model.named_parameters())[n].size for n in found.report.newly_initialised) == (
            found.num_parameters
        )


@pytest.mark.parametrize("head", [[], ["base"], {}, 5, True, "Base", ""])
def test_what_is_no_head_is_refused(tmp_path: Path, head: Any) -> None:
    folder = directory(tmp_path, "BertModel")
    with pytest.raises(ArgumentError, match=r"head = .*: Bert has 'base', "):
        load(folder, head)


@pytest.mark.parametrize("target", [None, 5, b"x", "", "a\0b"], ids=repr)
def test_a_model_is_saved_under_a_path_only(tmp_path: Path, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(directory(tmp_path / "model", "BertModel"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="pass the path of a file or directory"):
        model.save_pretrained(target)
    with pytest.raises(ArgumentError, match="pass the path of a file or directory"):
        model.config.from_file(target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
