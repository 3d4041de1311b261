"""The command line: `python -m minigrad COMMAND`, one module for each command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from minigrad._version import __version__
from minigrad.errors import MinigradError

EXIT_STATUS = "Exit status: 0 done, 1 found something wrong, 2 could not be run or nobody reads its output any more, 130 interrupted."
INTERRUPTED = 130  # as shells count: 128 and the signal's number

COMMANDS = {
    "data": "check, split and convert data files",
    "train": "train a model as a file describes it",
    "resume": "go on with an interrupted training",
    "evaluate": "score a trained model on labelled records",
    "predict": "run a model on texts",
    "compare": "compare the predictions of two models on the same records",
    "report": "write the report of a training run",
    "info": "say what a model directory holds and what would be loaded",
    "convert": "write a checkpoint of any readable format as safetensors",
    "audit": "prove a model's gradient on some of your records",
    "doctor": "say what this installation is made of, and whether a GPU can be used",
}
"""The purpose of each command. Its module has DESCRIPTION, STATUS, add_arguments(parser) and run(options), which gives the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `arguments` defaults to sys.argv[1:]."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _prepare_streams()
    options = argparse.Namespace(command="", debug=False)
    try:
        try:
            _parser(arguments).parse_args(arguments, options)
            status: int = options.run(options)
        finally:
            sys.stdout.flush()  # here, where a failure is reported in one line, and not at exit
    except BrokenPipeError:  # the reader (`head`) has seen enough
        _discard_output()
        return 2
    except KeyboardInterrupt:
        return _fail(options, "interrupted", INTERRUPTED)
    except Exception as error:
        if options.debug:
            raise
        _discard_output()
        message = str(error) or type(error).__name__
        if not isinstance(error, MinigradError | OSError | MemoryError):
            message = f"{type(error).__name__}: {message}; this is a fault of minigrad, which `minigrad --debug {options.command}` shows"
        return _fail(options, message, 2)
    return status


def _fail(options: argparse.Namespace, message: str, status: int) -> int:
    line = " ".join(message.split())  # one line, even if the message has several
    who = f"minigrad {options.command}".rstrip()  # no command yet if interrupted while its module loads
    print(f"{who}: {line}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Open the null device for missing standard streams, so that no file of ours gets their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as the process lives)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # labels and tables may hold letters that the terminal cannot show


def _discard_output() -> None:
    """Discard what standard output did not accept, so that it is not written again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for `arguments`. Only commands named there get their options, because that imports all that the command works with."""
    parser = argparse.ArgumentParser(prog="python -m minigrad", description="minigrad's command line.", epilog=EXIT_STATUS)
    parser.add_argument("--version", action="version", version=f"minigrad {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error arose instead of one line about it")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        if name in arguments:
            module = import_module(f"minigrad.cli.{name}")
            command.description, command.epilog = module.DESCRIPTION, f"{EXIT_STATUS} {module.STATUS}".strip()
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
