"""F10 to F13 for the store and `Interruption` alone: stopped politely, impatiently, in the middle of a save, and for a while."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from train.faults.processes import child
from train.faults.saving import (
    SAVES,
    FaultyOs,
    assert_whole,
    calls_of_a_save,
    install,
    is_new,
    leftovers,
    perform_unsynced,
    save,
    started,
    uninstall,
)

from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.signals import Interruption


def signalling(at: int, number: int) -> FaultyOs:
    """The signal arrives when the `at`-th call is done. fsync is left out: it takes time and changes nothing here."""

    def interfere(count: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        result = perform_unsynced(count, name, real, arguments, named)
        if count == at:
            os.kill(os.getpid(), number)
        return result

    return FaultyOs(interfere)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_F10_the_loop_finishes_its_step_saves_and_leaves(tmp_path: Path, number: int, status: int) -> None:
    with child("train", tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read().split()
        assert process.wait() == status
    checkpoint = CheckpointStore(tmp_path).latest()
    assert_whole(checkpoint, int(rest[-1]) if rest else 1)


def starts(tmp_path: Path, kind: str) -> Iterator[tuple[int, CheckpointStore]]:
    """For each call of a save its number, and a store of its own that holds steps 1 and 2."""
    started(tmp_path / "start")
    shutil.copytree(tmp_path / "start", tmp_path / "recorded")
    for at in range(1, len(calls_of_a_save(tmp_path / "recorded", kind)) + 1):
        shutil.copytree(tmp_path / "start", tmp_path / f"{at}")
        yield at, CheckpointStore(tmp_path / f"{at}")


def test_F11_a_second_ctrl_c_ends_it_at_once_wherever_the_save_is(tmp_path: Path) -> None:
    for at, store in starts(tmp_path, "new"):
        try:
            with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
                signal.raise_signal(signal.SIGINT)
                assert interruption.signal == signal.SIGINT
                install(signalling(at, signal.SIGINT))
                save(store, 3)
            assert_whole(store.latest(), 2, 3)
            assert len([store.at(step) for step in store.steps()]) >= 2
            save(store, 4)
        finally:
            uninstall()
        assert_whole(store.latest(), 4)
        assert not leftovers(store.directory)


@pytest.mark.parametrize("kind", SAVES)
def test_F12_sigterm_at_any_moment_of_a_save_lets_it_finish(tmp_path: Path, kind: str) -> None:
    for at, store in starts(tmp_path, kind):
        with Interruption() as interruption:
            install(signalling(at, signal.SIGTERM))
            try:
                SAVES[kind](store)
            finally:
                uninstall()
            signal.raise_signal(signal.SIGTERM)  # an impatient supervisor asks again
        assert (interruption.signal, interruption.exit_code) == (signal.SIGTERM, 143)
        checkpoint = store.latest()
        assert_whole(checkpoint, 2, 3)
        assert is_new(checkpoint) and not leftovers(store.directory)


def test_F13_stopped_for_a_while_and_continued(tmp_path: Path) -> None:
    with child("train", tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGTERM)  # waits until the process runs again
        process.send_signal(signal.SIGCONT)
        process.stdout.read()
        assert process.wait() == 143
    assert CheckpointStore(tmp_path).latest() is not None
