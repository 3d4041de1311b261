"""Progress of long work on standard error: a bar on a terminal, and elsewhere (in a log file, say) a line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

from minigrad.errors import MissingExtraError

LINE_SECONDS = 30.0
"""Seconds between lines of progress, where there is no terminal."""
BAR_SECONDS = 1.0
"""Seconds before a bar appears."""


def progress_bar(total: int | None, shown: bool) -> Any:
    """A progress bar for `total` texts (None: unknown): a context manager with `n` and `update(count)`.

    On a terminal it is tqdm's; elsewhere it prints a line every half minute. Quick work shows nothing, and nothing is shown unless `shown`.
    Raises: as `bar_class`.
    """
    if not shown or sys.stderr is None or sys.stderr.closed:
        return SilentProgress()
    return bar_class()(total=total, unit="text", delay=BAR_SECONDS) if sys.stderr.isatty() else PrintedProgress(total)


def bar_class() -> Any:
    """tqdm, which draws the bars on a terminal; the tokenizers library needs it too. Raises: MissingExtraError if it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingExtraError("bars of progress are drawn by tqdm, which cannot be imported: pip install tqdm") from error
    return tqdm


class SilentProgress:
    """A progress bar that shows nothing."""

    def __init__(self) -> None:
        self.n = 0

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        self.n += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class PrintedProgress(SilentProgress):
    """Prints how many texts are done, how fast, and with a `total` how long the rest will take."""

    def __init__(self, total: int | None) -> None:
        super().__init__()
        self._total = total
        self._began = self._told = time.monotonic()

    def update(self, count: int = 1) -> None:
        super().update(count)
        now = time.monotonic()
        if not self.n or now - self._told < LINE_SECONDS:
            return
        self._told = now
        rate = self.n / max(now - self._began, 1e-9)
        of = "" if self._total is None else f" of {self._total}"
        left = "" if self._total is None else f", {timedelta(seconds=round((self._total - self.n) / rate))} left"
        with suppress(OSError, ValueError):  # standard error is closed
            print(f"{self.n}{of} texts, {rate:.1f} texts/s{left}", file=sys.stderr, flush=True)
