"""`python -m minigrad report`: write a training run's report, as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigrad.cli._options import writing
from minigrad.train.reports.report import write_report

DESCRIPTION = (
    "Reads the directory of a run (config.toml, log.jsonl, predictions-*.jsonl, as far as they are there) and writes report.html, "
    "report.json and the charts as .svg files into it. Works while the run goes on, too."
)
STATUS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="the directory of a run")


def run(options: argparse.Namespace) -> int:
    directory = Path(options.directory)
    with writing(directory, "the report cannot be written"):
        report = write_report(directory)
    for sentence in report.absent:
        print(sentence)
    for path in (report.html, report.json, *report.charts):
        print(path)
    return 0
