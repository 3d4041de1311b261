"""A worker process: how it starts, answers messages, and ends, and how its death is noticed.

A worker is a fork, so it has everything that its parent had in memory. It ignores Ctrl-C and SIGTERM, which a terminal or a supervisor
sends to the parent as well: the parent decides, and ends it. It exits by itself when its parent is gone.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from minigrad.backend.threads import usable_cpus
from minigrad.errors import ArgumentError, MinigradError
from minigrad.workers.messages import Arrays, described, rebuilt, receive, send

Reply: TypeAlias = tuple[Mapping[str, Any], Arrays]

Handler: TypeAlias = Callable[[dict[str, Any], Arrays], Reply]
"""Answers a message in a worker: (content, arrays) → reply."""

logger = logging.getLogger("minigrad")

TOKENIZERS_THREADS = "TOKENIZERS_PARALLELISM"
"""The environment variable that tells the package `tokenizers` whether to use threads."""

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def number_of_workers(workers: Any, obstacle: str | None = None) -> int:
    """The number of processes, "auto" resolved: one per usable processor, or just one (and a log line) if there is an obstacle to forking.

    Raises: ArgumentError unless it is an integer from 1 or "auto", and for more than 1 with an obstacle.
    """
    if not hasattr(os, "fork"):
        obstacle = "this system has no os.fork"
    if workers == "auto":
        if obstacle is not None:
            logger.info('workers="auto": %s, so one process computes', obstacle)
        return usable_cpus() if obstacle is None else 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ArgumentError(f'workers must be an integer from 1, or "auto", got {workers!r:.80}')
    if workers > 1 and obstacle is not None:
        raise ArgumentError(f"workers={workers}: {obstacle}; use workers=1")
    return workers


class Worker:
    """A worker process, seen from its parent; the constructor forks it.

    number: its place among the workers, from 1. prepare: called in the worker, returns the handler of its messages.
    Raises: MinigradError (worker-fork) if the system cannot start a process.
    """

    def __init__(self, number: int, prepare: Callable[[], Handler]) -> None:
        self.number, self.parent = number, os.getpid()
        self.link, theirs = socket.socketpair()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)  # until the child ignores them
        try:
            self.pid = _fork()
            if self.pid == 0:
                try:
                    for parents in PARENTS_SIGNALS:
                        signal.signal(parents, signal.SIG_IGN)
                    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                    _serve(theirs, self.parent, prepare)
                finally:
                    os._exit(1)
        except OSError as error:
            self.link.close()
            raise MinigradError(f"worker {number} could not be started: {error}; use fewer workers", code="worker-fork") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()

    def ask(self, content: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Send a message. Raises: MinigradError (worker-died)."""
        try:
            send(self.link, content, arrays or {})
        except OSError:
            raise self._died() from None

    def answer(self) -> tuple[dict[str, Any], Arrays]:
        """Wait for the reply. Raises: MinigradError (worker-died); the worker's own error."""
        try:
            reply, arrays = receive(self.link, self._lives)
        except EOFError:
            raise self._died() from None
        if "error" in reply:
            raise rebuilt(reply["error"], f"worker {self.number} (process {self.pid})")
        return reply, arrays

    def stop(self) -> int | None:
        """Kill the worker, whatever it is doing, and return its exit code if known. It has no work that could be left half done."""
        if os.getpid() != self.parent:
            return None  # a fork of the parent inherits this object, but the worker is not its child
        self.link.close()
        with suppress(ProcessLookupError, ChildProcessError):  # other code has waited for it already
            os.kill(self.pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return None

    def _lives(self) -> bool:
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def _died(self) -> MinigradError:
        code = self.stop()
        how = "ended" if code is None else f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = "; the system does so when memory runs out: compute less at a time, or with fewer workers" if code == -9 else ""
        return MinigradError(f"worker {self.number} (process {self.pid}) {how} in the middle of its work{hint}", code="worker-died")


def _fork() -> int:
    """os.fork without its warnings. The child tokenizes in one thread, unless the user has set the variable: threads of `tokenizers` do not
    survive a fork (and up to 0.22.1 it prints five lines about that for each worker).
    """
    chosen, pid = TOKENIZERS_THREADS in os.environ, -1
    if not chosen:
        os.environ[TOKENIZERS_THREADS] = "false"
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns if a process with threads forks; the child uses nothing that a thread of ours could have locked
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    finally:
        if pid != 0 and not chosen:
            del os.environ[TOKENIZERS_THREADS]
    return pid


def stop_all(workers: list[Worker]) -> None:
    """Kill all workers and empty the list."""
    while workers:
        workers.pop().stop()


def _serve(link: socket.socket, parent: int, prepare: Callable[[], Handler]) -> None:
    """In the worker: answer messages for as long as the parent lives."""
    gc.freeze()  # a collection would write to every page that is shared with the parent, and so copy it
    handle = prepare()
    with suppress(EOFError, OSError):
        while True:
            message = receive(link, lambda: os.getppid() == parent)
            try:
                reply, arrays = handle(*message)
            except BaseException as error:
                reply, arrays = {"error": described(error)}, {}
            send(link, reply, arrays)
