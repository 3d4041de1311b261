"""`python -m minigrad train`: fine-tune a model as described by a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minigrad.errors import ArgumentError
from minigrad.train.config import RunConfig
from minigrad.train.run import Run
from minigrad.train.trainer import TrainingResult

DESCRIPTION = (
    "Trains, evaluates, keeps the best model, and writes log, checkpoints, predictions and a report into the output directory. "
    "docs/training.md lists every setting."
)
STATUS = "143 or 130 if SIGTERM or Ctrl-C interrupted the training, which `resume` goes on with."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.toml", help="sections [model], [data], [task], [training] and [output]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="instead of what the file says, such as training.lr=1e-4"
    )


def run(options: argparse.Namespace) -> int:
    path = Path(options.config)
    if path.is_dir():
        raise ArgumentError(f"{path} is a directory: name a config.toml (the directory of a run is what `resume` takes)")
    config = RunConfig.from_toml(path, options.set)
    command = ["python", "-m", "minigrad", "train", options.config, *(word for text in options.set for word in ("--set", text))]
    return finished(Run(config, command).fit(), config)


def finished(result: TrainingResult, config: RunConfig) -> int:
    """Print how the training ended; returns the exit status."""
    directory = config.output.directory
    if result.exit_code:
        print(f"interrupted after step {result.step}, which is saved; go on with: python -m minigrad resume {directory}", file=sys.stderr)
        return result.exit_code
    best = f", best at step {result.best['step']}" if result.best else ""
    print(f"{result.reason} after {result.step} steps{best}: {Path(directory) / 'best'}")
    return 0
