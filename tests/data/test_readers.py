"""The readers of data files: what they accept, and for every refusal the code, the line and the words that help."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import readers
from minigrad.data.readers import LabelMap, Record, read_records
from minigrad.errors import ArgumentError, DataError, DTypeError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def pairs(records: list[Record]) -> list[tuple[str, str | None]]:
    return [(record.text, record.label) for record in records]


# ---- what is accepted


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "text\tlabel\none\tx\ntwo\ty\n", [("one", "x"), ("two", "y")]),
        ("a.tsv", "label\ttext\nx\tone\n", [("one", "x")]),
        ("a.tsv", "one\tx\ntwo\ty", [("one", "x"), ("two", "y")]),
        ("a.tsv", 'say "hi\tx\n', [('say "hi', "x")]),
        ("a.tsv", "one\tx\r\ntwo\ty\r\n", [("one", "x"), ("two", "y")]),
        ("a.tsv", "only text\n", [("only text", None)]),
        ("a.tsv", "Text\tLabel\n", [("Text", "Label")]),
        ("a.tsv", "text\tother\none\t5\n", [("one", None)]),
        ("a.tsv", "a\u2028b\u0085c\tx\n", [("a\u2028b\u0085c", "x")]),
        ("a.TSV", b"\xef\xbb\xbftext\tlabel\none\tx\n", [("one", "x")]),
        ("a.csv", 'text,label\n"a, ""b""\nc",x\n', [('a, "b"\nc', "x")]),
        ("a.csv", "one,x,extra\n", [("one", "x")]),
        ("a.jsonl", '{"text": "one", "label": "x"}\n{"label": "y", "text": "two", "id": 7}\n', [("one", "x"), ("two", "y")]),
        ("a.jsonl", '{"text": "one"}\n', [("one", None)]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "one", "label": 3}\r\n{"text": "b", "label": true}', [("one", "3"), ("b", "true")]),
    ],
)
def test_reads(tmp_path: Path, name: str, content: str | bytes, expected: list[tuple[str, str | None]]) -> None:
    assert pairs(read_records(write(tmp_path, name, content))) == expected


def test_columns_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "id,body,desk\n7,hello,north\n")
    assert pairs(read_records(path, text_column="body", label_column="desk")) == [("hello", "north")]
    assert pairs(read_records(path, text_column="body")) == [("hello", None)]
    path = write(tmp_path, "b.jsonl", '{"body": "hello", "desk": "north", "label": "unused"}\n')
    assert pairs(read_records(path, text_column="body", label_column="desk")) == [("hello", "north")]


def test_label_column_may_serve_as_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "id\tlabel\n1\thello\n2\tworld\n")
    assert pairs(read_records(path, text_column="label")) == [("hello", None), ("world", None)]


def test_record_knows_its_place_and_its_other_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label,id\n"two\nlines",x,7\nnext,y,8\n')
    first, second = read_records(path)
    assert (first.path, first.line, second.line) == (str(path), 2, 4)
    assert second.fields == {"text": "next", "label": "y", "id": "8"}
    headless = read_records(write(tmp_path, "b.tsv", "a\tb\tc\n"))[0]
    assert headless.line == 1
    assert headless.fields == {"text": "a", "label": "b", "column3": "c"}


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1))
def test_csv_and_jsonl_return_what_was_written(rows: list[tuple[str, str]]) -> None:
    import tempfile  # a function-scoped fixture would be shared between Hypothesis examples

    def usable(value: str) -> bool:
        return bool(value.strip()) and "\0" not in value

    rows = [row for row in rows if all(map(usable, row))] or [("a", "b")]
    with tempfile.TemporaryDirectory() as folder:
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("text", "label"), *rows])
        assert pairs(read_records(write(Path(folder), "a.csv", table.getvalue()))) == rows
        lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        assert pairs(read_records(write(Path(folder), "a.jsonl", lines))) == rows


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "words"),
    [
        ("a.txt", "x", "unknown-suffix", None, ".tsv, .csv or .jsonl"),
        ("a.tsv", "", "empty-file", None, "no records"),
        ("a.tsv", b"\xef\xbb\xbf", "empty-file", None, "no records"),
        ("a.csv", "text,label\n", "empty-file", None, "no records"),
        ("a.tsv", "text\tlabel\na\tb\nc\n", "column-count", 3, "1 column(s), line 1 has 2"),
        ("a.tsv", "a\tb\nc\td\te\n", "column-count", 2, "3 column(s), line 1 has 2"),
        ("a.tsv", "a\tb\n\nc\td\n", "column-count", 2, "the line is empty"),
        ("a.csv", "a,b\n\nc,d\n", "column-count", 2, "the line is empty"),
        ("a.csv", 'text,label\n"a\nb",x\n"c\nd"\n', "column-count", 4, "1 column(s)"),
        ("a.csv", "\na,b\n", "empty-text", 1, "empty"),
        ("a.tsv", "text\tlabel\n \tb\n", "empty-text", 2, "empty"),
        ("a.tsv", "text\tlabel\na\tb\nc\t\n", "missing-label", 3, "'label'"),
        ("a.tsv", "sentence\tlabel\na\tb\n", "unknown-column", 1, "no column 'text'; there are: 'sentence', 'label'"),
        ("a.csv", "label\n", "unknown-column", 1, "no column 'text'; there are: 'label'"),
        ("a.tsv", "text\tid\ttext\nx\ty\tz\n", "duplicate-column", 1, "'text' twice"),
        ("a.csv", 'text,label\na,b\n"c,d\ne,f\n', "bad-csv", 3, "row that starts here"),
        ("a.csv", 'text,label\n"a"b,c\n', "bad-csv", 2, "row that starts here"),
        ("a.csv", "text,label\n" + "x" * 200_000 + ",y\n", "bad-csv", 2, "field limit (131072); call csv.field_size_limit"),
        ("a.tsv", b"a\tb\nc\xff\td\n", "not-utf8", 2, "0xff at offset 1 of the line"),
        ("a.csv", b'text,label\n"a\n\xe9",b\n', "not-utf8", 3, "0xe9 at offset 0 of the line"),
        ("a.jsonl", b'{"text": "\xe4"}\n', "not-utf8", 1, "0xe4 at offset 10 of the line"),
        ("a.tsv", "text\tlabel\na\0b\tc\n", "nul-character", 2, "position 1"),
        ("a.csv", 'text,label\n"a\n\0b",c\n', "nul-character", 3, "position 0"),
        ("a.jsonl", '{"text": "a"}\n{"text": "\\u0000"}\n', "nul-character", 2, "position 0"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "bad-json", 2, "at character"),
        ("a.jsonl", '{"text": "a"}\n\n', "bad-json", 2, "not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "bad-json", 2, "found an array"),
        ("a.jsonl", '{"text": "a", "x": NaN}\n', "bad-json", 1, "NaN is no JSON number"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "bad-json", 1, "'text' stands twice"),
        ("a.jsonl", '{"text": "a", "x": ' + "9" * 5000 + "}\n", "bad-json", 1, "not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n' + '{"x":' * 10**6 + "\n", "bad-json", 2, "nested too deeply"),
        ("a.jsonl", "[" * 10**6 + "\n", "bad-json", 1, "nested too deeply"),
        ("a.jsonl", '{"text": "a"}\n{"body": "b"}\n', "unknown-column", 2, "there are: 'body'"),
        ("a.jsonl", '{"text": 5}\n', "bad-text", 1, "found a number"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "bad-text", 1, "surrogate"),
        ("a.jsonl", '{"text": "  "}\n', "empty-text", 1, "empty"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', "missing-label", 2, "no label"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "missing-label", 1, "no label"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "label": "x"}\n', "missing-label", 2, "line 1 has none"),
        ("a.jsonl", '{"text": "a", "label": 1.5}\n', "bad-label", 1, "found a number"),
        ("a.jsonl", '{"text": "a", "label": ["x"]}\n', "bad-label", 1, "found an array"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 and value.isprintable() else "",
)
def test_refuses(tmp_path: Path, name: str, content: str | bytes, code: str, line: int | None, words: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert (caught.value.code, caught.value.line, caught.value.path) == (code, line, str(path))
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path) if line is None else f"{path}:{line}: ")


def test_unknown_column_names_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,desk\na,b\n")
    for asked in ({"text_column": "body"}, {"label_column": "body"}):
        with pytest.raises(DataError, match=r"a\.csv:1: no column 'body'; there are: 'text', 'desk'"):
            read_records(path, **asked)
    path = write(tmp_path, "a.jsonl", '{"text": "a", "desk": "b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*'label'") as caught:
        read_records(path, label_column="label")
    assert caught.value.code == "missing-label"


def test_one_column_cannot_be_text_and_label(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="both"):
        read_records(tmp_path / "a.csv", text_column="x", label_column="x")


def test_a_long_list_of_columns_is_cut_in_the_message(tmp_path: Path) -> None:
    header = "\t".join(f"{i:04d}" + "x" * 200 for i in range(1000))
    with pytest.raises(DataError) as caught:
        read_records(write(tmp_path, "a.tsv", header + "\n"), text_column="body")
    assert len(str(caught.value)) < 3000


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tsv")
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "loop.tsv").symlink_to(tmp_path / "loop.tsv")
    expected = {
        "absent.tsv": "missing-file",
        "pipe.tsv": "not-a-regular-file",
        "folder.tsv": "not-a-regular-file",
        "loop.tsv": "unreadable-file",
        "nul\0.tsv": "unreadable-file",
    }
    for name, code in expected.items():
        with pytest.raises(DataError) as caught:
            read_records(tmp_path / name)
        assert (caught.value.code, caught.value.line) == (code, None), name


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
    with pytest.raises(DataError) as caught:
        read_records(write(tmp_path, "a.tsv", "fine\n" + "x" * 101))
    assert (caught.value.code, caught.value.line) == ("line-limit", 2)
    assert len(read_records(write(tmp_path, "b.tsv", "x" * 99 + "\n"))) == 1


# ---- labels


def test_label_map(tmp_path: Path) -> None:
    training = read_records(write(tmp_path, "train.tsv", "a\ty\nb\tx\nc\ty\n"))
    labels = LabelMap.from_records(training)
    assert labels.names == ("x", "y")
    assert len(labels) == 2
    ids = labels.ids(training)
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 0, 1]
    assert labels.ids([]).shape == (0,)

    path = write(tmp_path, "dev.tsv", "a\tx\nb\tz\n")
    with pytest.raises(DataError, match="label 'z' does not occur in training; known are: 'x', 'y'") as caught:
        labels.ids(read_records(path))
    assert (caught.value.path, caught.value.line, caught.value.code) == (str(path), 2, "bad-label")


def test_label_map_needs_labels(tmp_path: Path) -> None:
    unlabelled = read_records(write(tmp_path, "a.tsv", "text\tdesk\na\tb\n"))
    for call in (LabelMap.from_records, LabelMap(("x",)).ids):
        with pytest.raises(DataError, match=r"a\.tsv:2: .*'text', 'desk'") as caught:
            call(unlabelled)
        assert caught.value.code == "missing-label"


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


@pytest.mark.parametrize("names", ["abc", ["a", "b"], ("a", 1), None, 5])
def test_label_map_takes_a_tuple_of_strings(names: object) -> None:
    with pytest.raises(DTypeError, match="a LabelMap takes a tuple of strings"):
        LabelMap(names)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("a", "b", "a")])
def test_label_map_refuses_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError):
        LabelMap(names)
