"""Writes records to files that the readers read back.

Someone will train on a written file, so what a format cannot hold is refused by name instead of left out, and a file appears whole or not
at all.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from minigrad.data.alignment import tags_of_words, unaligned
from minigrad.data.annotations import is_span_list
from minigrad.data.checks import check_separator
from minigrad.data.records import Record, check_characters, check_text, labels_of, separated
from minigrad.errors import ArgumentError, DataError
from minigrad.files import as_path, listing, quoted, replacing

# What the .conll reader would not read as this word: an empty line, two columns, a document, a comment, a byte order mark.
_NO_WORD = re.compile(r"\s*\Z|.*[\t\n]|-DOCSTART-|# |\ufeff", re.DOTALL)


def write_records(path: str | Path, records: Sequence[Record], *, label_separator: str | None = None) -> None:
    """Write records in the format of the suffix; `read_records` reads them back. An existing file is replaced.

    `.jsonl` holds everything: text, label, text_b, entities, words, and the other fields under their names.
    `.csv` and `.tsv` hold text, label, text_b and fields that are strings or numbers (as strings), but not entities or words.
    `.conll` (.bio, .iob) holds only words and IOB2 tags; the text comes back with one space between words.

    label_separator: None for one label per record; else the one that the records were read with and will be read back with. In .jsonl, a
    record's labels, or none, become a list, without the spaces around names; in a table they stay as they are, with the separator between
    them.

    Raises:
        ArgumentError: there are no records, `path` is not a path, or `label_separator` cannot separate.
        DataError: the suffix names no format (unknown-suffix), a record has what the format or its reader does not take (cannot-be-held, or
            the reader's own code), or the file cannot be written (write-failed).
    """
    path = as_path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        message = f"the suffix {path.suffix!r} names no format that can be written; use {', '.join(WRITERS)}"
        raise DataError(path, message, code="unknown-suffix")
    check_separator(label_separator)
    if not records:
        raise ArgumentError("there are no records to write")
    for record in records:
        check_text(record.path, record.line, record.text)
        if record.label is not None and label_separator is None:  # of several there may be none
            check_text(record.path, record.line, record.label, "label")
        if record.text_b is not None:
            check_text(record.path, record.line, record.text_b, "second text")
        for what in ("label", "text_b", "entities"):
            if (getattr(record, what) is None) != (getattr(records[0], what) is None):
                raise _refused(record, f"{what}: some records have one and some have none; a file has one or the other")
    lines = _json_lines(records, label_separator) if suffix == ".jsonl" else WRITERS[suffix](records)
    try:
        with replacing(path) as file:
            file.writelines(line.encode("utf-8") for line in lines)
    except OSError as error:
        raise DataError(path, f"cannot be written: {error.strerror or error}", code="write-failed") from error


def _refused(record: Record, message: str) -> DataError:
    return DataError(record.path, message, line=record.line, code="cannot-be-held")


def _own_values(record: Record) -> dict[str, Any]:
    return {name: value for name in ("text", "label", "text_b") if (value := getattr(record, name)) is not None}


def _other_fields(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.fields.items() if name not in ("text", "label", "text_b")}


# ---- .jsonl


def _json_lines(records: Iterable[Record], separator: str | None = None) -> Iterator[str]:
    for record in records:
        values = _own_values(record)
        if separator is not None and record.label is not None:
            values["label"] = names = labels_of(record, separator)
            if separated(separator.join(names), separator) != names:  # 'a; ' and 'b' with ';;' between them
                message = f"its labels {listing(names)} cannot be told apart with {quoted(separator)} between them: choose label_separator"
                raise _refused(record, message)
        if record.entities is not None:
            values["entities"] = [{"start": entity.start, "end": entity.end, "type": entity.type} for entity in record.entities]
        if record.words is not None:
            values["words"] = record.words
        others = _other_fields(record)
        for name in ("entities", "labels"):
            if name in others and record.entities is None and (name == "entities" or is_span_list(others[name])):
                raise _refused(record, f"its column {name!r} would be read as spans; rename it")
        try:
            line = json.dumps(values | {name: others[name] for name in others if name not in values}, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise _refused(record, f"its columns cannot be written as JSON: {error}") from error
        yield check_characters(record.path, record.line, line) + "\n"


# ---- .csv and .tsv


def _csv_lines(records: Sequence[Record]) -> Iterator[str]:
    line = io.StringIO(newline="")
    writer = csv.writer(line)
    for record, cells in _table(records):
        for cell in cells:
            if len(cell) > csv.field_size_limit():
                message = f"{quoted(cell)} is longer than the {csv.field_size_limit()} characters that the csv module reads; use .jsonl"
                raise _refused(record, message)
        writer.writerow(cells)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _tsv_lines(records: Sequence[Record]) -> Iterator[str]:
    for record, cells in _table(records):
        for cell in cells:
            if not {"\t", "\n", "\r"}.isdisjoint(cell):
                raise _refused(record, f"{quoted(cell)} holds a tab or a line end, which a .tsv cannot; use .csv or .jsonl")
        yield "\t".join(cells) + "\n"


def _table(records: Sequence[Record]) -> Iterator[tuple[Record, list[str]]]:
    """The cells of the header, then of each record; the header comes with the first record."""
    names = list(_own_values(records[0]) | _other_fields(records[0]))
    rows = ((record, _own_values(record) | _other_fields(record)) for record in records)
    header = (records[0], dict(zip(names, names, strict=True)))
    for record, values in chain([header], rows):
        for what in ("entities", "words"):
            if getattr(record, what) is not None:
                raise _refused(record, f"it has {what}, which a table cannot hold; use .jsonl")
        if set(values) != set(names):
            raise _refused(record, f"its columns are {listing(values)}, those of the first record {listing(names)}; use .jsonl")
        yield record, [_cell(record, name, values[name]) for name in names]


def _cell(record: Record, name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise _refused(record, f"its column {quoted(name)} is no string or number, which is all that a table can hold; use .jsonl")
    return check_characters(record.path, record.line, value)


# ---- .conll


def _conll_lines(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        for what in ("label", "text_b"):
            if getattr(record, what) is not None:
                raise _refused(record, f"it has {what}, for which a .conll file has no place; use .jsonl")
        if not record.words or record.entities is None:
            lacks = "entities (() for none)" if record.words else "words"
            raise _refused(record, f"a .conll file needs {lacks}; give them with dataclasses.replace(record, ...), or use .jsonl")
        if split := unaligned(record, record.words):
            raise _refused(record, f"the entity {split[0]} does not start and end with a word, so tags cannot say it; use .jsonl")
        for (start, end), tag in zip(record.words, tags_of_words(record, record.words), strict=True):
            word = record.text[start:end]
            if _NO_WORD.match(word) or tag != tag.strip() or not {"\t", "\n"}.isdisjoint(tag):
                raise _refused(record, f"the word {quoted(word)} with the tag {quoted(tag)} would be read as something else; use .jsonl")
            yield check_characters(record.path, record.line, f"{word}\t{tag}\n")
        yield "\n"


WRITERS: dict[str, Callable[[Sequence[Record]], Iterator[str]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv_lines,
    ".tsv": _tsv_lines,
    ".conll": _conll_lines,
    ".bio": _conll_lines,
    ".iob": _conll_lines,
}
