"""F01: a save that is killed, at any of its calls to the system, or that loses its power there."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import shutil
from pathlib import Path

import pytest
from train.faults.power_cut import Recorder, read_tree, write_tree
from train.faults.processes import run_child
from train.faults.saving import SAVES, assert_whole, install, is_new, started, uninstall

from minigrad.train.checkpoints import CheckpointStore


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
    recorder = Recorder(directory)
    install(recorder.os)
    try:
        SAVES[kind](CheckpointStore(directory))
    finally:
        uninstall()

    resumed = []
    for change in [None, *recorder.changes]:
        if change is not None:
            change(tree)
        for root_safe, inner_safe, data_safe in itertools.product((True, False), repeat=3):
            left = tmp_path / "left"
            write_tree(copy.deepcopy(tree), left, root_safe=root_safe, inner_safe=inner_safe, data_safe=data_safe)
            store = CheckpointStore(left)
            with caplog.at_level(logging.WARNING, "minigrad"):
                found = store.latest()
            assert_whole(found, 2, 3)
            assert not caplog.messages and sum(1 for step in store.steps() if store.at(step)) >= 2
            resumed.append(is_new(found))
            shutil.rmtree(left)
    assert len(recorder.changes) > 25 and set(resumed) == {False, True}
    assert all(resumed[-8:]), "when save returns, the new checkpoint is on the disk"

    write_tree(tree, tmp_path / "replayed", root_safe=False, inner_safe=False, data_safe=False)
    assert read_tree(tmp_path / "replayed") == read_tree(directory), "a save changes the disk by the calls of _disk and _lock alone"
