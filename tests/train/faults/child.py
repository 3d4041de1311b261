"""The processes that the fault tests kill, stop and limit: `python child.py MODE DIRECTORY`. One line of JSON or text answers."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from train.faults.saving import (
    SAVES,
    FaultyOs,
    arrays,
    assert_whole,
    calls_of_a_save,
    install,
    is_new,
    leftovers,
    perform_unsynced,
    save,
    started,
    state,
    write_half,
)

from minigrad.errors import CheckpointError
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.signals import Interruption


def killed_saves(folder: Path, kind: str) -> None:
    """For each call of a save: a process of its own is killed before it, in the middle of it or after it, and what is left is examined."""
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("minigrad").addHandler(handler)

    install(FaultyOs(perform_unsynced))
    started(folder / "start")
    shutil.copytree(folder / "start", folder / "recorded")
    calls = calls_of_a_save(folder / "recorded", kind, perform_unsynced)
    install(FaultyOs(perform_unsynced))
    outcomes = {"old": 0, "new": 0}
    for number, name in enumerate(calls, 1):
        for moment in ("before", "half", "after") if name == "write" else ("before", "after"):
            directory = folder / f"{number}-{moment}"
            shutil.copytree(folder / "start", directory)
            pid = os.fork()
            if pid == 0:
                install(_killer(number, moment))
                SAVES[kind](CheckpointStore(directory))
                os._exit(1)
            where = f"call {number} ({name}), {moment}"
            assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL, where
            try:
                outcomes["new" if _examine(directory) else "old"] += 1
                assert not warnings, warnings
            except AssertionError as error:
                raise AssertionError(where) from error
    print(json.dumps({"calls": len(calls), "writes": calls.count("write"), **outcomes}))


def _killer(at: int, moment: str) -> FaultyOs:
    def interfere(number: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        if number == at and moment == "half":
            write_half(real, arguments)
        if number == at and moment != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = perform_unsynced(number, name, real, arguments, named)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return FaultyOs(interfere)


def _examine(directory: Path) -> bool:
    """What a new process finds after the crash; whether it resumes from what was being saved."""
    store = CheckpointStore(directory)
    found = store.latest()
    assert_whole(found, 2, 3)
    assert found is not None
    for step in store.steps():
        assert_whole(store.at(step), step)
    assert len(store.steps()) >= 2
    save(store, 4)
    assert_whole(store.latest(), 4)
    assert (store.steps(), leftovers(directory)) == ([found.step, 4], [])
    return is_new(found)


def limited_saves(directory: Path) -> None:
    """The kernel refuses to let a file grow beyond a limit, at every size that a file of the save has on its way."""
    store = started(directory)
    largest = max(path.stat().st_size for path in directory.glob("step-*/*"))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    codes = []
    for limit in range(60, largest, 31):  # the lock file is smaller
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save(store, 3)
        except CheckpointError as error:
            codes.append(error.code)
            message = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert store.steps() == [1, 2] and not leftovers(directory)
        assert_whole(store.latest(), 2)
    save(store, 3)
    assert_whole(store.latest(), 3)
    print(json.dumps({"codes": sorted(set(codes)), "tried": len(codes), "message": message}))


def hold(directory: Path, worker: bool) -> None:
    """Holds the lock until it is killed; with a forked worker that lives on after it. The last process to start says so."""
    with CheckpointStore(directory).lock():
        if not worker or os.fork() == 0:
            print(os.getpid(), flush=True)
        sys.stdin.read()


def fork_within_lock(directory: Path) -> None:
    """A forked process is refused as any other, and leaving the block there does not end its parent's lock."""
    store = CheckpointStore(directory)
    with store.lock():
        child = os.fork()
        if child == 0:
            assert _is_locked(store)
        else:
            assert os.waitpid(child, 0)[1] == 0
            assert _is_locked(CheckpointStore(directory))
            save(store, 1)


def _is_locked(store: CheckpointStore) -> bool:
    try:
        save(store, 7)
    except CheckpointError as error:
        return error.code == "locked"
    return False


def train(directory: Path) -> None:
    """A training loop in small."""
    store = CheckpointStore(directory)
    step = 0
    with store.lock(), Interruption() as interruption:
        while interruption.signal is None:
            step += 1
            print(step, flush=True)
            time.sleep(0.005)
        store.save(step, arrays(step), state(step))
    sys.exit(interruption.exit_code)


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    {
        "killed-new": lambda path: killed_saves(path, "new"),
        "killed-again": lambda path: killed_saves(path, "again"),
        "limited": limited_saves,
        "hold": lambda path: hold(path, worker=False),
        "hold-with-worker": lambda path: hold(path, worker=True),
        "fork-within-lock": fork_within_lock,
        "train": train,
    }[mode](folder)
