"""F06, F07, F08: what a reader finds after the disk or a person has damaged a checkpoint, and what a crash left behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from train.faults.saving import assert_whole, leftovers, save, started

from minigrad.errors import CheckpointError
from minigrad.train.checkpoints import disk
from minigrad.train.checkpoints.store import CheckpointStore

FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "zeroed": lambda content: bytes(len(content)),
    "first bit flipped": lambda content: flip(content, 0),
    "middle bit flipped": lambda content: flip(content, len(content) // 2),
    "last bit flipped": lambda content: flip(content, len(content) - 1),
    "grown": lambda content: content + b"x",
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_F06_a_damaged_file_makes_the_reader_fall_back_and_say_so(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = started(tmp_path)
    path = tmp_path / "step-00000002" / file
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert_whole(store.latest(), 1)
    assert len(caplog.messages) == 1 and f"passed over: {path}: " in caplog.messages[0]
    with pytest.raises(CheckpointError) as caught:
        store.at(2)
    assert caught.value.code in ("bad-manifest", "size-mismatch", "digest-mismatch") and caught.value.path == str(path)
    assert_whole(store.at(1), 1)


def test_F06_every_single_bit_of_a_checkpoint_counts(tmp_path: Path) -> None:
    """The manifest too: a changed manifest either names other digests, or is none."""
    store = started(tmp_path)
    for file in FILES:
        path = tmp_path / "step-00000002" / file
        content = path.read_bytes()
        for at in range(len(content)):
            path.write_bytes(flip(content, at))
            with pytest.raises(CheckpointError):
                store.at(2)
        path.write_bytes(content)
    assert_whole(store.at(2), 2)


def test_F06_when_all_are_broken_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = started(tmp_path)
    for file in tmp_path.glob("step-*/model.safetensors"):
        file.write_bytes(b"")
    assert store.latest() is None
    assert len(caplog.messages) == 2


def test_F06_a_broken_checkpoint_does_not_count_when_older_ones_are_removed(tmp_path: Path) -> None:
    """After falling back from step 2 to step 1, saving step 3 must leave two checkpoints that are good."""
    store = started(tmp_path)
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(b"")
    fresh = CheckpointStore(tmp_path)
    assert_whole(fresh.latest(), 1)
    save(fresh, 3)
    assert_whole(store.at(1), 1)
    assert_whole(store.at(3), 3)
    save(fresh, 4)
    assert store.steps() == [2, 3, 4] or store.steps() == [3, 4]
    save(fresh, 5)
    assert store.steps() == [4, 5]


def test_F06_a_broken_checkpoint_is_replaced_by_saving_its_step_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = started(tmp_path)
    (tmp_path / "step-00000002" / "state.json").unlink()
    assert save(store, 2).name == "step-00000002-2"
    assert_whole(store.latest(), 2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000001", "step-00000002-2"]
    assert ["state.json" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("file", FILES)
def test_F07_a_file_is_missing(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    store = started(tmp_path)
    path = tmp_path / "step-00000002" / file
    path.unlink()
    assert_whole(store.latest(), 1)
    assert caplog.messages == [f"a broken checkpoint is passed over: {path}: the file does not exist"]
    with pytest.raises(CheckpointError) as caught:
        store.at(2)
    assert caught.value.code == "missing-file"


def temporary(pid: int, host: str) -> str:
    return f".tmp-{pid}-{hashlib.sha256(host.encode()).hexdigest()[:8]}0123abcd"


def test_F08_only_what_a_dead_process_of_this_host_left_is_removed(tmp_path: Path) -> None:
    store = started(tmp_path)
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    here = socket.gethostname()
    stale = [temporary(dead.pid, here), temporary(os.getpid(), here)]  # no save of this process is under way
    kept = [temporary(os.getppid(), here), temporary(dead.pid, "another.host"), ".tmp-0-0123456789abcdef", ".tmp-x", "step-1", "notes"]
    for name in stale + kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert_whole(store.latest(), 2)
    assert set(stale) <= set(os.listdir(tmp_path)), "a reader removes nothing"
    save(store, 3)
    assert set(os.listdir(tmp_path)) == {".lock", "step-00000002", "step-00000003", *kept}


def test_F08_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = started(tmp_path)
    name = temporary(os.getppid(), socket.gethostname())
    (tmp_path / name).mkdir()

    def not_permitted(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    save(store, 3)
    assert leftovers(tmp_path) == [name]


def test_F08_removing_follows_no_link(tmp_path: Path) -> None:
    """Somebody else may have made what looks like a leftover."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    names = [temporary(dead.pid, socket.gethostname()), "step-00000000"]
    store = started(tmp_path / "run")
    for name in names:
        (tmp_path / "run" / name).symlink_to(precious)
    save(store, 3)
    assert (precious / "thesis").read_text() == "x"
    assert store.steps() == [2, 3] and not leftovers(tmp_path / "run")


def test_F08_a_leftover_that_cannot_be_removed_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = started(tmp_path)
    name = temporary(os.getpid(), socket.gethostname())
    (tmp_path / name / "a directory inside").mkdir(parents=True)
    save(store, 3)
    assert leftovers(tmp_path) == [name] and [name in message for message in caplog.messages] == [True]


def test_removing_stops_at_a_directory_inside(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    with pytest.raises(OSError):
        disk.remove(tmp_path / "x")
    assert (tmp_path / "x" / "y").is_dir()


def test_a_manifest_of_a_later_format_is_refused(tmp_path: Path) -> None:
    store = started(tmp_path)
    path = tmp_path / "step-00000002" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointError, match="is not of format 1") as caught:
        store.at(2)
    assert caught.value.code == "bad-manifest"
