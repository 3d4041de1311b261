"""The border between host and GPU: every intended copy from one to the other happens here, and is counted.

A GPU works through a queue. A copy to it joins the queue, and the program continues; a copy back waits until the queue is empty, and then
the GPU idles until the program has filled it again. So values should be fetched rarely and knowingly. CuPy also fetches implicitly: for
`float(array)`, for the truth of an array in an `if`, and for `nonzero` and boolean masks, whose results have data-dependent sizes. `strict`
finds such places.
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
"""Whether fetches are intended at the moment."""

_recording: ContextVar[bool] = ContextVar("recording_launches", default=False)
"""Whether a capture (`graphs`) is in progress, or one of the trial runs before it."""


@dataclass
class UncheckedIds:
    """Ids on the GPU by which operations read tables unchecked. read: the ids, each with the number of rows to read from. bounds: (ids, by,
    above) says that no id is negative or larger than the maximum of `by` plus `above`."""

    read: list[tuple[Any, int]] = field(default_factory=list)
    bounds: list[tuple[Any, Any, int]] = field(default_factory=list)


_noting: ContextVar[UncheckedIds | None] = ContextVar("collecting_ids", default=None)
"""Where unchecked ids are noted, if anywhere."""


@dataclass
class Counts:
    """How many arrays and bytes were copied to the GPU and back."""

    to_gpu: int = 0
    to_host: int = 0
    bytes_to_gpu: int = 0
    bytes_to_host: int = 0


_counting: list[Counts] = []


def to_gpu(host: np.ndarray[Any, Any]) -> Any:
    """A copy of a host array on the GPU.

    CuPy copies the values to pinned memory, from which the GPU takes them when its queue gets there, and reuses that memory afterwards. So
    the program continues at once, and may change `host` (unless `host` is pinned itself).
    """
    import cupy

    _refuse_in_recording("copies an array to the GPU")
    _count_to_gpu(host)
    return cupy.array(host)


def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Pinned host memory, from and to which `refill` and `fetch` copy while the program continues. Its initial contents are arbitrary."""
    import cupyx

    found: np.ndarray[Any, Any] = cupyx.empty_pinned(shape, dtype)
    return found


def refill(array: Any, host: np.ndarray[Any, Any], event: Any = None) -> Any:
    """Queue a copy from a pinned array to an array on the GPU, behind everything launched on this stream so far.

    Returns the copy's event: `host` must not change until its `synchronize()` has returned. event: one returned before that nobody waits
    for any more, to be reused.
    """
    import cupy

    _refuse_in_recording("copies an array to the GPU")
    _count_to_gpu(host)
    stream = cupy.cuda.get_current_stream()
    array.set(host, stream=stream)
    return stream.record(event)


def fetch(array: Any, host: np.ndarray[Any, Any], event: Any = None) -> Any:
    """Queue a copy from an array on the GPU to a pinned one, behind everything launched on this stream so far.

    Returns the copy's event: `host` holds the values once its `synchronize()` has returned. event: as in `refill`.
    """
    import cupy

    _refuse_in_recording("fetches numbers from the GPU")
    _count_to_host(array)
    stream = cupy.cuda.get_current_stream()
    token = _declared.set(True)  # `declared` does the same but is slower, and this runs in every step
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
    """A copy of a GPU array in host memory. Waits until the GPU has computed it."""
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
    """Inside: copies made by this process are counted in the object it yields. CuPy's implicit fetches are not included."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting[:] = [other for other in _counting if other is not counts]


@contextmanager
def declared() -> Iterator[None]:
    """Inside: everything CuPy fetches is intended; `strict` lets it pass."""
    token = _declared.set(True)
    try:
        yield
    finally:
        _declared.reset(token)


@contextmanager
def recording() -> Iterator[None]:
    """Inside: copies between host and GPU raise, because a replay would not repeat them with new values.

    Ids on the GPU then count as checked: whoever fills their arrays is responsible.
    Raises (inside): DeviceError (captured-copy) naming file and line.
    """
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def collecting_ids() -> Iterator[UncheckedIds]:
    """Inside: ids on the GPU by which operations read unchecked are noted in the object it yields."""
    found = UncheckedIds()
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
    """Note about ids computed on the GPU that none is negative or larger than the maximum of `by` plus `above`."""
    found = _noting.get()
    if found is not None:
        found.bounds.append((ids, by, above))


def is_recording() -> bool:
    return _recording.get()


def _refuse_in_recording(what: str) -> None:
    if is_recording():
        raise DeviceError(
            f"{_caller()} {what} while launches are recorded for a CUDA graph: a replay would not repeat it. Keep the data on the GPU",
            code="captured-copy",
        )


@contextmanager
def strict() -> Iterator[None]:
    """Inside: fetching values from the GPU raises, unless it is done by `numpy()`, `item()` and the like, or inside `declared`.

    For finding where a program waits for the GPU. It applies to the whole process, and does nothing if CuPy is not installed.
    Raises (inside): DeviceError (hidden-transfer) naming file and line.
    """
    if probe.probe().cupy is None:
        yield
        return
    import cupy

    if "get" in vars(cupy.ndarray):  # an outer `strict` is watching already
        yield
        return
    fetch = cupy.ndarray.get

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        if not _declared.get():
            raise DeviceError(
                f"{_caller()} fetches numbers from the GPU, and waits for all earlier work: keep them there, "
                "or mark the fetch as intended by .item(), .numpy() or `with mg.backend.transfers.declared()`",
                code="hidden-transfer",
            )
        return fetch(self, *args, **options)

    cupy.ndarray.get = watched  # CuPy's own conversions call it, too; the original is inherited, so deleting this restores it
    try:
        yield
    finally:
        del cupy.ndarray.get


def _caller() -> str:
    """File and line of the innermost frame that belongs neither to CuPy nor to the backend."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(("cupy", __package__)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
