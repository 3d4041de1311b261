"""Text records from .tsv, .csv and .jsonl files, and the numbering of their labels.

A data file is where most things go wrong first, and a wrong row found in epoch three is expensive. So files are read
strictly and whole before training starts, and each complaint names the file and the physical line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from minigrad.data.records import LabelMap as LabelMap
from minigrad.data.records import Record as Record
from minigrad.errors import ArgumentError, DataError
from minigrad.files import json_type, listing, open_regular, parse_json, quoted, surrogate_at

# A line is held in memory whole. A book as one record stays below this; a file without line ends must not fill the memory.
MAX_LINE_BYTES = 64 * 2**20


def read_records(path: str | Path, *, text_column: str | None = None, label_column: str | None = None) -> list[Record]:
    """Read every record of a .tsv, .csv or .jsonl file, in order.

    `.tsv` knows no quoting: a tab always separates, a quotation mark is a character. `.csv` follows RFC 4180: fields that
    hold commas, quotation marks or line ends are quoted. `.jsonl` has one JSON object per line. All are UTF-8; a byte order
    mark at the start is dropped.

    The columns of .tsv and .csv: the first row is a header if `text_column` or `label_column` is given, or if one of its
    cells is exactly `text` or `label`. Otherwise it is a record, the first column is the text and the second, if any, the
    label (further ones are named column3, column4, ... in `Record.fields`). In a header and in JSON objects the names are
    `text` and `label` unless the arguments say otherwise; a header without the text column is refused.

    A line may take 64 MiB. A field of a .csv may have as many characters as the csv module allows: 131,072, unless
    `csv.field_size_limit` was called.

    A label column that is not asked for may be absent, but from the whole file only (every `label` is then None); in .jsonl
    the first object decides. JSON labels may be strings, integers or booleans; the latter two become their JSON text (`3`,
    `true`).

    Raises:
        DataError: the file is not as described. `line` is the physical line, for a CSV row over several lines its first.
            `code` is one of unknown-suffix, missing-file, not-a-regular-file, unreadable-file, empty-file, line-limit,
            not-utf8, nul-character, bad-csv, bad-json, unknown-column, duplicate-column, column-count, bad-text,
            empty-text, bad-label, missing-label.
    """
    path = Path(path)
    text_name = "text" if text_column is None else text_column
    if label_column == text_name:
        raise ArgumentError(f"text and label cannot both be read from column {label_column!r}")
    # The names that a header must have. Asking for the label alone leaves the text column its usual name.
    asked = [] if text_column is None and label_column is None else [text_name, *([] if label_column is None else [label_column])]
    match path.suffix.lower():
        case ".tsv":
            objects = _table_objects(path, _tsv_rows(path), asked)
        case ".csv":
            objects = _table_objects(path, _csv_rows(path), asked)
        case ".jsonl":
            objects = _json_objects(path)
        case suffix:
            raise DataError(path, f"the suffix {suffix!r} names no known format; use .tsv, .csv or .jsonl", code="unknown-suffix")
    records = _records(path, objects, text_name, label_column)
    if not records:
        raise DataError(path, "the file holds no records", code="empty-file")
    return records


# ---- bytes to lines to rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (1-based number, line with its line end), decoded. Only a line feed ends a line: U+2028 and the like are text."""
    try:
        with open_regular(path, DataError) as stream:
            number = 0
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError(path, f"the line is longer than {MAX_LINE_BYTES} bytes", line=number, code="line-limit")
                if line := _decode(path, number, raw):  # nothing is left of a line that is only a byte order mark
                    yield number, line
    except OSError as error:
        raise DataError(path, f"cannot be read: {error}", code="unreadable-file") from error


def _decode(path: Path, number: int, raw: bytes) -> str:
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} of the line; save the file as UTF-8"
        raise DataError(path, message, line=number, code="not-utf8") from None
    if "\0" in line:
        message = f"NUL character at position {line.index(chr(0))} of the line; this is no text file"
        raise DataError(path, message, line=number, code="nul-character")
    return line.removeprefix("\ufeff") if number == 1 else line


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(path):
        yield number, line.removesuffix("\n").removesuffix("\r").split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            yield first_line, next(reader) or [""]  # the csv module gives an empty list for an empty line
        except StopIteration:
            return
        except csv.Error as error:
            hint = "; call csv.field_size_limit with a larger number, or use .jsonl" if "field limit" in str(error) else ""
            message = f"not valid CSV in the row that starts here: {error}{hint}"
            raise DataError(path, message, line=first_line, code="bad-csv") from None


# ---- rows to objects: a column's name and its value


def _table_objects(path: Path, rows: Iterator[tuple[int, list[str]]], asked: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    first = next(rows, None)
    if first is None:
        return
    first_line, cells = first
    has_header = bool(asked) or "text" in cells or "label" in cells
    columns = cells if has_header else ["text", "label", *(f"column{i}" for i in range(3, len(cells) + 1))][: len(cells)]
    for column in asked or (["text"] if has_header else []):
        if column not in columns:
            raise _unknown_column(path, first_line, column, columns)
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise DataError(path, f"the header names column {quoted(column)} twice", line=first_line, code="duplicate-column")
        seen.add(column)

    for line, row in rows if has_header else chain([first], rows):
        if len(row) != len(columns):
            found = "the line is empty" if row == [""] else f"the row has {len(row)} column(s)"
            message = f"{found}, line {first_line} has {len(columns)} column(s): {listing(columns)}"
            raise DataError(path, message, line=line, code="column-count")
        yield line, dict(zip(columns, row, strict=True))


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in _lines(path):
        try:
            value = parse_json(text)
        except ValueError as error:
            raise DataError(path, f"not valid JSON: {error}", line=line, code="bad-json") from None
        if not isinstance(value, dict):
            raise DataError(path, f"each line must be a JSON object, found {json_type(value)}", line=line, code="bad-json")
        yield line, value


def _unknown_column(path: Path, line: int, column: str, columns: Iterable[str]) -> DataError:
    return DataError(path, f"no column {quoted(column)}; there are: {listing(columns)}", line=line, code="unknown-column")


# ---- objects to records


def _records(path: Path, objects: Iterator[tuple[int, dict[str, Any]]], text_name: str, label_column: str | None) -> list[Record]:
    label_name = "label" if label_column is None else label_column
    labelled = label_column is not None
    records: list[Record] = []
    for line, fields in objects:
        if text_name not in fields:
            raise _unknown_column(path, line, text_name, fields)
        has_label = label_name in fields and label_name != text_name
        if not records:
            labelled = labelled or has_label
        elif has_label and not labelled:
            message = f"this record has a label, line {records[0].line} has none; either all have one or none"
            raise DataError(path, message, line=line, code="missing-label")
        text = _text(path, line, fields[text_name])
        label = _label(path, line, fields.get(label_name), label_name) if labelled else None
        records.append(Record(text, label, str(path), line, fields))
    return records


def _text(path: Path, line: int, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(path, f"the text must be a string, found {json_type(value)}", line=line, code="bad-text")
    if not value.strip():
        raise DataError(path, "the text is empty; remove the record", line=line, code="empty-text")
    return _clean(path, line, value)


def _label(path: Path, line: int, value: object, column: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(path, f"the record has no label in column {quoted(column)}", line=line, code="missing-label")
    if isinstance(value, str):
        return _clean(path, line, value)
    if isinstance(value, int):  # a bool is an int, and json writes it as true or false
        return json.dumps(value)
    raise DataError(path, f"a label must be a string, an integer or a boolean, found {json_type(value)}", line=line, code="bad-label")


def _clean(path: Path, line: int, value: str) -> str:
    """Refuse what only JSON escapes can bring in: characters that no tokenizer and no terminal can take."""
    if "\0" in value:
        raise DataError(path, f"NUL character at position {value.index(chr(0))} of the string", line=line, code="nul-character")
    if (position := surrogate_at(value)) is not None:
        raise DataError(
            path, f"half a surrogate pair at position {position} of the string, which is no character", line=line, code="bad-text"
        )
    return value
