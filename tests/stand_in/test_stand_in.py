"""What the stand-in for a GPU reports for each program in `planted.py`, run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False)


def found(name: str, **environment: str) -> list[str]:
    """The lines that a program prints, and the last line of an error that ends it."""
    done = run("stand_in.planted", name, **environment)
    return [line for line in done.stdout.splitlines() if line] + done.stderr.splitlines()[-1:] * (done.returncode != 0)


@pytest.fixture(scope="module", autouse=True)
def available() -> None:
    said = found("right")
    if "UnavailableError: " in said[-1]:
        pytest.skip(said[-1].split("UnavailableError: ")[1])
    assert said == ["3.0"]


def test_a_branch_that_is_not_joined() -> None:
    (said,) = found("branch_that_is_not_joined")
    assert said.startswith("cudaErrorStreamCaptureUnjoined: a stream was forked and not joined")


def test_a_branch_that_does_not_wait() -> None:
    """The other stream's product is computed first, from memory in which nothing has been written yet."""
    assert found("branch_that_does_not_wait") == ["nan"]


@pytest.mark.parametrize(("name", "calls"), [("memory_during_a_capture", 4), ("waiting_during_a_capture", 2)])
def test_what_is_not_allowed_during_a_capture(name: str, calls: int) -> None:
    """Each call fails, and so does ending the capture."""
    said = [line.split(":")[0] for line in found(name)]
    assert said == ["cudaErrorStreamCaptureUnsupported", "cudaErrorStreamCaptureInvalidated"] * calls


def test_memory_during_a_relaxed_capture() -> None:
    assert found("memory_during_a_relaxed_capture") == []


def test_the_default_stream_during_a_capture() -> None:
    assert [line.split(":")[0] for line in found("default_stream_during_a_capture")] == [
        "cudaErrorStreamCaptureImplicit",
        "cudaErrorStreamCaptureInvalidated",
    ]


def test_memory_that_is_not_there() -> None:
    assert "uses memory that is freed, when its graph is launched" in found("graph_that_uses_freed_memory")[0]
    assert found("memory_that_is_freed_twice") == ["cudaErrorInvalidValue: cudaFree of what was not allocated, or is free already"]
    assert found("copy_beyond_an_allocation") == ["cudaMemset reaches beyond an allocation"]


def test_a_read_that_does_not_wait_for_another_stream() -> None:
    assert found("other_stream") == ["2.0"]
    assert found("other_stream_that_does_not_wait") == ["0.0"]


def test_an_order_that_is_drawn() -> None:
    results = {found("two_streams_that_write_to_one_place", STAND_IN_ORDER=str(seed))[0] for seed in range(4)}
    assert results == {"1.0", "3.0"}


def test_a_host_that_does_not_wait() -> None:
    assert found("host_that_waits") == ["1.0"]
    assert found("host_that_overwrites_what_is_copied") == ["2.0"]


def test_a_test_fails_for_what_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "test_planted.py"
    planted.write_text(
        "from stand_in.planted import copy_beyond_an_allocation as test_it\n\n\ndef test_nothing():\n    pass\n", encoding="utf-8"
    )
    said = run("pytest", "-p", "stand_in.plugin", str(planted)).stdout
    assert "the stand-in for a GPU found: cudaMemset reaches beyond an allocation" in said
    assert "1 failed, 1 passed" in said
