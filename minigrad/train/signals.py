"""Being stopped politely: a training loop learns of SIGTERM or Ctrl-C between two steps, when it can still save.

Source: POSIX signals; the exit status 128 + number is the shell's own for a program that a signal ended.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Inside its `with` block, the first SIGTERM or SIGINT (Ctrl-C) only sets `signal`; the loop finishes its step, saves and leaves.

    A SIGINT after that raises KeyboardInterrupt at once, for somebody who does not want to wait; a further SIGTERM changes nothing, so that
    it cannot break a save. On leaving, the former handlers are back. A signal that was ignored stays ignored (as SIGINT is for a
    job in the background). Outside the main thread, where Python has no handlers, nothing is changed. SIGSTOP and SIGCONT work as ever.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """The number of the first signal, or None."""
        self._former: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What the program should exit with: 128 + the signal's number (143 for SIGTERM, 130 for SIGINT), or 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                former = signal.getsignal(number)
                if former not in (signal.SIG_IGN, None):  # None: a handler that is not Python's could not be put back
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
