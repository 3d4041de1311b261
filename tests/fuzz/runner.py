"""Reading one input under watch, and campaigns of many.

An input must be read or refused within a second and 256 MB; reading it may open nothing outside of the scratch folder, write nothing,
import nothing, start nothing and reach no network. Python's audit events tell.
"""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

from fuzz.mutations import spliced
from fuzz.targets import TARGETS, Target

SECONDS = 1.0
HANG_SECONDS = 20
MEGABYTES = 256
MESSAGE_CHARS = 3000  # at most twenty quoted names of 80 characters, escaped, and words around them
TRACED = 25  # memory is counted exactly for one input in so many, because that makes Python several times slower

_READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_DIRECTORY
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.", "urllib.", "http.", "ctypes.")
_FORBIDDEN += ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.", "tempfile.")
_FORBIDDEN += ("import", "compile", "exec", "pickle.", "marshal.", "mmap.")


class Watch:
    """What Python is asked to do while armed, of all that reading a file has no need of."""

    def __init__(self) -> None:
        self.scratch: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.scratch is None:
            return
        if event == "open":
            path, _, flags = arguments
            inside = isinstance(path, int) or os.fsdecode(path).startswith(str(self.scratch))  # a number: a file that is open already
            if not inside or (isinstance(flags, int) and not isinstance(path, int) and flags & ~_READ_ONLY):
                self.seen.append(f"open {path!r} with the flags {flags}")
        elif event.startswith(_FORBIDDEN):
            self.seen.append(f"{event} {str(arguments)[:200]}")

    @contextmanager
    def armed(self, scratch: Path) -> Iterator[None]:
        self.seen.clear()
        self.scratch = scratch
        try:
            yield
        finally:
            self.scratch = None


WATCH = Watch()  # one for the process: an audit hook cannot be taken out again


class _Hang(BaseException):
    pass


def _alarm(*_: object) -> None:
    raise _Hang


@dataclass
class Outcome:
    """`code` is the error's, or "accepted"; `escape` says what broke a rule; `trail` are the lines that raised, to tell paths apart."""

    code: str
    escape: str | None
    trail: tuple[Any, ...]
    seconds: float
    megabytes: float | None


def try_input(target: Target, data: bytes, scratch: Path, *, traced: bool = False) -> Outcome:
    """Read one input and judge what happens."""
    target.place(data, scratch)
    modules = set(sys.modules)
    before, peak_before = _resident(), _peak()
    code, escape, trail = "accepted", None, ()
    if traced:
        tracemalloc.start()
    previous = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(HANG_SECONDS)
    start = time.process_time()
    try:
        with WATCH.armed(scratch):
            target.read(scratch)
    except target.errors as error:
        code, trail = error.code, _trail(error.__traceback__)
        if str(scratch) not in str(error) or len(str(error)) > MESSAGE_CHARS:
            escape = f"a message of {len(str(error))} characters, or without the path: {str(error)[:200]}"
    except KeyboardInterrupt:
        raise
    except _Hang:
        code, escape = "hang", f"no answer within {HANG_SECONDS} s"
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        code, trail = type(error).__name__, _trail(error.__traceback__)
        escape = f"{type(error).__name__}: {str(error)[:300]} at {trail[-1:]}"
    finally:
        seconds = time.process_time() - start
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        traced_peak = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
    peak = _peak()
    megabytes = max(traced_peak, peak - before if peak > peak_before else 0) / 2**20
    if escape is None and WATCH.seen:
        escape = "did what reading has no need of: " + "; ".join(WATCH.seen[:3])
    if escape is None and (new := set(sys.modules) - modules):
        escape = f"imported {sorted(new)[:5]}"
    if escape is None and not traced and seconds > SECONDS:
        escape = f"took {seconds:.2f} s of processor time"
    if escape is None and megabytes > MEGABYTES:
        escape = f"took {megabytes:.0f} MB"
    return Outcome(code, escape, trail, seconds, megabytes)


def _trail(trace: TracebackType | None) -> tuple[Any, ...]:
    lines = []
    while trace is not None:
        lines.append((Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno))
        trace = trace.tb_next
    return tuple(lines)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Report:
    target: str
    inputs: int = 0
    seconds: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    trails: int = 0
    slowest: float = 0.0
    largest: float = 0.0
    escapes: dict[tuple[Any, ...], str] = field(default_factory=dict)
    """One file and reason for each way of escaping."""

    def line(self) -> str:
        return (
            f"{self.target}: {self.inputs} inputs in {self.seconds:.0f} s, {self.codes['accepted']} accepted, {len(self.codes)} codes, "
            f"{self.trails} paths, slowest {self.slowest * 1e3:.0f} ms, largest {self.largest:.1f} MB, {len(self.escapes)} escapes"
        )


class Campaign:
    """Inputs for one target, from its seeds and from every input that took a path of its own."""

    def __init__(self, name: str, seed: int, scratch: Path, save_to: Path | None = None) -> None:
        self.target, self.scratch, self.save_to = TARGETS[name], scratch, save_to
        self.report = Report(name)
        self._rng = Random(f"{name} {seed}")
        self._trails: set[tuple[Any, ...]] = set()
        self.target.prepare(scratch)
        self._pool = self.target.seeds()
        self._accepted: list[bytes] = []  # from these a change gets further than from files that are refused already
        if not self._pool:
            raise AssertionError(f"{name} has no seeds")
        with quiet():
            for data in self._pool:  # first unwatched: what is imported on first use is imported here
                self.target.place(data, scratch)
                with suppress(self.target.errors):
                    self.target.read(scratch)
            for data in list(self._pool):
                if self._try(data).code == "accepted":
                    self._accepted.append(data)

    def run(self, *, inputs: int | None = None, seconds: float | None = None, every: float = 10.0) -> Report:
        """Try so many inputs, or for so long; progress goes to standard error."""
        start = last = time.monotonic()
        first = self.report.inputs
        with quiet():
            while (inputs is None or self.report.inputs - first < inputs) and (seconds is None or time.monotonic() - start < seconds):
                pool = self._accepted if self._rng.random() < 0.6 and self._accepted else self._pool
                self._try(self.mutated(self._rng.choice(pool), self._rng))
                if time.monotonic() - last > every:
                    last = time.monotonic()
                    self.report.seconds = last - start
                    print(self.report.line(), file=sys.stderr, flush=True)
        self.report.seconds = time.monotonic() - start
        return self.report

    def mutated(self, data: bytes, rng: Random) -> bytes:
        if rng.random() < 0.04:
            data = spliced(data, rng.choice(self._pool), rng)
        for _ in range(rng.choice((1, 1, 1, 2))):
            data = self.target.mutate(data, rng)
        return data

    def _try(self, data: bytes) -> Outcome:
        outcome = self.judge(data)
        path = (outcome.code, outcome.trail)
        if path not in self._trails:
            self._trails.add(path)
            self.report.trails = len(self._trails)
            if len(self._pool) < 5000:
                self._pool.append(data)
        return outcome

    def judge(self, data: bytes) -> Outcome:
        """Try one input, count it, and save it if it escapes."""
        report = self.report
        outcome = try_input(self.target, data, self.scratch, traced=report.inputs % TRACED == 0)
        if outcome.escape and outcome.escape.startswith(("took", "did", "imported")):
            outcome = try_input(self.target, data, self.scratch)  # once more: the first time may have paid for something else
        report.inputs += 1
        report.codes[outcome.code] += 1
        report.slowest = max(report.slowest, 0.0 if report.inputs % TRACED == 1 else outcome.seconds)
        report.largest = max(report.largest, outcome.megabytes or 0.0)
        key = (outcome.code, outcome.trail or (outcome.escape or "")[:30])
        if outcome.escape and key not in report.escapes:
            where = self._save(data, outcome.code)
            report.escapes[key] = f"{where}: {outcome.escape}"
            print(f"ESCAPE {report.target}: {report.escapes[key]}", file=sys.stderr, flush=True)
        return outcome

    def _save(self, data: bytes, code: str) -> str:
        name = f"{self.report.target}-{code}-{hashlib.sha256(data).hexdigest()[:12]}"
        if self.save_to is None:
            return name
        self.save_to.mkdir(parents=True, exist_ok=True)
        (self.save_to / name).write_bytes(data)
        return str(self.save_to / name)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the package's notices, one of which a campaign would print a thousand times."""
    logger = logging.getLogger("minigrad")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """In memory where the system has such a folder: a campaign writes a file a thousand times a second."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as name:
        yield Path(name).resolve()
