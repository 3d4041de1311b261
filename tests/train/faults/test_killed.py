"""F01: a save that is killed, at any of its calls to the system, or that loses its power there."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from train.faults.power_cut import Change, Kept, Recorder, kept, read_tree, write_kept
from train.faults.processes import run_child
from train.faults.saving import SAVES, assert_whole, install, is_new, save, started, uninstall

from minigrad.train.checkpoints.store import CheckpointStore


@pytest.mark.parametrize("kind", SAVES)
def test_F01_killed_before_after_and_within_every_call(tmp_path: Path, kind: str) -> None:
    """Each call dies twice, each write three times; `child.py` examines what is left each time."""
    answer = json.loads(run_child(f"killed-{kind}", tmp_path))
    assert answer["calls"] > 40 and answer["writes"] > 8
    assert answer["old"] + answer["new"] == 2 * answer["calls"] + answer["writes"]
    assert answer["old"] > answer["new"] > 0


@pytest.mark.parametrize("kind", SAVES)
def test_F01_power_cut_after_every_call(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "run"
    started(directory)
    tree = read_tree(directory)
    changes = recorded(directory, SAVES[kind])
    examined: list[tuple[Kept, bool]] = []
    for change in [None, *changes]:
        if change is not None:
            change(tree)
        for root_safe, inner_safe, data_safe in itertools.product((True, False), repeat=3):
            left = kept(tree, root_safe=root_safe, inner_safe=inner_safe, data_safe=data_safe)
            if not any(left == other for other, _ in examined):
                examined.append((left, resumes_from_the_new(left, tmp_path / "left")))
                assert not caplog.messages
    assert len(changes) > 25 and len(examined) > 20
    assert {new for _, new in examined} == {False, True}

    lost = kept(tree, root_safe=True, inner_safe=True, data_safe=True)
    assert [new for other, new in examined if other == lost] == [True], "when save returns, the new checkpoint is on the disk"
    write_kept(kept(tree, root_safe=False, inner_safe=False, data_safe=False), tmp_path / "replayed")
    assert read_tree(tmp_path / "replayed") == read_tree(directory), "a save changes the disk by the calls of disk and lock alone"


def test_F01_a_save_that_removes_nothing_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    tree = read_tree(directory)
    for change in recorded(directory, lambda store: save(store, 1)):
        change(tree)
    write_kept(kept(tree, root_safe=True, inner_safe=True, data_safe=True), tmp_path / "left")
    assert_whole(CheckpointStore(tmp_path / "left").latest(), 1)


def recorded(directory: Path, action: Callable[[CheckpointStore], Path]) -> list[Change]:
    """What a save changes on the disk, call by call."""
    recorder = Recorder(directory)
    install(recorder.os)
    try:
        action(CheckpointStore(directory))
    finally:
        uninstall()
    return recorder.changes


def resumes_from_the_new(left: Kept, path: Path) -> bool:
    """Examine what a power cut left: two checkpoints or more, all whole; whether the newest is the one that was being saved."""
    write_kept(left, path)
    store = CheckpointStore(path)
    found = store.latest()
    assert_whole(found, 2, 3)
    assert len([store.at(step) for step in store.steps()]) >= 2
    shutil.rmtree(path)
    return is_new(found)
