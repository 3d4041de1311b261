"""Signs of mistaken columns and inconsistent labels in data files, for people to look at.

A table is read as it is, and a wrong guess about its columns raises no error: a header becomes a record and its second word a class, a
whole review becomes a label, and a label with two spellings becomes two classes. None of this is certain, so it is reported and not
refused. The rules are simple, and made to give few false alarms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from minigrad.data.readers import SUFFIXES
from minigrad.data.records import Record
from minigrad.data.tables import separator_advice
from minigrad.files import quoted

MAX_HEADER_CHARACTERS = 30
"""A longer word is not taken for a column name."""
MIN_LABELS = 10
"""Fewer labels are never suspected to be texts."""
UNIQUE_SHARE = 0.9
"""The share of labels that occur only once, from which they may be texts."""
MIN_MEAN_CHARACTERS = 30
"""The average length of labels, in characters, from which they may be texts."""
MAX_LISTED = 5
"""Labels whose spellings are shown; the others are only counted."""
# In prose a semicolon is followed by white space.
_SEPARATED = re.compile(r"\S[;\t]\S")


def column_notices(firsts: Sequence[Record], labels: Mapping[str, int], format: str | None = None) -> list[str]:
    """Notices of columns that look wrong: a header read as a record, several columns read as one, texts read as labels.

    firsts: the first record of each file; labels: how often each occurs in all of them; format: as given to the reader.
    """
    rows = [
        record for record in firsts if record.line == 1 and (format or SUFFIXES.get(Path(record.path).suffix.lower())) in ("csv", "tsv")
    ]
    return [*_headers(rows, labels), *_separators(rows), *_texts_for_labels(labels)]


def label_notices(labels: Mapping[str, int]) -> list[str]:
    """Notices of labels or entity types that differ only in letter case and surrounding white space. labels: how often each occurs."""
    spellings: dict[str, list[str]] = {}
    for label in sorted(labels):
        spellings.setdefault(label.strip().casefold(), []).append(f"{quoted(label)} ({labels[label]})")
    several = [", ".join(found) for found in spellings.values() if len(found) > 1]
    if not several:
        return []
    shown = "; ".join(several[:MAX_LISTED]) + (f"; and {len(several) - MAX_LISTED} more" if len(several) > MAX_LISTED else "")
    return [
        f"labels that differ only in letter case or in blanks around them are classes of their own: {shown}; write the same label alike"
    ]


def _headers(rows: Sequence[Record], labels: Mapping[str, int]) -> list[str]:
    """First rows whose text is one short word and whose label no other row has, while every other label occurs several times."""
    words = [r for r in rows if r.label is not None and len(r.text.split()) == 1 and len(r.text) <= MAX_HEADER_CHARACTERS]
    found = [r for r in words if labels.get(r.label or "") == sum(other.label == r.label for other in words)]
    others = {count for label, count in labels.items() if label not in {r.label for r in found}}
    if not others or min(others) < 2:
        return []
    return [
        f"{r.path}:1 looks like a header but was read as a record of label {quoted(r.label)}, as no cell is exactly text or label: "
        f"name the columns, --text {r.text} --label {r.label}, or in a config [data] text = {quoted(r.text)}, label = {quoted(r.label)}"
        for r in found
    ]


def _separators(rows: Sequence[Record]) -> list[str]:
    """First rows of one column that holds a semicolon or tab with no white space around it."""
    found = [(r, match[0][1]) for r in rows if len(r.fields) == 1 and (match := _SEPARATED.search(r.text))]
    return [f"{r.path}:1 is one column, {quoted(r.text)}: {separator_advice(separator)}" for r, separator in found]


def _texts_for_labels(labels: Mapping[str, int]) -> list[str]:
    """Many long labels, of which 9 in 10 occur only once."""
    once = sum(count == 1 for count in labels.values())
    if len(labels) < MIN_LABELS or once < UNIQUE_SHARE * len(labels) or sum(map(len, labels)) < MIN_MEAN_CHARACTERS * len(labels):
        return []
    return ["nearly every record has a long label of its own, which may be its text: name the right column (--label, or label in [data])"]
