"""Decodes files into lines, and the lines of .tsv, .csv and .jsonl files into rows of named values.

Every reader streams a file, one row at a time, so that its size does not matter. An error in one row is yielded in the row's place, and the
caller decides whether to go on. An error of the whole file, or one that makes it impossible to tell where the next row begins, is raised.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from minigrad.errors import DataError
from minigrad.files import json_type, listing, open_regular, parse_json, quoted

# A line is held in memory whole. A file without line ends must not fill the memory.
MAX_LINE_BYTES = 64 * 2**20

Objects = Iterator[tuple[int, dict[str, Any] | DataError]]
"""(physical line, the row's values by name or the row's error) for each row."""


class Line(NamedTuple):
    """A line with its 1-based number and its line end. If it has an error, `text` is what could be decoded."""

    number: int
    text: str
    error: DataError | None = None


# ---- bytes to lines


def lines(path: Path, encoding: str) -> Iterator[Line]:
    """The lines of a file. Only a line feed ends a line: U+2028 and the like are text. A byte order mark at the start is dropped."""
    number = 0
    try:
        with open_regular(path, DataError) as stream:
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    yield Line(
                        number, "", DataError(path, f"the line is longer than {MAX_LINE_BYTES} bytes", line=number, code="line-limit")
                    )
                    while not raw.endswith(b"\n") and (raw := stream.readline(MAX_LINE_BYTES)):
                        pass
                elif (line := _decoded(path, number, raw, encoding)).text:  # a line that is only a byte order mark is left out
                    yield line
    except OSError as error:
        raise DataError(path, f"cannot be read: {error}", code="unreadable-file") from error


def _decoded(path: Path, number: int, raw: bytes, encoding: str) -> Line:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        message = f"not {encoding.upper()}: byte 0x{raw[error.start]:02x} at offset {error.start} of the line; {_advice(number, raw)}"
        code = "not-utf8" if encoding == "utf-8" else "bad-encoding"
        return Line(number, raw.decode(encoding, errors="replace"), DataError(path, message, line=number, code=code))
    if "\0" in text:
        message = f"NUL character at position {text.index(chr(0))} of the line; this is no text file"
        return Line(number, text, DataError(path, message, line=number, code="nul-character"))
    return Line(number, text.removeprefix("\ufeff") if number == 1 else text)


def _advice(number: int, raw: bytes) -> str:
    if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "this looks like UTF-16; save the file as UTF-8"
    # In Latin-1, 0x80 to 0x9f are control characters that no one types; Windows' code page has quotation marks there.
    likely = "cp1252" if any(0x80 <= byte < 0xA0 for byte in raw) else "latin-1"
    places = f"in a config.toml under [data], of other commands --encoding {likely}"
    return f"save the file as UTF-8, or say how it was saved: encoding={likely!r} is the likeliest for Western European text ({places})"


# ---- lines to rows


def tsv_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str] | DataError]]:
    for number, text, error in lines(path, encoding):
        yield number, error or text.removesuffix("\n").removesuffix("\r").split("\t")


def csv_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[str] | DataError]]:
    """The rows, each with the number of its first line.

    Raises: DataError for a broken row, unless it is a single line with paired quotation marks: an unclosed one swallows an unknown number
    of rows.
    """
    held: list[Line] = []  # the lines of the current row

    def texts() -> Iterator[str]:
        for line in lines(path, encoding):
            if line.error is not None and line.error.code == "line-limit":
                raise line.error  # its quotation marks are unknown
            held.append(line)
            yield line.text

    reader = csv.reader(texts(), strict=True)
    while True:
        held.clear()
        try:
            row = next(reader) or [""]  # the csv module gives an empty list for an empty line
        except StopIteration:
            return
        except csv.Error as error:
            hint = "; call csv.field_size_limit with a larger number, or use .jsonl" if "field limit" in str(error) else ""
            message = f"not valid CSV in the row that starts here: {error}{hint}"
            broken = DataError(path, message, line=held[0].number, code="bad-csv")
            if len(held) > 1 or held[0].text.count('"') % 2:
                raise broken from None
            yield held[0].number, held[0].error or broken
        else:
            yield held[0].number, next((line.error for line in held if line.error), None) or row


# ---- rows to objects: a column's name and its value


def table_objects(
    path: Path, rows: Iterator[tuple[int, list[str] | DataError]], asked: Sequence[str], columns: Sequence[str] | None
) -> Objects:
    """Rows as dicts, named by `columns`, else by the header, else text, label, column3, ...

    `asked`: names that the header must have. The first row is a header if there are any, or if one of its cells is text or label.
    """
    if (first := next(rows, None)) is None:
        return
    first_line, cells = first
    if columns is None:
        if isinstance(cells, DataError):  # without its first row nobody knows the columns
            raise cells
        for separator in ";\t" if len(cells) == 1 else "":
            if separator in cells[0] and {*asked, "text", "label"}.intersection(cells[0].split(separator)):
                message = f"the header is one column, {quoted(cells[0])}: {separator_advice(separator)}"
                raise DataError(path, message, line=first_line, code="other-separator")
        has_header = bool(asked) or "text" in cells or "label" in cells
        columns = cells if has_header else ["text", "label", *(f"column{i}" for i in range(3, len(cells) + 1))][: len(cells)]
        for column in asked or (["text"] if has_header else []):
            if column not in columns:
                raise unknown_column(path, first_line, column, columns)
        if len(set(columns)) < len(columns):
            repeated = next(name for name, count in Counter(columns).items() if count > 1)
            raise DataError(path, f"the header names column {quoted(repeated)} twice", line=first_line, code="duplicate-column")
        rows = rows if has_header else chain([first], rows)
        source = f"line {first_line} has"
    else:
        rows = chain([first], rows)
        source = "`columns` names"

    for line, row in rows:
        if isinstance(row, DataError):
            yield line, row
        elif len(row) == len(columns):
            yield line, dict(zip(columns, row, strict=True))
        else:
            found = "the line is empty" if row == [""] else f"the row has {len(row)} column(s)"
            hint = "; a file of one word per line is read by format='conll'" if row == [""] and len(columns) > 1 else ""
            message = f"{found}, {source} {len(columns)} column(s): {listing(columns)}{hint}"
            yield line, DataError(path, message, line=line, code="column-count")


def separator_advice(separator: str) -> str:
    """What to do about a table whose columns turn out to be separated by semicolons or tabs."""
    if separator == "\t":
        return "the file seems to be separated by tabs; read it as tsv (--format tsv, or the suffix .tsv)"
    return "the file seems to be separated by semicolons; save it with commas (.csv) or tabs (.tsv) instead"


def json_objects(path: Path, encoding: str) -> Objects:
    for number, text, error in lines(path, encoding):
        yield number, error or parsed_object(path, number, text)


def parsed_object(path: Path, line: int, text: str) -> dict[str, Any] | DataError:
    try:
        value = parse_json(text)
    except ValueError as error:
        return DataError(path, f"not valid JSON: {error}", line=line, code="bad-json")
    if isinstance(value, dict):
        return value
    return DataError(path, f"a record must be a JSON object, found {json_type(value)}", line=line, code="bad-json")


def unknown_column(path: str | Path, line: int, column: str, columns: Iterable[str]) -> DataError:
    return DataError(path, f"no column {quoted(column)}; there are: {listing(columns)}", line=line, code="unknown-column")
