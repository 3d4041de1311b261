"""Running ahead: steps are launched while the GPU still makes those before them, and their results are waited for later.

So the next batch is prepared while the GPU computes, which otherwise waits for the host as long as the host has waited for it. The price is
that a loss which is not finite is seen late. The GPU sees it in time: it makes no update then, nor any launched behind it. Those steps are
taken back here, the one that failed is made in the plain way, which says what is wrong or does what it does, and the others are made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from minigrad.data.loader import Batch
from minigrad.train.captured.standing import Standing
from minigrad.train.captured.steps import AHEAD, CapturedSteps, Launched
from minigrad.train.loss_scale import LossScaler


@dataclass(frozen=True)
class StepResult:
    """A step that was made. grad_norm: before clipping; None if it is not measured. applied: whether there was an update. loss_scale: the
    scaler's factor afterwards, None without one."""

    batch: Batch
    loss: float
    grad_norm: float | None
    applied: bool
    loss_scale: float | None = None


class Ahead:
    """The steps of some batches. plain: makes one at once, without a graph. parts: as of `Team.steps`. max_norm, scaler: as of `Team`."""

    def __init__(
        self, captured: CapturedSteps, parts: int, max_norm: float | None, scaler: LossScaler | None, plain: Callable[[Batch], StepResult]
    ) -> None:
        self.captured, self.optimizer, self.plain = captured, captured.optimizer, plain
        self.parts, self.max_norm, self.scaler = parts, max_norm, scaler
        self._launched: deque[Launched] = deque()
        self._waiting: deque[tuple[Batch, Standing]] = deque()
        """Batches whose step is not launched, or no longer, with the standing in which they came."""

    def results(self, batches: Iterable[Batch]) -> Iterator[StepResult]:
        """Of each batch, in their order. An exception of `batches` comes when all before it have been delivered.

        However this ends, no step is on its way afterwards, and the host counts those that were made.
        """
        source, over = iter(batches), False
        error: Exception | None = None
        try:
            while True:
                if not self._waiting and not over:
                    try:
                        self._waiting.append((next(source), Standing.of(self.optimizer)))
                    except StopIteration:
                        over = True
                    except Exception as raised:
                        over, error = True, raised
                if self._waiting and self._launch_next():
                    if len(self._launched) > AHEAD:
                        yield self._delivered()
                elif self._launched:
                    yield self._delivered()
                elif self._waiting:
                    batch, came = self._waiting[0]
                    with self._options_of(came):
                        recorded = self.captured.record(batch, self.parts, self.max_norm, self.scaler)
                    if not (recorded and self._launch_next()):
                        self._waiting.popleft()
                        with self._options_of(came):
                            result = self.plain(batch)
                        yield result
                elif error is not None:
                    raise error
                else:
                    return
        finally:
            self._settle()

    def _launch_next(self) -> bool:
        """Whether the first of those that wait could be launched: its step is recorded."""
        batch, came = self._waiting[0]
        came.set_random()
        try:
            with self._options_of(came):
                step = self.captured.launch(batch, self.parts, self.max_norm, self.scaler)
        except Exception:
            if self._launched:  # whose results come first; then it is raised again
                return False
            raise
        if step is None:
            return False
        self._waiting.popleft()
        self._launched.append(step)
        return True

    def _delivered(self) -> StepResult:
        """The result of the oldest step on its way; if that was not made, it is now, and those behind it wait again."""
        first = self._launched[0]
        loss, norm = first.result()
        if first.is_finite():
            self._launched.popleft()
            return StepResult(first.batch, loss, None if self.max_norm is None else norm, True, first.loss_scale)
        self._take_back(first)
        self._waiting.extendleft((step.batch, step.before) for step in reversed(self._launched) if step is not first)
        self._launched.clear()
        with self._options_of(first.before):
            return self.plain(first.batch)

    @contextmanager
    def _options_of(self, came: Standing) -> Iterator[None]:
        """Inside: the options with which a batch came. Afterwards the newest, be they set where batches come from or where results go."""
        now = Standing.of(self.optimizer)
        came.set_options(self.optimizer)
        try:
            yield
        finally:
            now.set_options(self.optimizer)

    def _take_back(self, failed: Launched) -> None:
        """Count neither a step that was not finite nor those behind it, none of which has changed anything."""
        self._launched[-1].result()  # it is over, and so are all before it
        self.captured.resume()
        failed.before.set_counts(self.optimizer)
        failed.before.set_scaling(self.scaler)
        failed.before.set_random()

    def _settle(self) -> None:
        """Wait for the steps on their way, whose results nobody will ask for."""
        failed = next((step for step in self._launched if not step.is_finite()), None)
        if failed is not None:
            self._take_back(failed)
        self._launched.clear()
