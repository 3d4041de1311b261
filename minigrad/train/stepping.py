"""The steps of a trainer, from one evaluation or checkpoint to the next.

A team that runs ahead pulls batches before the steps of earlier ones are made. So pulled batches are queued here, the schedule is stepped
when a batch is pulled, and everything else is counted when its result arrives.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from minigrad.backend import graph_memory, to_numpy
from minigrad.backend.precision import precision
from minigrad.backend.random import current
from minigrad.data.loader import Batch
from minigrad.errors import NonFiniteError
from minigrad.optim import clip_grad_norm
from minigrad.train.captured.ahead import StepResult
from minigrad.train.events import memory_mb
from minigrad.train.signals import Interruption
from minigrad.train.team import Team
from minigrad.workers.replicas import forget_graphs

if TYPE_CHECKING:
    from minigrad.train.trainer import Trainer

RECENT = 100
"""The number of recent steps over which the log measures speed and estimates the remaining time."""

MAX_SKIPPED = 3
"""The number of updates that `on_nonfinite="skip"` leaves out; at the next one the training stops."""


class StepRunner:
    """Runs the steps of a trainer with its team, counts them, and sends an event for each."""

    def __init__(self, trainer: Trainer, team: Team, interruption: Interruption) -> None:
        self.trainer, self.team, self.interruption, self.at = trainer, team, interruption, trainer.at
        self._pulled: deque[Batch] = deque()
        """Batches whose step is not made yet: those that the team has pulled, and perhaps the next one."""
        self._rates: deque[float] = deque()
        """The learning rates of the batches that the team has pulled."""

    def run(self, batches: Iterator[Batch]) -> None:
        """Make steps up to the next evaluation, checkpoint, or the end."""
        while not self._try(self._batches_to_run(batches)):
            pass
        if self._pulled and self.trainer.objective.count(self._pulled[0]) == 0:  # any other batch here waits because of a signal
            message = f"no sequence of this batch has a label, so nothing is learned from rows {_rows(self._pulled[0])}"
            self.trainer.tell("notice", message=message)
            current().advance()
            self._rates.append(self._rate)
            self.trainer.schedule.step()
            if self.trainer.average is not None:
                self.trainer.average.update()
            self._count(self._pulled[0], None, 0.0, None if self.trainer.scaler is None else self.trainer.scaler.scale)

    def _try(self, batches: Iterator[Batch]) -> bool:
        """Make the steps of some batches. False if memory ran out during a step, which is then to be repeated."""
        with closing(self.team.steps(batches, self.at.parts, self._may_update)) as steps:
            while True:
                try:
                    result = self._next(steps)
                except MemoryError as error:
                    self._free_memory(error)
                    return False
                if result is None:
                    return True
                self._count(result.batch, result.loss, result.grad_norm if isfinite(result.loss) else 0.0, result.loss_scale)

    def _free_memory(self, error: MemoryError) -> None:
        """Before a step is repeated: drop the CUDA graphs of evaluations, or if there are none, compute it in more parts.

        Raises: MemoryError.
        """
        if not self._pulled:  # the error was not raised by a step
            raise error
        if not forget_graphs():
            self._split_further(error)
        schedule = self.trainer.schedule
        schedule.load_state_dict({**schedule.state_dict(), "steps": self.at.step})  # back to where the step began
        self._rates.clear()

    def _split_further(self, error: MemoryError) -> None:
        """Compute steps in twice as many parts from here on. Raises: MemoryError the second time, and if there are not enough sequences."""
        at = self.at
        packing = self._pulled[0].tokens.packing
        if at.parts > self.trainer.settings.parts or len(packing) <= at.parts:
            raise MemoryError(
                f"step {at.step + 1}: {packing.rows} tokens in {at.parts} parts do not fit into the memory "
                f"({error}); choose a smaller batch or more parts. The last checkpoint is untouched"
            ) from error
        at.parts *= 2
        self.trainer.tell("notice", message=f"out of memory: steps are computed in {at.parts} parts from here on")

    def _batches_to_run(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The next batches, up to the next evaluation, checkpoint or end, or to a batch without labels, which stays in `_pulled`.

        The schedule is stepped here, because a team that runs ahead pulls batches before earlier steps are made.
        """
        step, first = self.at.step, self.at.step - self.at.batch
        length = self.trainer.loader.batches_in(self.at.epoch)
        while True:
            if step - self.at.step == len(self._pulled):
                self._pulled.append(next(batches))
            batch = self._pulled[step - self.at.step]
            if self.trainer.objective.count(batch) == 0:
                return
            self._rates.append(self._rate)
            yield batch
            step += 1
            self.trainer.schedule.step()
            over = step - first == length
            evaluated = self.trainer.is_evaluation_due(step, over)
            if step == self.trainer.total or over or evaluated or is_due(self.trainer.settings.save_every, step, False):
                return
            if self.interruption.signal:
                return

    @property
    def _rate(self) -> float:
        return float(max(group["lr"] for group in self.trainer.optimizer.param_groups))

    def _next(self, steps: Iterator[StepResult]) -> StepResult | None:
        skipped = self.at.skipped
        with precision(self.trainer.settings.precision):
            result = next(steps, None)
        if result is not None and not result.applied and self.trainer.scaler is not None and self.at.skipped == skipped:
            message = f"step {self.at.step + 1}: a gradient overflowed in fp16, so the update was left out"
            self.trainer.tell("notice", message=f"{message}; the loss is multiplied by {self.trainer.scaler.scale:.0f} from here on")
        return result

    def _count(self, batch: Batch, loss: float | None, norm: float | None, loss_scale: float | None) -> None:
        """Count a step and send its event, also if it changed nothing. loss: None if no sequence of the batch has a label."""
        at, tokens, packing = self.at, batch.tokens.packing.rows, batch.tokens.packing
        self._pulled.popleft()
        at.step += 1
        self.trainer.clock.count(tokens)
        at.seconds = self.trainer.clock.seconds
        self.trainer.tell(
            "step",
            epoch=at.epoch,
            loss=loss,
            lr=self._rates.popleft(),
            grad_norm=norm,
            tokens=tokens,
            tokens_per_second=self.trainer.clock.tokens_per_second,
            padding_saved=1 - tokens / (len(packing) * int(packing.lengths.max())),
            memory_mb=memory_mb(),
            **({} if self.trainer.device == "cpu" else {"gpu_memory_mb": graph_memory.gpu_memory() / 2**20}),
            seconds_left=self.trainer.clock.seconds_for(self.trainer.total - at.step),
            **({} if loss_scale is None else {"loss_scale": loss_scale}),
        )
        at.batch += 1

    def _may_update(self, batch: Batch, loss: float) -> bool:
        """Whether loss and gradient of a batch are finite. Raises: NonFiniteError if not, and no update may be skipped (any more)."""
        try:
            if not isfinite(loss):
                raise NonFiniteError(f"the loss is {loss}{self._first_not_finite()}")
            assert self.team.grad_norm is not None  # computed, because the team has a max_norm
            if not isfinite(self.team.grad_norm) and (self.trainer.scaler is None or self.trainer.scaler.is_least):
                clip_grad_norm(self.trainer.named, inf, error_if_nonfinite=True)  # raises, and says which gradient it is
        except NonFiniteError as error:
            self._skip_update(error, batch)
            return False
        return True

    def _skip_update(self, error: NonFiniteError, batch: Batch) -> None:
        """Skip an update that would ruin the weights. Raises: NonFiniteError if the settings do not allow that (any more)."""
        message = f"step {self.at.step + 1}: {error}, in rows {_rows(batch)} of the training data"
        self.trainer.optimizer.zero_grad()
        if self.trainer.settings.on_nonfinite == "stop" or self.at.skipped == MAX_SKIPPED:
            raise NonFiniteError(f"{message}. Weights and optimizer are as before it; a smaller learning rate may help") from error
        self.at.skipped += 1
        self.trainer.tell("notice", message=f"{message}; the update was left out ({self.at.skipped} of {MAX_SKIPPED})")

    def _first_not_finite(self) -> str:
        """The first parameter that is not finite, or else the first such gradient, for a message."""
        for name, parameter in self.trainer.model.named_parameters():
            if not np.isfinite(to_numpy(parameter.array)).all():
                return f"; the parameter {name} is not finite"
        try:
            clip_grad_norm(self.trainer.named, inf, error_if_nonfinite=True)
        except NonFiniteError as error:
            return f"; {error}"
        return ""


class Clock:
    """Measures the seconds of training, without evaluations, and the speed of this process over its last steps.

    The very first step is ignored once there are others: it may have compiled kernels.
    """

    def __init__(self, before: float) -> None:
        self._before, self._started = before, time.perf_counter()
        self._ends = deque([(0.0, 0)], maxlen=RECENT + 1)
        """Seconds and tokens since the start, at the end of each of the last steps and of the one before them."""

    def count(self, tokens: int) -> None:
        """Count a finished step."""
        if len(self._ends) == 2 and self._ends[0] == (0.0, 0):
            self._ends.popleft()
        self._ends.append((self._elapsed, self._ends[-1][1] + tokens))

    def pause(self, seconds: float) -> None:
        """Leave the last `seconds` out."""
        self._started += seconds

    @property
    def _elapsed(self) -> float:
        return max(time.perf_counter() - self._started, 1e-9)

    @property
    def seconds(self) -> float:
        return self._before + self._elapsed

    @property
    def _recent(self) -> tuple[float, int]:
        """Seconds and tokens of the last steps."""
        (started, tokens), (ended, tokens_then) = self._ends[0], self._ends[-1]
        return max(ended - started, 1e-9), tokens_then - tokens

    @property
    def tokens_per_second(self) -> float:
        seconds, tokens = self._recent
        return tokens / seconds

    def seconds_for(self, steps: int) -> float:
        return self._recent[0] / max(len(self._ends) - 1, 1) * steps


def is_due(every: int | None, step: int, otherwise: bool) -> bool:
    return otherwise if every is None else step % every == 0


def _rows(batch: Batch) -> str:
    rows = [int(row) for row in batch.rows]
    return ", ".join(map(str, rows[:40])) + (f" and {len(rows) - 40} more" if len(rows) > 40 else "")
