"""Options shared by several commands: device and workers, reading records, writing files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigrad.backend import DEVICES
from minigrad.data.readers import FORMATS
from minigrad.errors import ArgumentError, DataError
from minigrad.files import as_path

# ---- computing


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, which defaults to "cpu"."""
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="what computes (default cpu; cuda is a GPU, auto that GPU if it can be used)"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers: a number or "auto", which is the default."""
    parser.add_argument(
        "--workers", type=_workers, default="auto", metavar="N", help="processes that compute (default auto: all processors)"
    )


def _workers(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'a number or "auto", not {text!r}') from None


# ---- reading


def add_reading(parser: argparse.ArgumentParser, label_separator: str | None = None) -> None:
    """Add the options that `reading` turns into arguments of `read_records`.

    label_separator: the default of --label-separator; None for one label per record.
    """
    parser.add_argument("--text", metavar="COLUMN", help="the column or key of the text (text)")
    parser.add_argument("--label", metavar="COLUMN", help="the column or key of the label (label)")
    parser.add_argument("--text-b", metavar="COLUMN", help="the column or key of the second text, in data of pairs (text_b)")
    parser.add_argument(
        "--label-separator",
        default=label_separator,
        metavar="TEXT",
        help=f"between the labels of a record that may have several ({label_separator or 'none: each has one label'})",
    )
    add_format(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add --format and --encoding, which error messages of the readers name."""
    parser.add_argument("--format", choices=FORMATS, metavar="FORMAT", help=f"where the suffix does not say it: {', '.join(FORMATS)}")
    parser.add_argument("--encoding", default="utf-8", help="of the characters in the file (utf-8)")


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `read_records`."""
    columns = {"text_column": options.text, "label_column": options.label, "text_b_column": options.text_b}
    return {"format": options.format, "encoding": options.encoding, "label_separator": options.label_separator, **columns}


# ---- writing


def output_file(option: str, given: str | None, *inputs: str | Path) -> Path | None:
    """The output file that an option names, or None without the option.

    Raises: ArgumentError if it cannot be written there or is one of the inputs, before anything is computed.
    """
    if given is None:
        return None
    path = as_path(given)
    if not path.parent.is_dir():
        raise ArgumentError(f"{option}: {path.parent} is no directory")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ArgumentError(f"{option}: {path} exists and is not a regular file")
    check_not_input(option, path, *inputs)
    return path


def check_not_input(option: str, path: Path, *inputs: str | Path) -> None:
    """Raises: ArgumentError if the output file is one of the inputs, or a link to one."""
    for given in inputs:
        if os.path.exists(path) and os.path.exists(given) and os.path.samefile(path, given):
            raise ArgumentError(f"{option}: {path} is the input: name another file, so that the original stays")


@contextmanager
def writing(path: Path, failure: str = "cannot be written") -> Iterator[None]:
    """Wraps code that writes to a file or directory. Raises: DataError (write-failed) for an OSError."""
    try:
        yield
    except OSError as error:
        raise DataError(path, f"{failure}: {error.strerror or error}", code="write-failed") from error
