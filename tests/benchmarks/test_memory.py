"""Memory of a process and its descendants, seen from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.memory import family, held

MIB = 2**20

PRIVATE = """
import subprocess, sys
mine = b"x" * (64 << 20)
child = subprocess.Popen([sys.executable, "-c", 'his = b"x" * (32 << 20); print("ready", flush=True); input()'])
child.wait()
"""

SHARED = """
import mmap, os, sys
shared = mmap.mmap(-1, 64 << 20)
shared.write(b"x" * (64 << 20))
if os.fork() == 0:
    total = sum(shared[i] for i in range(0, 64 << 20, 4096))
    print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(program: str) -> Iterator[int]:
    """The number of a process that runs the program, from when it says that it is ready until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize(("program", "mebibytes"), [(PRIVATE, 96), (SHARED, 64)])
def test_what_is_private_adds_up_and_what_is_shared_counts_once(program: str, mebibytes: int) -> None:
    with running(program) as pid:
        assert len(family(pid)) == 2 and family(pid)[0] == pid
        assert mebibytes * MIB <= held(pid) < (mebibytes + 60) * MIB  # two bare interpreters take about 20 MiB


def test_a_process_that_has_ended_holds_nothing() -> None:
    with running('print("ready", flush=True); input()') as pid:
        assert held(pid) > 0
    assert held(pid) == 0 and family(pid) == [pid]
