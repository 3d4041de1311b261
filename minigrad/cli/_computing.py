"""The options --device and --workers of the commands that compute."""

from __future__ import annotations

import argparse

from minigrad.backend import DEVICES


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, which is "cpu" if nobody says otherwise."""
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="what computes (default cpu; cuda is a GPU, auto that GPU if it can be used)"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers: a number, or "auto", which is the default."""
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
