"""The training loop: steps, evaluations, checkpoints, and what happens when something goes wrong. Read `fit` first.

All that changes from step to step is the weights, the optimizer and `Position`; a checkpoint holds them. The order of the data and the
dropped units follow from (seed, epoch) and (seed, step), so a run that is killed anywhere and resumed computes the same numbers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.backend import to_numpy
from minigrad.backend.precision import precision
from minigrad.backend.random import current, manual_seed
from minigrad.data.loader import Batch, PackedLoader
from minigrad.errors import ArgumentError, CheckpointError, NonFiniteError
from minigrad.files import listing
from minigrad.nn import Module
from minigrad.optim import AdamW, ConstantSchedule, CosineSchedule, LinearSchedule, Schedule, clip_grad_norm, decay_groups, layer_groups
from minigrad.train._contents import Checkpoint
from minigrad.train.ahead import StepResult
from minigrad.train.average import Average
from minigrad.train.checkpoints import CheckpointStore
from minigrad.train.events import LOG_NAME, Callback, JsonLog, memory_mb, rewind
from minigrad.train.loss_scale import LossScaler
from minigrad.train.metrics import HIGHER_IS_BETTER
from minigrad.train.objectives import LossOf, Objective
from minigrad.train.saved import Position, restore, saved_state
from minigrad.train.settings import TrainingSettings
from minigrad.train.signals import Interruption
from minigrad.train.team import Team

MAX_SKIPPED = 3
"""Updates that `on_nonfinite="skip"` leaves out before it stops after all."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. reason: "finished", "early stopping" or "interrupted"; best: the step and the metrics of the best evaluation."""

    step: int
    reason: str
    best: dict[str, Any] | None
    exit_code: int = 0
    """0, or 128 + the number of the signal that interrupted."""


class Trainer:
    """Trains a model on the batches of a loader, evaluates it, keeps the best one and can go on after any interruption.

    objective: what a step minimises. evaluate: called without arguments, the model in evaluation mode; gives figures by name ("loss",
    "accuracy", …). output: the run's directory, for checkpoints and log.jsonl; None keeps nothing. save_model: called with the directory
    for the best model whenever an evaluation was the best so far. callbacks: functions of events (`events.py`). about: what the "start"
    event says of the run. identity: what must be the same when the run is resumed, beside settings, model and data.

    Raises: ArgumentError if nothing is left to train, and for patience without evaluations.
    """

    def __init__(
        self,
        model: Module,
        objective: Objective,
        loader: PackedLoader,
        settings: TrainingSettings,
        *,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        output: Path | None = None,
        save_model: Callable[[Path], None] | None = None,
        callbacks: Sequence[Callback] = (),
        about: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.objective, self.loader, self.settings = model, objective, loader, settings
        self.evaluate, self.output, self.save_model, self.callbacks = evaluate, output, save_model, list(callbacks)
        self.about, self.identity = dict(about or {}), dict(identity or {})
        if output is not None:
            self.callbacks.insert(0, JsonLog(output / LOG_NAME))
        if settings.patience is not None and evaluate is None:
            raise ArgumentError(f"patience = {settings.patience} waits for better evaluations, and there is nothing to evaluate on")
        if settings.device is not None:
            model.to(settings.device)
        if settings.freeze:
            model.freeze(*settings.freeze)
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not self.named:
            raise ArgumentError(f"freeze = {listing(settings.freeze)} leaves nothing to train")
        self.total = settings.steps or sum(loader.batches_in(epoch) for epoch in range(settings.epochs))
        self.optimizer = AdamW(self._groups(), lr=settings.lr)
        self.schedule = self._schedule()
        self.average = None if settings.ema is None else Average(model, settings.ema)
        self.store = None if output is None else CheckpointStore(output / "checkpoints", keep=settings.keep)
        self.scaler = LossScaler() if settings.precision == "fp16" else None
        self.at = Position(parts=settings.parts)
        self._pulled: deque[Batch] = deque()
        """Batches that the team has been given, or will be next, and whose step is not made."""
        self._rates: deque[float] = deque()
        """The learning rates of those that it has been given."""
        self.notices: list[str] = []
        """Told when the run begins."""

    @property
    def device(self) -> str:
        """Where the model is trained: "cpu" or "cuda"."""
        return self.named[0][1].device

    def _groups(self) -> Any:
        decay = self.settings.layer_decay
        named = self.model.named_parameters()
        if decay is None:
            return decay_groups(named, self.settings.weight_decay)
        return layer_groups(named, self.settings.lr, decay, self.settings.weight_decay)

    def _schedule(self) -> Schedule:
        warmup = int(self.settings.warmup * self.total)
        if self.settings.schedule == "constant":
            return ConstantSchedule(self.optimizer, warmup)
        kind = LinearSchedule if self.settings.schedule == "linear" else CosineSchedule
        return kind(self.optimizer, warmup, self.total)

    # ---------------------------------------------------------------- the loop
    def fit(self, *, resume: bool = False, force: bool = False) -> TrainingResult:
        """Train to the end, or until a signal or early stopping.

        resume: go on from the newest valid checkpoint in `output`. force: also with other settings, another model or other data than it
        was saved with, which are then named in a notice. SIGTERM and Ctrl-C let the step be finished and saved; the result says so.
        Raises: CheckpointError (code exists) if `output` holds checkpoints and resume is False, (code changed) if they are of something
        else; NonFiniteError for a loss or gradient that is no number, the optimizer untouched by it; DataError and others from the data.
        """
        with ExitStack() as stack:
            if self.store is not None:
                stack.enter_context(self.store.lock())
            saved = self._begin(resume, force)
            interruption = stack.enter_context(Interruption())
            stack.enter_context(np.errstate(all="ignore"))  # what is not finite is found, and said in one line
            team = Team(
                LossOf(self.model, self.objective),
                self.optimizer,
                workers=self.settings.workers,
                max_norm=inf if self.settings.clip is None else self.settings.clip,
                scaler=self.scaler,
                capture=self.settings.capture,
            )
            stack.enter_context(team)
            reason = "error"
            try:
                self.tell("start", run=self.about, total_steps=self.total, resumed=saved is not None)
                while self.notices:
                    self.tell("notice", message=self.notices.pop(0))
                reason = self._train(team, interruption)
                if reason != "interrupted" and self.evaluate is not None and self.at.best is None:
                    message = f"no evaluation gave a finite {self.settings.metric}, so none is the best: the last weights are kept"
                    self.tell("notice", message=message)
            finally:
                self.tell("end", reason=reason, best=self.at.best, seconds=self.at.seconds)
        return TrainingResult(self.at.step, reason, self.at.best, interruption.exit_code if reason == "interrupted" else 0)

    def _train(self, team: Team, interruption: Interruption) -> str:
        at, settings = self.at, self.settings
        self.model.train()
        self._clock = _Clock(at.seconds, at.step)
        self._pulled.clear()
        self._rates.clear()
        while at.step < self.total and not self._is_enough():
            epoch, batches = at.epoch, self.loader.epoch(at.epoch, start=at.batch)
            while at.epoch == epoch:
                self._make(team, batches, interruption)
                over = at.batch == self.loader.batches_in(epoch)
                if over:
                    at.epoch, at.batch = at.epoch + 1, 0
                last = at.step == self.total
                evaluated = self._is_evaluation_due(at.step, over)
                if evaluated:
                    self._evaluate()
                if last or interruption.signal or self._is_enough() or _is_due(settings.save_every, at.step, evaluated or over):
                    self._save()
                if interruption.signal:
                    return "interrupted"
                if last or self._is_enough():
                    break
        return "early stopping" if at.step < self.total else "finished"

    def _is_enough(self) -> bool:
        return self.settings.patience is not None and self.at.worse >= self.settings.patience

    def _is_evaluation_due(self, step: int, over: bool) -> bool:
        return self.evaluate is not None and (step == self.total or _is_due(self.settings.evaluate_every, step, over))

    # ---------------------------------------------------------------- steps
    def _make(self, team: Team, batches: Iterator[Batch], interruption: Interruption) -> None:
        """Steps until somebody asks where exactly the training stands."""
        while not self._try_to_make(team, self._stretch(batches, interruption)):
            pass
        if self._pulled:
            message = f"no sequence of this batch has a label, so nothing is learned from rows {_rows(self._pulled[0])}"
            self.tell("notice", message=message)
            current().advance()
            self._rates.append(self._rate)
            self.schedule.step()
            self._count(self._pulled[0], None, 0.0)

    def _try_to_make(self, team: Team, stretch: Iterator[Batch]) -> bool:
        """False if the memory did not suffice for one of the steps, which is then to be made again, in more parts."""
        with closing(team.steps(stretch, self.at.parts, partial(self._may_update, team))) as steps:
            while True:
                try:
                    result = self._next(steps)
                except MemoryError as error:
                    self._divide_further(error)
                    return False
                if result is None:
                    return True
                self._count(result.batch, result.loss, result.grad_norm if isfinite(result.loss) else 0.0)

    def _divide_further(self, error: MemoryError) -> None:
        """Once in a run. Raises: MemoryError."""
        at = self.at
        if not self._pulled:  # it was no step
            raise error
        packing = self._pulled[0].tokens.packing
        if at.parts > self.settings.parts or len(packing) <= at.parts:
            raise MemoryError(
                f"step {at.step + 1}: {packing.rows} tokens in {at.parts} parts do not fit into the memory "
                f"({error}); choose a smaller batch or more parts. The last checkpoint is untouched"
            ) from error
        at.parts *= 2
        self.tell("notice", message=f"the memory did not suffice: steps are computed in {at.parts} parts from here on")
        self.schedule.load_state_dict({**self.schedule.state_dict(), "steps": at.step})  # as for the first batch that waits
        self._rates.clear()

    def _stretch(self, batches: Iterator[Batch], interruption: Interruption) -> Iterator[Batch]:
        """The next batches, up to the one after which all steps must have been made, or to one that has no label and stays in `_pulled`.

        A team that runs ahead asks for a batch before the steps of those before it are made. So the schedule is stepped here.
        """
        step, first = self.at.step, self.at.step - self.at.batch
        length = self.loader.batches_in(self.at.epoch)
        while True:
            if step - self.at.step == len(self._pulled):
                self._pulled.append(next(batches))
            batch = self._pulled[step - self.at.step]
            if self.objective.count(batch) == 0:
                return
            self._rates.append(self._rate)
            yield batch
            step += 1
            self.schedule.step()
            over = step - first == length
            evaluated = self._is_evaluation_due(step, over)
            if step == self.total or over or evaluated or _is_due(self.settings.save_every, step, False):
                return
            if interruption.signal or self.average is not None:  # which takes in the weights after every step
                return

    @property
    def _rate(self) -> float:
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def _next(self, steps: Iterator[StepResult]) -> StepResult | None:
        skipped = self.at.skipped
        with precision(self.settings.precision):
            result = next(steps, None)
        if result is not None and not result.applied and self.scaler is not None and self.at.skipped == skipped:
            message = f"step {self.at.step + 1}: a gradient overflowed in fp16, so the update was left out"
            self.tell("notice", message=f"{message}; the loss is multiplied by {self.scaler.scale:.0f} from here on")
        return result

    def _count(self, batch: Batch, loss: float | None, norm: float | None) -> None:
        """After a step, be it one that was left out."""
        at, tokens, packing = self.at, batch.tokens.packing.rows, batch.tokens.packing
        self._pulled.popleft()
        at.step += 1
        if self.average is not None:
            self.average.update()
        self._clock.count(tokens)
        at.seconds = self._clock.seconds
        self.tell(
            "step",
            epoch=at.epoch,
            loss=loss,
            lr=self._rates.popleft(),
            grad_norm=norm,
            tokens=tokens,
            tokens_per_second=self._clock.tokens_per_second,
            padding_saved=1 - tokens / (len(packing) * int(packing.lengths.max())),
            memory_mb=memory_mb(),
            seconds_left=self._clock.seconds_for(self.total - at.step),
            **({} if self.scaler is None else {"loss_scale": self.scaler.scale}),
        )
        at.batch += 1

    def _may_update(self, team: Team, batch: Batch, loss: float) -> bool:
        """Whether loss and gradient of a batch are numbers. Raises: NonFiniteError if they were not once too often."""
        try:
            if not isfinite(loss):
                raise NonFiniteError(f"the loss is {loss}{self._first_bad()}")
            assert team.grad_norm is not None  # there is a max_norm
            if not isfinite(team.grad_norm) and (self.scaler is None or self.scaler.is_least):
                clip_grad_norm(self.named, inf, error_if_nonfinite=True)  # says which gradient it is
        except NonFiniteError as error:
            self._refuse(error, batch)
            return False
        return True

    def _refuse(self, error: NonFiniteError, batch: Batch) -> None:
        """Leave an update out that would ruin the weights. Raises: NonFiniteError if it was one too many."""
        message = f"step {self.at.step + 1}: {error}, in rows {_rows(batch)} of the training data"
        self.optimizer.zero_grad()
        if self.settings.on_nonfinite == "stop" or self.at.skipped == MAX_SKIPPED:
            raise NonFiniteError(f"{message}. Weights and optimizer are as before it; a smaller learning rate may help") from error
        self.at.skipped += 1
        self.tell("notice", message=f"{message}; the update was left out ({self.at.skipped} of {MAX_SKIPPED})")

    def _first_bad(self) -> str:
        """What is not finite first: a parameter, or else a gradient."""
        for name, parameter in self.model.named_parameters():
            if not np.isfinite(to_numpy(parameter.array)).all():
                return f"; the parameter {name} is not finite"
        try:
            clip_grad_norm(self.named, inf, error_if_nonfinite=True)
        except NonFiniteError as error:
            return f"; {error}"
        return ""

    # ---------------------------------------------------------------- evaluation
    def _evaluate(self) -> None:
        assert self.evaluate is not None
        started = time.perf_counter()
        with self.model.evaluating(), self.averaged():
            metrics = {name: float(value) for name, value in self.evaluate().items()}
            metric = self.settings.metric
            if metric not in metrics:
                raise ArgumentError(f"metric = {metric!r}: the evaluation gives {listing(metrics)}")
            best = isfinite(metrics[metric]) and (self.at.best is None or self._is_better(metrics[metric], self.at.best["metrics"][metric]))
            if best:
                self.at.best, self.at.worse = {"step": self.at.step, "metrics": metrics}, 0
                if self.save_model is not None and self.output is not None:
                    self.save_model(self.output / "best")
            else:
                self.at.worse += 1
        self._clock.pause(time.perf_counter() - started)
        self.tell("evaluation", split="dev", metrics=metrics, metric=metric, best=best, seconds=time.perf_counter() - started)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside: the model has the weights that are evaluated and kept, their moving average if the settings ask for one."""
        return nullcontext() if self.average is None else self.average.applied()

    def _is_better(self, value: float, best: float) -> bool:
        """Strictly: of equal ones the first is kept."""
        return value > best if HIGHER_IS_BETTER.get(self.settings.metric, True) else value < best

    # ---------------------------------------------------------------- saving and resuming
    def _save(self) -> None:
        if self.store is not None:
            self.store.save(self.at.step, *saved_state(self))

    def _begin(self, resume: bool, force: bool) -> Checkpoint | None:
        """Start at step 0, or where the newest checkpoint is; the log goes on from there."""
        manual_seed(self.settings.seed)
        saved = None
        if self.store is not None and self.output is not None:
            if resume:
                saved = self.store.latest()
                if saved is not None:
                    restore(self, saved, force)
                elif self.store.steps():
                    message = "holds no checkpoint that is whole: nothing can be resumed. Train anew into another directory"
                    raise CheckpointError(self.store.directory, message, code="no-checkpoint")
                else:
                    self.notices.append("nothing had been saved yet, so the run begins anew")
            elif self.store.steps():
                message = "holds the checkpoints of a run: resume it, or name another directory"
                raise CheckpointError(self.store.directory, message, code="exists")
            rewind(self.output / LOG_NAME, self.at.step if saved else -1)
        return saved

    def tell(self, kind: str, **fields: Any) -> None:
        """Give an event to the log and the callbacks."""
        event = {"event": kind, "step": self.at.step, **fields}
        for callback in self.callbacks:
            callback(event)


class _Clock:
    """Seconds of training, without evaluations, and the speed of this process."""

    def __init__(self, before: float, step: int) -> None:
        self._before, self._started, self._steps, self._tokens = before, time.perf_counter(), 0, 0

    def count(self, tokens: int) -> None:
        self._steps, self._tokens = self._steps + 1, self._tokens + tokens

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
    def tokens_per_second(self) -> float:
        return self._tokens / self._elapsed

    def seconds_for(self, steps: int) -> float:
        return self._elapsed / max(self._steps, 1) * steps


def _is_due(every: int | None, step: int, otherwise: bool) -> bool:
    return otherwise if every is None else step % every == 0


def _rows(batch: Batch) -> str:
    rows = [int(row) for row in batch.rows]
    return ", ".join(map(str, rows[:40])) + (f" and {len(rows) - 40} more" if len(rows) > 40 else "")
