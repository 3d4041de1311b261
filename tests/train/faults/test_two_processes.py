"""F09: one directory, two processes. The second is refused as long as the first lives, and not a moment longer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from train.faults.processes import child, run_child
from train.faults.saving import assert_whole, save, started

from minigrad.errors import CheckpointError
from minigrad.train.checkpoints.store import CheckpointStore


def test_F09_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    store = started(tmp_path)
    with child("hold", tmp_path) as owner:
        assert owner.stdout is not None and owner.stdout.readline()
        with pytest.raises(CheckpointError, match=rf"process '{owner.pid}' on host '{os.uname().nodename}'") as caught:
            save(store, 3)
        assert caught.value.code == "locked"
        assert_whole(store.latest(), 2)  # reading needs no lock
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        save(store, 3)
    assert_whole(store.latest(), 3)


def test_F09_a_worker_that_outlives_its_trainer_does_not_hold_the_lock(tmp_path: Path) -> None:
    with child("hold-with-worker", tmp_path) as owner:
        assert owner.stdout is not None
        worker = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.kill(worker, 0)  # alive: it reads from the pipe, which this test still holds
        save(CheckpointStore(tmp_path), 1)
        os.kill(worker, signal.SIGKILL)


def test_F09_within_one_process_too(tmp_path: Path) -> None:
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    with first.lock():
        with first.lock():  # a trainer that holds the lock can save
            save(first, 1)
        with pytest.raises(CheckpointError) as caught, second.lock():
            pass
        assert caught.value.code == "locked"
    save(second, 2)
    assert_whole(first.latest(), 2)


def test_F09_a_forked_process_does_not_have_the_lock(tmp_path: Path) -> None:
    run_child("fork-within-lock", tmp_path)
    assert_whole(CheckpointStore(tmp_path).latest(), 1)


def test_F09_the_lock_is_a_file(tmp_path: Path) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/null"), Path.mkdir):
        directory = tmp_path / str(make)
        directory.mkdir()
        make(directory / ".lock")  # type: ignore[operator]
        with pytest.raises(CheckpointError) as caught:
            save(CheckpointStore(directory), 1)
        assert caught.value.code in ("not-a-regular-file", "write-failed")


def test_F09_a_link_in_the_place_of_the_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("x" * 100)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(CheckpointError):
        save(CheckpointStore(tmp_path / "run"), 1)
    assert (tmp_path / "thesis").read_text() == "x" * 100
