"""The training loop: steps, evaluations, checkpoints, and error handling. Read `fit` first.

Only the weights, the optimizer and `Position` change from step to step; a checkpoint holds them. The order of the data and the dropout
follow from (seed, epoch) and (seed, step), so a run that is killed anywhere and resumed computes the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.backend.precision import check_gpu
from minigrad.backend.random import manual_seed
from minigrad.data.loader import PackedLoader
from minigrad.errors import ArgumentError, CheckpointError
from minigrad.files import listing, quoted
from minigrad.nn import Module
from minigrad.optim import AdamW, ConstantSchedule, CosineSchedule, LinearSchedule, Schedule, decay_groups, layer_groups
from minigrad.train.average import Average
from minigrad.train.checkpoints.contents import Checkpoint
from minigrad.train.checkpoints.saved import Position, restore, saved_state
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.events import LOG_NAME, Callback, JsonLog, rewind
from minigrad.train.loss_scale import LossScaler
from minigrad.train.metrics import HIGHER_IS_BETTER
from minigrad.train.objectives import LossOf, Objective
from minigrad.train.settings import TrainingSettings
from minigrad.train.signals import Interruption
from minigrad.train.stepping import Clock, StepRunner, is_due
from minigrad.train.team import Team


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. reason: "finished", "early stopping" or "interrupted". best: the step and the metrics of the best evaluation."""

    step: int
    reason: str
    best: dict[str, Any] | None
    exit_code: int = 0
    """0, or 128 + the number of the signal that interrupted the run."""


class Trainer:
    """Trains a model on the batches of a loader, evaluates it, keeps the best one and can resume after any interruption.

    objective: the loss that a step minimises. evaluate: called without arguments, with the model in evaluation mode; returns figures by
    name ("loss", "accuracy", …). output: the run's directory, for checkpoints and log.jsonl; None keeps nothing. save_model: called with
    the directory for the best model whenever an evaluation is the best so far. callbacks: functions of events (`events.py`). about: the
    description of the run in its "start" event. identity: what must be the same when the run is resumed, besides settings, model and data.

    Raises: ArgumentError for arguments of the wrong type, if nothing is left to train, and for patience without evaluations; DeviceError
    for a device or a precision that is not available.
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
        _check_arguments(model, objective, loader, settings, evaluate, output, callbacks)
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
        if self.device == "cuda":
            check_gpu(settings.precision)
        self.total = settings.steps or sum(loader.batches_in(epoch) for epoch in range(settings.epochs))
        self.optimizer = AdamW(self._groups(), lr=settings.lr)
        self.schedule = self._schedule()
        self.average = None if settings.ema is None else Average(self.optimizer, settings.ema)
        self.store = None if output is None else CheckpointStore(output / "checkpoints", keep=settings.keep)
        self.scaler = LossScaler() if settings.precision == "fp16" else None
        self.at = Position(parts=settings.parts)
        self.notices: list[str] = []
        """Messages that become "notice" events when the run starts."""

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

        resume: continue from the newest valid checkpoint in `output`, if there is one yet. force: also if settings, model or data differ
        from those it was saved with; a notice names the differences. After SIGTERM or Ctrl-C the current step is finished and saved; the
        result says so.
        Raises: CheckpointError (code exists) if `output` holds checkpoints and resume is False, (code changed) if settings, model or
        data differ; ArgumentError for resume without `output`; NonFiniteError for a loss or gradient that is not finite, which has not
        reached the optimizer; DataError and others from the data.
        """
        with ExitStack() as stack:
            if self.store is not None:
                stack.enter_context(self.store.lock())
            saved = self._begin(resume, force)
            interruption = stack.enter_context(Interruption())
            stack.enter_context(np.errstate(all="ignore"))  # instead of NumPy's warnings, one line later names what is not finite
            team = Team(
                LossOf(self.model, self.objective),
                self.optimizer,
                workers=self.settings.workers,
                max_norm=inf if self.settings.clip is None else self.settings.clip,
                scaler=self.scaler,
                average=self.average,
                capture=self.settings.capture and self.device != "cpu",
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
        self.clock = Clock(at.seconds)
        runner = StepRunner(self, team, interruption)
        while at.step < self.total and not self._stops_early():
            epoch, batches = at.epoch, self.loader.epoch(at.epoch, start=at.batch)
            while at.epoch == epoch:
                runner.run(batches)
                over = at.batch == self.loader.batches_in(epoch)
                if over:
                    at.epoch, at.batch = at.epoch + 1, 0
                last = at.step == self.total
                evaluated = self.is_evaluation_due(at.step, over)
                if evaluated:
                    self._evaluate()
                if last or interruption.signal or self._stops_early() or is_due(settings.save_every, at.step, evaluated or over):
                    self._save()
                if interruption.signal:
                    return "interrupted"
                if last or self._stops_early():
                    break
        return "early stopping" if at.step < self.total else "finished"

    def _stops_early(self) -> bool:
        return self.settings.patience is not None and self.at.worse >= self.settings.patience

    def is_evaluation_due(self, step: int, over: bool) -> bool:
        """Whether to evaluate after step number `step`. over: whether the epoch ends with it."""
        return self.evaluate is not None and (step == self.total or is_due(self.settings.evaluate_every, step, over))

    # ---------------------------------------------------------------- evaluation
    def _evaluate(self) -> None:
        assert self.evaluate is not None
        started = time.perf_counter()
        with self.model.evaluating(), self.averaged():
            metrics, metric = _figures(self.evaluate()), self.settings.metric
            if metric not in metrics:
                raise ArgumentError(f"metric = {metric!r}: the evaluation gives {listing(metrics)}")
            best = isfinite(metrics[metric]) and (self.at.best is None or self._is_better(metrics[metric], self.at.best["metrics"][metric]))
            if best:
                self.at.best, self.at.worse = {"step": self.at.step, "metrics": metrics}, 0
                if self.save_model is not None and self.output is not None:
                    self.save_model(self.output / "best")
            else:
                self.at.worse += 1
        self.clock.pause(time.perf_counter() - started)
        self.tell("evaluation", split="dev", metrics=metrics, metric=metric, best=best, seconds=time.perf_counter() - started)

    def averaged(self) -> AbstractContextManager[None]:
        """Use the weights that are evaluated and kept: their moving average if the settings ask for one."""
        return nullcontext() if self.average is None else self.average.applied()

    def _is_better(self, value: float, best: float) -> bool:
        """Whether a value is strictly better: of equal ones the first is kept."""
        return value > best if HIGHER_IS_BETTER.get(self.settings.metric, True) else value < best

    # ---------------------------------------------------------------- saving and resuming
    def _save(self) -> None:
        if self.store is not None:
            self.store.save(self.at.step, *saved_state(self))

    def _begin(self, resume: bool, force: bool) -> Checkpoint | None:
        """Start at step 0, or at the newest checkpoint; the log continues from there."""
        if resume and self.output is None:
            raise ArgumentError("a Trainer without an output keeps no checkpoints, so there is nothing to resume: name the run's directory")
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
        """Send an event to the log and the callbacks."""
        event = {"event": kind, "step": self.at.step, **fields}
        for callback in self.callbacks:
            callback(event)


def _check_arguments(model: Any, objective: Any, loader: Any, settings: Any, evaluate: Any, output: Any, callbacks: Any) -> None:
    """Raises: ArgumentError naming the first argument of a Trainer that has the wrong type."""
    expected: tuple[tuple[str, Any, Any, str], ...] = (
        ("model", model, Module, "a model, as `mg.models.load` gives it"),
        ("objective", objective, Objective, "an Objective, such as SequenceClasses() or a task's `objective`"),
        ("loader", loader, PackedLoader, "a PackedLoader, such as the `loader` of a task's examples"),
        ("settings", settings, TrainingSettings, "TrainingSettings"),
        ("output", output, Path | None, "a pathlib.Path"),
        ("callbacks", callbacks, Sequence, "a list of functions of an event"),
    )
    for name, value, kind, wanted in expected:
        if not isinstance(value, kind):
            raise ArgumentError(f"a Trainer's {name} must be {wanted}; got {quoted(value)}")
    if evaluate is not None and not callable(evaluate):
        raise ArgumentError(f"a Trainer's evaluate must be a function without arguments that gives numbers by name; got {quoted(evaluate)}")
    for callback in callbacks:
        if not callable(callback):
            raise ArgumentError(f"a Trainer's callbacks must be functions of an event; got {quoted(callback)}")


def _figures(given: Any) -> dict[str, float]:
    """The figures of an evaluation as floats. Raises: ArgumentError unless they are numbers by name."""
    try:
        return {name: float(value) for name, value in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ArgumentError(f'evaluate must give numbers by name, such as {{"loss": 0.3}}; it gave {quoted(given)}') from error
