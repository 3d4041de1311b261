"""Profile a captured training step on an NVIDIA GPU: the time of each kernel, and the time in which none runs.

Kernels are timed by CUPTI through PyTorch's profiler, which sees those of every library in the process, also inside graphs. The time of a
step is measured beforehand, without the profiler. But PyTorch leaves CUPTI attached, which may slow down the steps of later cases: quote
the times of `gpu_step.py`. Needs CuPy and PyTorch.

    python benchmarks/gpu_profile.py --cases tiny-mixed,base-128 --precisions bf16,tf32 --json profile.json
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_step import CASES, PRECISIONS, work_of
from harness.machine import gpu_of, machine
from harness.ours_gpu import MinigradOnDevice
from harness.tables import Bars, Report, Table

from minigrad.backend.probe import probe

SHOWN = 40
"""At most this many kernels get a row of a table; one row sums up the others."""
LONGEST = 90
"""At most this many characters of a kernel's name are shown."""


class Event(NamedTuple):
    """A kernel or copy on the GPU. start, end: seconds on its clock."""

    name: str
    start: float
    end: float


def busy(events: Iterable[Event]) -> float:
    """Seconds in which at least one event runs."""
    total, past = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: event.start):
        total += max(0.0, event.end - max(event.start, past))
        past = max(past, event.end)
    return total


def table(title: str, events: Sequence[Event], steps: int, seconds: float) -> Table:
    """A row per kernel. events: those of `steps` steps. seconds: of one step without the profiler."""
    times: dict[str, float] = defaultdict(float)
    launches = Counter(event.name for event in events)
    for event in events:
        times[event.name] += event.end - event.start
    slowest = sorted(times.items(), key=lambda item: -item[1])

    def row(name: str, launched: float | str, time: float) -> list[str]:
        shown = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
        number = launched if isinstance(launched, str) else f"{launched / steps:.1f}"
        return [shown.replace("|", "/"), number, f"{time * 1e3:.4f}", f"{time / seconds:.1%}"]

    rows = [row(name, launches[name], time / steps) for name, time in slowest[:SHOWN]]
    if rest := slowest[SHOWN:]:
        rows.append(row("all others", sum(launches[name] for name, _ in rest), sum(time for _, time in rest) / steps))
    computing = busy(events) / steps
    rows.append(row("the GPU computes", len(events), computing))
    rows.append(row("no kernel runs", "", max(0.0, seconds - computing)))
    rows.append(row("a step", "", seconds))
    bars = Bars("ms", {name[:LONGEST]: time / steps * 1e3 for name, time in slowest[:16]})
    return Table(title, ["kernel", "launches", "ms", "share"], rows, bars)


def measured(case: str, precision: str, batches: int, passes: int) -> tuple[list[Event], float]:
    """The GPU's events in one pass over the batches, and the fastest seconds per step of `passes` passes before it."""
    import torch

    ours = MinigradOnDevice(work_of(case, batches), "cuda", precision, captured=True)
    for _ in range(2):  # captures the graphs
        ours.train()
    seconds = min(ours.train() for _ in range(passes))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profiler:
        ours.train()
        torch.cuda.synchronize()
    ours.close()
    return [Event(one.name, *_seconds(one.time_range)) for one in profiler.events() if _is_of_gpu(one)], seconds


def _is_of_gpu(event: Any) -> bool:
    return "CUDA" in str(event.device_type)


def _seconds(range_: Any) -> tuple[float, float]:
    return range_.start * 1e-6, range_.end * 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["tiny-mixed", "mini-mixed", "base-128", "base-512"])
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["bf16", "tf32"])
    parser.add_argument("--batches", type=int, default=8, help="batches per pass (8)")
    parser.add_argument("--passes", type=int, default=5, help="passes timed without the profiler (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write events and tables here, after each case")
    options = parser.parse_args()
    for name, known in (("cases", CASES), ("precisions", PRECISIONS)):
        if wrong := [one for one in getattr(options, name) if one not in known]:
            parser.error(f"--{name}: {', '.join(wrong)}: choose from {', '.join(known)}")
    for name in ("batches", "passes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be above 0, got {getattr(options, name)}")
    gpu = probe()
    if not gpu.usable:
        sys.exit(f"error: {gpu.reason}")
    here, tables, broken = machine() | gpu_of(gpu), [], []

    def report() -> Report:
        return Report("gpu_profile.py", sys.argv[1:], here, [], tables)

    print(report().markdown(), flush=True)
    for case in options.cases:
        for precision in options.precisions:
            title = f"A step of {case}, {precision}"
            try:
                events, seconds = measured(case, precision, options.batches, options.passes)
                tables.append(table(title, events, options.batches, seconds))
            except Exception as error:  # whatever it is, go on with the other cases
                broken.append(f"{title}: {type(error).__name__}: {error}")
                continue
            print(f"\n{tables[-1].markdown()}", flush=True)
            if options.json is not None:
                report().save(options.json)
    if broken:
        sys.exit("error: " + "\n".join(broken))


if __name__ == "__main__":
    main()
