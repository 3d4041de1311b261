"""Reads records from files and from data sets in memory: formats by name, and what happens to rows that cannot be used.

Most problems start in a data file, and a bad row found in epoch three is expensive. So files are read strictly, each message names the file
and the physical line, and rows are skipped only if the caller asks for it and is told which.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.data.annotations import label_studio_objects
from minigrad.data.checks import check_count
from minigrad.data.conll import conll_objects
from minigrad.data.records import Record
from minigrad.data.rows import Columns, RowReader
from minigrad.data.tables import Objects, csv_rows, json_objects, table_objects, tsv_rows
from minigrad.errors import ArgumentError, DataError
from minigrad.files import as_path, listing, quoted

FORMATS = ("csv", "tsv", "jsonl", "conll", "doccano", "label-studio")
SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "label-studio", ".conll": "conll", ".bio": "conll", ".iob": "conll",
}  # fmt: skip


def read_records(
    path: str | Path,
    *,
    format: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    text_b_column: str | None = None,
    label_separator: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skipped: list[DataError] | None = None,
    max_skipped: int = 100,
) -> list[Record]:
    """Read every record of a data file, in order.

    format: None goes by the suffix; else "csv" (RFC 4180: fields that hold commas, quotation marks or line ends are quoted), "tsv" (no
    quoting: a tab always separates), "jsonl" (one JSON object per line), "doccano" (the same: doccano's spans and labels are known by their
    keys), "conll" (a word and its tag per line, .conll, .bio or .iob: see `minigrad.data.conll`), "label-studio" (a JSON export, .json).

    text_column, label_column, text_b_column: names in a header or in JSON objects. They default to `text`, `label` and `text_b`, of which
    only the text is required. In .csv and .tsv the first row is a header if one of the three is given, or if a cell is exactly `text` or
    `label`; else it is a record, and the columns are called text, label, column3 and so on. columns: names for a file without a header.

    label_separator: None for one label per record. Otherwise a record may have several, or none: a list in JSON, or names with this
    separator between them; such a string becomes the record's `label` (see `labels_of`).

    encoding: the file's encoding. A byte order mark is dropped.

    skipped: None raises the error of the first bad row. A list receives the errors of bad rows, which are left out; more than `max_skipped`
    raise. Errors of the whole file are always raised.

    Either all records of a file have a label (or a second text, or entities) or none has; the first record decides. Labels in JSON may be
    strings, numbers or booleans; numbers and booleans become their JSON text (`3`, `true`). Spans in JSON: `minigrad.data.annotations`. A
    row with a list of strings `tokens` or `words` and one `ner_tags` or `tags` is a sentence, whose text is its words joined by spaces.

    A line may have 64 MiB, a text 4 Mi characters, and a field of .csv what the csv module allows: 131,072 characters unless
    `csv.field_size_limit` was called.

    Raises:
        ArgumentError: an argument has a value that cannot be used, or not with this format.
        DataError: the file is not as described. `line` is the physical line, the first one of a row over several lines. `code` is, for a
            whole file, one of unknown-suffix, missing-file, not-a-regular-file, unreadable-file, empty-file, duplicate-column,
            other-separator, json-limit, too-many-skipped; for a row line-limit, not-utf8, bad-encoding, nul-character, bad-csv, bad-json,
            unknown-column, column-count, bad-text, empty-text, text-limit, bad-label, missing-label, missing-text-b, missing-entities,
            bad-entity, bad-words, missing-tag, bad-tag, bad-annotation.
    """
    return list(
        iter_records(
            path, format=format, text_column=text_column, label_column=label_column, text_b_column=text_b_column,
            label_separator=label_separator, columns=columns, encoding=encoding, skipped=skipped, max_skipped=max_skipped,
        )
    )  # fmt: skip


def iter_records(
    path: str | Path,
    *,
    format: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    text_b_column: str | None = None,
    label_separator: str | None = None,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    skipped: list[DataError] | None = None,
    max_skipped: int = 100,
) -> Iterator[Record]:
    """As `read_records`, but one record at a time, for files larger than memory.

    An export of Label Studio is still held in memory, up to 64 MiB of it.
    Raises: as `read_records`; for arguments at once, for the file's content when it is reached.
    """
    path = as_path(path)
    if format is not None and format not in FORMATS:
        raise ArgumentError(f"format must be one of {listing(FORMATS)}, got {quoted(format)}")
    names = Columns(text_column, label_column, text_b_column, label_separator)
    format = format or SUFFIXES.get(path.suffix.lower())
    if format is None:
        message = f"the suffix {path.suffix!r} names no known format; use {', '.join(SUFFIXES)}, or say format="
        raise DataError(path, f"{message} (in a config.toml under [data], of other commands --format)", code="unknown-suffix")
    if format == "conll" and text_column is not None:
        raise ArgumentError("text_column does not belong to the format 'conll': its text is the words")
    table = format in ("csv", "tsv")
    if columns is not None:
        columns = _checked_columns(columns, names, table)
    encoding = _checked_encoding(encoding)
    max_skipped = check_count("max_skipped", max_skipped, least=0)
    objects: Objects
    if table:
        objects = table_objects(path, (csv_rows if format == "csv" else tsv_rows)(path, encoding), names.asked, columns)
    else:
        objects = {"conll": conll_objects, "label-studio": label_studio_objects}.get(format, json_objects)(path, encoding)
    return _records(path, objects, RowReader(str(path), names, plain=table), skipped, max_skipped)


def records_from(
    rows: Iterable[Mapping[str, Any]],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    text_b_column: str | None = None,
    label_separator: str | None = None,
    label_names: Sequence[str] | None = None,
    tag_names: Sequence[str] | None = None,
    name: str = "rows",
) -> list[Record]:
    """Records from rows in memory, such as a Hugging Face data set: any iterable of mappings, which are read like JSON objects.

    label_names, tag_names: the names of integer labels, and of integers in `ner_tags` or `tags`.
    name: used for `Record.path` and in errors; `line` is the number of the row, counted from 1.

    Raises: ArgumentError, DataError as `read_records`.
    """
    names = Columns(text_column, label_column, text_b_column, label_separator)
    reader = RowReader(name, names)
    records = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(name, f"a row must be a mapping of column names to values, got {quoted(row)}", line=number, code="bad-row")
        fields = {str(column): _plain(value) for column, value in row.items()}
        if label_names is not None and (label := label_column or "label") in fields:
            fields[label] = _named(name, number, fields[label], label_names, "label_names")
        for tags in ("ner_tags", "tags"):
            if tag_names is not None and isinstance(fields.get(tags), list):
                fields[tags] = [_named(name, number, tag, tag_names, "tag_names") for tag in fields[tags]]
        records.append(reader.record(number, fields))
    if not records:
        raise DataError(name, "there are no records", code="empty-file")
    return records


def _plain(value: Any) -> Any:
    """NumPy arrays and scalars as Python lists and numbers, tuples as lists."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _named(path: str, line: int, value: object, names: Sequence[str], argument: str) -> object:
    if type(value) is not int:
        return value
    if not 0 <= value < len(names):
        raise DataError(path, f"{argument} has {len(names)} names, and none for {value}", line=line, code="bad-label")
    return names[value]


def _records(path: Path, objects: Objects, reader: RowReader, skipped: list[DataError] | None, max_skipped: int) -> Iterator[Record]:
    used = left_out = 0
    for line, found in objects:
        try:
            if isinstance(found, DataError):
                raise found
            record = reader.record(line, found)
        except DataError as error:
            if skipped is None:
                raise
            if left_out == max_skipped:
                message = f"more than {max_skipped} row(s) cannot be used (max_skipped); the last of them: {error}"
                raise DataError(path, message, line=error.line, code="too-many-skipped") from error
            left_out += 1
            skipped.append(error)
        else:
            used += 1
            yield record
    if not used:
        raise DataError(path, f"the file holds no records{f'; {left_out} were left out' if left_out else ''}", code="empty-file")


def _checked_columns(columns: Sequence[str], names: Columns, table: bool) -> list[str]:
    if not table:
        raise ArgumentError("columns names the columns of a .csv or .tsv file without a header; this format has names of its own")
    if isinstance(columns, str) or not all(isinstance(column, str) and column for column in columns):
        raise ArgumentError(f"columns must be a list of names, got {quoted(columns)}")
    columns = list(columns)
    if len(set(columns)) != len(columns):
        raise ArgumentError(f"columns must differ from each other, got {listing(columns)}")
    for due in names.asked or ["text"]:
        if due not in columns:
            raise ArgumentError(f"columns must have {quoted(due)} among them, got {listing(columns)}")
    return columns


def _checked_encoding(encoding: str) -> str:
    try:
        if codecs.lookup(encoding).name == "utf-8-sig":
            return "utf-8"  # the byte order mark is dropped anyway
        fits = "\n".encode(encoding) == b"\n"
        b"\xff".decode(encoding, errors="replace")  # lines with errors are decoded so, which "idna" cannot do
    except (LookupError, TypeError, ValueError) as error:  # ValueError: a NUL, or a character that it cannot encode
        raise ArgumentError(f"encoding must be one that Python knows, such as 'utf-8' or 'latin-1', got {quoted(encoding)}") from error
    if not fits:
        raise ArgumentError(f"files in {encoding} cannot be read line by line; convert the file to UTF-8")
    return encoding
