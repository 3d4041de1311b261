"""Time BERT's training step and inference on an NVIDIA GPU, minigrad against PyTorch + transformers, in turns.

PyTorch's side is the fastest of three: sdpa as it is, under torch.compile, and under torch.compile with CUDA graphs; with fused AdamW and,
for bf16 and fp16, autocast. Losses are read at the end of a pass, not in every step. Needs CuPy, PyTorch and transformers.

    python benchmarks/gpu_step.py --json gpu.json
    python benchmarks/gpu_step.py --cases tiny-mixed,base-mixed --precisions bf16 --rounds 3 --minutes 20

It ends after about so many `--minutes`: compilers take nearly all of them, and what they have not made by then is named and left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
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
"""Size of the model, texts of a batch, their lengths as `bert_step.py` takes them."""

ALONE = ("base-large",)
"""Cases of which only the share of the peak is asked, of minigrad alone, while nobody else is in the GPU's memory."""

PRECISIONS = ("bf16", "tf32", "float32", "fp16")
PEAK, COPY = "product", "copy"
WARM_UPS = 3
"""Passes before the first that is timed: compilation, recording of graphs."""
TIMED = 12.0
"""Seconds that are kept for timing what is ready, for each line of the table."""
LEAST = 40.0
"""Seconds that are kept for each group of lines, however long those before it take."""
STUCK = 60.0
"""Seconds after which a pass that is timed will not end any more."""
OURS = {"minigrad": False, "minigrad captured": True}
THEIRS = {"torch": "no", "torch compile": "yes", "torch graphs": "with graphs"}
USUAL = ("minigrad captured", *THEIRS)
"""Contenders unless others are named. Steps that are not captured wait for their Python, and would take the memory of those that are."""
NOTHING = "–"

NOTES = (
    "Times are of a batch: medians over the rounds, quartiles in parentheses; ratios are paired by round, above 1 minigrad is faster. "
    "Tokens are real ones, without padding. TFLOP/s: of the products that the real tokens need; the share of the peak: of the rate of one "
    "product of 8192 × 8192 random matrices at the same precision, measured in between.",
)


class Pair(NamedTuple):
    """What is measured: a case and a precision."""

    case: str
    precision: str


LINES = [
    *[Pair(case, "bf16") for case in ("tiny-mixed", "mini-mixed", "base-mixed", "base-128", "base-512")],
    *[Pair(case, "bf16") for case in ("tiny-full", "mini-full", "base-mixed-512", "base-large")],
    *[Pair("base-128", precision) for precision in ("tf32", "float32")],
]
"""Measured unless cases or precisions are named."""


@dataclass(frozen=True)
class Measured:
    """What one case at one precision gave. seconds: of every contender, per batch (of the peak: per operation; of the copy beside it: per
    byte), one for each round."""

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
    """The work of a case, and every contender by name, described as `harness.contender` reads it."""
    work = work_of(case, batches)
    shared = {"size": asdict(work.size), "head": work.head, "batches": work.batches, "device": device, "precision": precision}
    found: dict[str, dict[str, Any]] = {PEAK: {"kind": "large product"}}
    found |= {ours: {"kind": "minigrad on device", "captured": captured} for ours, captured in OURS.items()}
    found |= {theirs: {"kind": "torch on device", "attention": "sdpa", "compiled": compiled} for theirs, compiled in THEIRS.items()}
    wanted = [PEAK, *[one for one in names if one in OURS or case not in ALONE]]
    return work, {contender: shared | found[contender] for contender in found if contender in wanted}


def started(description: dict[str, Any], whats: Sequence[str], deadline: float) -> Contender | str:
    """A contender that is ready to be timed, or why it cannot be. deadline: by `time.monotonic`."""
    one = None
    try:
        one = Contender(description, {}, left(deadline))
        for what in whats:
            for _ in range(WARM_UPS):
                one.patience = left(deadline)
                one.time(what)
    except ContenderFailed as error:
        if one is not None:
            one.close()
        return "not ready in time" if time.monotonic() >= deadline else in_short(error)
    one.patience = STUCK
    return one


def in_short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def grouped(pairs: Sequence[Pair], at_once: int) -> list[Sequence[Pair]]:
    """Those whose contenders lie in the GPU's memory together."""
    others = [pair for pair in pairs if pair.case not in ALONE]
    together = [others[start : start + at_once] for start in range(0, len(others), at_once)]
    return [*together, *([pair] for pair in pairs if pair.case in ALONE)]


def share(seconds: float, lines: Sequence[int]) -> float:
    """What the first of so many groups of lines may take of these seconds: of what is above the least of each, as much as of the lines."""
    least = min(LEAST, seconds / len(lines))
    return least + (seconds - least * len(lines)) * lines[0] / sum(lines)


def await_file(file: Path | None, end: float) -> None:
    while file is not None and not file.exists():
        if left(end) <= 0:
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
    """The contenders of all pairs get ready side by side, since compilers take longest, until `deadline`, and are timed one at a time.

    The large product of a precision is one contender for all pairs. Whoever fails is left out, also later, and named in `failed`. begin:
    called before anything is timed.
    """
    described = {pair: contenders_of(*pair, names, device, batches) for pair in pairs}
    order = PEAK, *OURS, *reversed(THEIRS)  # there are not as many processors as contenders, and graphs take longest
    wanted = {whose(pair, name): (pair, name) for name in order for pair in pairs if name in described[pair][1]}
    with ThreadPoolExecutor(usable_cpus()) as pool, ExitStack() as stack:
        starting = {key: pool.submit(started, described[pair][1][name], whats, deadline) for key, (pair, name) in wanted.items()}
        found = {key: future.result() for key, future in starting.items()}
        running = [one for one in found.values() if isinstance(one, Contender)]
        stack.callback(lambda: list(pool.map(Contender.close, running)))
        begin()
        for pair, (work, contenders) in described.items():
            for what in whats:
                seconds: dict[str, list[float]] = {}
                while processes := {name: one for name in contenders if isinstance(one := found[whose(pair, name)], Contender)}:
                    try:
                        seconds = take_turns(processes, what, rounds, pause=0.0)
                        break
                    except ContenderFailed as error:  # the others begin again without it
                        found[whose(pair, error.name)] = in_short(error)
                if PEAK in processes:
                    with suppress(ContenderFailed):  # it is failed for the next pair, too
                        seconds[COPY] = [processes[PEAK].time("copy") for _ in range(rounds + 1)][1:]
                failed = {name: one for name in contenders if isinstance(one := found[whose(pair, name)], str)}
                yield Measured(pair.case, pair.precision, what, work.tokens, flops(work, what), seconds, failed)


def whose(pair: Pair, name: str) -> tuple[Pair | str, str]:
    """What tells contenders apart."""
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
    """Of the GPU, at every precision."""
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

        usual = default or "the lines that are claimed; bf16 and all cases if only one is named"
        known = None if default is None else listed(default)
        parser.add_argument(name, type=listed, default=known, metavar="A,B", help=f"{', '.join(choices)} ({usual})")

    several("--cases", None, list(CASES))
    several("--precisions", None, PRECISIONS)
    several("--what", "train", ["train", "infer"])
    several("--contenders", ",".join(USUAL), [*OURS, *THEIRS])
    parser.add_argument("--rounds", type=int, default=5, help="passes of each contender that are timed (5)")
    parser.add_argument("--batches", type=int, default=16, help="batches of a pass (16)")
    parser.add_argument("--minutes", type=float, default=8.0, help="what it may take altogether, nearly all of it for compilers (8)")
    parser.add_argument("--device", default="cuda", help="cuda; cpu only tries the script (cuda)")
    parser.add_argument("--at-once", type=int, default=5, help="lines whose contenders lie in the GPU's memory at the same time (5)")
    parser.add_argument("--after", type=Path, metavar="FILE", help="get ready meanwhile, but time nothing before this file is there")
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
        mine = share(left(end), list(map(len, groups[number:])))
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
