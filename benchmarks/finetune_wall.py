"""Time whole fine-tunings on the same data: `python -m minigrad train` against a PyTorch + transformers script (`finetune_torch.py`).

The whole process is timed: imports, tokenizing, training, an evaluation after each epoch, dev and test at the end. Both sides read the
same rows, which are written as JSON lines beforehand; for each seed they run one after the other.

    python benchmarks/finetune_wall.py --model DIR --layers 6 --train train.tsv --dev dev.tsv --test test.tsv --seeds 0,1,2
    python benchmarks/finetune_wall.py --model DIR --task token-classification --train train.conll --dev dev.conll --test test.conll
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.machine import machine
from harness.memory import held
from harness.processes import BENCHMARKS, environment
from harness.tables import Bars, Report, Table, quartiles, spread

from minigrad.backend.threads import usable_cpus
from minigrad.data.alignment import tags_of_words
from minigrad.data.readers import read_records
from minigrad.data.records import Record
from minigrad.train.config import RunConfig

SPLITS = ("train", "dev", "test")
METRICS = {"sequence-classification": "accuracy", "token-classification": "entity_f1"}
CONTENDERS = ("minigrad", "torch")
SAMPLE = 0.5
"""Seconds between two memory samples: long, since the sampled run is timed."""

NOTES = (
    "Seconds are those of whole processes, from start to end. Scores are those of the epoch that was best on dev. Peak memory is that of "
    "all processes together. minigrad's time includes a checkpoint after each epoch, prediction files and the report.",
)


def prepare(path: Path, to: Path, options: argparse.Namespace) -> None:
    """Write the rows of a data file as JSON lines that both sides read."""
    records = read_records(
        path, format=options.format, text_column=options.text, label_column=options.label, encoding=options.encoding
    )  # fmt: skip
    as_row = _words_row if options.task == "token-classification" else _text_row
    to.write_text("".join(json.dumps(as_row(record), ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _text_row(record: Record) -> dict[str, Any]:
    return {"text": record.text, "label": record.label} | ({} if record.text_b is None else {"text_b": record.text_b})


def _words_row(record: Record) -> dict[str, Any]:
    if record.words is None:
        sys.exit(f"error: {record.path}: this benchmark takes tags of words: CoNLL, or JSON lines with tokens and tags")
    words = [record.text[start:end] for start, end in record.words]
    return {"tokens": words, "tags": tags_of_words(record, record.words)}


# ---------------------------------------------------------------- contenders
def timed(command: Sequence[str]) -> tuple[float, int, str]:
    """Run a command; return its seconds, peak memory in bytes, and output. Raises: SystemExit if it fails."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        started, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment())
        pause = SAMPLE / 16  # short at first, so that a short run is sampled too
        while True:
            try:
                status = process.wait(pause)
                break
            except subprocess.TimeoutExpired:
                peak, pause = max(peak, held(process.pid)), min(2 * pause, SAMPLE)
        seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if status:
            sys.exit(f"error: {' '.join(command)} ended with status {status}\n{errors.read()[-2000:]}")
        return seconds, peak, output.read()


def by_minigrad(files: Mapping[str, Path], seed: int, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    training = {"epochs": options.epochs, "lr": options.lr, "seed": seed, "workers": options.workers}
    model = {"name": str(options.model)} | ({} if options.layers is None else {"layers": options.layers})
    data = {split: str(path) for split, path in files.items()}
    data |= {"max_length": options.max_length, "batch_size": options.batch, "by_length": options.pad == "grouped"}
    output = folder / f"run-{seed}"
    sections = {"model": model, "data": data, "task": {"kind": options.task}, "training": training, "output": {"directory": str(output)}}
    config = folder / f"config-{seed}.toml"
    config.write_text(RunConfig.from_dict(sections, config).to_toml(), encoding="utf-8")
    seconds, peak, _ = timed([sys.executable, "-m", "minigrad", "train", str(config)])
    scores = {}
    for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "evaluation" and (event["best"] or event["split"] == "test"):
            scores[event["split"]] = event["metrics"][METRICS[options.task]]
    return {"seconds": seconds, "memory": peak, **scores}


def by_torch(files: Mapping[str, Path], seed: int, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(BENCHMARKS / "finetune_torch.py"), "--threads", str(usable_cpus()), "--seed", str(seed)]
    for name in ("model", "layers", "epochs", "lr", "batch", "max_length", "pad", "attention"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    for split, path in files.items():
        command += [f"--{split}", str(path)]
    seconds, peak, printed = timed(command)
    scores = {split: found[METRICS[options.task]] for split, found in json.loads(printed.splitlines()[-1]).items()}
    return {"seconds": seconds, "memory": peak, **scores}


# ---------------------------------------------------------------- tables
def table_of(measured: Sequence[Mapping[str, Any]], task: str) -> Table:
    """One row per run, and one per contender over all seeds."""
    metric = METRICS[task].replace("_", " ")
    rows = [[m["contender"], str(m["seed"]), f"{m['seconds']:.1f}", *_cells(m)] for m in measured]
    for contender in dict.fromkeys(m["contender"] for m in measured):
        own = [m for m in measured if m["contender"] == contender]
        middle = {name: quartiles([m[name] for m in own])[1] for name in ("dev", "test", "memory")}
        rows.append([f"**{contender}**", "median", spread([m["seconds"] for m in own], 1), *_cells(middle)])
    seconds = {(m["contender"], m["seed"]): m["seconds"] for m in measured}
    pairs = [
        seconds["torch", seed] / seconds["minigrad", seed] for name, seed in seconds if name == "minigrad" and ("torch", seed) in seconds
    ]
    if pairs:
        rows.append(["**torch / minigrad**", "pairs", spread(pairs, 2), "", "", ""])
    header = ["contender", "seed", "seconds", f"dev {metric}", f"test {metric}", "peak MiB"]
    chart = Bars("seconds", {f"{name}, seed {seed}": value for (name, seed), value in seconds.items()})
    return Table(f"A whole fine-tuning: {task}", header, rows, chart)


def _cells(m: Mapping[str, Any]) -> list[str]:
    return [f"{m['dev']:.3f}", f"{m['test']:.3f}", f"{m['memory'] / 2**20:,.0f}"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a checkpoint with its tokenizer")
    parser.add_argument("--layers", type=int, help="keep this many encoder layers")
    parser.add_argument("--task", choices=list(METRICS), default="sequence-classification")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, required=True, metavar="FILE")
    parser.add_argument("--format", help="format of the files (by suffix)")
    parser.add_argument("--text", metavar="COLUMN", help="column of the texts (text)")
    parser.add_argument("--label", metavar="COLUMN", help="column of the labels (label)")
    parser.add_argument("--encoding", default="utf-8")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pad", choices=["longest", "grouped"], default="longest", help="grouped: both sides batch texts by length")
    parser.add_argument("--workers", type=lambda text: text if text == "auto" else int(text), default="auto", help="of minigrad (auto)")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="of PyTorch (sdpa)")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0], metavar="0,1")
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=list(CONTENDERS), metavar="A,B", help="minigrad,torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements and tables here, after each run")
    options = parser.parse_args()
    if wrong := [name for name in options.contenders if name not in CONTENDERS]:
        parser.error(f"--contenders {','.join(wrong)}: choose from {', '.join(CONTENDERS)}")
    if "torch" in options.contenders and (find_spec("torch") is None or find_spec("transformers") is None):
        parser.error('this compares with PyTorch and transformers: pip install ".[oracle]", or choose --contenders minigrad')
    return options


def main() -> None:
    options, here = arguments(), machine()
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {split: folder / f"{split}.jsonl" for split in SPLITS}
        for split, path in files.items():
            prepare(getattr(options, split), path, options)
        for number, seed in enumerate(options.seeds):
            for contender in options.contenders[:: -1 if number % 2 else 1]:  # the order alternates
                print(f"{contender}, seed {seed} …", file=sys.stderr, flush=True)
                found = (by_minigrad if contender == "minigrad" else by_torch)(files, seed, folder, options)
                measured.append({"contender": contender, "seed": seed, **found})
                report = Report("finetune_wall.py", sys.argv[1:], here, measured, [table_of(measured, options.task)], NOTES)
                if options.json is not None:
                    report.save(options.json)
    print(report.markdown())


if __name__ == "__main__":
    main()
