"""Contenders as processes, and the turns they take: one is active at a time, and nobody is always the first."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harness.memory import held

BENCHMARKS = Path(__file__).resolve().parents[1]

THREAD_LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that would keep a contender from the cores it is to use."""

PAUSE = 0.3
"""Seconds between turns: BLAS threads keep turning for a while when they have nothing to do, and would take the next one's cores."""

SAMPLE = 0.02
"""Seconds between two looks at the memory of a contender, in passes that are not timed."""

CLOSING = 10.0
"""Seconds in which a contender ends that has nothing more to do; then it is killed."""

T = TypeVar("T")


class ContenderFailed(Exception):
    """A contender cannot do its work; the message says why. name: which one, where several take turns."""

    name = ""


def environment(**more: str) -> dict[str, str]:
    """For child processes: this one's without limits of threads, the benchmarks' modules within reach, and `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_LIMITS}
    paths = [str(BENCHMARKS), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | more


class Contender:
    """One contender, described as `harness.contender` reads it, in a process of its own.

    patience: seconds that an answer may take, compilation included; None: as long as it takes. Raises: ContenderFailed.
    """

    def __init__(self, description: Mapping[str, Any], variables: Mapping[str, str], patience: float | None = None) -> None:
        self.patience = patience
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.contender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(**variables),
        )
        self._say(json.dumps(description))
        try:
            self._answer()
        except ContenderFailed:
            self.close()
            raise

    def time(self, what: str) -> float:
        """Seconds per batch of one pass. Raises: ContenderFailed."""
        self._say(what)
        return self._answer()

    def warm_up(self, what: str) -> int:
        """One pass that is not timed, for forks, first touches and compilation; the most bytes held meanwhile. Raises: ContenderFailed."""
        assert self.process.stdout is not None
        self._say(what)
        peak = 0
        while not select.select([self.process.stdout], [], [], SAMPLE)[0]:
            peak = max(peak, held(self.process.pid))
        self._answer()
        return max(peak, held(self.process.pid))

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # what it died of, or that it did, is the answer
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _answer(self) -> float:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], self.patience)[0]:
            self.process.kill()
            raise ContenderFailed(f"no answer within {self.patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.close()  # it may not end by itself: a GPU's driver can hold it
            raise ContenderFailed(f"the process ended with status {self.process.returncode}")
        content = json.loads(line)
        if "error" in content:
            raise ContenderFailed(content["error"])
        return float(content["seconds"])


def take_turns(contenders: Mapping[str, Contender], what: str, rounds: int, pause: float = PAUSE) -> dict[str, list[float]]:
    """Seconds per batch of every contender in every round. Raises: ContenderFailed, which names it."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for order in rotated(list(contenders), rounds):
        for name in order:
            time.sleep(pause)
            try:
                found[name].append(contenders[name].time(what))
            except ContenderFailed as error:
                error.name = name
                raise
    return found


def rotated(names: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """An order of the names for every round, so that nobody is always the first."""
    for i in range(rounds):
        start = i % len(names)
        yield [*names[start:], *names[:start]]
