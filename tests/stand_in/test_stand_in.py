"""Planted mistakes, each in a process of its own, and what the stand-in for a GPU says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BEFORE = """
from stand_in.install import install, problems

install()
import cupy
from cupy.cuda import Event, Stream, runtime

first, second = Stream(non_blocking=True), Stream(non_blocking=True)
with first:
    x = cupy.zeros(1000, "float32")
first.synchronize()
"""


@pytest.fixture(scope="module", autouse=True)
def available() -> None:
    if (said := found("")).strip():
        assert "UnavailableError: " in said
        pytest.skip(said.split("UnavailableError: ")[-1].strip())


def found(program: str, **environment: str) -> str:
    """What a program prints that goes on from `BEFORE`, and then the problems."""
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", f"{BEFORE}{program}\nprint(problems())"],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def captured(body: str, mode: str = "Relaxed") -> str:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return f"with first:\n    first.begin_capture(runtime.streamCaptureMode{mode})\n{lines}    graph = first.end_capture()\n"


FORK = """
y = x + 1
fork, join = Event(), Event()
fork.record(first)
second.wait_event(fork)
with second:
    z = y * 2
join.record(second)
"""

LAUNCH = "graph.launch(first)\nfirst.synchronize()\n"


def test_what_is_right() -> None:
    joined = captured(FORK + "first.wait_event(join)\nz += 1")
    assert found(f"{joined}{LAUNCH}print(float(z.sum()))").split() == ["3000.0"]


def test_a_fork_that_is_not_joined() -> None:
    assert "cudaErrorStreamCaptureUnjoined: a stream was forked and not joined" in found(captured(FORK))


@pytest.mark.parametrize(
    "call", ["runtime.malloc(512)", "runtime.free(spare)", "runtime.hostAlloc(512, 0)", "runtime.memcpy(x.data.ptr, spare, 512, 3)"]
)
def test_memory_during_a_capture(call: str) -> None:
    program = f"spare = runtime.malloc(512)\n{captured(call, 'Global')}"
    assert "cudaErrorStreamCaptureUnsupported" in found(program)
    assert "Error" not in found(program.replace("Global", "Relaxed"))  # as CUDA has it, and as CuPy captures


@pytest.mark.parametrize("call", ["first.synchronize()", "runtime.deviceSynchronize()"])
def test_waiting_during_a_capture(call: str) -> None:
    assert "cudaErrorStreamCaptureUnsupported" in found(captured(call))
    broken = captured(f"try:\n    {call}\nexcept Exception:\n    pass")
    assert "cudaErrorStreamCaptureInvalidated" in found(broken)


def test_the_default_stream_during_a_capture() -> None:
    blocking = captured("with Stream.null:\n    x += 1").replace("first", "blocking")
    assert "cudaErrorStreamCaptureImplicit" in found(f"blocking = Stream()\n{blocking}")


def test_a_graph_that_uses_freed_memory() -> None:
    program = f"with first:\n    y = x + 1\n{captured('z = y * 2')}del y\ncupy.get_default_memory_pool().free_all_blocks()\n{LAUNCH}"
    assert "uses memory that is freed, when its graph is launched" in found(program)
    assert "freed" not in found(program.replace("del y", ""))


def test_memory_that_is_freed_twice() -> None:
    assert "free already" in found("place = runtime.malloc(512)\nruntime.free(place)\nruntime.free(place)")


OTHER_STREAM = """
with first:
    x += 1
done = Event()
done.record(first)
with second:
    second.wait_event(done)
    y = x * 2
second.synchronize()
print(float(y.get(second).sum()))
"""


def test_a_read_that_does_not_wait_for_another_stream() -> None:
    assert found(OTHER_STREAM).split() == ["2000.0"]
    assert found(OTHER_STREAM.replace("second.wait_event(done)", "pass")).split() == ["0.0"]


def test_a_branch_that_does_not_wait() -> None:
    """Of a graph: what of it no event orders is done in another order than it was issued in."""
    right = captured(FORK + "first.wait_event(join)\nz += 1") + LAUNCH + "print(float(z.sum()))"
    fork = FORK.replace("y = x + 1", "y = cupy.empty_like(x)").replace("with second", "cupy.add(x, 1, out=y)\nwith second")
    late = captured(f"{fork}first.wait_event(join)\nz += 1")
    assert found(right).split() == ["3000.0"]
    assert found(late + LAUNCH + "print(float(z.sum()))").split() == ["nan"]


def test_an_order_that_is_drawn() -> None:
    """Two streams write to one place, and nothing says which is first."""
    program = "with first:\n    x += 1\nwith second:\n    x *= 3\nruntime.deviceSynchronize()\nprint(float(x.get().max()))"
    assert {found(program, STAND_IN_ORDER=str(seed)).split()[0] for seed in range(8)} == {"1.0", "3.0"}


def test_a_host_that_does_not_wait() -> None:
    """For what it reads, or before it writes to what is copied later."""
    program = """
pinned = cupy.cuda.alloc_pinned_memory(4000)
import numpy as np
host = np.frombuffer(pinned, np.float32, 1000)
host[:] = 1
x.set(host, first)
WAIT
host[:] = 2
first.synchronize()
print(float(x.get(first)[0]))
"""
    assert found(program.replace("WAIT", "first.synchronize()")).split() == ["1.0"]
    assert found(program.replace("WAIT", "")).split() == ["2.0"]
