"""Lines and rows: their limits, and what is left of a broken table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from data.text_files import pairs, refusal, write

from minigrad.data import tables
from minigrad.data.readers import read_records
from minigrad.errors import DataError


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 100)
    for name in ("a.tsv", "a.csv"):
        error = refusal(write(tmp_path, name, "fine\n" + "x" * 101))
        assert (error.code, error.line) == ("line-limit", 2)
    assert len(read_records(write(tmp_path, "b.tsv", "x" * 99 + "\n"))) == 1


def test_a_line_that_is_too_long_is_left_out_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 100)
    for length in (101, 200, 201, 350):
        skipped: list[DataError] = []
        records = read_records(write(tmp_path, "a.tsv", "one\n" + "x" * length + "\ntwo\n"), skipped=skipped)
        assert [(record.text, record.line) for record in records] == [("one", 1), ("two", 3)]
        assert [error.line for error in skipped] == [2]
    assert refusal(write(tmp_path, "a.csv", "one\n" + "x" * 101 + "\ntwo\n"), skipped=[]).code == "line-limit"  # it may hold a quote


@pytest.mark.parametrize(
    ("row", "skippable"),
    [
        ('"a"b,c\n', True),
        ('"a""b"c,"d"\n', True),
        ("a\rb,c\n", True),
        ('"a,c\n', False),  # the rest of the file is in this field
        ('"a\nb"c,d\n', False),  # who knows whether the second line was meant to be a row
        ('"a"b",c\n', False),
    ],
)
def test_a_broken_csv_row_is_left_out_if_it_is_clear_where_the_next_begins(tmp_path: Path, row: str, skippable: bool) -> None:
    path = write(tmp_path, "a.csv", f"text,label\nfirst,x\n{row}last,y\n")
    skipped: list[DataError] = []
    if skippable:
        assert pairs(read_records(path, skipped=skipped)) == [("first", "x"), ("last", "y")]
        assert [(error.code, error.line) for error in skipped] == [("bad-csv", 3)]
    else:
        error = refusal(path, skipped=skipped)
        assert (error.code, error.line, skipped) == ("bad-csv", 3, [])


def test_a_header_with_other_separators_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "a.csv", "text;label\ngood, they say;A\n"))
    assert (error.code, error.line) == ("other-separator", 1)
    assert "'text;label': the file seems to be separated by semicolons; save it with commas (.csv) or tabs" in str(error)
    error = refusal(write(tmp_path, "b.csv", "review\tsentiment\ngood\tA\n"), text_column="review")
    assert error.code == "other-separator" and "--format tsv" in str(error)
    assert len(read_records(write(tmp_path, "c.csv", "good; the text\nbad\n"))) == 2
    assert len(read_records(write(tmp_path, "d.csv", "body;old\ngood\n"), text_column="body;old")) == 1


def test_one_word_per_line_is_recognised_in_a_table(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "a.tsv", "Anna\tB-PER\n\nBob\tB-PER\n"))
    assert "a file of one word per line is read by format='conll'" in str(error)


def test_long_csv_fields_as_documented(tmp_path: Path) -> None:
    """131,072 characters, or what the program told the csv module; the limit is the whole process's, so it is left as it is."""
    path = write(tmp_path, "a.csv", "text,label\n" + "x" * 131_072 + ",y\n")
    assert len(read_records(path)[0].text) == 131_072 == csv.field_size_limit()
    longer = write(tmp_path, "b.csv", "text,label\n" + "x" * 200_000 + ",y\n")
    before = csv.field_size_limit(200_000)
    try:
        assert len(read_records(longer)[0].text) == 200_000 == csv.field_size_limit()
    finally:
        csv.field_size_limit(before)
