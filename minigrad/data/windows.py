"""Splits texts that are longer than a model reads into overlapping windows, so that tokens at the edge of one have context in the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data.checks import check_count
from minigrad.data.tokenization import Encoding
from minigrad.errors import ArgumentError, InputError
from minigrad.files import quoted

Rows = NDArray[np.floating[Any]]


def windows(encoding: Encoding, sequence: int, size: int, stride: int | None, name: str, number: int) -> list[tuple[int, int]]:
    """(first, past the last) token of each window's part of text `sequence`; every window also holds all other tokens of the encoding.

    size: the tokens of a window. stride: the tokens that neighbouring windows share; None: 128, or half of a small window. name, number: of
    the text, for messages.
    Raises: InputError if there is no room for text; ArgumentError for a stride that does not fit into it.
    """
    own = np.flatnonzero(encoding.sequence_ids == sequence)
    first, last = (int(own[0]), int(own[-1]) + 1) if len(own) else (1, 1)
    others = len(encoding) - (last - first)
    room = size - others
    if room < 1:
        raise InputError(name, number, f"leaves no room for text: {others} other tokens of {size}", code="too-long")
    shared = min(128, room // 2) if stride is None else check_count("stride", stride, least=0)
    if last - first > room and shared >= room:
        raise ArgumentError(f"stride must lie between 0 and {room - 1}, as {name} {number} leaves {room} tokens; got {quoted(stride)}")
    found = []
    for start in range(first, max(last, first + 1), max(room - shared, 1)):
        found.append((start, min(start + room, last)))
        if start + room >= last:
            break
    return found


def window(encoding: Encoding, part: tuple[int, int], whole: tuple[int, int]) -> Encoding:
    """The encoding with the tokens of `part` in place of those of `whole`, which spans all parts."""
    if part == whole:
        return encoding
    tokens = np.r_[0 : whole[0], part[0] : part[1], whole[1] : len(encoding)]
    names = ("ids", "type_ids", "offsets", "word_ids", "sequence_ids")
    return replace(encoding, **{name: getattr(encoding, name)[tokens] for name in names})


def answering(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(first, past the last) token that each part answers for: every token once, by the part that shows most of its context.

    The overlap of two parts is halved.
    """
    cuts = [parts[0][0], *((before[1] + after[0]) // 2 for before, after in pairwise(parts)), parts[-1][1]]
    return list(pairwise(cuts))


def joined(parts: Sequence[tuple[int, int]], rows: Iterable[Rows]) -> Rows:
    """The rows of the tokens of all parts together, each from the part that answers for it.

    Shapes: rows, for each window (its tokens, d) → (tokens of all parts together, d).
    """
    first = parts[0][0]
    taken = zip(parts, rows, answering(parts), strict=True)
    return np.concatenate([row[first - start + begin : first - start + end] for (start, _), row, (begin, end) in taken])
