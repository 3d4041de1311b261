"""Compares every record of some files with every other: copies, contradictions and leaks, with little memory per record.

Of every record 20 bytes are kept: hashes of its text and its answer, and its place, which is enough for exact copies. Near-duplicates need
the texts, which are kept only for the first records of each split, up to a number of records and of characters.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.data.data_report import DataReport, Finding
from minigrad.data.duplicates import folded_text, near_duplicate_groups
from minigrad.data.records import Record

NEAR_CHARS = 100_000_000
"""Characters of text kept for near-duplicates in all splits together; each split has an equal share."""
PARTS = 16
"""Hashes are sorted in this many parts, so that sorting takes little extra memory."""


class CopyIndex:
    """What is kept of every record, in reading order: hashes of text and answer, file and line; for the first records also the text."""

    def __init__(self, report: DataReport, near_records: int) -> None:
        self._report = report
        self._names, self._found = list(report.splits), list(report.splits.values())
        self._text_hashes, self._answer_hashes = array("Q"), array("I")
        self._lines, self._files = array("I"), array("I")
        self._paths: list[str] = []
        self._split_of_file: list[int] = []
        self._near_records, self._near_chars = near_records, NEAR_CHARS // len(self._names)
        self._folded: list[str] = []
        self._rows_of_folded = array("Q")
        self._chars = [0] * len(self._names)

    def __len__(self) -> int:
        return len(self._text_hashes)

    def open(self, path: Path, split: int) -> int:
        """Start a file, to which the records added from now on belong; returns its number."""
        self._paths.append(str(path))
        self._split_of_file.append(split)
        return len(self._paths) - 1

    def add(self, record: Record, labels: Sequence[str] | None) -> None:
        """labels: the record's labels, in an order that does not depend on the record; None if its file has none."""
        split = self._split_of_file[-1]
        found = self._found[split]
        if found.compared == found.records < self._near_records and self._chars[split] <= self._near_chars:
            folded = folded_text(record)
            self._chars[split] += len(folded)
            self._rows_of_folded.append(len(self))
            self._folded.append(folded)
            found.compared += 1
        text = record.text if record.text_b is None else f"{record.text}\0{record.text_b}"  # no text holds a NUL
        self._text_hashes.append(_hash(text, 8))
        self._answer_hashes.append(_answer(record, labels))
        self._lines.append(min(record.line, 2**32 - 1))
        self._files.append(len(self._paths) - 1)
        found.records += 1

    def finish(self, threshold: float | None) -> None:
        """Complete the report: copies, conflicts and leaks."""
        for rows in self._copies():
            self._count_copies(rows)
        if threshold is not None and self._folded:
            groups = near_duplicate_groups(self._folded, threshold)
            order = np.argsort(groups, kind="stable")
            for rows in _runs(groups[order], np.frombuffer(self._rows_of_folded, np.uint64)[order]):
                self._count_near_copies(rows)

    def _copies(self) -> Iterator[list[int]]:
        """For each text that occurs more than once, its records in order."""
        hashes = np.frombuffer(self._text_hashes, np.uint64)
        for part in range(PARTS):
            rows = np.flatnonzero(hashes % PARTS == part)
            rows = rows[np.argsort(hashes[rows], kind="stable")]
            yield from _runs(hashes[rows], rows)

    def _count_copies(self, rows: list[int]) -> None:
        by_split = self._by_split(rows)
        for split, (first, *others) in by_split.items():
            for row in others:
                self._found[split].duplicates.add(row, f"{self._where(row)} = {self._where(first)}")
        for (first, earlier), (second, later) in combinations(by_split.items(), 2):
            self._leak(self._report.leaks, (first, second), later, f"{self._where(later[0])} = {self._where(earlier[0])}")
        first_of_answer: dict[int, int] = {}
        for row in rows:
            if self._answer_hashes[row]:
                first_of_answer.setdefault(self._answer_hashes[row], row)
        if len(first_of_answer) > 1:
            self._report.conflicts.add(rows[0], " ≠ ".join(self._where(row) for row in list(first_of_answer.values())[:3]))

    def _count_near_copies(self, rows: list[int]) -> None:
        """As `_count_copies`, except for the records it has already counted."""
        by_split = self._by_split(rows)
        for split, of_split in by_split.items():
            first, *others = sorted({self._text_hashes[row]: row for row in reversed(of_split)}.values())  # the first record of each text
            for row in others:
                self._found[split].near_duplicates.add(row, f"{self._where(row)} ≈ {self._where(first)}")
        for (first, earlier), (second, later) in combinations(by_split.items(), 2):
            texts = {self._text_hashes[row] for row in earlier}
            if near := [row for row in later if self._text_hashes[row] not in texts]:
                self._leak(self._report.near_leaks, (first, second), near, f"{self._where(near[0])} ≈ {self._where(earlier[0])}")

    def _by_split(self, rows: list[int]) -> dict[int, list[int]]:
        by_split: dict[int, list[int]] = defaultdict(list)
        for row in rows:  # in the order of the records, so that the splits are in order too
            by_split[self._split_of_file[self._files[row]]].append(row)
        return by_split

    def _leak(self, leaks: dict[tuple[str, str], Finding], splits: tuple[int, int], rows: list[int], example: str) -> None:
        first, second = (self._names[split] for split in splits)
        leaks.setdefault((first, second), Finding()).add(rows[0], example, len(rows))

    def _where(self, row: int) -> str:
        return f"{self._paths[self._files[row]]}:{self._lines[row]}"


def _runs(keys: Any, rows: Any) -> Iterator[list[int]]:
    """The rows of every key that occurs more than once; `keys` must be sorted."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    ends = np.append(starts[1:], len(keys))
    for several in np.flatnonzero(ends - starts > 1):
        yield rows[starts[several] : ends[several]].tolist()


def _hash(text: str, size: int) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest(), "little")


def _answer(record: Record, labels: Sequence[str] | None) -> int:
    """A hash of the expected output, labels and entities; 0 if the record has neither."""
    if labels is None and record.entities is None:
        return 0
    spans = [(entity.start, entity.end, entity.type) for entity in record.entities or ()]
    return _hash(repr((labels, spans)), 4) or 1
