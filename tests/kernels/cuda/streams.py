"""The two streams of the emulated GPU: what is done when, what of it is recorded, and in which memory.

Replays, and copies that nobody waits for, stand in a queue until somebody does, or computes anything at once: a GPU that is as late as it
can be. So whoever overwrites what has not been copied yet, or reads what has not been computed, is found out. So is who reads what is held
no longer: a replay spoils an array where the recorded step let go of it, since a GPU's next array would lie there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

tape: list[Work] | None = None
"""What is being recorded, in the order in which it is done again."""

queue: list[Callable[[], object]] = []
"""What the GPU has not done yet."""


def settle(past: int | None = None) -> None:
    """Do what stands in the queue; past: so many of them."""
    while queue and (past is None or Event.done < past):
        queue.pop(0)()
        Event.done += 1


class Event:
    """A place in the queue."""

    done: ClassVar[int] = 0
    """Of all that ever stood in it."""

    of: SecondStream | None = None
    """The stream that recorded it, if it was not the first."""

    def __init__(self) -> None:
        self.again()

    def again(self) -> Event:
        self._past = Event.done + len(queue)
        return self

    def synchronize(self) -> None:
        settle(self._past)


class Stream:
    """The first one, on which all is done that is done on no other."""

    def record(self, event: Event | None = None) -> Event:
        return Event() if event is None else event.again()

    def wait_event(self, event: Event) -> None:
        if event.of is not None:
            event.of.settle()


@dataclass(eq=False)
class Work:
    """Something that is recorded. begun: how much the tape held by then, nothing of which is done beside it on a second stream."""

    name: str
    again: Callable[[], object]
    reads: list[np.ndarray]
    writes: list[np.ndarray]
    begun: int = 0

    def disturbs(self, other: Work) -> bool:
        """Whether one of them writes what the other one reads or writes."""
        return meet(self.writes, other.writes) or meet(self.writes, other.reads) or meet(self.reads, other.writes)


def meet(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return any(np.may_share_memory(x, y) and np.shares_memory(x, y) for x in some for y in others)


class SecondStream:
    """In a recording all that was done on it is done when another stream waits for it, which is as late as it can be."""

    disturbed: ClassVar[list[str]] = []
    """What the two streams did side by side in the same memory, so that the result depends on who is first."""

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
        """Whatever it waits for has been done."""

    def settle(self) -> None:
        waiting = list(self.waiting)
        self.waiting.clear()
        if tape is None:
            return
        for work in waiting:
            self.disturbed += [f"{work.name} beside {meanwhile.name}" for meanwhile in tape[work.begun :] if work.disturbs(meanwhile)]
        tape.extend(waiting)


def note(name: str, again: Callable[[], object], reads: list[np.ndarray], writes: list[np.ndarray], stream: SecondStream | None) -> None:
    """stream: the second one, or None for the first."""
    if tape is not None:
        (tape if stream is None else stream.waiting).append(Work(name, again, reads, writes, len(tape)))


def noted(name: str, again: Callable[[], object], reads: Any, writes: Any) -> None:
    """On the stream that is entered."""
    note(name, again, arrays_in(reads), arrays_in(writes), SecondStream.entered)


def arrays_in(value: Any) -> list[np.ndarray]:
    """Those among arguments, also in lists."""
    if isinstance(value, list | tuple):
        return [array for part in value for array in arrays_in(part)]
    return [value] if isinstance(value, np.ndarray) else []


class Memory:
    """Of an array and its views. On a GPU the next array of the same stream takes it as soon as nobody holds any of them: so it is spoiled
    then."""

    of: ClassVar[WeakValueDictionary[int, Memory]] = WeakValueDictionary()
    """By the id of what owns it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self._stream = owner(array), SecondStream.entered
        self.of[id(self._array)] = self

    def __del__(self) -> None:
        array = self._array
        note("freed", lambda: spoil(array), [], [array], self._stream)


def spoil(array: np.ndarray) -> None:
    """Nobody may count on what is there."""
    array.reshape(-1).view(np.uint8)[...] = 0xCD


def owner(array: np.ndarray) -> Any:
    """The array whose memory this one views."""
    found: Any = array
    while (beneath := np.ndarray.base.__get__(found)) is not None:
        found = beneath
    return found
