"""The findings of a check of data files: numbers for programs, tables for people, charts of lengths.

Everything is bounded, however large the files are: counts, and the first few places of each kind.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigrad import plots
from minigrad.data.text_faults import FAULTS
from minigrad.files import quoted

EXAMPLES = 5
"""Places kept for each kind of finding: the first in the order of the files."""
EXACT_LENGTHS = 1000
"""Lengths from here on are counted to three digits."""
BINS = 20
SHOWN_LABELS = 30
SHOWN_CHARACTERS = 80
PER_RECORD = ("none", "one", "several")


@dataclass
class Finding:
    """How often something was found, and the first places."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, place: int, example: str, count: int = 1) -> None:
        """place: any number that increases along the files."""
        self.count += count
        insort(self.first, (place, example))
        del self.first[EXAMPLES:]

    def to_dict(self) -> dict[str, Any]:
        return {"count": self.count, "first": [example for _, example in self.first]}


class Lengths:
    """A histogram of text lengths; from EXACT_LENGTHS on they are rounded down to three digits, so that there are few different ones."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.longest = 0

    def add(self, length: int) -> None:
        self.longest = max(self.longest, length)
        if length >= EXACT_LENGTHS:
            length -= length % 10 ** (len(str(length)) - 3)
        self.counts[length] += 1

    def at(self, share: float) -> int:
        """The `share` quantile of the lengths; 0 if there are none."""
        left = share * self.counts.total()
        for length, count in sorted(self.counts.items()):
            left -= count
            if left <= 0:
                return length
        return 0

    def bins(self) -> tuple[list[str], list[int]]:
        """Names and counts of at most BINS ranges of equal width; the last one contains all longer texts."""
        width = max(1, -(-(self.at(0.99) + 1) // (BINS - 1)))
        filled = Counter[int]()
        for length, count in self.counts.items():
            filled[min(length // width, BINS - 1)] += count
        last = max(filled, default=0)
        names = [str(i * width) if width == 1 else f"{i * width}–{(i + 1) * width - 1}" for i in range(last + 1)]
        if last == BINS - 1:
            names[-1] = f"{last * width} and more"
        return names, [filled[i] for i in range(last + 1)]

    def to_dict(self) -> dict[str, Any]:
        names, counts = self.bins()
        return {
            "median": self.at(0.5),
            "95%": self.at(0.95),
            "99%": self.at(0.99),
            "longest": self.longest,
            "histogram": dict(zip(names, counts, strict=True)),
        }


@dataclass
class SplitFindings:
    """What was found in one split.

    `duplicates` are records whose text occurs earlier in the same split, `near_duplicates` those only similar to an earlier one, among the
    first `compared` records. `labels_per_record` counts the records with none, one or several labels, where several are allowed.
    `entity_types` counts spans; `lengths` is by unit: characters, words, tokens. `composed`: whether an accented letter is written as one
    character anywhere.
    """

    paths: list[str]
    records: int = 0
    compared: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    labels_per_record: Counter[str] = field(default_factory=Counter)
    entity_types: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, Finding] = field(default_factory=dict)
    byte_order_marks: list[str] = field(default_factory=list)
    faults: dict[str, Finding] = field(default_factory=dict)
    duplicates: Finding = field(default_factory=Finding)
    near_duplicates: Finding = field(default_factory=Finding)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    composed: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "paths": self.paths,
            "records": self.records,
            "compared_for_near_duplicates": self.compared,
            "labels": dict(self.labels.most_common()),
            **({"labels_per_record": {name: self.labels_per_record[name] for name in PER_RECORD}} if self.labels_per_record else {}),
            "entity_types": dict(self.entity_types.most_common()),
            "unreadable": {code: finding.to_dict() for code, finding in self.unreadable.items()},
            "byte_order_marks": self.byte_order_marks,
            "faults": {kind: finding.to_dict() for kind, finding in self.faults.items()},
            "duplicates": self.duplicates.to_dict(),
            "near_duplicates": self.near_duplicates.to_dict(),
            "lengths": {unit: lengths.to_dict() for unit, lengths in self.lengths.items()},
        }


@dataclass
class DataReport:
    """What `check_files` found.

    `conflicts`: texts that occur with different labels, or different entities, in any split. `leaks[a, b]`: records of split b whose text
    also occurs in split a. `near_leaks[a, b]`: records of b that are only similar to one of a, directly or through others.
    `missing_labels`: the labels (and entity types) that some splits have and others lack, each with the splits that have it. `notices`:
    signs of mistaken columns, or of labels with several spellings; see `suspicions`.
    """

    splits: dict[str, SplitFindings]
    conflicts: Finding = field(default_factory=Finding)
    leaks: dict[tuple[str, str], Finding] = field(default_factory=dict)
    near_leaks: dict[tuple[str, str], Finding] = field(default_factory=dict)
    missing_labels: dict[str, list[str]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No text occurs in two splits, exactly or nearly, or with two labels. Everything else may be intended."""
        return not (self.conflicts.count or self.leaks or self.near_leaks)

    def to_dict(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        return {
            "ok": self.ok,
            "splits": {name: split.to_dict() for name, split in self.splits.items()},
            "conflicts": self.conflicts.to_dict(),
            "leaks": _pairs(self.leaks),
            "near_leaks": _pairs(self.near_leaks),
            "missing_labels": self.missing_labels,
            "notices": self.notices,
        }

    def charts(self) -> dict[str, str]:
        """A histogram over all splits for each unit of length (characters, words, tokens), as SVG text."""
        charts = {}
        for unit in dict.fromkeys(unit for split in self.splits.values() for unit in split.lengths):
            everywhere = Lengths()
            for split in self.splits.values():
                everywhere.counts.update(split.lengths[unit].counts if unit in split.lengths else {})
            names, counts = everywhere.bins()
            charts[unit] = plots.bars(f"Length in {unit}", names, counts, x_label="records", y_label=unit)
        return charts

    def __str__(self) -> str:
        labelled = {name: split.labels_per_record.total() for name, split in self.splits.items()}
        sections = [
            self._sizes(),
            self._balance("labels per record", {name: split.labels_per_record for name, split in self.splits.items()}),
            self._balance("label", {name: split.labels for name, split in self.splits.items()}, labelled),
            self._balance("entity type", {name: split.entity_types for name, split in self.splits.items()}),
            [line for (a, b), found in self.leaks.items() for line in _lines(f"LEAK: {found.count:,} of {b} also in {a}", found)],
            [line for (a, b), found in self.near_leaks.items() for line in _lines(f"LEAK: {found.count:,} of {b} nearly in {a}", found)],
            _lines(f"CONFLICT: {self.conflicts.count:,} text(s) with different labels", self.conflicts),
            [f"only in {', '.join(found)}: {quoted(label)}" for label, found in list(self.missing_labels.items())[:SHOWN_LABELS]],
            *(_problems(name, split) for name, split in self.splits.items()),
            [f"NOTICE: {notice}" for notice in self.notices],
            [self._verdict()],
        ]
        return "\n\n".join("\n".join(section) for section in sections if section)

    def _sizes(self) -> list[str]:
        units = list(dict.fromkeys(unit for split in self.splits.values() for unit in split.lengths))
        rows = [["split", "records", "unreadable", "duplicates", "near-duplicates", *(f"{unit}: median, 95%, longest" for unit in units)]]
        for name, split in self.splits.items():
            unreadable = sum(finding.count for finding in split.unreadable.values())
            counts = [split.records, unreadable, split.duplicates.count, split.near_duplicates.count]
            lengths = [split.lengths.get(unit, Lengths()) for unit in units]
            rows.append([name, *(f"{n:,}" for n in counts), *(f"{n.at(0.5):,}, {n.at(0.95):,}, {n.longest:,}" for n in lengths)])
        return _table(rows)

    def _balance(self, what: str, counts: dict[str, Counter[str]], whole: Mapping[str, int] | None = None) -> list[str]:
        """whole: the total of which each split's counts are shares; if absent or 0, their sum."""
        total = sum(counts.values(), Counter())
        if not total:
            return []
        rows = [[what, *counts]]
        for label, _ in total.most_common(SHOWN_LABELS):
            shares = (of_split[label] / max((whole or {}).get(name) or of_split.total(), 1) for name, of_split in counts.items())
            rows.append(
                [label if label.isprintable() and len(label) <= SHOWN_CHARACTERS else quoted(label)]
                + [f"{of_split[label]:,} ({share:.1%})" for of_split, share in zip(counts.values(), shares, strict=True)]
            )
        if len(total) > SHOWN_LABELS:
            rows.append([f"and {len(total) - SHOWN_LABELS} more", *("" for _ in counts)])
        return _table(rows)

    def _verdict(self) -> str:
        partly = [f"the first {s.compared:,} of {s.records:,} of {name}" for name, s in self.splits.items() if 0 < s.compared < s.records]
        note = f" (near-duplicates were looked for among {', '.join(partly)})" if partly else ""
        return ("ok: no leaks, no conflicts" if self.ok else "not ok: see LEAK and CONFLICT above") + note


def _pairs(findings: dict[tuple[str, str], Finding]) -> list[dict[str, Any]]:
    return [{"of": second, "in": first, **finding.to_dict()} for (first, second), finding in findings.items()]


def _problems(name: str, split: SplitFindings) -> list[str]:
    lines = [f"{name}: {path} begins with a byte order mark, which is dropped" for path in split.byte_order_marks]
    for code, finding in split.unreadable.items():
        lines += _lines(f"{name}: {finding.count:,} row(s) cannot be read ({code})", finding)
    for kind, finding in split.faults.items():
        lines += _lines(f"{name}: {finding.count:,} × {kind}: {FAULTS[kind]}", finding)
    return lines


def _lines(heading: str, finding: Finding) -> list[str]:
    more = [f"  and {finding.count - len(finding.first):,} more"] if finding.count > len(finding.first) else []
    return [heading, *(f"  {example}" for _, example in finding.first), *more] if finding.count else []


def _table(rows: Sequence[Iterable[str]]) -> list[str]:
    """Aligned columns, the first to the left and the others to the right."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip() for row in cells]
