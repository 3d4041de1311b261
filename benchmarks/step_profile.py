"""Profile a training step by operation: forward, pullback, weight gradients, update.

It runs in one process with one BLAS thread, like each worker of a team. Every call of an operation is timed where the engine makes it.

    python benchmarks/step_profile.py --sizes tiny,base --lengths mixed --passes 3
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.machine import machine
from harness.ours import Minigrad
from harness.tables import Bars, Report, Table
from harness.work import HEADS, SIZES, make_work

from minigrad.backend.gradients import Product
from minigrad.backend.random import Draw
from minigrad.backend.threads import blas_threads
from minigrad.op import Kernel
from minigrad.tape import Leaf

MASKS = {"mask": "dropout masks of rows (inside their operations)", "pairs": "dropout masks of attention (inside it)"}


@dataclass
class Clock:
    """Seconds and calls by name."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def timed(self, name: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted under the name that `name` returns for its arguments."""

        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            called = name(*args)
            self.seconds[called] += time.perf_counter() - started
            self.calls[called] += 1
            return result

        return run

    def watch(self) -> None:
        """Patch the engine, so that its calls in this process are counted from now on."""
        inner = self.timed(lambda kernel, *_: kernel.name, Kernel.run)

        def run(kernel: Kernel, *args: Any, **kwargs: Any) -> Any:
            result = inner(kernel, *args, **kwargs)
            if not isinstance(result, tuple):
                return result  # an update rule
            output, pullback = result
            backward = self.timed(lambda *_: f"{kernel.name}, backward", pullback) if callable(pullback) else pullback
            return output, backward

        def kind(_: Leaf, gradient: Any) -> str:
            return "weight gradients (products)" if isinstance(gradient, Product) else "other gradients"

        Kernel.run = run  # type: ignore[method-assign]
        Leaf.accumulate = self.timed(kind, Leaf.accumulate)  # type: ignore[method-assign]
        for method, words in MASKS.items():
            setattr(Draw, method, self.timed(lambda *_, words=words: words, getattr(Draw, method)))


def profile(name: str, lengths: str, head: str, passes: int, batches: int, clock: Clock) -> Table:
    ours = Minigrad(make_work(SIZES[name], head, lengths, count=batches), workers=1)
    with blas_threads(1):
        ours.train()  # warm-up: first touches, compilation
        clock.seconds.clear(), clock.calls.clear()
        per_step = sum(ours.train() for _ in range(passes)) / passes
    steps = passes * batches
    rows = [
        [called, f"{seconds / steps * 1e3:.2f}", f"{seconds / steps / per_step:.1%}", f"{clock.calls[called] / steps:.1f}"]
        for called, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])
        if seconds / steps / per_step >= 0.001
    ]
    inside = sum(clock.seconds[words] for words in MASKS.values())
    rest = per_step - (sum(clock.seconds.values()) - inside) / steps
    rows.append(["the engine and all else", f"{rest * 1e3:.2f}", f"{rest / per_step:.1%}", ""])
    rows.append(["a step", f"{per_step * 1e3:.2f}", "100.0%", ""])
    chart = Bars("ms", {called: seconds / steps * 1e3 for called, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1])[:16]})
    return Table(f"One step of {name}, {lengths} lengths, {head} head, one process", ["operation", "ms", "share", "calls"], rows, chart)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["tiny", "base"], metavar="A,B", help="models (tiny,base)")
    parser.add_argument("--lengths", default="mixed", help="as bert_step.py takes them (mixed)")
    parser.add_argument("--head", choices=HEADS, default="sequence")
    parser.add_argument("--passes", type=int, default=3, help="passes over the batches (3)")
    parser.add_argument("--batches", type=int, default=8, help="batches per pass (8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables here")
    options = parser.parse_args()
    if wrong := [name for name in options.sizes if name not in SIZES]:
        parser.error(f"--sizes: {', '.join(wrong)}: choose from {', '.join(SIZES)}")
    clock = Clock()
    clock.watch()
    tables = [profile(name, options.lengths, options.head, options.passes, options.batches, clock) for name in options.sizes]
    report = Report("step_profile.py", sys.argv[1:], machine(), [], tables, ())
    if options.json is not None:
        report.save(options.json)
    print(report.markdown())


if __name__ == "__main__":
    main()
