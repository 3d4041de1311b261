"""Contenders as processes that take turns: one is active at a time, and the first one rotates."""

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
"""Environment variables that would keep a contender from using all cores."""

PAUSE = 0.3
"""Seconds between turns: idle BLAS threads spin for a while, and would take the next contender's cores."""

SAMPLE = 0.02
"""Seconds between two memory samples of a contender, in passes that are not timed."""

CLOSE_TIMEOUT = 10.0
"""Seconds in which a contender must end when it is closed; then it is killed."""

T = TypeVar("T")


class ContenderFailed(Exception):
    """A contender cannot do its work; the message says why. name: the contender's, when several take turns."""

    name = ""


def environment(**more: str) -> dict[str, str]:
    """The environment for child processes: this one's without thread limits, with the benchmarks' modules on the path, and `more`."""
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_LIMITS}
    paths = [str(BENCHMARKS), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | more


class Contender:
    """One contender, described as `harness.contender` reads it, in its own process.

    timeout: seconds that an answer may take, compilation included; None for no limit. Raises: ContenderFailed.
    """

    def __init__(self, description: Mapping[str, Any], variables: Mapping[str, str], timeout: float | None = None) -> None:
        self.timeout = timeout
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
        """Run an untimed pass, for forks, first touches and compilation; return its peak memory in bytes. Raises: ContenderFailed."""
        assert self.process.stdout is not None
        self._say(what)
        peak = 0
        while not select.select([self.process.stdout], [], [], SAMPLE)[0]:
            peak = max(peak, held(self.process.pid))
        self._answer()
        return max(peak, held(self.process.pid))

    def close(self) -> None:
        """End the process; kill it if it does not end in time."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # if it died, `_answer` says why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _answer(self) -> float:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], self.timeout)[0]:
            self.process.kill()
            raise ContenderFailed(f"no answer within {self.timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.close()  # it may not end by itself: a GPU's driver can hold it
            raise ContenderFailed(f"the process ended with status {self.process.returncode}")
        content = json.loads(line)
        if "error" in content:
            raise ContenderFailed(content["error"])
        return float(content["seconds"])


def take_turns(contenders: Mapping[str, Contender], what: str, rounds: int, pause: float = PAUSE) -> dict[str, list[float]]:
    """Seconds per batch of every contender in every round. Raises: ContenderFailed with the contender's name."""
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
    """An order of the names for every round; the first one rotates."""
    for i in range(rounds):
        start = i % len(names)
        yield [*names[start:], *names[:start]]
