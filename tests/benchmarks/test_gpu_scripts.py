"""The GPU's benchmark as far as a CPU can try it, and the archive for a machine with a GPU."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import gpu_step
import numpy as np
import pytest
from gpu_step import Pair
from harness.ours_gpu import NotCaptured
from harness.processes import ContenderFailed

from minigrad.backend.graphs import KEPT
from minigrad.backend.probe import probe
from minigrad.workers.graphs.buckets import bucket_for

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["gpu_step.py", "gpu_profile.py"])
def test_the_scripts_say_why_they_cannot_run(name: str) -> None:
    if probe().usable:
        pytest.skip("there is a GPU: nothing to complain of")
    done = run(name)
    assert (done.returncode, done.stderr) == (1, f"error: {probe().reason}\n")


@pytest.mark.parametrize(
    ("name", "option"),
    [*(("gpu_step.py", option) for option in ("--at-once", "--minutes", "--rounds", "--batches")), ("gpu_profile.py", "--batches")],
)
def test_numbers_that_cannot_be_are_refused_in_one_line(name: str, option: str) -> None:
    done = run(name, option, "0")
    assert done.returncode == 2 and f"{option} must be above 0, got 0" in done.stderr and "Traceback" not in done.stderr


class Timed:
    """Takes the place of a contender. fails: in its second pass."""

    def __init__(self, name: str, fails: bool) -> None:
        self.name, self.fails, self.passes, self.closed = name, fails, 0, False

    def time(self, what: str) -> float:
        self.passes += 1
        if self.fails and self.passes == 2:
            raise ContenderFailed("out of memory\nat some place")
        return 1.0

    def close(self) -> None:
        self.closed = True


def test_a_contender_that_fails_while_it_is_timed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Timed] = []

    def started(description: dict[str, Any], *rest: Any) -> Timed:
        made.append(Timed(str(description.get("compiled", description["kind"])), description.get("compiled") == "yes"))
        return made[-1]

    monkeypatch.setattr(gpu_step, "started", started)
    monkeypatch.setattr(gpu_step, "Contender", Timed)
    pairs = [Pair("tiny-mixed", "bf16"), Pair("mini-mixed", "bf16")]
    found = list(gpu_step.measure(pairs, ["train"], gpu_step.USUAL, "cuda", rounds=3, batches=1, deadline=0.0))
    assert [m.failed for m in found] == [{"torch compile": "out of memory"}] * 2
    for m in found:
        assert {name: len(seconds) for name, seconds in m.seconds.items()} == dict.fromkeys(
            ["product", "minigrad captured", "torch", "torch graphs"], 3
        )
    assert len(made) == 2 * len(gpu_step.USUAL) + 1 and all(one.closed for one in made)  # one product for both


def test_a_line_without_minigrad_says_why() -> None:
    measured = gpu_step.Measured("base-128", "bf16", "train", 4096.0, 1.0, {"torch": [1.0, 2.0]}, {"minigrad captured": "a|b"})
    assert gpu_step.table([measured], "train").rows == [["base-128", "bf16", "minigrad captured", "4,096", "a/b", *["–"] * 4]]


def test_what_has_no_room_beside_others_is_measured_apart() -> None:
    pairs = [Pair(case, "bf16") for case in ("base-large", "tiny-mixed", "base-128", "base-512")]
    assert gpu_step.grouped(pairs, 2) == [pairs[1:3], pairs[3:], pairs[:1]]


@pytest.mark.parametrize("case", gpu_step.CASES)
def test_all_graphs_of_a_pass_are_kept(case: str) -> None:
    """Else what is timed is how they are recorded, again and again."""
    buckets = {bucket_for(np.array(lengths)) for lengths in gpu_step.work_of(case, 16).lengths}
    assert None not in buckets and len(buckets) <= KEPT


def test_steps_that_are_not_captured_are_not_timed_as_if_they_were() -> None:
    handler = NotCaptured()
    record = logging.LogRecord("minigrad", logging.WARNING, "", 0, "steps are not captured in CUDA graphs: %s", ("why",), None)
    with pytest.raises(RuntimeError, match="not captured in CUDA graphs: why"):
        handler.handle(record)


def test_a_profile_counts_what_overlaps_once() -> None:
    from gpu_profile import Event, table

    one_step = [Event("product", 1.0, 1.002), Event("sum", 1.001, 1.003), Event("sum", 1.005, 1.006)]
    later = [Event(name, start + 1, end + 1) for name, start, end in one_step]
    rows = {name: cells for name, *cells in table("A step", [*later, *one_step], steps=2, seconds=0.01).rows}
    assert rows["sum"] == ["2.0", "3.0000", "30.0%"]
    assert rows["the GPU computes"] == ["3.0", "4.0000", "40.0%"]
    assert rows["no kernel runs"] == ["", "6.0000", "60.0%"]


def test_a_profile_of_many_kernels_names_the_dearest() -> None:
    from gpu_profile import LONGEST, SHOWN, Event, table

    events = [Event(f"{i:03}|" + "x" * 200, i, i + 1e-3 * (i + 1)) for i in range(SHOWN + 2)]
    rows = table("A step", events, steps=1, seconds=1.0).rows
    assert rows[0][0].startswith(f"{SHOWN + 1:03}/x") and len(rows[0][0]) == LONGEST + 1
    assert rows[SHOWN][:3] == ["all others", "2.0", "3.0000"]


def test_the_archive_holds_what_the_run_needs(tmp_path: Path) -> None:
    pytest.importorskip("cupy", reason="compiling kernels needs CuPy")
    if subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("what belongs to the repository is asked of git, and this is no checkout")
    done = run("gpu_pack.py", tmp_path / "gpu.tar.gz", "--arch", "90")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    assert any(name.startswith("minigrad-gpu/cubins/") for name in names)
    if not probe().usable:
        run_there = ["bash", str(tmp_path / "minigrad-gpu" / "run.sh")]
        ended = subprocess.run(
            run_there, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"RESULTS": "found", "MINUTES": "2"}
        )
        assert ended.returncode == 0 and ended.stdout.count(probe().reason) >= 3  # the doctor's, and both scripts'
        tests = (tmp_path / "found" / "tests.txt").read_text(encoding="utf-8")
        assert "failed" not in tests and tests.count("1 skipped") == 4  # compute-sanitizer is run apart from the others
        assert {path.name for path in (tmp_path / "found").iterdir()} == {"doctor.txt", "tests.txt", "gpu_step.md", "gpu_profile.md"}


def test_a_wrong_architecture_is_one_line(tmp_path: Path) -> None:
    done = run("gpu_pack.py", tmp_path / "gpu.tar.gz", "--arch", "x")
    assert (done.returncode, done.stderr) == (1, "error: --arch takes numbers such as 80,90, got 'x'\n")
    assert not (tmp_path / "gpu.tar.gz").exists()
    listed = subprocess.run([sys.executable, "-m", "minigrad.kernels.cuda.build", "--arch", "x"], capture_output=True, text=True, cwd=ROOT)
    assert (listed.returncode, listed.stderr) == (1, done.stderr)
