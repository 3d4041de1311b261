"""`python -m minigrad data`: check data files, divide one into splits, or write one in another format."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minigrad.cli._options import add_reading, check_not_input, output_file, reading, writing
from minigrad.data import Tokenizer
from minigrad.data.inspection import check_files
from minigrad.data.progress import progress_bar
from minigrad.data.readers import FORMATS, SUFFIXES, iter_records
from minigrad.data.records import Record
from minigrad.data.split import split_records
from minigrad.data.writers import WRITERS, write_records
from minigrad.errors import ArgumentError
from minigrad.files import as_path, listing, quoted, write_text
from minigrad.io import find_checkpoint

DESCRIPTION = "What to do with data files before training: find copies and faults, divide records into splits, change the format."
STATUS = "1 is for leaks and conflicts that `data check` found."

SPLIT_NAMES = {2: ("train", "dev"), 3: ("train", "dev", "test")}
WORD = re.compile(r"\w+|[^\w\s]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = actions.add_parser(
        "check",
        help="say what may spoil training: copies, conflicts, leaks between splits, faulty texts",
        description="Prints sizes, the balance of labels, and what was found wrong with the first places of each kind. "
        "Exit status 1 if a text occurs in two splits or with different labels.",
    )
    check.add_argument("files", nargs="*", metavar="FILE", help="data files; each is a split, named by its file name without suffix")
    check.add_argument(
        "--split", action="append", default=[], metavar="NAME=FILE", help="a file of the split NAME; may be repeated, for one split too"
    )
    check.add_argument("--json", metavar="FILE", help="write all findings there as JSON")
    check.add_argument("--svg", metavar="FILE", help="write histograms of the lengths of texts there")
    check.add_argument("--tokenizer", metavar="MODEL", help="a model directory, a Hugging Face id or a named checkpoint: counts tokens")
    check.add_argument(
        "--near-records",
        type=int,
        default=100_000,
        metavar="N",
        help="of each split that are compared for near-duplicates (100000)",
    )
    _add_near_duplicates(check, "texts at least this similar count as near-duplicates")
    add_reading(check)
    check.set_defaults(act=_check)

    split = actions.add_parser(
        "split",
        help="divide a file into train, dev and test files",
        description="Every label has its share in each split, and near-duplicates stay in one. The same seed gives the same division on "
        "every machine. Files are written all or none.",
    )
    split.add_argument("file", metavar="FILE", help="the data file to divide")
    split.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="where the files are written, in FILE's format (.jsonl where it is an export)",
    )
    split.add_argument(
        "--shares", default="80,10,10", metavar="N,N,N", help="proportions of train, dev and test, or of train and dev (80,10,10)"
    )
    split.add_argument("--seed", type=int, default=0, help="another seed gives another division (0)")
    split.add_argument("--group", metavar="COLUMN", help="records with the same value in this column stay in one split")
    split.add_argument("--no-stratify", action="store_true", help="leave labels out of account")
    split.add_argument("--force", action="store_true", help="replace files of an earlier division")
    _add_near_duplicates(split, "texts at least this similar stay in one split")
    add_reading(split)
    split.set_defaults(act=_split)

    convert = actions.add_parser(
        "convert",
        help="write a data file in another format",
        description=f"Reads {', '.join(FORMATS)} and writes {', '.join(WRITERS)}. For .conll, a text that comes without words "
        "is divided at white space and around every character that is not a letter or digit.",
    )
    convert.add_argument("source", metavar="SRC", help="the data file to read")
    convert.add_argument("target", metavar="DST", help=f"the file to write, whose suffix says the format: {', '.join(WRITERS)}")
    convert.add_argument("--force", action="store_true", help="replace DST if there is one")
    add_reading(convert)
    convert.set_defaults(act=_convert)


def _add_near_duplicates(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument(
        "--near-duplicates", type=_threshold, default=0.8, metavar="SIMILARITY", help=f"{meaning}: 0.5 to 1, or off for none (0.8)"
    )


def _threshold(text: str) -> float | None:
    return None if text == "off" else float(text)


def run(options: argparse.Namespace) -> int:
    status: int = options.act(options)
    return status


# ---- check


def _check(options: argparse.Namespace) -> int:
    files = _files(options)
    inputs = list(chain.from_iterable(files.values()))
    findings, charts = output_file("--json", options.json, *inputs), output_file("--svg", options.svg, *inputs)
    report = check_files(
        files,
        **reading(options),
        tokenizer=None if options.tokenizer is None else Tokenizer.from_pretrained(find_checkpoint(options.tokenizer)),
        near_duplicates=options.near_duplicates,
        near_records=options.near_records,
        progress=True,
    )
    if findings is not None:
        with writing(findings):
            write_text(findings, json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n")
    if charts is not None:
        with writing(charts):
            write_text(charts, _stacked(list(report.charts().values())))
    print(report)
    return 0 if report.ok else 1


def _files(options: argparse.Namespace) -> dict[str, list[str]]:
    """The files of every split. Raises: ArgumentError."""
    files: dict[str, list[str]] = {}
    for file in options.files:
        if files.setdefault(Path(file).stem, [file]) != [file]:
            raise ArgumentError(f"two files are called {quoted(Path(file).stem)}; name their splits: --split NAME=FILE")
    for pair in options.split:
        name, sign, file = pair.partition("=")
        if not (name and sign and file):
            raise ArgumentError(f"--split takes NAME=FILE, got {quoted(pair)}")
        files.setdefault(name, []).append(file)
    if not files:
        raise ArgumentError("there are no files to check: give FILE, or --split NAME=FILE")
    return files


def _stacked(charts: Sequence[str]) -> str:
    """One SVG with all charts, one below the other."""
    parts, height = [], 0.0
    for chart in charts:
        parts.append(chart.replace("<svg ", f'<svg y="{height:g}" ', 1))
        size = re.search(r' width="([\d.]+)" height="([\d.]+)"', chart)
        assert size is not None  # all our charts state their size
        width, height = float(size[1]), height + float(size[2])
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}">\n{"".join(parts)}</svg>\n'


# ---- split


def _split(options: argparse.Namespace) -> int:
    shares = _shares(options.shares)
    output = as_path(options.output)
    if output.exists() and not output.is_dir():
        raise ArgumentError(f"--output: {output} is a file: name a directory")
    suffix = _suffix(options)
    targets = {name: output / f"{name}{suffix}" for name in shares}
    for name in SPLIT_NAMES[3]:
        if name not in shares and os.path.lexists(other := output / f"{name}{suffix}"):
            raise ArgumentError(f"{other} is of another division, and its records would be in the new files too: remove it")
    for target in targets.values():
        check_not_input("--output", target, options.file)
        _check_target(target, options.force)
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always")
        splits = split_records(
            list(_records(options.file, options)),
            shares,
            seed=options.seed,
            stratify=not options.no_stratify,
            label_separator=options.label_separator,
            group_column=options.group,
            near_duplicates=options.near_duplicates,
        )
    for notice in notices:
        print(f"minigrad data: note: {notice.message}", file=sys.stderr)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=output, prefix=".split-") as folder:
            for name, records in splits.items():
                write_records(Path(folder) / targets[name].name, records, label_separator=options.label_separator)
            for target in targets.values():
                os.replace(Path(folder) / target.name, target)
    for name, records in splits.items():
        print(f"{targets[name]}: {len(records):,} records")
    return 0


def _shares(text: str) -> dict[str, float]:
    """The share of each split. Raises: ArgumentError for anything but two or three numbers above 0."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in SPLIT_NAMES or not all(0 < number < math.inf for number in numbers):
        raise ArgumentError(f"--shares takes two or three numbers above 0, such as 80,10,10, got {quoted(text)}")
    return {name: number / math.fsum(numbers) for name, number in zip(SPLIT_NAMES[len(numbers)], numbers, strict=True)}


def _suffix(options: argparse.Namespace) -> str:
    """The suffix of the output files: that of the input's format, or .jsonl if it cannot be written."""
    suffix = Path(options.file).suffix.lower()
    if options.format is not None and SUFFIXES.get(suffix) != options.format:
        suffix = f".{options.format}"
    return suffix if suffix in WRITERS else ".jsonl"


# ---- convert


def _convert(options: argparse.Namespace) -> int:
    target = Path(options.target)
    if target.suffix.lower() not in WRITERS:
        raise ArgumentError(f"DST must end in one of {listing(WRITERS)}, got {quoted(target.name)}")
    check_not_input("DST", target, options.source)
    _check_target(target, options.force)
    records = _FileRecords(options, words=SUFFIXES[target.suffix.lower()] == "conll")
    write_records(target, records, label_separator=options.label_separator)
    print(f"{target}: {len(records):,} records")
    return 0


class _FileRecords(Sequence[Record]):
    """The records of a file, which is read again on each iteration, so that it may be larger than memory."""

    def __init__(self, options: argparse.Namespace, words: bool) -> None:
        """words: split texts with entities into words if the file does not."""
        self._options, self._words = options, words
        self._read = 0

    def __iter__(self) -> Iterator[Record]:
        self._read = 0
        for record in _records(self._options.source, self._options):
            lacking = self._words and record.words is None and record.entities is not None
            yield replace(record, words=tuple(word.span() for word in WORD.finditer(record.text))) if lacking else record
            self._read += 1

    def __getitem__(self, place: Any) -> Any:
        return next(islice(self, place, None))

    def __len__(self) -> int:
        """The number of records read in the last iteration."""
        return self._read

    def __bool__(self) -> bool:
        return True  # a file without records is refused by its reader


# ---- reading and writing


def _records(path: str, options: argparse.Namespace) -> Iterator[Record]:
    with progress_bar(None, True) as bar:
        for record in iter_records(path, **reading(options)):
            if options.label_separator is not None and options.label is not None:  # the labels are written under the usual name
                record = replace(record, fields={name: value for name, value in record.fields.items() if name != options.label})
            yield record
            bar.update()


def _check_target(target: Path, force: bool) -> None:
    if target.is_dir() or (os.path.lexists(target) and not force):
        raise ArgumentError(f"{target} exists: {'it is a directory' if target.is_dir() else 'pass --force to replace it'}")
