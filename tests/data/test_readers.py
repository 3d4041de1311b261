"""The readers of data files: what they accept, and for every refusal the code, the line and the words that help."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from data.text_files import pairs, refusal, write
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.readers import FORMATS, iter_records, read_records
from minigrad.data.records import numbers
from minigrad.errors import ArgumentError, DataError

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
        ("a.jsonl", '{"text": "one", "label": 1.5}\n{"text": "two", "label": ["x"]}\n', [("one", "1.5"), ("two", "x")]),
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
    def usable(value: str) -> bool:
        return bool(value.strip()) and "\0" not in value

    rows = [row for row in rows if all(map(usable, row))] or [("a", "b")]
    with tempfile.TemporaryDirectory() as folder:  # a fixture would be shared between Hypothesis examples
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("text", "label"), *rows])
        assert pairs(read_records(write(Path(folder), "a.csv", table.getvalue()))) == rows
        lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        assert pairs(read_records(write(Path(folder), "a.jsonl", lines))) == rows


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "words"),
    [
        ("a.txt", "x", "unknown-suffix", None, ".csv, .tsv, .jsonl, .json, .conll, .bio, .iob"),
        ("a.txt", "x", "unknown-suffix", None, "say format= (in a config.toml under [data], of other commands --format)"),
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
        ("a.jsonl", '{"text": "a", "label": 1e999}\n', "bad-label", 1, "found a number that is not finite"),
        ("a.jsonl", '{"text": "a", "label": {"x": 1}}\n', "bad-label", 1, "found an object"),
        ("a.jsonl", '{"text": "a", "label": ["x", "y"]}\n', "bad-label", 1, "2 labels, 'x', 'y'; one is needed"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 and value.isprintable() else "",
)
def test_refuses(tmp_path: Path, name: str, content: str | bytes, code: str, line: int | None, words: str) -> None:
    error = refusal(write(tmp_path, name, content))
    assert (error.code, error.line) == (code, line)
    assert words in str(error)


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
    }
    for name, code in expected.items():
        with pytest.raises(DataError) as caught:
            read_records(tmp_path / name)
        assert (caught.value.code, caught.value.line) == (code, None), name
    for path in (tmp_path / "nul\0.tsv", "", None, 0):
        with pytest.raises(ArgumentError, match="pass the path of a file"):
            read_records(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "xml"}, "format must be one of 'csv', 'tsv'"),
        ({"text_column": "x", "text_b_column": "x"}, "text and text_b cannot both be read from column 'x'"),
        ({"label_column": "x", "text_b_column": "x"}, "label and text_b cannot both"),
        ({"text_column": 5}, "text_column must be the name of a column, got 5"),
        ({"columns": "text"}, "columns must be a list of names"),
        ({"columns": ["text", "text"]}, "differ from each other"),
        ({"columns": ["body", "label"]}, "columns must have 'text' among them"),
        ({"columns": ["text"], "label_column": "label"}, "columns must have 'label' among them"),
        ({"columns": ["text"], "format": "jsonl"}, "has names of its own"),
        ({"text_column": "x", "format": "conll"}, "its text is the words"),
        ({"encoding": "klingon"}, "one that Python knows"),
        ({"encoding": "base64"}, "one that Python knows"),
        ({"encoding": "idna"}, "one that Python knows"),
        ({"encoding": 5}, "one that Python knows"),
        ({"encoding": "utf-8\0"}, "one that Python knows"),
        ({"encoding": "utf-16"}, "convert the file to UTF-8"),
        ({"max_skipped": -1}, "max_skipped must be an integer of at least 0"),
    ],
)
def test_arguments_are_checked_before_the_file_is_opened(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    for read in (read_records, iter_records):
        with pytest.raises(ArgumentError, match=words):
            read(tmp_path / "absent.csv", **arguments)  # type: ignore[arg-type]


PIECES = b'" , \t \n \r\n text label a \xff \0 O B-X [ ] { } : "text":"a" "start":0 "end":1 [0,1, "data": "annotations":['.split(b" ")
PIECES += [b" ", b'{"text": "a", "entities": [', b'{"tokens": ["a"], "tags": [', b'{"data": {"text": "a"}, "annotations": [']


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.sampled_from(FORMATS), st.sampled_from(["utf-8", "latin-1"]))
def test_any_bytes_give_records_or_one_error_of_ours(content: bytes, format: str, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "a", content)
        for skipped in (None, []):
            with suppress(DataError):
                assert read_records(path, format=format, encoding=encoding, skipped=skipped)


# ---- columns without a header, encodings


def test_columns_name_what_a_file_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "1\t-0.9\tslow\n2\t3.5\ttext\n")
    records = read_records(path, columns=("id", "label", "text"))
    assert pairs(records) == [("slow", "-0.9"), ("text", "3.5")]  # the cell `text` makes no header of line 2
    assert records[0].fields == {"id": "1", "label": "-0.9", "text": "slow"}
    assert records[0].line == 1
    assert pairs(read_records(path, columns=("id", "rating", "body"), text_column="body")) == [("slow", None), ("text", None)]
    assert "the row has 3 column(s), `columns` names 2" in str(refusal(path, columns=("text", "label")))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf8_by_the_name_that_has_a_mark(mark: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", mark + "text\tlabel\ncaf\u00e9\tx\nnow\ty\n".encode())
    assert pairs(read_records(path, encoding="utf-8-sig")) == [("caf\u00e9", "x"), ("now", "y")]


def test_another_encoding_must_be_asked_for(tmp_path: Path) -> None:
    for encoding, text in (("latin-1", "caf\u00e9"), ("cp1252", "\u201ccaf\u00e9\u201d")):
        path = write(tmp_path, "a.tsv", f"{text}\tx\n".encode(encoding))
        assert f"encoding='{encoding}' is the likeliest" in (message := str(refusal(path))) and f"--encoding {encoding}" in message
        assert pairs(read_records(path, encoding=encoding)) == [(text, "x")]
    path = write(tmp_path, "b.tsv", b"fine\tx\n\x81\ty\n")
    error = refusal(path, encoding="cp1252")
    assert (error.code, error.line) == ("bad-encoding", 2)
    assert "not CP1252: byte 0x81 at offset 0 of the line" in str(error)
    assert "looks like UTF-16" in str(refusal(write(tmp_path, "c.tsv", "a\tb\n".encode("utf-16"))))


def test_a_format_may_be_named(tmp_path: Path) -> None:
    assert pairs(read_records(write(tmp_path, "a.txt", "one\tx\n"), format="tsv")) == [("one", "x")]
    assert pairs(read_records(write(tmp_path, "b.json", '{"text": "one"}\n'), format="jsonl")) == [("one", None)]


# ---- real files


def test_reviews(shared_data: Path) -> None:
    """Latin-1, tabs, no header: an id, a rating and the text."""
    for name, count in (("amazonReviewSnippets_GroundTruth.txt", 3708), ("tweets_GroundTruth.txt", 4200)):
        path = shared_data / "reviews" / name
        records = read_records(path, format="tsv", columns=("id", "label", "text"), encoding="latin-1")
        assert len(records) == count
        assert all(record.text for record in records)
        assert -4 <= numbers(records).min() < 0 < numbers(records).max() <= 4
