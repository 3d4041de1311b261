"""Programs for CuPy on the stand-in, most with a bug: `python -m stand_in.planted NAME` runs one and prints the outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from stand_in.install import install, problems

install()
import cupy  # noqa: E402 - from here on it finds a GPU
import numpy as np  # noqa: E402
from cupy.cuda import Event, Stream, runtime  # noqa: E402

SIZE = 1000

first, second = Stream(non_blocking=True), Stream(non_blocking=True)
with first:
    x = cupy.zeros(SIZE, "float32")
    out = cupy.zeros(SIZE, "float32")
first.synchronize()


def attempt(work: Callable[[], Any]) -> Any:
    """The result of `work`; an error is printed."""
    try:
        return work()
    except runtime.CUDARuntimeError as error:
        print(error)
        return None


def captured(work: Callable[[], Any], *, stream: Stream = first, mode: int = runtime.streamCaptureModeRelaxed) -> Any:
    """The graph captured from `work` on a stream."""
    with stream:
        stream.begin_capture(mode)
        attempt(work)
        return attempt(stream.end_capture)


def launched(graph: Any) -> None:
    graph.launch(first)
    first.synchronize()
    print(float(out.get(first)[0]))


# ---------------------------------------------------------------- captures
def branch(*, waits: bool = True, joins: bool = True) -> None:
    """out = 2 (x + 1) + 1, with the product on the second stream."""
    fork, join = Event(), Event()
    y = cupy.empty_like(x)
    if not waits:
        fork.record(first)
    cupy.add(x, 1, out=y)
    if waits:
        fork.record(first)
    second.wait_event(fork)
    with second:
        cupy.multiply(y, 2, out=out)
    join.record(second)
    if joins:
        first.wait_event(join)
        cupy.add(out, 1, out=out)


def right() -> None:
    launched(captured(branch))


def branch_that_is_not_joined() -> None:
    captured(lambda: branch(joins=False))


def branch_that_does_not_wait() -> None:
    launched(captured(lambda: branch(waits=False)))


def memory_during_a_capture(mode: int = runtime.streamCaptureModeGlobal) -> None:
    place = runtime.malloc(SIZE)
    for call in (
        lambda: runtime.malloc(SIZE),
        lambda: runtime.hostAlloc(SIZE, 0),
        lambda: runtime.memcpy(x.data.ptr, place, SIZE, runtime.memcpyDeviceToDevice),
        lambda: runtime.free(place),
    ):
        captured(call, mode=mode)


def memory_during_a_relaxed_capture() -> None:
    """Allowed by CUDA; the mode in which CuPy captures."""
    memory_during_a_capture(runtime.streamCaptureModeRelaxed)


def waiting_during_a_capture() -> None:
    for call in (first.synchronize, runtime.deviceSynchronize):
        captured(call)


def default_stream_during_a_capture() -> None:
    captured(lambda: runtime.memsetAsync(x.data.ptr, 0, SIZE, 0), stream=Stream())


# ---------------------------------------------------------------- memory
def graph_that_uses_freed_memory() -> None:
    with first:
        held = [x + 1]
    graph = captured(lambda: cupy.multiply(held[0], 2, out=out))
    held.clear()
    cupy.get_default_memory_pool().free_all_blocks()
    graph.launch(first)


def memory_that_is_freed_twice() -> None:
    place = runtime.malloc(SIZE)
    runtime.free(place)
    attempt(lambda: runtime.free(place))


def copy_beyond_an_allocation() -> None:
    place = runtime.malloc(SIZE)
    runtime.memsetAsync(place, 0, SIZE + 1, first.ptr)


# ---------------------------------------------------------------- order
def other_stream(*, waits: bool = True) -> None:
    done = Event()
    with first:
        cupy.add(x, 1, out=x)
    done.record(first)
    with second:
        if waits:
            second.wait_event(done)
        cupy.multiply(x, 2, out=out)
    print(float(out.get(second)[0]))


def other_stream_that_does_not_wait() -> None:
    other_stream(waits=False)


def two_streams_that_write_to_one_place() -> None:
    with first:
        cupy.add(x, 1, out=x)
    with second:
        cupy.multiply(x, 3, out=x)
    runtime.deviceSynchronize()
    print(float(x.get(first)[0]))


def host_that_overwrites_what_is_copied(*, waits: bool = False) -> None:
    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(4 * SIZE), np.float32, SIZE)
    host[:] = 1
    x.set(host, first)
    if waits:
        first.synchronize()
    host[:] = 2
    print(float(x.get(first)[0]))


def host_that_waits() -> None:
    host_that_overwrites_what_is_copied(waits=True)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print(problems())
