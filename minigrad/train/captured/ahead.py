"""Running ahead: steps are launched while the GPU still computes earlier ones, and their results are collected later.

So the host prepares the next batch while the GPU computes, instead of each waiting for the other in turn. The price is that the host learns
late of a loss that is not finite. The GPU notices in time: it skips that update and every one launched after it. Those steps are rolled
back here; the failed one then runs eagerly, which reports the error or handles it, and the others are launched again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from minigrad.data.loader import Batch
from minigrad.train.captured.host_state import HostState
from minigrad.train.captured.steps import AHEAD, CapturedSteps, LaunchedStep
from minigrad.train.loss_scale import LossScaler


@dataclass(frozen=True)
class StepResult:
    """The result of a step. grad_norm: before clipping; None if it is not measured. applied: whether there was an update. loss_scale: the
    scaler's factor afterwards, None without a scaler."""

    batch: Batch
    loss: float
    grad_norm: float | None
    applied: bool
    loss_scale: float | None = None


class RunAhead:
    """Runs the steps of some batches ahead. eager: runs one step eagerly. parts: as in `Team.steps`. max_norm, scaler: as in `Team`."""

    def __init__(
        self, captured: CapturedSteps, parts: int, max_norm: float | None, scaler: LossScaler | None, eager: Callable[[Batch], StepResult]
    ) -> None:
        self.captured, self.optimizer, self.eager = captured, captured.optimizer, eager
        self.parts, self.max_norm, self.scaler = parts, max_norm, scaler
        self._launched: deque[LaunchedStep] = deque()
        self._waiting: deque[tuple[Batch, HostState]] = deque()
        """Batches whose step is not launched, or was rolled back, with the host's state when they were pulled."""

    def results(self, batches: Iterable[Batch]) -> Iterator[StepResult]:
        """The results of the batches, in order. An exception raised by `batches` is raised again after all results before it.

        However this ends, no step is in flight afterwards, and the host has counted the steps that were made.
        """
        source, over = iter(batches), False
        error: Exception | None = None
        try:
            while True:
                if not self._waiting and not over:
                    try:
                        self._waiting.append((next(source), HostState.of(self.optimizer)))
                    except StopIteration:
                        over = True
                    except Exception as raised:
                        over, error = True, raised
                if self._waiting and self._launch_next():
                    if len(self._launched) > AHEAD:
                        yield self._oldest_result()
                elif self._launched:
                    yield self._oldest_result()
                elif self._waiting:
                    batch, state = self._waiting[0]
                    with self._options_of(state):
                        captured = self.captured.capture(batch, self.parts, self.max_norm, self.scaler)
                    if not (captured and self._launch_next()):
                        self._waiting.popleft()
                        with self._options_of(state):
                            result = self.eager(batch)
                        yield result
                elif error is not None:
                    raise error
                else:
                    return
        finally:
            self._drain()

    def _launch_next(self) -> bool:
        """Launch the step of the first waiting batch. Returns whether it was captured and could be launched."""
        batch, state = self._waiting[0]
        state.restore_random()
        try:
            with self._options_of(state):
                step = self.captured.launch(batch, self.parts, self.max_norm, self.scaler)
        except Exception:
            if self._launched:  # their results come first; the next try raises this again
                return False
            raise
        if step is None:
            return False
        self._waiting.popleft()
        self._launched.append(step)
        return True

    def _oldest_result(self) -> StepResult:
        """The result of the oldest step in flight. If the GPU skipped it, it runs eagerly now, and those behind it wait again."""
        first = self._launched[0]
        loss, norm = first.result()
        if first.is_finite():
            self._launched.popleft()
            return StepResult(first.batch, loss, None if self.max_norm is None else norm, True, first.loss_scale)
        self._roll_back(first)
        self._waiting.extendleft((step.batch, step.before) for step in reversed(self._launched) if step is not first)
        self._launched.clear()
        with self._options_of(first.before):
            return self.eager(first.batch)

    @contextmanager
    def _options_of(self, state: HostState) -> Iterator[None]:
        """Use the optimizer options that were set when a batch was pulled. On leaving, the newest options are back."""
        newest = HostState.of(self.optimizer)
        state.restore_options(self.optimizer)
        try:
            yield
        finally:
            newest.restore_options(self.optimizer)

    def _roll_back(self, failed: LaunchedStep) -> None:
        """Roll the host's counts back to before a step that was not finite. The GPU has skipped its update and all those behind it."""
        self._launched[-1].result()  # waits for it, and so for all before it
        self.captured.resume()
        failed.before.restore_counts(self.optimizer)
        failed.before.restore_scaling(self.scaler)
        failed.before.restore_random()

    def _drain(self) -> None:
        """Wait for the steps in flight and drop their results."""
        failed = next((step for step in self._launched if not step.is_finite()), None)
        if failed is not None:
            self._roll_back(failed)
        self._launched.clear()
