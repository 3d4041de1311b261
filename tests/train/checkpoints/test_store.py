"""The checkpoint store in ordinary use, and checkpoints that somebody else made. (Crashes and failing disks: `faults/`.)"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigrad.errors import ArgumentError, CheckpointError, DTypeError
from minigrad.io import save_file
from minigrad.train.checkpoints.store import MAX_STEP, CheckpointStore

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", ">f2", ">f4", ">i8"]
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
GROUPS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS, max_size=3)
)
X = {"model": {"weight": np.arange(6.0)}}


@given(groups=GROUPS, step=st.integers(0, MAX_STEP))
def test_arrays_come_back_to_the_last_bit(groups: dict[str, dict[str, Any]], step: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = CheckpointStore(directory)
        path = store.save(step, groups, {"a": 1})
        checkpoint = store.at(step)
        assert (checkpoint.path, checkpoint.step, checkpoint.state) == (path, step, {"a": 1})
        for name, group in groups.items():
            found = checkpoint.arrays(name)
            assert found.keys() == group.keys()
            for key, array in group.items():
                native = array.astype(array.dtype.newbyteorder("="))
                assert (found[key].dtype, found[key].shape, found[key].tobytes()) == (native.dtype, native.shape, native.tobytes())


def test_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"transposed": array.T, "strided": array[::2, ::-1], "repeated": np.broadcast_to(array[0], (3, 6))}
    CheckpointStore(tmp_path).save(1, {"model": views}, {})
    found = CheckpointStore(tmp_path).at(1).arrays("model")
    assert all(np.array_equal(found[name], view) for name, view in views.items())


def test_the_directory_holds_what_the_manifest_says(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1234, {**X, "optimizer": {}}, {"loss": 0.5})
    assert path == tmp_path / "step-00001234"
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"]) == (1, 1234)
    assert sorted(os.listdir(path)) == sorted([*manifest["files"], "manifest.json"])
    for name, record in manifest["files"].items():
        content = (path / name).read_bytes()
        assert record == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert json.loads((path / "state.json").read_text()) == {"loss": 0.5}


@pytest.mark.parametrize("keep", [2, 3])
def test_only_the_newest_stay(tmp_path: Path, keep: int) -> None:
    store = CheckpointStore(tmp_path, keep=keep)
    for step in range(0, 50, 10):
        store.save(step, X, {})
    assert store.steps() == [0, 10, 20, 30, 40][-keep:]
    latest = store.latest()
    assert latest is not None and latest.step == 40
    with pytest.raises(CheckpointError, match="no checkpoint of step 10; known: ") as caught:
        store.at(10)
    assert caught.value.code == "no-checkpoint"
    fresh = CheckpointStore(tmp_path, keep=2)
    fresh.save(50, X, {})
    assert fresh.steps() == [40, 50]


def test_steps_beyond_eight_digits_stay_in_order(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (99_999_999, 100_000_000):
        store.save(step, X, {})
    assert store.steps() == [99_999_999, 100_000_000]
    latest = store.latest()
    assert latest is not None and latest.path.name == "step-100000000"


def test_the_same_step_saved_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, X, {})
    first = store.save(2, X, {"run": 1})
    written = (first / "manifest.json").stat()
    assert store.save(2, X, {"run": 1}) == first and (first / "manifest.json").stat() == written, "an identical one stays"
    assert [store.save(2, X, {"run": run}).name for run in range(2, 5)] == ["step-00000002-2", "step-00000002-3", "step-00000002-4"]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000001", "step-00000002-4"]
    assert store.steps() == [1, 2] and store.at(2).state == {"run": 4}
    for run in range(5, 12):
        store.save(2, X, {"run": run})
    assert store.at(2).path.name == "step-00000002-11"


def test_a_step_below_others_leaves_them_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 8, 9, 3):
        store.save(step, X, {})
    assert store.steps() == [3, 8, 9]


def test_names_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    names = ["step-1", "step-00000001x", "step-00000001-1", "step-00000001-0", "step--0000001", "step-٠٠٠٠٠٠٠١", "best", "config.toml"]
    for name in names:
        (tmp_path / name).mkdir()
    for step in range(3):
        store.save(step, X, {})
    assert store.steps() == [1, 2] and set(names) < set(os.listdir(tmp_path))


@pytest.mark.parametrize("keep", [1, 0, -2, True, 2.0, "2", None])
def test_keep_is_at_least_two(tmp_path: Path, keep: Any) -> None:
    with pytest.raises(ArgumentError, match="at least 2"):
        CheckpointStore(tmp_path, keep=keep)


@pytest.mark.parametrize(
    ("step", "arrays", "state", "error", "words"),
    [
        (-1, X, {}, ArgumentError, "step is a whole number"),
        (True, X, {}, ArgumentError, "step is a whole number"),
        (1.0, X, {}, ArgumentError, "step is a whole number"),
        (MAX_STEP + 1, X, {}, ArgumentError, "step is a whole number"),
        (3, {"../model": {}}, {}, ArgumentError, "got '../model'"),
        (3, {"Model": {}}, {}, ArgumentError, "got 'Model'"),
        (3, {"": {}}, {}, ArgumentError, "got ''"),
        (3, {"model": {"": np.ones(1)}}, {}, ArgumentError, "is empty"),
        (3, {"model": {"x": [1.0]}}, {}, DTypeError, "'x' is a list"),
        (3, {"model": {"x": np.array(["a"])}}, {}, DTypeError, "has dtype <U1"),
        (3, {"model": {"x" * 2000: np.ones(1)}}, {}, ArgumentError, "longer than"),
        (3, X, {"a": {1}}, ArgumentError, "holds a set at '/a'"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path: Path, step: Any, arrays: Any, state: Any, error: type[Exception], words: str
) -> None:
    store = CheckpointStore(tmp_path / "run")
    with pytest.raises(error, match=words):
        store.save(step, arrays, state)
    assert not (tmp_path / "run").exists()


def test_a_state_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigrad.train.checkpoints.store.MAX_STATE_BYTES", 100)
    with pytest.raises(ArgumentError, match="100 are possible"):
        CheckpointStore(tmp_path).save(1, X, {"a": "x" * 100})


def test_asking_for_arrays_that_are_not_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {**X, "optimizer": {}}, {})
    for name in ("scaler", "../model", "", "Model", 3):
        with pytest.raises(CheckpointError, match="it holds 'model', 'optimizer'") as caught:
            store.at(1).arrays(name)  # type: ignore[arg-type]
        assert caught.value.code == "missing-file"


# ---- checkpoints of others


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def sign(path: Path) -> None:
    """Make the manifest name every file as it is: a forger can do that."""
    records = {
        file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    rewrite(path, lambda manifest: manifest.update(files=records))


def rename_entry(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["files"].update({new: manifest["files"].pop(old)})


def edit_record(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["files"]["model.safetensors"].update(fields)


MANIFESTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a path upwards": rename_entry("model.safetensors", "../model.safetensors"),
    "an absolute path": rename_entry("model.safetensors", "/etc/model.safetensors"),
    "a path downwards": rename_entry("model.safetensors", "a/model.safetensors"),
    "upper case": rename_entry("model.safetensors", "Model.safetensors"),
    "itself": rename_entry("model.safetensors", "manifest.json"),
    "another kind of file": rename_entry("model.safetensors", "model.pkl"),
    "no state": lambda manifest: manifest["files"].pop("state.json"),
    "another step": lambda manifest: manifest.update(step=7),
    "a step that is none": lambda manifest: manifest.update(step="1"),
    "another format": lambda manifest: manifest.update(format="1"),
    "no files": lambda manifest: manifest.pop("files"),
    "files in a list": lambda manifest: manifest.update(files=["model.safetensors"]),
    "an unknown field": lambda manifest: manifest.update(trust=True),
    "an unknown field of a file": edit_record(trust=True),
    "a size that is text": edit_record(size="100"),
    "a size that is true": edit_record(size=True),
    "a digest too short": edit_record(sha256="ab"),
    "a digest that is none": edit_record(sha256=None),
    "a record that is text": lambda manifest: manifest["files"].update({"model.safetensors": "x"}),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    store = CheckpointStore(tmp_path)
    rewrite(store.save(1, X, {}), change)
    assert refusal(store) == "bad-manifest"
    assert store.latest() is None


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"\xff", b'{"format": 1, "format": 1}', b"[" * 10**5, b" " * 2_000_000])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    store = CheckpointStore(tmp_path)
    (store.save(1, X, {}) / "manifest.json").write_bytes(content)
    assert refusal(store) == "bad-manifest"


def refusal(store: CheckpointStore) -> str:
    with pytest.raises(CheckpointError) as caught:
        store.at(1)
    return caught.value.code


@pytest.mark.parametrize("name", ["model.pkl", "extra.safetensors", ".hidden"])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")], ids=["file", "directory", "link"])
def test_what_the_manifest_does_not_name_is_refused(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    store = CheckpointStore(tmp_path)
    make(store.save(1, X, {}) / name)
    assert refusal(store) == "unknown-file"


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_links_and_pipes_are_refused_whatever_they_lead_to(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path / "run")
    path = store.save(1, X, {})
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    assert refusal(store) == "not-a-regular-file"
    (path / name).unlink()
    os.mkfifo(path / name)
    assert refusal(store) == "not-a-regular-file"
    (path / name).unlink()
    (path / name).mkdir()
    assert refusal(store) == "not-a-regular-file"


def test_a_link_or_a_file_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "other").save(1, X, {})
    store = CheckpointStore(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step-00000001").symlink_to(tmp_path / "other" / "step-00000001")
    assert refusal(store) == "not-a-directory"
    (tmp_path / "run" / "step-00000001").unlink()
    (tmp_path / "run" / "step-00000001").touch()
    assert refusal(store) == "not-a-directory" and store.latest() is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": NaN}', b'{"a": 1, "a": 2}', "{\u00e4}".encode(), b"[" * 10**5])
def test_a_signed_state_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(1, X, {})
    (path / "state.json").write_bytes(content)
    sign(path)
    assert refusal(store) == "bad-state"


@pytest.mark.parametrize("content", [b"", b"\x80\x04}.", b"\x02\0\0\0\0\0\0\0[]"])
def test_signed_arrays_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(1, X, {})
    (path / "model.safetensors").write_bytes(content)
    sign(path)
    assert refusal(store) == "bad-arrays" and store.latest() is None


@pytest.mark.parametrize("halves", ["", "{}", "[1]", '["y"]', "[[]]", "NaN"])
def test_a_signed_list_of_half_precision_arrays_that_is_none_is_refused(tmp_path: Path, halves: str) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(1, X, {})
    save_file({"x": np.ones(1, np.float16)}, path / "model.safetensors", {"float16": halves})
    sign(path)
    assert refusal(store) == "bad-arrays"
