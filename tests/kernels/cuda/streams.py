"""The two streams of the emulated GPU: when work is done, which work is recorded, and in which memory.

Replays, and copies that nobody waits for, stay in a queue until somebody waits or computes anything eagerly: a GPU that is as late as it
can be. This exposes code that overwrites what has not been copied yet, or reads what has not been computed. Uses after free are exposed
too: a replay overwrites an array where the recorded step released it, since on a GPU the next array would be placed there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

tape: list[Work] | None = None
"""The recording in progress, in the order of its replay."""

queue: list[Callable[[], object]] = []
"""Work that the GPU has not done yet."""


def settle(past: int | None = None) -> None:
    """Do all work in the queue, or only until `past` items have been done since the program began."""
    while queue and (past is None or Event.done < past):
        queue.pop(0)()
        Event.done += 1


class Event:
    """A position in the queue."""

    done: ClassVar[int] = 0
    """How many items of the queue have been done so far."""

    of: SecondStream | None = None
    """The stream that recorded it, unless that was the first."""

    def __init__(self) -> None:
        self.again()

    def again(self) -> Event:
        self._past = Event.done + len(queue)
        return self

    def synchronize(self) -> None:
        settle(self._past)


class Stream:
    """The first stream, for all work that is not put on the second."""

    def record(self, event: Event | None = None) -> Event:
        return Event() if event is None else event.again()

    def wait_event(self, event: Event) -> None:
        if event.of is not None:
            event.of.settle()


@dataclass(eq=False)
class Work:
    """A recorded operation. begun: the length of the tape when it was recorded; nothing before that is concurrent with it."""

    name: str
    again: Callable[[], object]
    reads: list[np.ndarray]
    writes: list[np.ndarray]
    begun: int = 0

    def disturbs(self, other: Work) -> bool:
        """Whether one of the two writes what the other reads or writes."""
        return meet(self.writes, other.writes) or meet(self.writes, other.reads) or meet(self.reads, other.writes)


def meet(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return any(np.may_share_memory(x, y) and np.shares_memory(x, y) for x in some for y in others)


class SecondStream:
    """The second stream. In a recording, work on it is done when another stream waits for it, which is as late as possible."""

    disturbed: ClassVar[list[str]] = []
    """Conflicts: work that the two streams do concurrently in the same memory, so that the result depends on the order."""

    entered: ClassVar[SecondStream | None] = None

    def __init__(self) -> None:
        self.waiting: list[Work] = []

    def __enter__(self) -> None:
        SecondStream.entered = self

    def __exit__(self, *_: object) -> None:
        SecondStream.entered = None

    def record(self, event: Event) -> Event:
        event.of = self
        return event

    def wait_event(self, event: Event) -> None:
        """Nothing to wait for: it has been done."""

    def settle(self) -> None:
        waiting = list(self.waiting)
        self.waiting.clear()
        if tape is None:
            return
        for work in waiting:
            self.disturbed += [f"{work.name} beside {meanwhile.name}" for meanwhile in tape[work.begun :] if work.disturbs(meanwhile)]
        tape.extend(waiting)


def note(name: str, again: Callable[[], object], reads: list[np.ndarray], writes: list[np.ndarray], stream: SecondStream | None) -> None:
    """Record an operation. stream: the second one, or None for the first."""
    if tape is not None:
        (tape if stream is None else stream.waiting).append(Work(name, again, reads, writes, len(tape)))


def noted(name: str, again: Callable[[], object], reads: Any, writes: Any) -> None:
    """Record an operation on the entered stream."""
    note(name, again, arrays_in(reads), arrays_in(writes), SecondStream.entered)


def arrays_in(value: Any) -> list[np.ndarray]:
    """The arrays among arguments, also inside lists."""
    if isinstance(value, list | tuple):
        return [array for part in value for array in arrays_in(part)]
    return [value] if isinstance(value, np.ndarray) else []


class Memory:
    """The memory of an array and its views. On a GPU the stream's next array may take it once all are gone: so it is overwritten then."""

    of: ClassVar[WeakValueDictionary[int, Memory]] = WeakValueDictionary()
    """Memory by the id of the array that owns it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self._stream = owner(array), SecondStream.entered
        self.of[id(self._array)] = self

    def __del__(self) -> None:
        array = self._array
        note("freed", lambda: spoil(array), [], [array], self._stream)


def spoil(array: np.ndarray) -> None:
    """Overwrite an array whose contents are no longer valid."""
    array.reshape(-1).view(np.uint8)[...] = 0xCD


def owner(array: np.ndarray) -> Any:
    """The array whose memory this one views."""
    found: Any = array
    while (beneath := np.ndarray.base.__get__(found)) is not None:
        found = beneath
    return found
