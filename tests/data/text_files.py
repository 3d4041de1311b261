"""Small data files, and what reading one gives: shared by the tests of the readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigrad.data.readers import read_records
from minigrad.data.records import Record
from minigrad.errors import DataError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def pairs(records: list[Record]) -> list[tuple[str, str | None]]:
    return [(record.text, record.label) for record in records]


def marked(record: Record) -> list[tuple[str, str]]:
    """The entities of a record as (its text, type)."""
    assert record.entities is not None
    return [(record.text[entity.start : entity.end], entity.type) for entity in record.entities]


def refusal(path: Path, **arguments: object) -> DataError:
    """The error that reading gives, which names file and line."""
    with pytest.raises(DataError) as caught:
        read_records(path, **arguments)  # type: ignore[arg-type]
    error = caught.value
    assert error.path == str(path)
    assert str(error).startswith(str(path) if error.line is None else f"{path}:{error.line}: ")
    return error
