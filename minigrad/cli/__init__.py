"""The command line: `python -m minigrad COMMAND`, one module for each command."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from minigrad.cli import audit, convert, info, predict
from minigrad.errors import MinigradError

EXIT_STATUS = "Exit status: 0 done, 1 found something wrong, 2 could not be run."

COMMANDS = {"audit": audit, "info": info, "convert": convert, "predict": predict}
"""Each module has HELP, DESCRIPTION and STATUS, add_arguments(parser) and run(options), which gives the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `arguments`: as in sys.argv[1:], which is the default."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # labels and tables hold letters that a terminal may not know
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`head`) has seen enough; what is left must not be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except (MinigradError, OSError, MemoryError) as error:
        message = " ".join((str(error) or type(error).__name__).split())  # one line, however the message is laid out
        print(f"minigrad {options.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"minigrad {options.command}: interrupted", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minigrad", description="minigrad's command line.", epilog=EXIT_STATUS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        epilog = f"{EXIT_STATUS} {module.STATUS}".strip()
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION, epilog=epilog)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
