"""The steps of a trainer, from one evaluation or checkpoint to the next.

A team that runs ahead asks for batches before it has made the steps of earlier ones. So the batches it was given are kept here, the
schedule is stepped when a batch is given, and everything else is counted when its result comes.
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
"""Steps by whose speed the log says how fast a training is, and how long it will go on."""

MAX_SKIPPED = 3
"""Updates that `on_nonfinite="skip"` leaves out before it stops after all."""


class Stepping:
    """Makes the steps of a trainer by its team, counts them, and tells of each."""

    def __init__(self, trainer: Trainer, team: Team, interruption: Interruption) -> None:
        self.trainer, self.team, self.interruption, self.at = trainer, team, interruption, trainer.at
        self._pulled: deque[Batch] = deque()
        """Batches that the team has been given, or will be next, and whose step is not made."""
        self._rates: deque[float] = deque()
        """The learning rates of those that it has been given."""

    def make(self, batches: Iterator[Batch]) -> None:
        """Make steps up to the next one after which there is something else to do: an evaluation, a checkpoint, the end."""
        while not self._try_to_make(self._stretch(batches)):
            pass
        if self._pulled and self.trainer.objective.count(self._pulled[0]) == 0:  # any other batch here was put off by a signal
            message = f"no sequence of this batch has a label, so nothing is learned from rows {_rows(self._pulled[0])}"
            self.trainer.tell("notice", message=message)
            current().advance()
            self._rates.append(self._rate)
            self.trainer.schedule.step()
            if self.trainer.average is not None:
                self.trainer.average.update()
            self._count(self._pulled[0], None, 0.0, None if self.trainer.scaler is None else self.trainer.scaler.scale)

    def _try_to_make(self, stretch: Iterator[Batch]) -> bool:
        """False if the memory did not suffice for one of the steps, which is then to be made again, in more parts."""
        with closing(self.team.steps(stretch, self.at.parts, self._may_update)) as steps:
            while True:
                try:
                    result = self._next(steps)
                except MemoryError as error:
                    self._make_room(error)
                    return False
                if result is None:
                    return True
                self._count(result.batch, result.loss, result.grad_norm if isfinite(result.loss) else 0.0, result.loss_scale)

    def _make_room(self, error: MemoryError) -> None:
        """Before a step is made again: give up the graphs that evaluations keep, or if there are none, divide the step further.

        Raises: MemoryError.
        """
        if not self._pulled:  # no step was under way
            raise error
        if not forget_graphs():
            self._divide_further(error)
        schedule = self.trainer.schedule
        schedule.load_state_dict({**schedule.state_dict(), "steps": self.at.step})  # back to where the step began
        self._rates.clear()

    def _divide_further(self, error: MemoryError) -> None:
        """Compute steps in twice as many parts from here on. Raises: MemoryError the second time, and where nothing is left to divide."""
        at = self.at
        packing = self._pulled[0].tokens.packing
        if at.parts > self.trainer.settings.parts or len(packing) <= at.parts:
            raise MemoryError(
                f"step {at.step + 1}: {packing.rows} tokens in {at.parts} parts do not fit into the memory "
                f"({error}); choose a smaller batch or more parts. The last checkpoint is untouched"
            ) from error
        at.parts *= 2
        self.trainer.tell("notice", message=f"the memory did not suffice: steps are computed in {at.parts} parts from here on")

    def _stretch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The next batches, up to the one after which all steps must have been made, or to one that has no label and stays in `_pulled`.

        A team that runs ahead asks for a batch before the steps of those before it are made. So the schedule is stepped here.
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
        """Count a step and tell of it, also if it changed nothing. loss: None if no sequence of the batch has a label."""
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
        """Whether loss and gradient of a batch are numbers. Raises: NonFiniteError if they were not once too often."""
        try:
            if not isfinite(loss):
                raise NonFiniteError(f"the loss is {loss}{self._first_bad()}")
            assert self.team.grad_norm is not None  # computed, because the team has a max_norm
            if not isfinite(self.team.grad_norm) and (self.trainer.scaler is None or self.trainer.scaler.is_least):
                clip_grad_norm(self.trainer.named, inf, error_if_nonfinite=True)  # raises, and says which gradient it is
        except NonFiniteError as error:
            self._refuse(error, batch)
            return False
        return True

    def _refuse(self, error: NonFiniteError, batch: Batch) -> None:
        """Leave an update out that would ruin the weights. Raises: NonFiniteError if it was one too many."""
        message = f"step {self.at.step + 1}: {error}, in rows {_rows(batch)} of the training data"
        self.trainer.optimizer.zero_grad()
        if self.trainer.settings.on_nonfinite == "stop" or self.at.skipped == MAX_SKIPPED:
            raise NonFiniteError(f"{message}. Weights and optimizer are as before it; a smaller learning rate may help") from error
        self.at.skipped += 1
        self.trainer.tell("notice", message=f"{message}; the update was left out ({self.at.skipped} of {MAX_SKIPPED})")

    def _first_bad(self) -> str:
        """What is not finite first: a parameter, or else a gradient."""
        for name, parameter in self.trainer.model.named_parameters():
            if not np.isfinite(to_numpy(parameter.array)).all():
                return f"; the parameter {name} is not finite"
        try:
            clip_grad_norm(self.trainer.named, inf, error_if_nonfinite=True)
        except NonFiniteError as error:
            return f"; {error}"
        return ""


class Clock:
    """Seconds of training, without evaluations, and the speed of this process over its last steps.

    The very first step does not count once there are others: kernels may have been compiled in it.
    """

    def __init__(self, before: float) -> None:
        self._before, self._started = before, time.perf_counter()
        self._ends = deque([(0.0, 0)], maxlen=RECENT + 1)
        """Seconds and tokens from the beginning to the end of each of the last steps, and of the one before them."""

    def count(self, tokens: int) -> None:
        """A step has ended."""
        if len(self._ends) == 2 and self._ends[0] == (0.0, 0):
            self._ends.popleft()
        self._ends.append((self._elapsed, self._ends[-1][1] + tokens))

    def pause(self, seconds: float) -> None:
        """Do not count the last `seconds`."""
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
