"""Weights in several files: what is written comes back, and an index is believed only as far as its shards and its folder bear it out.

The rows D01 to D11 are the hostile directories: each must be refused with its own code, within a second and without memory
out of proportion to the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.errors import ArgumentError, WeightFileError
from minigrad.io import SafetensorsFile, ShardedWeights, load_file, open_weights, save_file, save_weights
from minigrad.io.sharded import MAX_INDEX_BYTES, MAX_SHARDS, MAX_TENSORS, SHARED_BLOBS_MARKER
from minigrad.io.sharded_write import parse_size

INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ARRAYS = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.float32), "c": np.array([2.5])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, a and b in the first, c in the second, and an index without digests, as Hugging Face writes it."""
    save_file({"a": ARRAYS["a"], "b": ARRAYS["b"]}, tmp_path / A)
    save_file({"c": ARRAYS["c"]}, tmp_path / B)
    write_index(tmp_path, {"a": A, "b": A, "c": B})
    return tmp_path


def write_index(folder: Path, weight_map: object, **metadata: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 56} | metadata, "weight_map": weight_map}), encoding="utf-8")


def read_all(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    with open_weights(folder) as source:
        return {name: source.read(name) for name in source.names()}


def refusal(folder: Path) -> WeightFileError:
    """The error with which the directory is refused, in under a second and 128 MB."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(WeightFileError) as caught:
            read_all(folder)
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seconds < 1.0
    assert peak < 128e6
    assert len(str(caught.value)) < len(str(folder)) + 500, "a message repeats little of what the index says"
    return caught.value


def mapping(members: Iterable[str], rest: str = "") -> str:
    """The text of an index with these members of weight_map, written out because a dict has no key twice."""
    return f'{{"weight_map":{{{",".join(members)}}}{rest}}}'


# --- round trips ------------------------------------------------------------------------------------------------------


def test_shards_are_read_by_name(folder: Path) -> None:
    with ShardedWeights(folder / INDEX, SafetensorsFile) as source:
        assert source.names() == ("a", "b", "c")
        assert source.shape("b") == (2, 3) and source.dtype("c") == np.float64
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(source.read(name), array, strict=True)
        out = np.zeros(6)
        source.read_into("a", out)
        assert out.tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(WeightFileError, match="no tensor 'd'") as caught:
            source.read("d")
        assert caught.value.code == "missing-tensor"
    with pytest.raises(ArgumentError, match="has been closed") as closed:
        source.read("a")
    assert closed.value.code == "file-closed"


def test_shards_are_opened_when_they_are_needed_and_closed_with_the_source(folder: Path) -> None:
    opened: list[str] = []

    def opener(path: Path) -> SafetensorsFile:
        opened.append(path.name)
        return SafetensorsFile(path)

    before = len(os.listdir("/dev/fd"))
    with ShardedWeights(folder / INDEX, opener) as source:
        assert opened == []
        source.shape("c")
        source.shape("c")
        assert opened == [B]
        source.read("a")
        assert opened == [B, A]
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("limit", "groups"),
    [(10**6, [["a", "b", "c"]]), (56, [["a", "b", "c"]]), (55, [["a", "b"], ["c"]]), (32, [["a"], ["b", "c"]]), (1, [["a"], ["b"], ["c"]])],
)
def test_what_is_written_is_split_in_order_and_comes_back(tmp_path: Path, limit: int, groups: list[list[str]]) -> None:
    save_weights(ARRAYS, tmp_path, max_shard_size=limit, metadata={"format": "pt"})
    count = len(groups)
    if count == 1:
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    else:
        index = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
        shards = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
        assert index["weight_map"] == {name: shard for shard, group in zip(shards, groups, strict=True) for name in group}
        assert (index["metadata"]["total_size"], index["metadata"]["total_parameters"]) == (56, 13)
        assert index["metadata"]["sha256"] == {shard: hashlib.sha256((tmp_path / shard).read_bytes()).hexdigest() for shard in shards}
        assert {path.name for path in tmp_path.iterdir()} == {INDEX, *shards}
        with SafetensorsFile(tmp_path / shards[0]) as file:
            assert file.metadata == {"format": "pt"}
    found = read_all(tmp_path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_an_older_save_of_another_shape_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "model-notes.safetensors").write_text("not ours")
    for limit, kept in ((1, 4), ("1KB", 1), (32, 3), (1, 4)):
        save_weights(ARRAYS, tmp_path, max_shard_size=limit)  # type: ignore[arg-type]
        assert len(list(tmp_path.iterdir())) == kept + 1
        assert read_all(tmp_path).keys() == ARRAYS.keys()


@pytest.mark.parametrize("failing_call", range(1, 4))
def test_a_failed_write_leaves_the_old_shards_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int) -> None:
    """A full disk is noticed before the first new file takes its name; no part of one stays."""
    save_weights(ARRAYS, tmp_path, max_shard_size=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls, fsync = [0], os.fsync

    def failing(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == failing_call:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(WeightFileError, match="No space left") as caught:
        save_weights({name: array + 1 for name, array in ARRAYS.items()}, tmp_path, max_shard_size=1)
    assert caught.value.code == "write-failed"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_crash_between_two_names_is_noticed_when_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards of two saves have the same names, shapes and sizes: only their digests tell them apart."""
    save_weights(ARRAYS, tmp_path, max_shard_size=1)
    replace, calls = os.replace, [0]

    def killed(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_weights({name: array + 1 for name, array in ARRAYS.items()}, tmp_path, max_shard_size=1)
    assert refusal(tmp_path).code == "digest-mismatch"


def test_sizes_of_shards() -> None:
    assert [parse_size(size) for size in (1, "1KB", "500MB", "5GB", "2TB")] == [1, 1000, 5 * 10**8, 5 * 10**9, 2 * 10**12]
    for bad in (0, -1, True, 1.5, "", "5", "5 GB", "5gb", "-5GB", "0GB", "9" * 40 + "GB", None):
        with pytest.raises(ArgumentError, match="shard size"):
            parse_size(bad)  # type: ignore[arg-type]


# --- hostile directories ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../x.safetensors", "../model.safetensors", "..", ".", "", "sub/x.safetensors", "sub\\x.safetensors", "C:x", "a\0b"],
)
def test_d01_a_shard_outside_of_the_directory(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    save_file({"c": ARRAYS["c"]}, folder / "sub" / "x.safetensors")
    write_index(folder, {"a": A, "b": A, "c": name})
    assert refusal(folder).code == "path-escapes-model-dir"


def test_d02_a_shard_by_an_absolute_path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.safetensors"
    save_file({"c": ARRAYS["c"]}, elsewhere)
    write_index(folder, {"a": A, "b": A, "c": str(elsewhere)})
    assert refusal(folder).code == "path-escapes-model-dir"


@pytest.mark.parametrize("relative", [False, True])
def test_d03_a_link_out_of_the_directory(folder: Path, tmp_path_factory: pytest.TempPathFactory, relative: bool) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.safetensors"
    (folder / B).rename(elsewhere)
    (folder / B).symlink_to(os.path.relpath(elsewhere, folder) if relative else elsewhere)
    assert refusal(folder).code == "symlink-escapes"


def test_d03_a_link_inside_the_directory_or_its_cache_is_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / B).rename(folder / "real.safetensors")
    (folder / B).symlink_to("real.safetensors")
    assert read_all(folder)["c"] == 2.5
    cache = tmp_path_factory.mktemp("models--x--y")
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for i, name in enumerate((A, B, INDEX)):
        (cache / "blobs" / f"blob{i}").write_bytes((folder / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/blob{i}")
    assert read_all(snapshot)["c"] == 2.5
    other = tmp_path_factory.mktemp("models--x--z")
    (other / "blobs").mkdir()
    (cache / "blobs" / "blob1").rename(other / "blobs" / "blob1")
    (snapshot / B).unlink()
    (snapshot / B).symlink_to(other / "blobs" / "blob1")
    assert refusal(snapshot).code == "symlink-escapes", "the blobs of another cache"


def test_d04_links_in_a_circle(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).symlink_to("other")
    (folder / "other").symlink_to(B)
    assert refusal(folder).code == "symlink-escapes"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["FIFO", "directory"])
def test_d05_a_shard_that_is_no_file(folder: Path, make: Callable[[Path], None]) -> None:
    (folder / B).unlink()
    make(folder / B)
    assert refusal(folder).code == "not-a-regular-file"


def test_d05_a_shard_that_is_a_device(folder: Path) -> None:
    (folder / B).unlink()
    (folder / B).symlink_to("/dev/zero")
    assert refusal(folder).code == "symlink-escapes"


@pytest.mark.parametrize("dangling", [False, True])
def test_d06_a_missing_shard_is_named(folder: Path, dangling: bool) -> None:
    (folder / B).unlink()
    if dangling:
        (folder / B).symlink_to("gone")
    error = refusal(folder)
    assert error.code == "missing-shard" and B in str(error)


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": A, "b": B, "c": B}, "holds what the index does not list for it: 'b'"),
        ({"a": A, "b": A, "c": B, "d": B}, "lacks 'd'"),
        ({"a": A, "c": B}, "holds what the index does not list for it: 'b'"),
    ],
    ids=["in the wrong shard", "in no shard", "not in the index"],
)
def test_d07_an_index_that_does_not_fit_its_shards(folder: Path, weight_map: dict[str, str], words: str) -> None:
    write_index(folder, weight_map)
    error = refusal(folder)
    assert error.code == "index-mismatch" and words in str(error)


def test_d07_a_tensor_in_two_shards(folder: Path) -> None:
    save_file({"b": ARRAYS["b"], "c": ARRAYS["c"]}, folder / B)
    assert refusal(folder).code == "index-mismatch"


@pytest.mark.parametrize(
    "text",
    [
        mapping(f'"t{i}":"s{i}"' for i in range(1_000_000)),
        mapping(f'"t{i}":"s{i}"' for i in range(MAX_SHARDS + 1)),
        mapping(f'"t{i}":"s"' for i in range(MAX_TENSORS + 1)),
        mapping(f'"t{i}" : "s"' for i in range(2 * MAX_TENSORS + 2)),
        mapping([], f',"metadata":[{",".join("0" for _ in range(3_000_000))}]'),
    ],
    ids=["1 M shards", "513 shards", "100 001 tensors", "200 002 tensors", "3 M numbers"],
)
def test_d08_more_shards_or_tensors_than_any_model_has(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text, encoding="utf-8")
    assert refusal(folder).code == "index-limit"


def test_d09_an_index_of_enormous_size(folder: Path) -> None:
    with open(folder / INDEX, "wb") as file:
        file.write(b'{"weight_map":{}}')
        file.truncate(MAX_INDEX_BYTES + 1)
    assert refusal(folder).code == "index-limit"


@pytest.mark.parametrize(
    "text",
    [
        mapping(['"a":"s"', '"b":"s"', '"a":"t"']),
        mapping(['"a":"s"'], ',"weight_map":{"a":"t"}'),
        mapping(['"a":"s"'], ',"metadata":{"x":1,"x":2}'),
    ],
    ids=["tensor", "weight_map", "metadata"],
)
def test_d09_keys_twice(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text, encoding="utf-8")
    assert refusal(folder).code == "duplicate-key"


def test_d10_a_shard_swapped_after_its_digest_was_recorded(tmp_path: Path) -> None:
    save_weights(ARRAYS, tmp_path, max_shard_size=55)
    save_file({"c": ARRAYS["c"] + 1}, tmp_path / B)
    with open_weights(tmp_path) as source:
        np.testing.assert_array_equal(source.read("a"), ARRAYS["a"])
    error = refusal(tmp_path)
    assert error.code == "digest-mismatch" and B in str(error)


@pytest.mark.parametrize(
    ("digests", "code"),
    [
        ({A: "0" * 64}, "index-mismatch"),
        ({A: "0" * 64, B: "0" * 64, "x": "0" * 64}, "index-mismatch"),
        ({A: "0" * 64, B: "0"}, "bad-index"),
        ({A: "0" * 64, B: 5}, "bad-index"),
        ("0" * 64, "bad-index"),
    ],
    ids=["one missing", "one too many", "short", "a number", "no object"],
)
def test_d10_digests_that_are_none(folder: Path, digests: object, code: str) -> None:
    write_index(folder, {"a": A, "b": A, "c": B}, sha256=digests)
    assert refusal(folder).code == code


@pytest.mark.parametrize(
    "weight_map",
    [{"a": A, "b": A, "c": B, "B": A}, {"a": A, "b": A.upper(), "c": B}, {"stra\u00dfe": A, "STRASSE": A}],
    ids=["tensors", "shards", "beyond ASCII"],
)
def test_d11_names_that_differ_in_case_only(folder: Path, weight_map: dict[str, str]) -> None:
    write_index(folder, weight_map)
    assert refusal(folder).code == "ambiguous-name"


BROKEN = {
    "empty": (b"", "bad-index"),
    "array": (b"[]", "bad-index"),
    "no weight_map": (b"{}", "bad-index"),
    "weight_map an array": (b'{"weight_map":[]}', "bad-index"),
    "shard a number": (b'{"weight_map":{"a":5}}', "bad-index"),
    "NaN": (b'{"weight_map":{"a":NaN}}', "bad-index"),
    "not UTF-8": (b'{"weight_map":{"a":"\xff"}}', "bad-index"),
    "100 000 deep": (b'{"weight_map":' + b"[" * 100_000, "bad-index"),
    "200 deep": (b'{"weight_map":' + b'{"a":' * 200 + b"1" + b"}" * 201, "bad-index"),
    "a number of 9000 digits": (b'{"weight_map":{"a":1%s}}' % (b"0" * 9000), "bad-index"),
    "surrogate in a name": (b'{"weight_map":{"\\ud800":"x"}}', "bad-name"),
    "no name": (b'{"weight_map":{"":"x"}}', "bad-name"),
    "long name": (b'{"weight_map":{"%s":"x"}}' % (b"x" * 2000), "bad-name"),
    "long shard": (b'{"weight_map":{"a":"%s"}}' % (b"x" * 5000), "bad-index"),
    "surrogate in a shard": (b'{"weight_map":{"a":"\\ud800"}}', "bad-index"),
}


@pytest.mark.parametrize("row", BROKEN)
def test_an_index_that_is_none(folder: Path, row: str) -> None:
    text, code = BROKEN[row]
    (folder / INDEX).write_bytes(text)
    assert refusal(folder).code == code


def test_a_shard_of_another_format_is_refused_by_its_reader(folder: Path) -> None:
    (folder / B).write_bytes(b"PK\x03\x04" + bytes(60))
    assert refusal(folder).code.startswith("header-")


def test_a_refused_shard_is_closed(folder: Path) -> None:
    write_index(folder, {"a": A, "b": B, "c": B})
    before = len(os.listdir("/dev/fd"))
    refusal(folder)
    assert len(os.listdir("/dev/fd")) == before


def test_the_shards_alone_are_ordinary_files(folder: Path) -> None:
    assert load_file(folder / A).keys() == {"a", "b"}, "the rows differ from a readable directory by their fault only"


@pytest.mark.parametrize("marked", [True, False])
def test_d03_blobs_that_all_repositories_of_a_hub_cache_share(tmp_path: Path, marked: bool) -> None:
    """A link to the repository's blob, which is itself one to <cache>/blobs/<two digits>: read only where the cache says that it is one."""
    snapshot, store = tmp_path / "models--o--n" / "snapshots" / ("1" * 40), tmp_path / "blobs" / "ab"
    for place in (snapshot, snapshot.parents[1] / "blobs", store):
        place.mkdir(parents=True)
    if marked:
        (store.parent / SHARED_BLOBS_MARKER).write_text("1\n", encoding="utf-8")
    save_weights({"a": np.ones(6, np.float32), "b": np.ones(6, np.float32)}, snapshot, max_shard_size=24, dtype=None, metadata={})
    for i, path in enumerate(sorted(snapshot.glob("*.safetensors"))):
        blob = snapshot.parents[1] / "blobs" / f"{i:040d}"
        path.rename(store / f"{i:064d}")
        blob.symlink_to(store / f"{i:064d}")
        path.symlink_to(blob)
    if marked:
        with open_weights(snapshot) as source:
            assert source.names() == ("a", "b") and source.read("a").tolist() == [1.0] * 6
    else:
        with pytest.raises(WeightFileError) as refused:
            open_weights(snapshot)
        assert refused.value.code == "symlink-escapes"
