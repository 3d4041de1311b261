"""The GPU's benchmark as far as a CPU can try it, and the archive for a machine with a GPU."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_pack
import gpu_profile
import gpu_step
import numpy as np
import pytest
from gpu_profile import LONGEST, SHOWN, Event, table
from gpu_step import Pair
from harness.ours_gpu import NotCaptured
from harness.processes import ContenderFailed

from minigrad.backend.graphs import MAX_GRAPHS
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
    monkeypatch.setattr(gpu_step, "usable_cpus", lambda: 1)
    pairs = [Pair("tiny-mixed", "bf16"), Pair("mini-mixed", "bf16")]
    how = {"rounds": 3, "batches": 1, "deadline": 0.0}
    begun: list[int] = []
    names = gpu_step.DEFAULT_CONTENDERS
    found = list(gpu_step.measure(pairs, ["train"], names, "cuda", **how, begin=lambda: begun.append(sum(one.passes for one in made))))
    assert begun == [0]  # nothing was timed before
    assert [m.failed for m in found] == [{"torch compile": "out of memory"}] * 2
    for m in found:
        assert {name: len(seconds) for name, seconds in m.seconds.items()} == dict.fromkeys(
            ["product", "copy", "minigrad captured", "torch", "torch graphs"], 3
        )
    assert len(made) == 2 * len(gpu_step.DEFAULT_CONTENDERS) + 1 and all(one.closed for one in made)  # one product for both
    assert [one.name for one in made[-4:]] == ["yes", "yes", "no", "no"]  # what takes longest begins first


def test_a_product_that_ends_while_it_copies_is_asked_for_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(Timed):
        def time(self, what: str) -> float:
            if self.closed:
                raise ValueError("I/O operation on closed file")
            if what == "copy":
                self.close()
                raise ContenderFailed("the process ended with status -9")
            return 1.0

    monkeypatch.setattr(gpu_step, "started", lambda description, *_: Ending(description["kind"], fails=False))
    monkeypatch.setattr(gpu_step, "Contender", Timed)
    pairs = [Pair("tiny-mixed", "bf16"), Pair("mini-mixed", "bf16")]
    how = {"rounds": 2, "batches": 1, "deadline": 0.0, "begin": lambda: None}
    first, second = gpu_step.measure(pairs, ["train"], ["minigrad captured"], "cuda", **how)
    assert first.seconds == {"product": [1.0, 1.0], "minigrad captured": [1.0, 1.0]}
    assert second.seconds == {"minigrad captured": [1.0, 1.0]}
    assert first.failed == second.failed == {"product": "the process ended with status -9"}


@pytest.fixture
def found_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find one."""
    found = SimpleNamespace(usable=True, gpus=[SimpleNamespace(name="a GPU")], cupy="14.2.0", driver=13000, runtime=12090)
    for script in (gpu_step, gpu_profile):
        monkeypatch.setattr(script, "probe", lambda: found)


@pytest.mark.usefixtures("found_gpu")
def test_what_is_measured_is_told_before_the_others_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def measure(pairs: Any, whats: Any, names: Any, device: Any, **how: Any) -> Iterator[gpu_step.Measured]:
        yield gpu_step.Measured(*pairs[0], "train", 1285.0, 1.0, {"minigrad captured": [0.5], "torch": [1.0]}, {})
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_step, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["gpu_step.py", "--json", str(tmp_path / "step.json")])
    with pytest.raises(KeyboardInterrupt):
        gpu_step.main()
    here = json.loads((tmp_path / "step.json").read_text(encoding="utf-8"))["machine"]
    assert {name: here[name] for name in ("GPU", "CuPy", "driver", "runtime", "NumPy")} == {
        **{"GPU": "a GPU", "CuPy": "14.2.0", "driver": "CUDA 13.0", "runtime": "CUDA 12.9"},
        "NumPy": np.__version__,
    }
    assert "tiny-mixed | bf16 | minigrad captured | 1,285 | 500.00 (500.00–500.00)" in capsys.readouterr().err


@pytest.mark.usefixtures("found_gpu")
def test_a_case_that_cannot_be_profiled_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def measured(case: str, precision: str, *_: int) -> tuple[list[Event], float]:
        if case == "mini-mixed":
            raise RuntimeError("steps are not captured")
        return [Event("product", 1.0, 1.002)], 0.004

    monkeypatch.setattr(gpu_profile, "measured", measured)
    cases = ["--cases", "tiny-mixed,mini-mixed,base-128", "--precisions", "bf16"]
    monkeypatch.setattr(sys, "argv", ["gpu_profile.py", *cases, "--json", str(tmp_path / "profile.json")])
    with pytest.raises(SystemExit, match=r"^error: A step of mini-mixed, bf16: RuntimeError: steps are not captured$"):
        gpu_profile.main()
    titles = ["A step of tiny-mixed, bf16", "A step of base-128, bf16"]
    assert [table["title"] for table in json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))["tables"]] == titles
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("###")] == [f"### {title}" for title in titles]


def test_a_line_without_minigrad_says_why() -> None:
    measured = gpu_step.Measured("base-128", "bf16", "train", 4096.0, 1.0, {"torch": [1.0, 2.0]}, {"minigrad captured": "a|b"})
    assert gpu_step.table([measured], "train").rows == [["base-128", "bf16", "minigrad captured", "4,096", "a/b", *["–"] * 5]]


def test_rates_are_those_of_the_products_that_tokens_need() -> None:
    seconds = {"minigrad captured": [0.1], "product": [1e-14], "copy": [2.5e-13]}
    measured = gpu_step.Measured("base-128", "bf16", "train", 4096.0, 4e12, seconds, {})
    assert gpu_step.table([measured], "train").rows[0][-3:] == ["40,960", "40.0", "40 %"]
    without = gpu_step.Measured("base-128", "tf32", "train", 4096.0, 4e12, {"minigrad captured": [0.1]}, {"product": "no PyTorch"})
    assert gpu_step.ceilings([measured, without]).rows == [
        ["bf16", "100.00 (100.00–100.00)", "4.00 (4.00–4.00)"],
        ["tf32", "–", "–"],
    ]


def test_every_line_that_is_claimed_is_measured() -> None:
    """Goals: tiny and mini, mixed and full; base at 32 x 128 and 8 x 512, mixed and full; float32 and TF32; 32k tokens."""
    in_bf16 = {pair.case for pair in gpu_step.LINES if pair.precision == "bf16"}
    assert in_bf16 == set(gpu_step.CASES)
    assert {pair for pair in gpu_step.LINES if pair.precision != "bf16"} == {Pair("base-128", one) for one in ("tf32", "float32")}
    assert gpu_step.work_of("base-large", 1).tokens == 1 << 15


def test_the_last_group_has_time_to_get_ready_however_long_the_others_take() -> None:
    assert gpu_step.share(120.0, [5, 5, 1]) == 40.0
    assert gpu_step.share(230.0, [5, 5, 1]) == 40.0 + 110.0 * 5 / 11
    assert gpu_step.share(90.0, [1]) == 90.0
    assert gpu_step.share(30.0, [5, 1]) == 15.0


def test_nothing_is_timed_before_others_have_left_the_gpu(tmp_path: Path) -> None:
    gpu_step.await_file(None, 0.0)
    with pytest.raises(SystemExit, match=r"^error: time is up, and .*there is not there$"):
        gpu_step.await_file(tmp_path / "there", 0.0)
    (tmp_path / "there").touch()
    gpu_step.await_file(tmp_path / "there", 0.0)


def test_what_has_no_room_beside_others_is_measured_apart() -> None:
    pairs = [Pair(case, "bf16") for case in ("base-large", "tiny-mixed", "base-128", "base-512")]
    assert gpu_step.grouped(pairs, 2) == [pairs[1:3], pairs[3:], pairs[:1]]


@pytest.mark.parametrize("case", gpu_step.CASES)
def test_all_graphs_of_a_pass_are_kept(case: str) -> None:
    """Else what is timed is how they are recorded, again and again."""
    buckets = {bucket_for(np.array(lengths)) for lengths in gpu_step.work_of(case, 16).lengths}
    assert None not in buckets and len(buckets) <= MAX_GRAPHS


def test_steps_that_are_not_captured_are_not_timed_as_if_they_were() -> None:
    handler = NotCaptured()
    record = logging.LogRecord("minigrad", logging.WARNING, "", 0, "steps are not captured in CUDA graphs: %s", ("why",), None)
    with pytest.raises(RuntimeError, match="not captured in CUDA graphs: why"):
        handler.handle(record)


def test_a_profile_counts_what_overlaps_once() -> None:
    one_step = [Event("product", 1.0, 1.002), Event("sum", 1.001, 1.003), Event("sum", 1.005, 1.006)]
    later = [Event(name, start + 1, end + 1) for name, start, end in one_step]
    rows = {name: cells for name, *cells in table("A step", [*later, *one_step], steps=2, seconds=0.01).rows}
    assert rows["sum"] == ["2.0", "3.0000", "30.0%"]
    assert rows["the GPU computes"] == ["3.0", "4.0000", "40.0%"]
    assert rows["no kernel runs"] == ["", "6.0000", "60.0%"]


def test_a_profile_of_many_kernels_names_the_dearest() -> None:
    events = [Event(f"{i:03}|" + "x" * 200, i, i + 1e-3 * (i + 1)) for i in range(SHOWN + 2)]
    rows = table("A step", events, steps=1, seconds=1.0).rows
    assert rows[0][0].startswith(f"{SHOWN + 1:03}/x") and len(rows[0][0]) == LONGEST + 1
    assert rows[SHOWN][:3] == ["all others", "2.0", "3.0000"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a machine with a GPU."""
    pytest.importorskip("cupy", reason="compiling kernels needs CuPy")
    if subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("what belongs to the repository is asked of git, and this is no checkout")
    made = tmp_path_factory.mktemp("packed") / "gpu.tar.gz"
    done = run("gpu_pack.py", made, "--arch", "90")
    assert done.returncode == 0, done.stderr
    return made


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / "minigrad-gpu"


def run_there(folder: Path, minutes: int, patience: float | None = None) -> tuple[int, str]:
    """Its status and what it has said, without a home that can be written to. Raises: subprocess.TimeoutExpired."""
    if probe().usable:
        pytest.skip("there is a GPU: the run would use it")
    settings = {"RESULTS": "found", "MINUTES": str(minutes), "HOME": "/proc/none"}
    with (folder / "said").open("w") as said:  # no pipe, which whoever hangs would hold open
        command = ["bash", str(folder / "run.sh")]
        ended = subprocess.run(command, stdout=said, stderr=said, cwd=folder, env=os.environ | settings, timeout=patience, check=False)
    return ended.returncode, (folder / "said").read_text(encoding="utf-8")


def test_the_archive_holds_what_the_run_needs(archive: Path, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path)
    assert list(folder.glob("cubins/*.cubin"))
    status, said = run_there(folder, minutes=5)
    assert status == 1 and said.count(probe().reason) >= 3  # the doctor's, and both scripts'
    tests = (folder / "found" / "tests.txt").read_text(encoding="utf-8")
    assert "failed" not in tests and tests.count("1 skipped") == 4  # compute-sanitizer is run apart from the others
    assert {path.name for path in (folder / "found").iterdir()} == {"doctor.txt", "tests.txt", "gpu_step.md", "gpu_profile.md"}


@pytest.mark.parametrize("minutes", ["8.5", "0", "nine"])
def test_minutes_that_cannot_be_counted_cost_no_run(minutes: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(gpu_pack.RUN, encoding="utf-8")
    command = ["bash", str(tmp_path / "run.sh")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"MINUTES": minutes}, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: MINUTES must be a whole number above 0, got '{minutes}'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


BESIDE = """
import sys, time
from pathlib import Path

Path("begun").touch()
while not Path(sys.argv[sys.argv.index("--after") + 1]).exists(): time.sleep(0.02)
results = Path(sys.argv[sys.argv.index("--json") + 1]).parent
print("timed", (results / "tests.txt").read_text().count(" passed"), sorted(path.name for path in results.iterdir()))
sys.exit(STATUS)
"""

AWAITING = """
import time, pytest
from pathlib import Path

@pytest.mark.parametrize("run", ["memcheck", "memcheck_attention", "racecheck", "synccheck"])
def test_nothing_is_found(run: str) -> None:
    while not Path("begun").exists(): time.sleep(0.02)
"""


@pytest.mark.parametrize("ended", [0, 3])
def test_the_benchmark_gets_ready_beside_the_tests_and_times_after_them(ended: int, archive: Path, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path)
    (folder / "benchmarks" / "gpu_step.py").write_text(BESIDE.replace("STATUS", str(ended)), encoding="utf-8")
    (folder / "benchmarks" / "gpu_profile.py").write_text("", encoding="utf-8")
    for path in (folder / "tests" / "gpu").glob("*.py"):
        path.unlink()
    for name in ("test_kernels.py", "test_sanitizer.py"):
        (folder / "tests" / "gpu" / name).write_text(AWAITING, encoding="utf-8")
    status, said = run_there(folder, minutes=4, patience=240)
    assert status == (ended != 0), said
    assert "timed 5 ['doctor.txt', 'gpu_step.md', 'tests.txt']" in said


HANGING = """
import sys, time, pytest

def test_a() -> None: pass
def test_b() -> None: assert not "what is wrong"
def test_c() -> None: time.sleep(300)

@pytest.mark.parametrize("run", ["memcheck", "memcheck_attention", "racecheck", "synccheck"])
def test_nothing_is_found(run: str) -> None: time.sleep(300 * (run == "racecheck"))
"""


@pytest.mark.slow  # a third of a minute is the least that tests are given
def test_wheels_that_do_not_fit_and_tests_that_hang_cost_nothing_else(archive: Path, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path)
    for name in ("test_kernels.py", "test_sanitizer.py"):
        (folder / "tests" / "gpu" / name).write_text(HANGING, encoding="utf-8")
    for path in (folder / "tests" / "gpu").glob("test_[!ks]*.py"):
        path.unlink()
    (folder / "tests" / "gpu" / "conftest.py").unlink()  # which would skip all of them
    (folder / "wheels").mkdir()
    (folder / "wheels" / "none-1.0-cp30-cp30-any.whl").touch()
    status, said = run_there(folder, minutes=1, patience=120)
    assert status != 0 and "error: the wheels do not fit here" in said
    tests = (folder / "found" / "tests.txt").read_text(encoding="utf-8")
    assert "test_a PASSED" in tests and "assert not 'what is wrong'" in tests and "1 failed" in tests
    assert tests.count("1 passed") >= 3  # of the four that run beside them
    assert (folder / "found" / "gpu_profile.md").read_text(encoding="utf-8") == f"error: {probe().reason}\n"


def test_a_wrong_architecture_is_one_line(tmp_path: Path) -> None:
    done = run("gpu_pack.py", tmp_path / "gpu.tar.gz", "--arch", "x")
    assert (done.returncode, done.stderr) == (1, "error: --arch takes numbers such as 80,90, got 'x'\n")
    assert not (tmp_path / "gpu.tar.gz").exists()
    listed = subprocess.run([sys.executable, "-m", "minigrad.kernels.cuda.build", "--arch", "x"], capture_output=True, text=True, cwd=ROOT)
    assert (listed.returncode, listed.stderr) == (1, done.stderr)
