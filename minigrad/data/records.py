"""What every reader gives: records of text with what is known about them, and the numbering of their labels.

Whatever the file format was, the code behind it sees one kind of record. Each knows its file and line, so that a complaint
that comes late (an unknown label at the start of training, say) still names the place to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, DataError, DTypeError
from minigrad.files import listing, quoted


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A span of a text: characters `start` up to, not including, `end`, and what it is called."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data file: its text and label (None in a file without labels), where it stood, and all its columns by name.

    `text_b` is the second text of a pair, or None. `entities` are spans of `text`, in order and without overlap, or None in a
    file that marks none. `words` are the (start, end) character places of the words that the file itself separates, or None.
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
    """The numbering of the class names: `names[i]` is the label with id i.

    Raises:
        DTypeError, ArgumentError: the names are no tuple of strings, or none, or not distinct.
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

    def ids(self, records: Sequence[Record]) -> NDArray[np.int64]:
        """The label ids of `records`.

        Shapes: (len(records),)

        Raises:
            DataError: a record has no label, or one that did not occur in training; names the file and line.
        """
        ids = np.empty(len(records), dtype=np.int64)
        for position, record in enumerate(records):
            label = _label_of(record)
            if label not in self._id_of:
                message = f"the label {quoted(label)} does not occur in training; known are: {listing(self.names)}"
                raise DataError(record.path, message, line=record.line, code="bad-label")
            ids[position] = self._id_of[label]
        return ids

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def _label_of(record: Record) -> str:
    if record.label is None:
        message = f"the record has no label (its columns: {listing(record.fields)}); name the column by label_column"
        raise DataError(record.path, message, line=record.line, code="missing-label")
    return record.label
