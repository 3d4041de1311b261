"""Hostile configurations beside good weights, rows C01 to C05 and C10, for each family: one error with its code, at once and for no memory.

The rows of tokenizer files, C06 to C09, stand in tests/data/test_tokenizer_hostile.py.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.sibling_cases import CONFIGS, head
from small_models import directory

import minigrad as mg
from minigrad.errors import ConfigError
from minigrad.io import load_file, save_file
from minigrad.models import BertConfig
from minigrad.models.config import MAX_PARAMETERS

FAMILIES = ("Bert", *CONFIGS)
PUBLISHED = {"Bert": BertConfig.published_keys} | {family: cls.published_keys for family, cls in CONFIGS.items()}
Saved = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """A model of a family, whose config.json then says `changes`, spelt as the family spells them; None leaves a key out."""

    def save(family: str, changes: dict[str, Any], kind: str = "ForSequenceClassification") -> Path:
        if family == "Bert":
            directory(tmp_path, family + kind, id2label={0: "a", 1: "b", 2: "c"})
        else:
            head(family + kind, "float32").save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        spelt = {PUBLISHED[family].get(key, key): value for key, value in changes.items()}
        values = json.loads(path.read_text(encoding="utf-8")) | spelt
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), encoding="utf-8")
        return tmp_path

    return save


def refused(folder: Path, code: str, **options: Any) -> str:
    """The message of the one error, which comes within a second and 64 MB and leaves the directory as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        mg.models.load(folder, **options)
    assert time.process_time() - start < 1
    tracemalloc.start()  # in a second run, because it takes several times as long
    try:
        with pytest.raises(ConfigError):
            mg.models.load(folder, **options)
        assert tracemalloc.get_traced_memory()[1] < 64e6  # 16 MB are set aside to read a configuration
    finally:
        tracemalloc.stop()
    assert caught.value.code == code and str(folder) in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 1 << 20, "num_attention_heads": 1},
        {"hidden_size": 1 << 40, "num_attention_heads": 1},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": 1000, "intermediate_size": 1 << 24},
        {"vocab_size": 10**30},
        {"max_position_embeddings": 1 << 62},
        {"intermediate_size": (1 << 24) + 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_c01_sizes_that_no_machine_holds(saved: Saved, family: str, changes: dict[str, Any]) -> None:
    if family == "Electra" and changes.get("num_hidden_layers") == 1000:
        changes = changes | {"hidden_size": 1 << 16, "num_attention_heads": 1}
    refused(saved(family, changes), "config-limit")


def test_c01_the_largest_published_encoders_are_within_the_limit() -> None:
    """XLM-RoBERTa XXL, of 10.7e9 numbers."""
    sizes = {"vocab_size": 250880, "hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 32, "intermediate_size": 16384}
    assert 10e9 < BertConfig(**sizes).encoder_size() < MAX_PARAMETERS / 6  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", [0, 5, 7, 1 << 24])
def test_c02_attention_heads(saved: Saved, family: str, heads: int) -> None:
    assert f"= {heads}: " in refused(saved(family, {"num_attention_heads": heads}), "config-limit")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"])
@pytest.mark.parametrize(
    ("value", "code"), [(-1, "config-limit"), (12.0, "config-type"), ("12", "config-type"), (True, "config-type"), ([12], "config-type")]
)
def test_c03_numbers_that_are_none(saved: Saved, family: str, key: str, value: Any, code: str) -> None:
    assert PUBLISHED[family].get(key, key) in refused(saved(family, {key: value}), code)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("value", "code"), [("0.1", "config-type"), (True, "config-type"), (-0.1, "config-limit"), (10**400, "config-limit")]
)
def test_c03_rates_that_are_none(saved: Saved, family: str, value: Any, code: str) -> None:
    refused(saved(family, {"hidden_dropout_prob": value}), code)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_c03_numbers_that_json_has_not(saved: Saved, family: str, word: str) -> None:
    folder = saved(family, {"initializer_range": 0.5})
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace("0.5", word), encoding="utf-8")
    refused(folder, "config-limit" if word == "1e400" else "bad-json")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "max_position_embeddings", "intermediate_size", "num_hidden_layers", "type_vocab_size"]
)
def test_c04_sizes_that_are_not_the_file_s(saved: Saved, family: str, key: str) -> None:
    if (family, key) == ("DistilBert", "type_vocab_size"):
        pytest.skip("DistilBERT has no segments")
    folder = saved(family, {})
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    spelt = PUBLISHED[family].get(key, key)
    values[spelt] += 3  # every model here has three attention heads
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert f"{spelt} = {values[spelt]}, but " in refused(folder, "config-weights-mismatch")


@pytest.mark.parametrize("family", FAMILIES)
def test_c05_keys_that_name_code_are_ignored_aloud_and_not_passed_on(
    saved: Saved, family: str, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    canary = tmp_path_factory.mktemp("elsewhere") / "canary"
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "owner/repo--evil.Model"}, "trust_remote_code": True}
    folder = saved(family, code | {"custom_pipelines": {"x": {"impl": "evil.P"}}})
    for name in ("evil.py", "configuration.py", "modeling.py", "__init__.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w')\n", encoding="utf-8")
    model = mg.models.load(folder)
    assert not canary.exists() and "evil" not in sys.modules
    (notice,) = [record.getMessage() for record in caplog.records]
    assert notice.endswith("auto_map, custom_pipelines, trust_remote_code ignored: minigrad runs no code of a checkpoint")
    model.save_pretrained(folder / "copy")
    assert not {*code, "custom_pipelines"} & json.loads((folder / "copy" / "config.json").read_text(encoding="utf-8")).keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "names 2 labels, but 'classifier."),
        ({"id2label": None}, "names 2 labels, but 'classifier."),
        ({"id2label": {str(i): "x" for i in range(1000)}}, "names 1000 labels, but 'classifier."),
        ({"num_labels": 4}, "num_labels = 4, but id2label names 3 labels"),
        ({"num_labels": "3"}, "num_labels = '3', but id2label names 3 labels"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "its keys must be 0, 1, 2"),
        ({"id2label": [["a"]]}, "must be an object"),
    ],
    ids=["too few", "missing", "too many", "another number", "a number as text", "a gap", "an array"],
)
def test_c10_labels_that_are_not_the_classifier_s(saved: Saved, family: str, changes: dict[str, Any], words: str) -> None:
    assert words in refused(saved(family, changes), "label-map-mismatch")


@pytest.mark.parametrize("family", FAMILIES)
def test_c10_labels_that_the_caller_knows_better(saved: Saved, family: str) -> None:
    folder = saved(family, {"id2label": None, "label2id": None})
    assert "pass num_labels (3 to keep the classifier, any other for a new one)" in refused(folder, "label-map-mismatch")
    kept, new = mg.models.load(folder, num_labels=3), mg.models.load(folder, num_labels=2)
    assert not kept.load_report.newly_initialised
    assert all(".out_proj" in name or name.startswith("classifier") for name in new.load_report.newly_initialised)
    assert new.load_report.newly_initialised and new.config.num_labels == 2
    assert not mg.models.load(folder, "question-answering").config.extra.get("num_labels"), "other heads have no labels"


def test_c10_a_classifier_without_rows_or_with_a_number_for_one(saved: Saved) -> None:
    folder = saved("Bert", {})
    arrays = load_file(folder / "model.safetensors")
    for name, array in (("classifier.bias", np.float32(0.0)), ("classifier.weight", arrays["classifier.weight"][:0])):
        save_file(arrays | {name: np.asarray(array)}, folder / "model.safetensors")
        with pytest.raises(mg.errors.MinigradError) as caught:
            mg.models.load(folder)
        assert caught.value.code in ("weights-mismatch", "label-map-mismatch")
