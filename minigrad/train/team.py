"""Team: training steps, computed in parts, by one process or several.

The batch is divided: its sequences are dealt out to the parts, each part contributes its share of the loss and of the gradient, and the
shares add up to the result of one pass over the whole batch. That holds with dropout, too, because its random numbers depend on a
sequence's number in the step, which the parts keep. The optimizer's update is divided as well, into contiguous ranges of its arrays.

Processes and not threads, because between two matrix products Python holds its global lock. The workers are forks of this process, with
the parameters in shared memory: see `processes`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import nullcontext
from functools import partial
from math import inf, isfinite
from types import TracebackType
from typing import Self

import numpy as np

from minigrad.backend import device_of, random
from minigrad.data.checks import check_count
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, GraphError, MinigradError
from minigrad.files import quoted
from minigrad.optim import Optimizer
from minigrad.optim.clip import check_max_norm, clip_coefficient, gradient_norm
from minigrad.train.average import Average
from minigrad.train.captured.ahead import RunAhead, StepResult
from minigrad.train.captured.steps import CapturedSteps
from minigrad.train.loss_scale import LossScaler
from minigrad.train.processes.handler import LossFunction, share_of
from minigrad.train.processes.pool import WorkerPool
from minigrad.workers.process import number_of_workers


class Team:
    """Computes training steps, in this process alone or together with forked workers.

    loss_of(part, whole): the part's share of the loss of the whole step: the sum over the part's items, divided by how many the WHOLE has.
    workers: processes that compute, including this one; "auto": one per usable processor.
    max_norm: clip the gradient to this global 2-norm, as `clip_grad_norm` does; infinity only measures it. The norm before clipping is
    `grad_norm` after each `backward`; with None it is not computed.
    scaler: scale the loss for its backward pass, as fp16 needs it; `step` unscales the gradients, or skips an update whose gradients are
    not finite and lowers the scale. Between `backward` and `step` the gradients are scaled.
    average: updated with the weights after every step of `steps`.

    capture: on a GPU, capture a step once for every batch size as a CUDA graph and replay it: see `captured`. Steps that cannot be captured
    run eagerly, and the log says why.

        with mg.train.Team(loss_of, optimizer, workers="auto", max_norm=1.0) as team:
            for step in team.steps(loader.epoch()):
                print(step.loss, step.grad_norm)

    With several workers all arrays of a step are in shared memory from the first step until `close` (views taken earlier keep the old
    memory), each process computes with one BLAS thread, and the same program gives the same numbers to the last bit every time. Workers
    are forked again when a module's mode (or another plain attribute), `requires_grad`, a parameter outside of the optimizer or a buffer
    has changed; they do not see other changes after the first step (to hooks, to variables that `loss_of` closes over).

    Raises: ArgumentError for what is no function or no optimizer, for an impossible number of workers, for several with parameters on a
    GPU or without `os.fork`, for a max_norm that is no number >= 0, and for capture with parameters on the CPU.
    """

    def __init__(
        self,
        loss_of: LossFunction,
        optimizer: Optimizer,
        *,
        workers: int | str = 1,
        max_norm: float | None = None,
        scaler: LossScaler | None = None,
        average: Average | None = None,
        capture: bool = False,
    ) -> None:
        if not callable(loss_of):
            raise ArgumentError(f"Team takes a function loss_of(part, whole), and got {quoted(loss_of)}")
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"Team takes an optimizer after loss_of, such as AdamW(model.parameters()), and got {type(optimizer).__name__}"
            )
        self.loss_of, self.optimizer, self._arena = loss_of, optimizer, optimizer.arena
        on_gpu = device_of(optimizer.arena.data) != "cpu"
        self.workers = number_of_workers(workers, "the parameters are on a GPU" if on_gpu else None)
        if max_norm is not None:
            check_max_norm(max_norm)
        self.scaler, self.average = scaler, average
        self.max_norm = inf if max_norm is None and scaler is not None else max_norm  # a scaler needs to know if it is finite
        self.grad_norm: float | None = None
        self._closed = self._broken = False
        self._pool = WorkerPool(loss_of, optimizer, self.workers) if self.workers > 1 else None
        self._captured: CapturedSteps | None = None
        if capture:
            if not on_gpu:
                raise ArgumentError("capture=True makes CUDA graphs, and the parameters are on the CPU: move the model to a GPU first")
            self._captured = CapturedSteps(loss_of, optimizer, average)

    def backward(self, batch: Batch, parts: int = 1) -> float:
        """Compute the gradient of a whole step into every parameter's `grad`, replacing older gradients, and return the loss.

        parts: how many parts each worker computes one after the other, so that only one part's activations are in its memory at a time.
        A loss or gradient that is not finite is no error here: it is in the returned loss, and in `grad_norm`. See `step`.

        Raises: what `loss_of` raises; an error of a worker has the same class (MinigradError for classes that are not minigrad's) and
        the worker's traceback as a note. MinigradError (worker-died) if a worker was killed. In all cases parameters are unchanged, there
        are no gradients, and the next call starts new workers. ArgumentError for parts below 1 and for a team that is closed;
        MinigradError (half-step) after a step that was not finished; GraphError (graph-owner) if the optimizer has moved to another device
        since the team, with workers or captured steps, was made.
        """
        return self._backward(batch, parts, self._captured)

    def _backward(self, batch: Batch, parts: int, captured: CapturedSteps | None) -> float:
        self._check_usable()
        check_count("parts", parts)
        self.optimizer.zero_grad()
        self.grad_norm = None
        try:
            with nullcontext() if self.scaler is None else np.errstate(over="ignore", invalid="ignore"):  # `step` notices overflow
                if self._pool is None:
                    loss = self._backward_alone(batch, parts, captured)
                else:
                    loss, self.grad_norm = self._pool.backward(batch, parts, self._loss_scale, self.max_norm is not None)
        except BaseException:
            self._stop()  # some processes may still be computing
            self.optimizer.zero_grad()
            raise
        if self.grad_norm is not None:
            self.grad_norm /= self._loss_scale
        return loss

    def step(self) -> bool:
        """Update the parameters, with the clipped gradient if there is a max_norm, and clear the gradients.

        As with an optimizer alone, a gradient that is not finite ruins the parameters, so check before calling this. With a max_norm,
        `if isfinite(loss) and isfinite(team.grad_norm)` is enough, or the same as `check` of `steps`; the next `backward` drops gradients
        that were not used. The Trainer does so (`on_nonfinite`).
        Returns False if there is a scaler and the gradient was not finite: then parameters and optimizer stay as they are.
        Raises: what `optimizer.step` raises, before anything changes. MinigradError (worker-died) if a worker was killed in the middle: the
        parameters are then partly updated, and every further call of this team raises MinigradError (half-step).
        """
        self._check_usable()
        if self.scaler is not None and self.grad_norm is not None and not isfinite(self.grad_norm):
            self.scaler.update(overflowed=True)
            self.optimizer.zero_grad()
            random.current().advance()
            return False
        clips = self.max_norm is not None and self.grad_norm is not None
        scale = (clip_coefficient(self.grad_norm, self.max_norm) if clips else 1.0) / self._loss_scale  # type: ignore[arg-type]
        updates = self.optimizer.begin_step()
        try:
            if self._pool is None:
                for update in updates:
                    self.optimizer.apply(update, scale)
            else:
                self._pool.update(updates, scale)
        except BaseException:
            self._broken = True
            self._stop()
            raise
        self.optimizer.end_step()
        self.optimizer.zero_grad()
        if self.scaler is not None:
            self.scaler.update(overflowed=False)
        return True

    def steps(
        self, batches: Iterable[Batch], parts: int = 1, check: Callable[[Batch, float], bool] | None = None
    ) -> Generator[StepResult, None, None]:
        """Make a step for each batch, `backward` and `step`; yields the results in order.

        With `capture` the update is part of the CUDA graph, and the next steps are launched before the results of this one have arrived: up
        to `AHEAD` batches are pulled early, and parameters may already include their updates. Learning rates are read when a batch has been
        pulled, so set them in the iterator of batches, not where results are received: options that are set there count from the next batch
        that is pulled. Optimizers without a captured kernel (all but Adam and AdamW) do not run ahead.

        parts: as in `backward`. check(batch, loss): decides before an update whether to make it, when the gradient is computed. For steps
        that run ahead it is called only if the loss is not finite or, with a max_norm or in parts, the gradient is not: the GPU skips their
        update, and they are computed again.
        Raises: at once ArgumentError for parts below 1, and for what gives no batches. Later as `backward` and `step`, and whatever
        `batches` raises, after the results of earlier steps. However it ends, also when the generator is closed, steps in flight are
        finished first, and the optimizer counts the updates that were made.
        """
        check_count("parts", parts)
        if not isinstance(batches, Iterable):
            raise ArgumentError(f"steps takes batches, as loader.epoch() gives them, and not {quoted(batches)}")
        return self._steps(batches, parts, check)

    def _steps(
        self, batches: Iterable[Batch], parts: int, check: Callable[[Batch, float], bool] | None
    ) -> Generator[StepResult, None, None]:
        self._check_usable()
        if self._captured is not None and self._captured.can_update:
            eager = partial(self._make_step, captured=None, parts=parts, check=check)
            yield from RunAhead(self._captured, parts, self.max_norm, self.scaler, eager).results(batches)
        else:
            for batch in batches:
                yield self._make_step(batch, self._captured, parts, check)

    def _make_step(
        self, batch: Batch, captured: CapturedSteps | None, parts: int, check: Callable[[Batch, float], bool] | None
    ) -> StepResult:
        loss = self._backward(batch, parts, captured)
        norm, applied = self.grad_norm, False
        if check is None or check(batch, loss):
            applied = self.step()
        else:
            self.optimizer.zero_grad()
            random.current().advance()
        if self.average is not None:
            self.average.update()
        return StepResult(batch, loss, norm, applied, None if self.scaler is None else self.scaler.scale)

    @property
    def _loss_scale(self) -> float:
        return 1.0 if self.scaler is None else self.scaler.scale

    def close(self) -> None:
        """End the workers and take the parameters out of shared memory."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()

    def _check_usable(self) -> None:
        if self._closed:
            raise ArgumentError("this team is closed: make a new one")
        if self.optimizer.arena is not self._arena and (self._pool is not None or self._captured is not None):
            raise GraphError("the optimizer has moved to another device since this team was made: make a new one", code="graph-owner")
        if self._broken:
            raise MinigradError(
                "a step of this team was broken off, so the parameters are neither those before it nor those after it: "
                "load the last checkpoint into the model and a new optimizer, and make a new team",
                code="half-step",
            )

    def _backward_alone(self, batch: Batch, parts: int, captured: CapturedSteps | None) -> float:
        if captured is not None and (found := captured.backward(batch, parts, self._loss_scale)) is not None:
            loss, norm = found
            self.grad_norm = None if self.max_norm is None else norm
            return loss
        stream = random.current()
        with random.at(stream.seed, stream.step):
            loss = share_of(self.loss_of, [batch] if parts == 1 else batch.split(parts), batch, self._loss_scale)
        if self.max_norm is not None:
            self.grad_norm = gradient_norm(self.optimizer)
        return loss
