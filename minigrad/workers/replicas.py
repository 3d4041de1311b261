"""Inference by several processes, each of which computes the function for some of a batch's sequences; on a GPU, by CUDA graphs.

Processes and not threads, because between two matrix products Python holds its global lock. The weights are not copied: a fork shares them
with its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import RLock
from types import TracebackType
from typing import Any, Self, TypeAlias
from weakref import WeakSet, finalize

import numpy as np

from minigrad import kernels
from minigrad.backend import cuda_in_use
from minigrad.backend.precision import precision, product_precision
from minigrad.backend.threads import blas_threads
from minigrad.errors import ArgumentError
from minigrad.packing import IntArray, PackedTokens
from minigrad.tape import no_grad
from minigrad.tensor import Tensor
from minigrad.workers.graphs.captured import CapturedFunction
from minigrad.workers.messages import Arrays, token_arrays, tokens_of
from minigrad.workers.process import Reply, Worker, number_of_workers, stop_all
from minigrad.workers.snapshot import ModelSnapshot

Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Function: TypeAlias = Callable[..., Tensor | Numbers]


class Replicas:
    """Computes function(tokens), in this process alone or together with forked workers; gradients cannot be computed through it.

    function: returns a tensor or an array with one row for each sequence, or one for each token; rows must not depend on other sequences.
    A function of (tokens, rows) returns one for each of those rows of tokens, for when few are wanted and each is expensive, such as scores
    over a whole vocabulary. If it returns tensors on a GPU, it is captured as CUDA graphs: see `graphs/captured.py`.
    workers: processes that compute, including this one; "auto": one per usable processor.

        with mg.workers.Replicas(lambda tokens: model(tokens).logits, workers="auto") as logits_of:
            logits = logits_of(tokens)

    Workers are forked at the first call with more than one sequence, and again when parameters, buffers or plain attributes of a module
    (its mode, a dropout's rate), its layers or the number of its hooks have changed. Other changes (to variables that the function closes
    over) reach neither workers nor graphs until `close` is called. With several workers each process computes with one BLAS thread.

    Raises: ArgumentError for an impossible number of workers, and for several without `os.fork` or while a GPU is in use.
    """

    def __init__(self, function: Function, workers: int | str = "auto") -> None:
        self.function = function
        self.workers = number_of_workers(workers, "a GPU is in use, which a fork cannot share" if cuda_in_use() else None)
        self._others: list[Worker] = []
        self._snapshot: ModelSnapshot | None = None
        self._captured: CapturedFunction | None = None
        self._lock = RLock()  # one call at a time, from any thread; a signal handler may call `close` during one
        finalize(self, stop_all, self._others)
        _all.add(self)

    def __call__(self, tokens: PackedTokens, rows: IntArray | None = None) -> Numbers:
        """The function's result for all sequences, in their order. rows: for a function that takes them; this process then computes alone.

        Raises: what the function raises, with the same class if a worker raised it (MinigradError for classes that are not minigrad's);
        MinigradError (worker-died) if a worker was killed; the next call starts new workers. ArgumentError for an array of another length.
        """
        parts = tokens.dealt(self.workers if rows is None else 1)
        if len(parts) == 1:
            with no_grad():
                return self._in_process(tokens, rows)
        with self._lock:
            try:
                with blas_threads(1):
                    return self._in_parallel(tokens, parts)
            except BaseException:
                stop_all(self._others)  # some may still be computing
                raise

    def _in_process(self, tokens: PackedTokens, rows: IntArray | None) -> Numbers:
        with self._lock:
            found = None if self._captured is None else self._captured(tokens, rows)
        if found is not None:
            return found
        result = self.function(tokens) if rows is None else self.function(tokens, rows)
        if not isinstance(result, Tensor) or result.device == "cpu":
            self._captured = None  # the model may have been on a GPU, and may come back
        elif self._captured is None:
            self._captured = CapturedFunction(self.function)
        return _numbers(result)

    def _in_parallel(self, tokens: PackedTokens, parts: list[IntArray]) -> Numbers:
        if self._snapshot is not None and self._snapshot.changed():
            stop_all(self._others)
        if not self._others:
            kernels.prepare(training=False)
            self._snapshot = ModelSnapshot()
            for p in self._snapshot.parameters():
                if p.ledger is not None:  # in shared memory, two processes that read a row might both apply the decay it owes
                    p.ledger.settle()
            for number in range(1, self.workers):
                self._others.append(Worker(number, partial(_answering, self.function)))
        asked = self._others[: len(parts) - 1]
        for worker, chosen in zip(asked, parts[1:], strict=True):
            worker.ask({"precision": product_precision.get()}, token_arrays(tokens.part(chosen)))
        with no_grad():
            found = [_numbers(self.function(tokens.part(parts[0])))]
        found += [worker.answer()[1]["result"] for worker in asked]
        return _joined(tokens, parts, found)

    def close(self) -> None:
        """End the workers and drop the graphs; a later call makes new ones."""
        with self._lock:
            stop_all(self._others)
            self._captured = None

    def forget_graphs(self) -> bool:
        """Drop the graphs to free their memory; later calls capture new ones. Returns whether there were any."""
        with self._lock:
            had, self._captured = self._captured is not None, None
        return had

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_all: WeakSet[Replicas] = WeakSet()


def forget_graphs() -> bool:
    """Drop all inference graphs, to free memory for a training step. Returns whether there were any."""
    return any([replicas.forget_graphs() for replicas in list(_all)])


def _answering(function: Function) -> Callable[[dict[str, Any], Arrays], Reply]:
    """In a worker: a message handler that computes the function."""

    def answer(content: dict[str, Any], arrays: Arrays) -> Reply:
        with no_grad(), precision(content["precision"]):
            return {}, {"result": _numbers(function(tokens_of(arrays)))}

    return answer


def _numbers(result: Tensor | Numbers) -> Numbers:
    return result.numpy() if isinstance(result, Tensor) else result


def _joined(tokens: PackedTokens, parts: list[IntArray], found: list[Numbers]) -> Numbers:
    """The results of the parts as one array, with rows in the order of the whole batch. Raises: ArgumentError."""
    lengths = [len(array) for array in found]
    if lengths == [len(chosen) for chosen in parts]:
        places = np.concatenate(parts)
    elif lengths == [int(tokens.packing.lengths[chosen].sum()) for chosen in parts]:
        places = np.concatenate([tokens.rows_of(chosen) for chosen in parts])
    else:
        raise ArgumentError(
            f"the function of Replicas must give one row for each sequence or each token: parts of {[len(chosen) for chosen in parts]} "
            f"sequences gave {lengths} rows"
        )
    whole = np.empty((len(places), *found[0].shape[1:]), found[0].dtype)
    whole[places] = np.concatenate(found)
    return whole
