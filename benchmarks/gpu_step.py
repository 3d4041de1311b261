"""Time BERT's training step and inference on an NVIDIA GPU, minigrad against PyTorch + transformers, in turns.

PyTorch's side is the fastest of three: sdpa run eagerly, under torch.compile, and under torch.compile with CUDA graphs; with fused AdamW
and, for bf16 and fp16, autocast. Losses are read at the end of a pass, not in every step. Needs CuPy, PyTorch and transformers.

    python benchmarks/gpu_step.py --json gpu.json
    python benchmarks/gpu_step.py --cases tiny-mixed,base-mixed --precisions bf16 --rounds 3 --minutes 20

It ends after about `--minutes` minutes. Compilation takes nearly all of them; contenders not compiled by then are named and left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness.floor import flops
from harness.machine import gpu_of, machine
from harness.processes import Contender, ContenderFailed, take_turns
from harness.tables import Bars, Report, Table, quartiles, spread
from harness.work import SIZES, Work, make_work

from minigrad.backend.probe import probe
from minigrad.backend.threads import usable_cpus

CASES = {
    "tiny-full": ("tiny", 32, "128"),
    "tiny-mixed": ("tiny", 32, "mixed"),
    "mini-full": ("mini", 32, "128"),
    "mini-mixed": ("mini", 32, "mixed"),
    "base-128": ("base", 32, "128"),
    "base-512": ("base", 8, "512"),
    "base-mixed": ("base", 32, "mixed"),
    "base-mixed-512": ("base", 8, "mixed-512"),
    "base-large": ("base", 256, "128"),
}
"""Size of the model, texts per batch, and their lengths as `bert_step.py` takes them."""

ALONE = ("base-large",)
"""Cases that only measure the share of the peak, with nothing else in GPU memory: PyTorch's side does not fit."""

PRECISIONS = ("bf16", "tf32", "float32", "fp16")
PEAK, COPY = "product", "copy"
WARM_UPS = 3
"""Passes before the first timed one, for compilation and graph capture."""
TIMED = 12.0
"""Seconds reserved for timing, per row of the table."""
LEAST = 40.0
"""Seconds reserved for each group of cases, however long the groups before it take."""
STUCK = 60.0
"""Seconds after which a timed pass is given up as hung."""
OURS = {"minigrad": False, "minigrad captured": True}
THEIRS = {"torch": "no", "torch compile": "yes", "torch graphs": "with graphs"}
DEFAULT_CONTENDERS = ("minigrad captured", *THEIRS)
"""The default contenders. minigrad without capture is limited by Python, and would take memory from the captured one."""
NOTHING = "–"

NOTES = (
    "Times are per batch: medians over the rounds, quartiles in parentheses; ratios are paired by round, above 1 minigrad is faster. "
    "Tokens are real ones, without padding. TFLOP/s counts the matrix products that the real tokens need; the share of the peak relates it "
    "to the rate of one product of 8192 × 8192 random matrices at the same precision, measured in between.",
)


class Pair(NamedTuple):
    """A case and a precision: one measurement."""

    case: str
    precision: str


LINES = [
    *[Pair(case, "bf16") for case in ("tiny-mixed", "mini-mixed", "base-mixed", "base-128", "base-512")],
    *[Pair(case, "bf16") for case in ("tiny-full", "mini-full", "base-mixed-512", "base-large")],
    *[Pair("base-128", precision) for precision in ("tf32", "float32")],
]
"""The default measurements, if neither cases nor precisions are named."""


@dataclass(frozen=True)
class Measured:
    """The result of one case at one precision. seconds: per batch (for the peak: per operation; for the copy: per byte), of every contender
    in every round."""

    case: str
    precision: str
    what: str
    tokens: float
    flops: float
    seconds: Mapping[str, Sequence[float]]
    failed: Mapping[str, str]


def work_of(case: str, batches: int) -> Work:
    name, batch, lengths = CASES[case]
    return make_work(replace(SIZES[name], batch=batch), "sequence", lengths, count=batches)


def contenders_of(case: str, precision: str, names: Sequence[str], device: str, batches: int) -> tuple[Work, dict[str, dict[str, Any]]]:
    """The work of a case, and the description of every contender by name, as `harness.contender` reads it."""
    work = work_of(case, batches)
    shared = {"size": asdict(work.size), "head": work.head, "batches": work.batches, "device": device, "precision": precision}
    found: dict[str, dict[str, Any]] = {PEAK: {"kind": "large product"}}
    found |= {ours: {"kind": "minigrad on device", "captured": captured} for ours, captured in OURS.items()}
    found |= {theirs: {"kind": "torch on device", "attention": "sdpa", "compiled": compiled} for theirs, compiled in THEIRS.items()}
    wanted = [PEAK, *[one for one in names if one in OURS or case not in ALONE]]
    return work, {contender: shared | found[contender] for contender in found if contender in wanted}


def started(description: dict[str, Any], whats: Sequence[str], deadline: float) -> Contender | str:
    """A contender that is ready to be timed, or the reason why not. deadline: in `time.monotonic` seconds."""
    one = None
    try:
        one = Contender(description, {}, remaining(deadline))
        for what in whats:
            for _ in range(WARM_UPS):
                one.timeout = remaining(deadline)
                one.time(what)
    except ContenderFailed as error:
        if one is not None:
            one.close()
        return "not ready in time" if time.monotonic() >= deadline else first_line(error)
    one.timeout = STUCK
    return one


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def remaining(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def grouped(pairs: Sequence[Pair], at_once: int) -> list[Sequence[Pair]]:
    """Groups of pairs whose contenders are in GPU memory together."""
    others = [pair for pair in pairs if pair.case not in ALONE]
    together = [others[start : start + at_once] for start in range(0, len(others), at_once)]
    return [*together, *([pair] for pair in pairs if pair.case in ALONE)]


def share(seconds: float, lines: Sequence[int]) -> float:
    """The first group's share of the seconds left: LEAST, and of the rest in proportion to its lines. lines: the number in each group."""
    least = min(LEAST, seconds / len(lines))
    return least + (seconds - least * len(lines)) * lines[0] / sum(lines)


def await_file(file: Path | None, end: float) -> None:
    """Wait until the file exists, if there is one to wait for; exit with an error at `end`."""
    while file is not None and not file.exists():
        if remaining(end) <= 0:
            sys.exit(f"error: time is up, and {file} is not there")
        time.sleep(0.05)


def measure(
    pairs: Sequence[Pair],
    whats: Sequence[str],
    names: Sequence[str],
    device: str,
    *,
    rounds: int,
    batches: int,
    deadline: float,
    begin: Callable[[], None],
) -> Iterator[Measured]:
    """Start the contenders of all pairs in parallel, since compilation takes longest, until `deadline`; then time them one at a time.

    The large product of a precision is one contender for all pairs. A contender that fails is left out from then on and named in `failed`.
    begin: called before anything is timed.
    """
    described = {pair: contenders_of(*pair, names, device, batches) for pair in pairs}
    order = PEAK, *OURS, *reversed(THEIRS)  # there are fewer processors than contenders, and graphs take longest to compile
    wanted = {key_of(pair, name): (pair, name) for name in order for pair in pairs if name in described[pair][1]}
    with ThreadPoolExecutor(usable_cpus()) as pool, ExitStack() as stack:
        starting = {key: pool.submit(started, described[pair][1][name], whats, deadline) for key, (pair, name) in wanted.items()}
        found = {key: future.result() for key, future in starting.items()}
        running = [one for one in found.values() if isinstance(one, Contender)]
        stack.callback(lambda: list(pool.map(Contender.close, running)))
        begin()
        for pair, (work, contenders) in described.items():
            for what in whats:
                seconds: dict[str, list[float]] = {}
                while processes := {name: one for name in contenders if isinstance(one := found[key_of(pair, name)], Contender)}:
                    try:
                        seconds = take_turns(processes, what, rounds, pause=0.0)
                        break
                    except ContenderFailed as error:  # the others start again without it
                        found[key_of(pair, error.name)] = first_line(error)
                if PEAK in processes:
                    try:
                        seconds[COPY] = [processes[PEAK].time("copy") for _ in range(rounds + 1)][1:]
                    except ContenderFailed as error:  # the next pairs cannot use it either
                        found[key_of(pair, PEAK)] = first_line(error)
                failed = {name: one for name in contenders if isinstance(one := found[key_of(pair, name)], str)}
                yield Measured(pair.case, pair.precision, what, work.tokens, flops(work, what), seconds, failed)


def key_of(pair: Pair, name: str) -> tuple[Pair | str, str]:
    """The key that identifies a contender."""
    return (pair.precision if name == PEAK else pair), name


def table(measured: Sequence[Measured], what: str) -> Table:
    rows, values = [], {}
    for m in (m for m in measured if m.what == what):
        rivals = [name for name in THEIRS if name in m.seconds]
        best = min(rivals, key=lambda name: quartiles(m.seconds[name])[1], default=None)
        for contender in (name for name in OURS if name in m.seconds):
            ours = m.seconds[contender]
            theirs = "; ".join(why for name, why in m.failed.items() if name in THEIRS).replace("|", "/") or NOTHING
            ratio = of_peak = NOTHING
            if best is not None:
                ratios = [a / b for a, b in zip(m.seconds[best], ours, strict=True)]
                ratio, theirs = spread(ratios, 2), f"{spread([s * 1e3 for s in m.seconds[best]], 2)} {best.removeprefix('torch ')}"
                if absent := [name.removeprefix("torch ") for name in THEIRS if name in m.failed]:
                    theirs += f" (without {', '.join(absent)})"
                values[f"{m.case} {m.precision}{contender.removeprefix('minigrad')}"] = quartiles(ratios)[1]
            if PEAK in m.seconds:
                of_peak = f"{100 * m.flops * quartiles(m.seconds[PEAK])[1] / quartiles(ours)[1]:.0f} %"
            rates = [f"{m.tokens / quartiles(ours)[1]:,.0f}", f"{m.flops / quartiles(ours)[1] / 1e12:,.1f}", of_peak]
            times = [f"{m.tokens:,.0f}", spread([s * 1e3 for s in ours], 2), theirs, ratio]
            rows.append([m.case, m.precision, contender, *times, *rates])
        for contender in (name for name in OURS if name in m.failed):
            why = m.failed[contender].replace("|", "/")
            rows.append([m.case, m.precision, contender, f"{m.tokens:,.0f}", why, *[NOTHING] * 5])
    header = ["case", "precision", "contender", "tokens", "its ms", "PyTorch, ms", "times as fast", "tokens/s", "TFLOP/s", "of the peak"]
    words = {"train": "Training step on a GPU", "infer": "Inference on a GPU"}[what]
    return Table(words, header, rows, Bars("times as fast as PyTorch (above 1: minigrad is faster)", values))


def ceilings(measured: Sequence[Measured]) -> Table:
    """The rates that the GPU reaches at every precision: of a large product, and of a copy in its memory."""
    rows, values = [], {}
    for precision in dict.fromkeys(m.precision for m in measured):
        rates = []
        for name in (PEAK, COPY):
            seconds = [s for m in measured if m.precision == precision for s in m.seconds.get(name, [])]
            rates.append(spread([1e-12 / s for s in seconds], 2) if seconds else NOTHING)
            if seconds:
                values[f"{precision} {name}"] = 1e-12 / quartiles(seconds)[1]
        rows.append([precision, *rates])
    header = ["precision", "product, TFLOP/s", "copy, TB/s read and written"]
    return Table("What the GPU reaches", header, rows, Bars("TFLOP/s of a product, TB/s of a copy", values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(name: str, default: str | None, choices: Sequence[str]) -> None:
        def listed(text: str) -> list[str]:
            if wrong := [one for one in text.split(",") if one not in choices]:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: choose from {', '.join(choices)}")
            return text.split(",")

        usual = default or "a standard set of cases and precisions; if only the other option is given, bf16 or all cases"
        known = None if default is None else listed(default)
        parser.add_argument(name, type=listed, default=known, metavar="A,B", help=f"{', '.join(choices)} ({usual})")

    several("--cases", None, list(CASES))
    several("--precisions", None, PRECISIONS)
    several("--what", "train", ["train", "infer"])
    several("--contenders", ",".join(DEFAULT_CONTENDERS), [*OURS, *THEIRS])
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each contender (5)")
    parser.add_argument("--batches", type=int, default=16, help="batches per pass (16)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit, nearly all of it for compilation (8)")
    parser.add_argument("--device", default="cuda", help="cuda; cpu only tries the script (cuda)")
    parser.add_argument("--at-once", type=int, default=5, help="cases whose contenders are in GPU memory at the same time (5)")
    parser.add_argument("--after", type=Path, metavar="FILE", help="compile meanwhile, but time nothing before this file exists")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements and tables here, after each case and at the end")
    options = parser.parse_args()
    for name in ("rounds", "batches", "at_once", "minutes"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {getattr(options, name)}")
    gpu = probe()
    if options.device != "cpu" and not gpu.usable:
        sys.exit(f"error: {gpu.reason}")
    here = machine() | (gpu_of(gpu) if gpu.usable else {"GPU": options.device})
    measured: list[Measured] = []
    pairs = LINES
    if options.cases or options.precisions:
        pairs = [Pair(case, precision) for case in options.cases or CASES for precision in options.precisions or ["bf16"]]
    end = time.monotonic() + 60 * options.minutes
    groups = grouped(pairs, options.at_once)
    for number, group in enumerate(groups):
        print(f"{', '.join(f'{case} {precision}' for case, precision in group)} …", file=sys.stderr, flush=True)
        mine = share(remaining(end), list(map(len, groups[number:])))
        deadline = time.monotonic() + max(mine - TIMED * len(group) * len(options.what), mine / 2)
        how = {"rounds": options.rounds, "batches": options.batches, "deadline": deadline}
        begin = partial(await_file, options.after, end)
        for one in measure(group, options.what, options.contenders, options.device, **how, begin=begin):
            measured.append(one)
            print("\n".join(" | ".join(row) for row in table([one], one.what).rows), file=sys.stderr, flush=True)
            tables = [*(table(measured, what) for what in options.what), ceilings(measured)]
            report = Report("gpu_step.py", sys.argv[1:], here, [asdict(m) for m in measured], tables, NOTES)
            if options.json is not None:
                report.save(options.json)
    print(report.markdown())
    broken = [f"{m.case}, {m.precision}: {name}: {why}" for m in measured for name, why in m.failed.items() if name in OURS]
    if broken and options.device != "cpu":
        sys.exit("error: " + "\n".join(broken))


if __name__ == "__main__":
    main()
