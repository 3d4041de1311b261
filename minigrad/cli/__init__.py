"""The command line: `python -m minigrad COMMAND`, one module for each command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from minigrad.cli import audit, compare, convert, data, evaluate, info, predict, report, resume, train
from minigrad.errors import MinigradError

EXIT_STATUS = "Exit status: 0 done, 1 found something wrong, 2 could not be run or nobody reads its output any more, 130 interrupted."
INTERRUPTED = 130  # as shells count: 128 and the signal's number

COMMANDS = {
    "data": data,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "predict": predict,
    "compare": compare,
    "report": report,
    "info": info,
    "convert": convert,
    "audit": audit,
}
"""Each module has HELP, DESCRIPTION and STATUS, add_arguments(parser) and run(options), which gives the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `arguments`: as in sys.argv[1:], which is the default."""
    _prepare_streams()
    options = argparse.Namespace(command="", debug=False)
    try:
        try:
            _parser().parse_args(arguments, options)
            status: int = options.run(options)
        finally:
            sys.stdout.flush()  # here, where a failure is one line, and not at exit
    except BrokenPipeError:  # the reader (`head`) has seen enough
        _forget_output()
        return 2
    except KeyboardInterrupt:
        return _end(options, "interrupted", INTERRUPTED)
    except Exception as error:
        if options.debug:
            raise
        _forget_output()
        message = str(error) or type(error).__name__
        if not isinstance(error, MinigradError | OSError | MemoryError):
            message = f"{type(error).__name__}: {message}; this is a fault of minigrad, which `minigrad --debug {options.command}` shows"
        return _end(options, message, 2)
    return status


def _end(options: argparse.Namespace, message: str, status: int) -> int:
    line = " ".join(message.split())  # one line, however the message is laid out
    print(f"minigrad {options.command}: {line}", file=sys.stderr)
    return status


def _prepare_streams() -> None:
    """Give a process that was started without standard streams some, so that no file of ours takes their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as the process lives)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # labels and tables hold letters that a terminal may not know


def _forget_output() -> None:
    """What standard output did not take must not be written again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minigrad", description="minigrad's command line.", epilog=EXIT_STATUS)
    parser.add_argument("--debug", action="store_true", help="show where an error arose instead of one line about it")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        epilog = f"{EXIT_STATUS} {module.STATUS}".strip()
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION, epilog=epilog)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
