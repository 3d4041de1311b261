"""Which file of a directory is read: the first of the fixed names, and no other if that one is broken."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.errors import ArgumentError, WeightFileError
from minigrad.io import (
    SafetensorsFile,
    ShardedWeights,
    TensorFlowCheckpoint,
    TorchZipFile,
    WeightSource,
    open_weights,
    save_file,
    save_weights,
)
from minigrad.io.weights import READERS

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}


def test_the_order_of_names_is_the_documented_one() -> None:
    assert list(READERS) == [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "bert_model.ckpt.index",
        "model.ckpt.index",
    ]


def check_protocol(source: WeightSource) -> None:
    """What every source must do, told by its type; mypy checks the signatures."""
    with source as opened:
        assert opened.path.is_file()
        for name in opened.names():
            array = opened.read(name)
            assert array.shape == opened.shape(name) and array.dtype == opened.dtype(name)
            out = np.empty(array.shape, np.float64 if array.dtype.kind == "f" else array.dtype)
            opened.read_into(name, out)
            np.testing.assert_array_equal(out, array)
        with pytest.raises(WeightFileError) as caught:
            opened.shape("no such tensor")
        assert caught.value.code == "missing-tensor"


def test_one_file_or_shards(tmp_path: Path) -> None:
    save_weights(ARRAYS, tmp_path)
    source = open_weights(tmp_path)
    assert isinstance(source, SafetensorsFile)
    check_protocol(source)
    save_weights(ARRAYS, tmp_path, max_shard_size=1)
    source = open_weights(tmp_path)
    assert isinstance(source, ShardedWeights)
    check_protocol(source)


@pytest.mark.parametrize(("folder", "kind"), [("tiny_random_bert_ner", TorchZipFile), ("ckpt_tf_tiny", TensorFlowCheckpoint)])
def test_published_files_of_other_formats(shared_data: Path, folder: str, kind: type[Any]) -> None:
    source = open_weights(shared_data / folder)
    assert isinstance(source, kind)
    check_protocol(source)


def test_shards_of_pytorch_files(shared_data: Path, tmp_path: Path) -> None:
    """An index over one genuine file, under the name of a shard."""
    shard = "pytorch_model-00001-of-00001.bin"
    (tmp_path / shard).write_bytes((shared_data / "tiny_random_bert_ner" / "pytorch_model.bin").read_bytes())
    with open_weights(shared_data / "tiny_random_bert_ner") as whole:
        names = ",".join(f'"{name}":"{shard}"' for name in whole.names())
        (tmp_path / "pytorch_model.bin.index.json").write_text(f'{{"weight_map":{{{names}}}}}', encoding="utf-8")
        with open_weights(tmp_path) as source:
            assert sorted(source.names()) == sorted(whole.names())
            for name in whole.names():
                np.testing.assert_array_equal(source.read(name), whole.read(name))


def test_the_first_name_wins_and_the_choice_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    for name in list(READERS)[1:]:
        (tmp_path / name).write_text("never opened", encoding="utf-8")
    with caplog.at_level(logging.INFO, "minigrad"), open_weights(tmp_path) as source:
        assert source.path == tmp_path / "model.safetensors"
    assert "reading model.safetensors; model.safetensors.index.json, pytorch_model.bin" in caplog.text


@pytest.mark.parametrize("broken", ["empty", "dangling link"])
def test_a_broken_first_file_is_reported_and_the_second_is_not_tried(tmp_path: Path, broken: str) -> None:
    save_weights(ARRAYS, tmp_path, max_shard_size=1)
    if broken == "empty":
        (tmp_path / "model.safetensors").touch()
    else:
        (tmp_path / "model.safetensors").symlink_to("gone")
    with pytest.raises(WeightFileError) as caught:
        open_weights(tmp_path)
    assert caught.value.code == ("header-too-small" if broken == "empty" else "missing-file")


def test_no_weights_at_all(tmp_path: Path) -> None:
    (tmp_path / "MODEL.safetensors.txt").touch()
    with pytest.raises(WeightFileError, match=r"looked for model\.safetensors, .*, model\.ckpt\.index") as caught:
        open_weights(tmp_path)
    assert caught.value.code == "missing-file"


@pytest.mark.parametrize("folder", ["vocab121", "vocab32006_ja"])
def test_the_old_pickle_stream_is_refused_by_name_with_the_way_out(shared_data: Path, folder: str) -> None:
    with pytest.raises(WeightFileError, match=r"before version 1\.6.* safetensors") as caught:
        open_weights(shared_data / "tiny_bert_legacy" / folder)
    assert caught.value.code == "unsupported-container"


NO_PATHS = [None, 5, b"model", "", "a\0b", ["a"], True, 1.5]


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
@pytest.mark.parametrize(
    "use",
    [
        open_weights,
        SafetensorsFile,
        TorchZipFile,
        TensorFlowCheckpoint,
        lambda path: ShardedWeights(path, SafetensorsFile),
        lambda path: save_file(ARRAYS, path),
        lambda path: save_weights(ARRAYS, path),
    ],
)
def test_what_is_no_path_is_refused_and_nothing_is_written(use: Any, path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty text, as of a variable that was never set, would be the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="pass the path of a file or directory, got "):
        use(path)
    assert not any(tmp_path.iterdir())
