"""Time BERT's training step and inference, minigrad against PyTorch + transformers, on texts of uneven length.

Each contender runs in its own process; they take turns, one active at a time. Medians over the rounds and paired ratios are reported.
PyTorch runs in its best stock configuration: the faster of sdpa and eager attention, fused AdamW, a thread per core.

    python benchmarks/bert_step.py --sizes tiny,mini --against longest,grouped --rounds 7 --json step.json
    python benchmarks/bert_step.py --lengths texts.txt --model DIRECTORY --sizes small
    python benchmarks/bert_step.py --scaling --rounds 5 --json scaling.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.duel import OPPONENTS, OURS, Duel, Measured, measure
from harness.machine import machine
from harness.scaling import points, scaling_tables
from harness.step_tables import step_tables
from harness.tables import Report, Table
from harness.work import HEADS, SIZES

NOTES = (
    "Times are per batch: medians over the rounds, quartiles in parentheses. Ratios are paired round by round; above 1 minigrad is "
    "faster. Tokens are real ones, without padding. If PyTorch's batches are grouped by length, minigrad gets the same batches. "
    "The floor is the time of the matrix products alone at the rate of sgemm measured in between.",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(name: str, default: str, choices: Sequence[str], words: str) -> None:
        def listed(text: str) -> list[str]:
            names = text.split(",")
            if wrong := [one for one in names if one not in choices]:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: choose from {', '.join(choices)}")
            return names

        parser.add_argument(name, type=listed, default=listed(default), metavar="A,B", help=f"{words}: {', '.join(choices)} ({default})")

    several("--sizes", "tiny,mini", list(SIZES), "models")
    several("--what", "train,infer", ["train", "infer"], "what is timed")
    several("--head", "sequence", HEADS, "what the model predicts for")
    several("--against", "longest,128,grouped", list(OPPONENTS), "opponents")
    several("--ours", "auto", list(OURS), "minigrad with a worker per core, in one process, without kernels, with NumPy's kernels only")
    parser.add_argument("--lengths", type=lambda text: text.split(","), default=["mixed", "full"], metavar="A,B", help=(
        "full (128 tokens each), mixed (lognormal, mean 40, between 4 and 128), a number of tokens, or a file with one text per line, "
        "tokenized by --model's tokenizer, or else replaced by as many random ids as the line has words and two more (mixed,full)"
    ))  # fmt: skip
    parser.add_argument("--model", type=Path, metavar="DIR", help="the directory of a tokenizer for the files of --lengths")
    parser.add_argument("--batch", type=int, help="texts per batch (the size's own)")
    parser.add_argument("--batches", type=int, default=24, help="batches per pass (24)")
    parser.add_argument("--rounds", type=int, default=7, help="timed passes of each contender (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements and tables here, after each duel and at the end")
    parser.add_argument("--scaling", action="store_true", help="time training steps of several sizes, lengths and batches instead")
    options = parser.parse_args()
    for name in ("batch", "batches", "rounds"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be 1 or more")
    for lengths in options.lengths:
        if lengths not in ("mixed", "full") and not lengths.isdecimal() and not Path(lengths).is_file():
            parser.error(f"--lengths {lengths}: neither mixed, full, a number, nor a file")
    if (options.scaling or options.against != ["alone"]) and (find_spec("torch") is None or find_spec("transformers") is None):
        parser.error('this compares with PyTorch and transformers: pip install ".[oracle]", or choose --against alone')
    return options


def main() -> None:
    options, here = arguments(), machine()
    how = {"rounds": options.rounds, "batches": options.batches, "model": options.model}

    def report(measured: Sequence[Measured], tables: Sequence[Table]) -> Report:
        found = Report("bert_step.py", sys.argv[1:], here, [m.to_json() for m in measured], tables, NOTES)
        if options.json is not None:
            found.save(options.json)
        return found

    done: list[Any] = []
    if options.scaling:
        for point in points():
            _tell(point.duel)
            done += [(point, m) for m in measure(point.duel, ["train"], options.ours[:1], **how)]
            found = report([m for _, m in done], list(scaling_tables(done)))
    else:
        for duel in _duels(options):
            _tell(duel)
            done += measure(duel, options.what, options.ours, **how)
            found = report(done, list(step_tables(done)))
    print(found.markdown())


def _duels(options: argparse.Namespace) -> list[Duel]:
    sizes = {name: replace(SIZES[name], batch=options.batch or SIZES[name].batch) for name in options.sizes}
    return [
        Duel(name, size, lengths, head, against)
        for head in options.head
        for name, size in sizes.items()
        for lengths in options.lengths
        for against in options.against
        if not (lengths == "full" and against in ("128", "grouped") and "longest" in options.against)  # the same three times
    ]


def _tell(duel: Duel) -> None:
    print(f"{duel.name} b{duel.size.batch}, {duel.lengths}, {duel.head} head, against {duel.against} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
