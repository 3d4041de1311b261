"""F03, F04, F05: the disk is full, fails, or is not there. The error is clear, and the older checkpoints are all that is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from train.faults.processes import run_child
from train.faults.saving import (
    FaultyOs,
    arrays,
    assert_whole,
    calls_of_a_save,
    install,
    leftovers,
    perform,
    save,
    started,
    state,
    uninstall,
    write_half,
)

from minigrad.errors import CheckpointError
from minigrad.train.checkpoints import disk
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.checkpoints.trees import encode


def failing(at: int, kind: str, number: int, torn: bool = False) -> FaultyOs:
    """The `at`-th call of the name `kind` fails with the error `number`; a torn write writes half first."""
    seen = 0

    def interfere(_: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        nonlocal seen
        seen += name == kind
        if name == kind and seen == at:
            if torn:
                write_half(real, arguments)
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return FaultyOs(interfere)


def assert_refused(directory: Path, faulty: FaultyOs, code: str) -> str:
    """A save through `faulty` fails with this code and leaves everything as it was; the next save works. The message."""
    store = CheckpointStore(directory)
    install(faulty)
    try:
        with pytest.raises(CheckpointError) as caught:
            save(store, 3)
    finally:
        uninstall()
    assert caught.value.code == code and caught.value.path == str(directory)
    assert store.steps() == [1, 2] and not leftovers(directory)
    assert_whole(store.at(1), 1)
    assert_whole(store.latest(), 2)
    return str(caught.value)


def count(directory: Path, name: str) -> int:
    """How often a save makes the call before the new checkpoint is announced and verified; after that, removing old ones may fail."""
    shutil.copytree(directory, directory.parent / "counted")
    calls = calls_of_a_save(directory.parent / "counted", "new")
    announced = calls.index("rename") + 1 + calls[calls.index("rename") :].index("fsync")
    return calls[:announced].count(name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_F03_disk_full_at_each_write(tmp_path: Path, number: int) -> None:
    directory = tmp_path / "run"
    started(directory)
    for name in ("write", "mkdir", "open"):
        for at in range(1, count(directory, name) + 1):
            message = assert_refused(directory, failing(at, name, number, torn=name == "write"), "disk-full")
            assert os.strerror(number) in message
        shutil.rmtree(tmp_path / "counted")
    save(CheckpointStore(directory), 3)
    assert_whole(CheckpointStore(directory).latest(), 3)


def test_F03_a_file_that_the_kernel_stops_at_a_size(tmp_path: Path) -> None:
    answer = json.loads(run_child("limited", tmp_path))
    assert answer["codes"] == ["disk-full"] and answer["tried"] > 10
    assert "the checkpoint of step 3 was not saved: File too large" in answer["message"]


def test_F03_too_little_space_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = started(tmp_path)
    size = len(encode(state(3))) + sum(array.nbytes for group in arrays(3).values() for array in group.values())
    free = 2 * size - 1
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    with monkeypatch.context() as patched, pytest.raises(CheckpointError, match=f"{free} bytes are free") as caught:
        patched.setattr(disk, "make_directory", lambda path: pytest.fail("something was written"))
        save(store, 3)
    assert caught.value.code == "disk-full" and store.steps() == [1, 2] and not leftovers(tmp_path)
    free += 1
    save(store, 3)


def test_F03_a_disk_without_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Unlimited:
        f_blocks = f_bavail = 0
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Unlimited)
    assert disk.free_bytes(tmp_path) > 2**60


def test_F03_a_system_that_writes_less_than_it_is_given(tmp_path: Path) -> None:
    def interfere(_: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        return real(arguments[0], arguments[1][:7]) if name == "write" else real(*arguments, **named)

    store = CheckpointStore(tmp_path)
    install(FaultyOs(interfere))
    try:
        save(store, 3)
    finally:
        uninstall()
    assert_whole(store.latest(), 3)


def test_F04_an_fsync_that_fails_announces_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    started(directory)
    for at in range(1, count(directory, "fsync") + 1):
        message = assert_refused(directory, failing(at, "fsync", errno.EIO), "write-failed")
        assert "Input/output error" in message
    save(CheckpointStore(directory), 3)
    assert_whole(CheckpointStore(directory).latest(), 3)


@pytest.mark.parametrize("name", ["rename", "close", "write"])
def test_F04_other_calls_that_fail(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "run"
    started(directory)
    for at in range(1, count(directory, name) + 1):
        assert_refused(directory, failing(at, name, errno.EIO), "write-failed")


@pytest.mark.parametrize("name", ["rename", "unlink", "rmdir"])
def test_F04_an_old_checkpoint_that_cannot_be_removed_fails_no_save(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    store = started(tmp_path)
    install(failing(2 if name == "rename" else 1, name, errno.EIO))
    try:
        save(store, 3)
    finally:
        uninstall()
    assert ["could not be removed" in message for message in caplog.messages] == [True]
    assert_whole(store.latest(), 3)
    save(store, 4)  # takes the lock anew, and cleans up
    assert not leftovers(tmp_path) and store.steps() == [3, 4]


def test_F04_a_new_checkpoint_that_does_not_read_back_is_withdrawn(tmp_path: Path) -> None:
    """Before it is announced a byte changes on the disk: the older checkpoints must all still be there."""
    store = started(tmp_path)

    def interfere(_: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        if name == "rename" and arguments[1].name == "step-00000003":
            file = arguments[0] / "model.safetensors"
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        return real(*arguments, **named)

    install(FaultyOs(interfere))
    try:
        with pytest.raises(CheckpointError) as caught:
            save(store, 3)
    finally:
        uninstall()
    assert caught.value.code == "digest-mismatch" and store.steps() == [1, 2] and not leftovers(tmp_path)


def test_F05_a_directory_that_is_missing_is_empty_until_something_is_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "a" / "run")
    assert store.latest() is None and store.steps() == [] and not (tmp_path / "a").exists()
    save(store, 1)
    assert_whole(store.latest(), 1)


def test_F05_each_directory_that_is_made_reaches_the_disk(tmp_path: Path) -> None:
    recorder = FaultyOs(perform)
    install(recorder)
    try:
        disk.make_directories(tmp_path / "a" / "b")
    finally:
        uninstall()
    assert recorder.calls == ["mkdir", "open", "fsync", "close"] * 2


def test_F05_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    store = CheckpointStore(tmp_path / "run")
    for action in (lambda: save(store, 1), store.latest, store.steps):
        with pytest.raises(CheckpointError) as caught:
            action()
        assert caught.value.code in ("write-failed", "unreadable-file")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("name", ["open", "mkdir"])
def test_F05_a_directory_that_is_read_only(tmp_path: Path, name: str, number: int) -> None:
    directory = tmp_path / "run"
    started(directory)
    assert os.strerror(number) in assert_refused(directory, failing(1, name, number), "write-failed")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere; the test above fails the calls instead")
def test_F05_a_directory_without_write_permission(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    store = started(directory)
    directory.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied") as caught:
            save(store, 3)
        assert caught.value.code == "write-failed"
        assert_whole(store.latest(), 2)
    finally:
        directory.chmod(0o700)


@pytest.mark.parametrize("replaced", [False, True])
def test_F05_a_directory_that_is_removed_during_the_run(tmp_path: Path, replaced: bool) -> None:
    """Another run may have begun in the new directory, so a save into it must not happen unasked."""
    directory = tmp_path / "run"
    store = started(directory)
    with store.lock():
        shutil.rmtree(directory)
        if replaced:
            save(CheckpointStore(directory), 7)
        with pytest.raises(CheckpointError, match="removed or replaced") as caught:
            save(store, 3)
        assert caught.value.code == "directory-lost"
    assert store.steps() == ([7] if replaced else [])


def test_F05_a_directory_that_is_removed_during_a_save(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    started(directory)
    shutil.copytree(directory, tmp_path / "counted")
    names = calls_of_a_save(tmp_path / "counted", "new")
    for at in range(names.index("mkdir") + 2, names.index("rename") + 1):

        def interfere(
            number: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any], at: int = at
        ) -> Any:
            if number == at:
                shutil.rmtree(directory)
            return real(*arguments, **named)

        install(FaultyOs(interfere))
        try:
            with pytest.raises(CheckpointError) as caught:
                save(CheckpointStore(directory), 3)
        finally:
            uninstall()
        assert caught.value.code == "write-failed" and not directory.exists()
        started(directory)
