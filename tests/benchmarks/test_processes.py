"""Contenders as processes: turns, answers, and failures that say why."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
from harness import processes
from harness.processes import BENCHMARKS, Contender, ContenderFailed, environment, rotated, take_turns
from harness.work import Size, make_work


def test_nobody_is_always_the_first() -> None:
    assert list(rotated("abc", 4)) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_children_get_all_cores_and_find_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = environment(MINIGRAD_KERNELS="off")
    assert "OPENBLAS_NUM_THREADS" not in found and found["MINIGRAD_KERNELS"] == "off"
    assert found["PYTHONPATH"].split(os.pathsep) == [str(BENCHMARKS), "elsewhere"]


def test_a_contender_trains_and_predicts_in_turns() -> None:
    work = make_work(Size(1, 8, 2, 16, 2), "token", "mixed", count=2)
    description = {"kind": "minigrad", "workers": 2, "size": asdict(work.size), "head": work.head, "batches": work.batches}
    with closing(Contender(description, {"MINIGRAD_KERNELS": "numpy"})) as one:  # compiling would take seconds
        for what in ("infer", "train"):
            assert one.warm_up(what) > 2**20
            seconds = take_turns({"one": one}, what, 2)["one"]
            assert len(seconds) == 2 and min(seconds) > 0
    assert one.process.returncode == 0


def test_a_contender_that_does_not_answer_in_time_fails() -> None:
    with pytest.raises(ContenderFailed, match="no answer within 0 s"):  # a process takes longer to begin
        Contender({"kind": "sgemm", "size": asdict(Size(1, 8, 2, 16, 2)), "head": "token", "batches": [[[1, 2]]]}, {}, timeout=0.001)


def test_a_contender_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CLOSE_TIMEOUT", 0.1)
    description = {"kind": "sgemm", "size": asdict(Size(1, 8, 2, 16, 2)), "head": "token", "batches": [[[1, 2]]]}
    one = Contender(description, {})
    one.process.send_signal(signal.SIGSTOP)
    one.close()
    assert one.process.returncode == -signal.SIGKILL


def test_nobody_waits_for_a_contender_that_answers_no_more_and_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 300 >&-\n", encoding="utf-8")
    script.chmod(0o700)
    monkeypatch.setattr(processes, "CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr(processes.sys, "executable", str(script))
    with pytest.raises(ContenderFailed, match=f"the process ended with status {-signal.SIGKILL}"):
        Contender({}, {})


def test_a_contender_that_cannot_work_says_why() -> None:
    with pytest.raises(ContenderFailed, match="TypeError"):
        Contender({"kind": "minigrad", "size": {"legs": 4}, "head": "token", "batches": []}, {})
    with closing(Contender({"kind": "sgemm", "size": asdict(Size(1, 8, 2, 16, 2)), "head": "token", "batches": [[[1, 2]]]}, {})) as one:
        with pytest.raises(ContenderFailed, match="dance"):
            one.time("dance")
        with pytest.raises(ContenderFailed, match="ended with status 0"):
            one.time("train")
