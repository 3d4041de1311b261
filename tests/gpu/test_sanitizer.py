"""NVIDIA's compute-sanitizer over the tests of kernels: out-of-bounds accesses, races within a block, barriers missed by some threads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).with_name("test_kernels.py")

SHARING = " or ".join(
    [
        "(test_attention[ and 64-training)",
        "(test_attention[ and 32-decoder)",
        "(test_layer_blocks[ and small)",
        "(cross_entropy and not 30522)",
        "dense_gelu[130-4]",
        "dense_tanh[130-4]",
        "linears[129]",
        "(ids_are_ordered and not 150000)",
        "embedding[1000-11-132]",
        "(embed_norm and 300-132)",
        "rows_are_added",
        "sum_of_squares[40001-1]",
        "clipping_is_the_hosts",
        "captured_update",
        "captured_average",
        "(are_pooled and 770)",
    ]
)
"""Every kernel whose threads share memory, at sizes that the slow tools can handle in a minute; except attention with heads of 128, which
is compiled from the same lines as the other sizes."""

SMALL = "not many_sequences and not every_kernel and not 4097 and not 70000 and not base"

RUNS = {
    "memcheck": ("memcheck", f"{SMALL} and not test_attention and not layer_blocks"),
    "memcheck_attention": ("memcheck", f"{SMALL} and (test_attention or layer_blocks)"),
    "racecheck": ("racecheck", SHARING),
    "synccheck": ("synccheck", SHARING),
}
"""By name, a tool and the tests that it runs. They may run side by side, and take about equally long."""

CUBLAS = ("gemm", "gemv", "nvjet", "cutlass", "cublas", "xmma")
"""Parts of the names of cuBLAS's kernels. Their use of shared memory is not our responsibility, and racecheck is known to misjudge some."""

PORTS = 49152
"""The first port on which compute-sanitizer listens by default. Each run gets ports of its own here."""

PATIENCE = float(os.environ.get("MINIGRAD_SANITIZER_SECONDS", "400"))
"""Seconds that each run may take."""


@pytest.fixture
def sanitizer(device: str) -> str:
    found = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if found is None:
        pytest.skip("there is no compute-sanitizer, which comes with the CUDA toolkit")
    if device == "cpu":
        pytest.skip("there are no kernels on a CPU")
    return found


@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_found(run: str, sanitizer: str) -> None:
    done, said = output(command(run, sanitizer), PATIENCE)
    assert done == 0, said[-4000:]
    assert " passed" in said


def command(run: str, sanitizer: str) -> list[str]:
    """Error codes returned by CUDA calls are no findings: libraries probe what a driver supports."""
    tool, selection = RUNS[run]
    options = ["--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no", "--port", str(PORTS + 100 * list(RUNS).index(run))]
    if tool != "memcheck":
        options += [word for name in CUBLAS for word in ("--kernel-name-exclude", f"kernel_substring={name}")]
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(KERNELS), "-k", selection]
    return [sanitizer, *options, *tests]


def output(words: list[str], patience: float) -> tuple[int, str]:
    """The exit status and output of a command. After a timeout it is killed with all its child processes, which would go on."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    started = subprocess.Popen(
        words,
        env=outside | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=KERNELS.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    late = ""
    try:
        said, _ = started.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        late = f"\nnot over after {patience:.0f} s"
        os.killpg(started.pid, signal.SIGKILL)
        said, _ = started.communicate()
    return started.returncode, said + late
