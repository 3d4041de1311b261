"""minigrad's side on a GPU: a training loop that reads its loss now and then, not in every step."""

from __future__ import annotations

import logging
import time

import minigrad as mg
from harness.ours import Minigrad
from harness.work import Work


class NotCaptured(logging.Handler):
    """Raises log messages about steps that are not captured, which would otherwise be timed as captured ones."""

    def emit(self, record: logging.LogRecord) -> None:
        if "captured" in record.getMessage():
            raise RuntimeError(record.getMessage())


class MinigradOnDevice(Minigrad):
    """precision: of the matrix products, as `mg.precision` takes it; captured: training by a team that replays CUDA graphs."""

    def __init__(self, work: Work, device: str, precision: str, captured: bool) -> None:
        super().__init__(work, workers=1, capture=captured)
        logging.getLogger("minigrad").addHandler(NotCaptured())
        self.model.to(device)
        self.precision = precision

    def train(self) -> float:
        """Seconds per batch of a pass of training steps, until the last loss is on the host; a team fetches every loss."""
        optimizer, started = self.optimizer, time.perf_counter()
        with mg.precision(self.precision):
            if self.capture:
                for _ in self.team.steps(self.batches):
                    pass
                return (time.perf_counter() - started) / len(self.batches)
            for batch in self.batches:
                loss = self.objective.loss(self.model, batch, batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            loss.item()
        return (time.perf_counter() - started) / len(self.batches)

    def infer(self) -> float:
        """Seconds per batch of a pass of predictions."""
        with mg.precision(self.precision):
            return super().infer()
