"""The border between the host and a GPU: every array that crosses it on purpose does so here, and is counted.

A GPU works through a queue. A copy to it joins the queue, and the program goes on; a copy back waits until the queue is empty, and the GPU
then idles until the program has filled it again. So numbers should be fetched seldom and knowingly. CuPy fetches unasked, too: for
`float(array)`, for the truth of an array in an `if`, for `nonzero` and boolean masks, whose results have as many elements as the numbers
say. `strict` finds such places.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.backend import probe
from minigrad.errors import DeviceError

_declared: ContextVar[bool] = ContextVar("declared_transfer", default=False)
"""Whether what is fetched now is fetched knowingly."""

_recording: ContextVar[bool] = ContextVar("recording_launches", default=False)
"""Whether launches are being recorded (`graphs`), or run as they will be."""


@dataclass
class Noted:
    """Ids on the GPU, by which operations read unchecked. read: with how many rows there are to read. bounds: arrays of which no number is
    larger than the largest of another array by more than so much, nor any below 0."""

    read: list[tuple[Any, int]] = field(default_factory=list)
    bounds: list[tuple[Any, Any, int]] = field(default_factory=list)


_noting: ContextVar[Noted | None] = ContextVar("noting_ids", default=None)
"""Where ids that nobody has checked are noted."""


@dataclass
class Counts:
    """How many arrays and bytes went to the GPU and came back."""

    to_gpu: int = 0
    to_host: int = 0
    bytes_to_gpu: int = 0
    bytes_to_host: int = 0


_counting: list[Counts] = []


def to_gpu(host: np.ndarray[Any, Any]) -> Any:
    """A copy of a host array on the GPU.

    CuPy copies the numbers to pinned memory, from which the GPU takes them when its queue is there, and reuses that memory afterwards. So
    the program goes on at once, and may change `host` (unless `host` is pinned itself).
    """
    import cupy

    _refuse_in_recording("copies an array to the GPU")
    _count_to_gpu(host)
    return cupy.array(host)


def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Host memory that `refill` and `fetch` copy from and to while the program goes on. What is in it at first is anything."""
    import cupyx

    found: np.ndarray[Any, Any] = cupyx.empty_pinned(shape, dtype)
    return found


def refill(array: Any, host: np.ndarray[Any, Any], event: Any = None) -> Any:
    """Have the numbers of a pinned array copied into one of the GPU, once what was launched on this stream before is over.

    Returns the copy's event: `host` must stay as it is until its `synchronize()` has returned. event: one that was returned before and that
    nobody waits for any more, to be used again.
    """
    import cupy

    _refuse_in_recording("copies an array to the GPU")
    _count_to_gpu(host)
    stream = cupy.cuda.get_current_stream()
    array.set(host, stream=stream)
    return stream.record(event)


def fetch(array: Any, host: np.ndarray[Any, Any], event: Any = None) -> Any:
    """Have the numbers of an array of the GPU copied into a pinned one, once what was launched on this stream before is over.

    Returns the copy's event: `host` holds the numbers when its `synchronize()` has returned. event: as in `refill`.
    """
    import cupy

    _refuse_in_recording("fetches numbers from the GPU")
    _count_to_host(array)
    stream = cupy.cuda.get_current_stream()
    token = _declared.set(True)  # as in `declared`, which is slower, and this is done in every step
    try:
        array.get(stream=stream, out=host, blocking=False)
    finally:
        _declared.reset(token)
    return stream.record(event)


def _count_to_gpu(host: np.ndarray[Any, Any]) -> None:
    for counts in _counting:
        counts.to_gpu += 1
        counts.bytes_to_gpu += host.nbytes


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """A copy of a GPU's array in host memory, once the GPU has computed it."""
    _refuse_in_recording("fetches numbers from the GPU")
    _count_to_host(array)
    with declared():
        return np.asarray(array.get())


def _count_to_host(array: Any) -> None:
    for counts in _counting:
        counts.to_host += 1
        counts.bytes_to_host += array.nbytes


@contextmanager
def counting() -> Iterator[Counts]:
    """Inside: the copies of this process are counted in what it yields. Fetches that CuPy makes unasked are not among them."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting[:] = [other for other in _counting if other is not counts]


@contextmanager
def declared() -> Iterator[None]:
    """Inside: whatever CuPy fetches is meant to be; `strict` lets it pass."""
    token = _declared.set(True)
    try:
        yield
    finally:
        _declared.reset(token)


@contextmanager
def recording() -> Iterator[None]:
    """Inside: copies between host and GPU raise, because a replay would not make them again with new numbers.

    Ids that lie on the GPU are then taken as checked: whoever fills their arrays has seen to it.
    Raises (inside): DeviceError (captured-copy) naming file and line.
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def noting_ids() -> Iterator[Noted]:
    """Inside: ids on the GPU, by which operations read unchecked, are noted in what it yields."""
    found = Noted()
    token = _noting.set(found)
    try:
        yield found
    finally:
        _noting.reset(token)


def note_ids(ids: Any, rows: int) -> None:
    found = _noting.get()
    if found is not None:
        found.read.append((ids, rows))


def note_bound(ids: Any, by: Any, above: int) -> None:
    """Say of ids that are computed on the GPU that none is negative, nor larger than the largest of `by` plus `above`."""
    found = _noting.get()
    if found is not None:
        found.bounds.append((ids, by, above))


def is_recording() -> bool:
    return _recording.get()


def _refuse_in_recording(what: str) -> None:
    if is_recording():
        raise DeviceError(
            f"{_place()} {what} while launches are recorded for a CUDA graph: a replay would not do it again. Pass arrays that are there",
            code="captured-copy",
        )


@contextmanager
def strict() -> Iterator[None]:
    """Inside: fetching numbers from the GPU raises, unless it is done by `numpy()`, `item()` and the like, or in a place that declares it.

    For finding out where a program waits for the GPU. It counts for the whole process, and does nothing where CuPy is not installed.
    Raises (inside): DeviceError (hidden-transfer) naming file and line.
    """
    if probe.probe().cupy is None:
        yield
        return
    import cupy

    if "get" in vars(cupy.ndarray):  # an outer `strict` watches already
        yield
        return
    fetch = cupy.ndarray.get

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        if not _declared.get():
            raise DeviceError(
                f"{_place()} fetches numbers from the GPU, and waits for everything before: keep them there, "
                "or say that it is meant by .item(), .numpy() or `with mg.backend.transfers.declared()`",
                code="hidden-transfer",
            )
        return fetch(self, *args, **options)

    cupy.ndarray.get = watched  # CuPy's own conversions call it, too; the method is its base class's
    try:
        yield
    finally:
        del cupy.ndarray.get


def _place() -> str:
    """File and line of what runs, without CuPy's own and the backend's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(("cupy", __package__)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
