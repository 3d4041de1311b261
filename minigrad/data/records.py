"""Records, which every reader returns: texts with what is known about them, and the numbering of their labels.

Whatever the file format, later code sees one kind of record. Each knows its file and line, so that an error found late (an unknown label at
the start of training, say) still names the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, DataError, DTypeError
from minigrad.files import json_type, listing, quoted, surrogate_at

MAX_TEXT_CHARACTERS = 4 * 2**20
"""The longest text of a record: more than any novel. A longer text means that the wrong file was given."""


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A span of a text: characters `start` up to, not including, `end`, and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data file: its text and label (None in a file without labels), its file and line, and all its columns by name.

    `text_b` is the second text of a pair, or None. `entities` are spans of `text`, in order and without overlap, or None in a file without
    entities. `words` are the (start, end) characters of the words, if the file itself separates them, or None.
    """

    text: str
    label: str | None
    path: str
    line: int
    fields: Mapping[str, object]
    text_b: str | None = None
    entities: tuple[Entity, ...] | None = None
    words: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class LabelMap:
    """Numbers the class names: `names[i]` is the label with id i.

    Raises:
        DTypeError, ArgumentError: the names are not a tuple of strings; they are empty or not distinct.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) for name in self.names):
            raise DTypeError(f"a LabelMap takes a tuple of strings, got {quoted(self.names)}; LabelMap.from_records makes one from records")
        if not self.names:
            raise ArgumentError("a LabelMap needs at least one label name")
        if len(set(self.names)) != len(self.names):
            raise ArgumentError(f"label names must differ from each other, got {listing(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> LabelMap:
        """Number the labels of the training records, sorted by code point, so that ids do not depend on the order of rows.

        Raises:
            DataError: a record has no label.
        """
        return cls(tuple(sorted({_label_of(record) for record in records})))

    @classmethod
    def of_tags(cls, records: Iterable[Record]) -> LabelMap:
        """Number the IOB2 tags of the training records' entities: "O", then "B-X" and "I-X" for each type X, sorted by code point.

        Raises:
            DataError: a record comes from a file without entities.
        """
        types = sorted({entity.type for record in records for entity in required_entities(record)})
        return cls(("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")))

    @classmethod
    def of_several(cls, records: Iterable[Record], separator: str) -> LabelMap:
        """Number the labels of training records that may have several, sorted by code point.

        Raises:
            DataError: a record has no label column, or no record has a label.
        """
        found: set[str] = set()
        for record in records:
            found.update(labels_of(record, separator))
        if not found:
            raise DataError(record.path, "no record has a label: there is nothing to learn", code="one-label")
        return cls(tuple(sorted(found)))

    def ids(self, records: Sequence[Record]) -> NDArray[np.int64]:
        """The label ids of `records`.

        Shapes: (len(records),)

        Raises:
            DataError: a record has no label, or one that did not occur in training; names the file and line.
        """
        ids = np.empty(len(records), dtype=np.int64)
        for position, record in enumerate(records):
            ids[position] = self._id(record, _label_of(record))
        return ids

    def flags(self, records: Sequence[Record], separator: str) -> NDArray[np.float32]:
        """1 for each label that a record has, else 0.

        Shapes: (len(records), len(self))

        Raises:
            DataError: as `ids`.
        """
        flags = np.zeros((len(records), len(self)), np.float32)
        for row, record in zip(flags, records, strict=True):
            row[[self._id(record, label) for label in labels_of(record, separator)]] = 1
        return flags

    def _id(self, record: Record, label: str) -> int:
        if label not in self._ids:
            message = f"the label {quoted(label)} does not occur in training; known are: {listing(self.names)}"
            raise DataError(record.path, message, line=record.line, code="bad-label")
        return self._ids[label]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def labels_of(record: Record, separator: str) -> list[str]:
    """The labels of a record that was read with this `label_separator`, without spaces around them; an empty list for an empty label.

    Raises:
        DataError: the record has no label column.
    """
    return separated(_label_of(record), separator)


def separated(text: str, separator: str) -> list[str]:
    """The names in `text`, split at `separator`, without spaces around them and without empty ones."""
    return [name for part in text.split(separator) if (name := part.strip())]


def numbers(records: Sequence[Record]) -> NDArray[np.float64]:
    """The labels as numbers, for regression.

    Shapes: (len(records),)

    Raises:
        DataError: a record has no label, or one that is not a finite decimal number; names the file and line.
    """
    found = np.empty(len(records), dtype=np.float64)
    for position, record in enumerate(records):
        label = _label_of(record)
        if not (_NUMBER.fullmatch(label.strip()) and np.isfinite(number := float(label))):
            message = f"the label {quoted(label)} is no finite number, which regression needs"
            raise DataError(record.path, message, line=record.line, code="bad-label")
        found[position] = number
    return found


# What else float() accepts (nan, inf, 1_000, digits of other scripts) is more likely a mistake in a data file than a number.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def required_entities(record: Record) -> tuple[Entity, ...]:
    """The record's entities. Raises: DataError (code missing-entities) if its file has none."""
    if record.entities is None:
        raise DataError(record.path, "the record has no entities to learn from", line=record.line, code="missing-entities")
    return record.entities


def _label_of(record: Record) -> str:
    if record.label is None:
        message = f"the record has no label (its columns: {listing(record.fields)}); name the column: label in [data], or --label"
        raise DataError(record.path, message, line=record.line, code="missing-label")
    return record.label


def check_text(path: str | Path, line: int, value: object, what: str = "text") -> str:
    """`value`, if it is valid as a text of a record. `what`: its name in messages.

    Raises:
        DataError: it is not a string, is empty or too long, or holds characters that only JSON escapes can bring in.
    """
    if not isinstance(value, str):
        raise DataError(path, f"the {what} must be a string, found {json_type(value)}", line=line, code="bad-text")
    if not value.strip():
        raise DataError(path, f"the {what} is empty; remove the record", line=line, code="empty-text")
    if len(value) > MAX_TEXT_CHARACTERS:
        message = f"the {what} has {len(value)} characters, more than the {MAX_TEXT_CHARACTERS} that a record may have; split it"
        raise DataError(path, message, line=line, code="text-limit")
    return check_characters(path, line, value)


def check_characters(path: str | Path, line: int, value: str) -> str:
    """`value`. Raises: DataError if it holds a NUL or a lone surrogate, which no tokenizer and no terminal can take."""
    if "\0" in value:
        raise DataError(path, f"NUL character at position {value.index(chr(0))} of the string", line=line, code="nul-character")
    if (position := surrogate_at(value)) is not None:
        message = f"half a surrogate pair at position {position} of the string, which is no character"
        raise DataError(path, message, line=line, code="bad-text")
    return value
