"""One worker process of a team: how it begins, what it does with a step, how its end is noticed.

A worker is a fork, so it knows the model and the loss function without being told. It ignores Ctrl-C and SIGTERM, which a terminal or a
supervisor sends to the parent as well: the parent decides, and ends it. It ends by itself when its parent is gone.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from minigrad.anomaly import detecting
from minigrad.backend import random
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, MinigradError
from minigrad.modes import Mode
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor
from minigrad.train._messages import Arrays, batch_of, described, rebuilt, receive, send
from minigrad.train._shared import Outbox, Shared, Surroundings

LossOf: TypeAlias = Callable[[Batch, Batch], Tensor]

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def share_of(loss_of: LossOf, pieces: Sequence[Batch], whole: Batch) -> float:
    """The loss of some pieces of a step, one after the other, so that the memory of one is free before the next; adds to the gradients.

    Raises: ArgumentError if `loss_of` returns no Tensor, and whatever it raises itself.
    """
    total = 0.0
    for piece in pieces:
        loss = loss_of(piece, whole)
        if not isinstance(loss, Tensor):
            raise ArgumentError(f"a team's loss_of must return a Tensor, the part's share of the loss; got {type(loss).__name__}")
        loss.backward()
        total += float(loss.item())
    return total


class Worker:
    """The parent's end of one worker process, which is started here.

    number: its place in the team, from 1. Raises: MinigradError (worker-fork) if the system starts no process.
    """

    def __init__(self, number: int, loss_of: LossOf, shared: Shared, around: Surroundings) -> None:
        self.number, self.parent = number, os.getpid()
        self.link, theirs = socket.socketpair()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)  # until the child ignores them
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of any thread beside a fork: the child uses nothing that a thread of ours could have locked
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
            if self.pid == 0:
                try:
                    for parents in PARENTS_SIGNALS:
                        signal.signal(parents, signal.SIG_IGN)
                    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                    _serve(theirs, self.parent, loss_of, shared, around, shared.outboxes[number - 1])
                finally:
                    os._exit(1)
        except OSError as error:
            self.link.close()
            raise MinigradError(f"worker {number} could not be started: {error}; use fewer workers", code="worker-fork") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()

    def ask(self, step: dict[str, Any], arrays: Arrays) -> None:
        """Let it compute its share of a step. Raises: MinigradError (worker-died)."""
        try:
            send(self.link, step, arrays)
        except OSError:
            raise self._died() from None

    def answer(self) -> dict[str, Any]:
        """What `ask` led to. Raises: MinigradError (worker-died); the worker's own error."""
        try:
            reply, _ = receive(self.link, self._lives)
        except EOFError:
            raise self._died() from None
        if "error" in reply:
            raise rebuilt(reply["error"], f"worker {self.number} (process {self.pid})")
        return reply

    def stop(self) -> int | None:
        """End it, whatever it is doing; returns its exit code if that is known. It holds nothing that could be left half done."""
        if os.getpid() != self.parent:
            return None  # a fork of the parent has inherited this object, not the worker
        self.link.close()
        with suppress(ProcessLookupError, ChildProcessError):  # somebody else has waited for it
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
        hint = "; the system does so when memory runs out: compute the step in more parts, or with fewer workers" if code == -9 else ""
        return MinigradError(f"worker {self.number} (process {self.pid}) {how} in the middle of a step{hint}", code="worker-died")


def stop_all(workers: list[Worker]) -> None:
    """End all of them and empty the list."""
    while workers:
        workers.pop().stop()


# ---------------------------------------------------------------- in the child
def _serve(link: socket.socket, parent: int, loss_of: LossOf, shared: Shared, around: Surroundings, outbox: Outbox) -> None:
    """Compute shares of steps for as long as the parent lives."""
    gc.freeze()  # a collection would write to, and so copy, every page of objects that is still shared with the parent
    shared.forget_moments()
    outbox.attach()
    ledgers, strangers = shared.watch_tables(), around.strangers()
    with suppress(EOFError, OSError):
        while True:
            step, arrays = receive(link, lambda: os.getppid() == parent)
            try:
                shared.optimizer.zero_grad()
                for ledger, factors in zip(ledgers, step["factors"], strict=True):
                    ledger.begin(factors)
                loss = _share(step, batch_of(arrays), loss_of)
                _check_without_gradient(strangers)
                reply = {"loss": loss, "gradients": outbox.publish(), "missed": [ledger.missed for ledger in ledgers]}
            except BaseException as error:
                reply = {"error": described(error)}
            send(link, reply, {})


def _share(step: dict[str, Any], whole: Batch, loss_of: LossOf) -> float:
    pieces = whole.split(step["pieces"])[step["first"] :: step["stride"]]
    with Mode(detecting, step["anomaly"]), random.at(step["seed"], step["step"]):
        return share_of(loss_of, pieces, whole)


def _check_without_gradient(strangers: Sequence[Parameter]) -> None:
    """Raises: ArgumentError if one of these, which are not the optimizer's, has a gradient: the parent would never see it."""
    for p in strangers:
        if p.leaf.grad is not None:
            raise ArgumentError(
                f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's, whose gradients alone several workers carry: "
                "freeze it, or give it to the optimizer"
            )
