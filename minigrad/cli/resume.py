"""`python -m minigrad resume`: continue an interrupted or killed run, as if nothing had happened."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from minigrad.cli.train import finished
from minigrad.errors import ArgumentError
from minigrad.train.config import CONFIG_NAME, RunConfig
from minigrad.train.run import Run

DESCRIPTION = (
    "Goes on from the newest valid checkpoint of a run's directory; the result is that of a run without interruption, to the last bit."
)
STATUS = "143 or 130 if it was interrupted again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="the output directory of `train`")
    parser.add_argument("--force", action="store_true", help="also if data, model or settings have changed since (said in the log)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a changed setting, such as training.epochs=5; needs --force",
    )


def run(options: argparse.Namespace) -> int:
    directory = Path(options.directory)
    if directory.is_file():
        raise ArgumentError(f"{directory} is a file: name the output directory of the run (a config.toml is what `train` takes)")
    if not (directory / CONFIG_NAME).exists():
        run = directory.resolve().parent  # of best/ and checkpoints/
        hint = f"; {run} is one" if (run / CONFIG_NAME).exists() else ""
        raise ArgumentError(f"{directory} holds no {CONFIG_NAME}, so it is no output directory of a run{hint}")
    if any(text.partition("=")[0].strip() == "output.directory" for text in options.set):
        raise ArgumentError(f"--set output.directory: a run goes on where it is, in {directory}; copy or move that, and resume it there")
    config = RunConfig.from_toml(directory / CONFIG_NAME, options.set)
    config = replace(config, output=replace(config.output, directory=str(directory)))  # the directory may have moved
    words = ["--force"] * options.force + [word for text in options.set for word in ("--set", text)]
    command = ["python", "-m", "minigrad", "resume", options.directory, *words]
    return finished(Run(config, command).fit(resume=True, force=options.force), config)
