"""Graceful shutdown: a training loop checks for SIGTERM or Ctrl-C between two steps, when it can still save.

Source: POSIX signals; 128 + number is the exit status that a shell reports for a program ended by a signal.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Inside its `with` block, the first SIGTERM or SIGINT (Ctrl-C) only sets `signal`; the loop finishes its step, saves and leaves.

    A SIGINT after that raises KeyboardInterrupt at once, for users who do not want to wait; a further SIGTERM does nothing, so that
    it cannot break a save. On leaving, the former handlers are restored. A signal that was ignored stays ignored (as SIGINT is for a
    job in the background). Outside the main thread, where Python allows no handlers, nothing changes. SIGSTOP and SIGCONT work as usual.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """The number of the first signal, or None."""
        self._former: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """The exit status for the program: 128 + the signal's number (143 for SIGTERM, 130 for SIGINT), or 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                former = signal.getsignal(number)
                if former not in (signal.SIG_IGN, None):  # None: a handler that is not Python's cannot be restored
                    self._former[number] = former
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
