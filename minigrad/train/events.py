"""The events of a run, and the callbacks that log or show them.

An event is a dict with "event" (start, step, evaluation, notice or end) and "step". A callback is any function of an event. Those here
write log.jsonl, draw a progress bar or print plain lines, and feed TensorBoard. A closed terminal or a broken pipe silences the output: it
must not end a training.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from minigrad.data.progress import LINE_SECONDS, bar_class
from minigrad.errors import DataError, MissingExtraError
from minigrad.files import replacing
from minigrad.train.not_finite import named

Event = Mapping[str, Any]
Callback = Callable[[Event], None]

LOG_NAME = "log.jsonl"


class JsonLog:
    """Appends every event to a .jsonl file at once, as one line, so that the log can be read while the run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        line = json.dumps(named(dict(event)), ensure_ascii=False) + "\n"
        with open(self.path, "ab") as file:  # opening in text mode takes twice as long, which short steps would notice
            file.write(line.encode())


def rewind(path: Path, step: int) -> None:
    """Remove the events after `step` from a log: a resumed run repeats them. The file is replaced atomically."""
    if not path.exists():
        return
    with open(path, "rb") as old, replacing(path) as new:
        for line in old:
            try:
                event = json.loads(line)
            except ValueError:  # a line torn by the crash that ended the run
                break
            if not isinstance(event, dict) or not isinstance(event.get("step"), int):
                raise DataError(path, "is not the log of a run: a line has no step", code="bad-log")
            if event["step"] > step:
                break
            new.write(line)


class Progress:
    """A progress bar on standard error; without a terminal, a line every half minute. Evaluations and notices are lines of their own.

    Raises: as `bar_class`.
    """

    def __init__(self) -> None:
        self._tqdm, self._bar, self._next_line = bar_class(), None, 0.0
        self._silent = sys.stderr is None or sys.stderr.closed

    def __call__(self, event: Event) -> None:
        if self._silent:
            return
        try:
            self._show(event)
        except (OSError, ValueError):  # a pipe without a reader, a stream that was closed
            self._silent = True

    def _show(self, event: Event) -> None:
        kind, step = event["event"], event["step"]
        terminal = sys.stderr.isatty()
        if kind == "start" and terminal:
            self._bar = self._tqdm(total=event["total_steps"], initial=step, unit="step", file=sys.stderr)
        elif kind == "step" and self._bar is not None:
            self._bar.set_postfix(loss=_shown(event["loss"]), tokens_per_s=f"{event['tokens_per_second']:.0f}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif kind == "step" and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            left = timedelta(seconds=round(event["seconds_left"]))
            self._line(f"step {step}: loss {_shown(event['loss'])}, {event['tokens_per_second']:.0f} tokens/s, {left} left")
        elif kind == "evaluation":
            figures = ", ".join(
                f"{name} {value:.4f}" for name, value in event["metrics"].items() if name == "loss" or name == event["metric"]
            )
            self._line(f"step {step}: {event['split']} {figures}{' (best so far)' if event['best'] else ''}")
        elif kind == "notice":
            self._line(f"step {step}: {event['message']}")
        elif kind == "end" and self._bar is not None:
            self._bar.close()

    def _line(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _shown(loss: float | None) -> str:
    return "none" if loss is None else f"{loss:.4f}"


class TensorBoard:
    """Feeds losses, learning rates, speeds and metrics to TensorBoard, through the tensorboardX package (extra `tensorboard`).

    A file is opened when the run starts, and the steps that a resumed run repeats replace the old ones.
    Raises: MissingExtraError.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except Exception as error:  # an old one raises TypeError beside a new protobuf
            reason = f"which cannot be imported ({type(error).__name__})"
            raise MissingExtraError(
                f'TensorBoard files are written by tensorboardX, {reason}: pip install "minigrad-nn[tensorboard]"'
            ) from error
        self._open = partial(SummaryWriter, str(directory))
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        if self._writer is None:  # a unique name: tensorboardX overwrites files that were opened in the same second
            self._writer = self._open(purge_step=event["step"] + 1, filename_suffix=f".{event['event']}-{event['step']}")
        if event["event"] == "step":
            figures = {f"train/{name}": event[name] for name in ("loss", "lr", "grad_norm", "tokens_per_second")}
        elif event["event"] == "evaluation":
            figures = {f"{event['split']}/{name}": value for name, value in event["metrics"].items()}
        else:
            figures = {}
        for name, value in figures.items():
            if value is not None:  # a step without labels has no loss
                self._writer.add_scalar(name, value, event["step"])
        if event["event"] == "end" or event.get("split") == "test":  # the test evaluation comes after the end, and has reopened a file
            self._writer.close()
            self._writer = None


def memory_mb() -> float:
    """Resident memory of this process in MiB; 0 if the system does not report it."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0
