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
from typing import Any, NamedTuple, TypeAlias

from minigrad.anomaly import detecting
from minigrad.backend import random
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, MinigradError
from minigrad.modes import Mode
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor
from minigrad.train._messages import Arrays, batch_of, described, rebuilt, receive, send
from minigrad.train._shared import Outbox, Shared, Surroundings, WorkersLedger

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

    def ask(self, task: str, content: dict[str, Any], arrays: Arrays | None = None) -> None:
        """Let it do one of `TASKS`. Raises: MinigradError (worker-died)."""
        try:
            send(self.link, {"task": task, **content}, arrays or {})
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
    """Do what the parent asks for as long as it lives."""
    gc.freeze()  # a collection would write to, and so copy, every page of objects that is still shared with the parent
    outbox.attach()
    desk = _Desk(loss_of, shared, outbox, shared.watch_tables(), around.strangers())
    with suppress(EOFError, OSError):
        while True:
            content, arrays = receive(link, lambda: os.getppid() == parent)
            try:
                reply = TASKS[content["task"]](desk, content, arrays)
            except BaseException as error:
                reply = {"error": described(error)}
            send(link, reply, {})


class _Desk(NamedTuple):
    """What a worker works with."""

    loss_of: LossOf
    shared: Shared
    outbox: Outbox
    ledgers: list[WorkersLedger]
    strangers: list[Parameter]


def _share(desk: _Desk, step: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Compute a share of the loss and of the gradient."""
    desk.shared.optimizer.zero_grad()
    for ledger, factors in zip(desk.ledgers, step["factors"], strict=True):
        ledger.begin(factors)
    whole = batch_of(arrays)
    pieces = whole.split(step["pieces"])[step["first"] :: step["stride"]]
    with Mode(detecting, step["anomaly"]), random.at(step["seed"], step["step"]):
        loss = share_of(desk.loss_of, pieces, whole)
    _check_without_gradient(desk.strangers)
    return {"loss": loss, "gradients": desk.outbox.publish(), "missed": [ledger.missed for ledger in desk.ledgers]}


def _add_up(desk: _Desk, content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Add up everybody's gradients in some stretches of the arena."""
    desk.shared.add_up(desk.shared.stretches(content["touched"]), content["first"], content["past"], content["measure"])
    return {}


def _update(desk: _Desk, content: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Make a part of the optimizer's step."""
    for table, count in zip(desk.shared.optimizer.tables.values(), content["due"], strict=True):
        table.count = count
    for fields in content["updates"]:
        desk.shared.optimizer.apply(Update(*fields), content["scale"])
    return {}


TASKS: dict[str, Callable[[_Desk, dict[str, Any], Arrays], dict[str, Any]]] = {"share": _share, "add up": _add_up, "update": _update}


def _check_without_gradient(strangers: Sequence[Parameter]) -> None:
    """Raises: ArgumentError if one of these, which are not the optimizer's, has a gradient: the parent would never see it."""
    for p in strangers:
        if p.leaf.grad is not None:
            raise ArgumentError(
                f"{p.name or 'a parameter'} gets a gradient but is none of the optimizer's, whose gradients alone several workers carry: "
                "freeze it, or give it to the optimizer"
            )
