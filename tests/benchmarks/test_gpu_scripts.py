"""The GPU's benchmark as far as a CPU can try it, and the archive for a machine with a GPU."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from minigrad.backend.probe import probe

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("name", ["gpu_step.py", "gpu_profile.py"])
def test_the_scripts_say_why_they_cannot_run(name: str) -> None:
    if probe().usable:
        pytest.skip("there is a GPU: nothing to complain of")
    done = run(name)
    assert (done.returncode, done.stderr) == (1, f"error: {probe().reason}\n")


@pytest.mark.parametrize("option", ["--at-once", "--minutes", "--rounds", "--batches"])
def test_numbers_that_cannot_be_are_refused_in_one_line(option: str) -> None:
    done = run("gpu_step.py", "--device", "cpu", option, "0")
    assert done.returncode == 2 and f"{option} must be above 0, got 0" in done.stderr and "Traceback" not in done.stderr


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
        ended = subprocess.run(["bash", tmp_path / "minigrad-gpu" / "run.sh"], capture_output=True, text=True)
        assert probe().reason in ended.stdout
        assert "skipped" in (tmp_path / "minigrad-gpu/results/tests.txt").read_text(encoding="utf-8")


def test_a_wrong_architecture_is_one_line(tmp_path: Path) -> None:
    done = run("gpu_pack.py", tmp_path / "gpu.tar.gz", "--arch", "x")
    assert (done.returncode, done.stderr) == (1, "error: --arch takes numbers such as 80,90, got 'x'\n")
    assert not (tmp_path / "gpu.tar.gz").exists()
    listed = subprocess.run([sys.executable, "-m", "minigrad.kernels.cuda.build", "--arch", "x"], capture_output=True, text=True, cwd=ROOT)
    assert (listed.returncode, listed.stderr) == (1, done.stderr)
