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


def test_the_benchmark_says_why_it_cannot_run() -> None:
    if probe().usable:
        pytest.skip("there is a GPU: nothing to complain of")
    done = run("gpu_step.py")
    assert (done.returncode, done.stderr) == (1, f"error: {probe().reason}\n")


@pytest.mark.parametrize("option", ["--at-once", "--minutes", "--rounds", "--batches"])
def test_numbers_that_cannot_be_are_refused_in_one_line(option: str) -> None:
    done = run("gpu_step.py", "--device", "cpu", option, "0")
    assert done.returncode == 2 and f"{option} must be above 0, got 0" in done.stderr and "Traceback" not in done.stderr


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
