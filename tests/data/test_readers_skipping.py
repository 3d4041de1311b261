"""Bad rows left out on request, and files read one record at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from data.text_files import pairs, refusal, write

from minigrad.data.readers import iter_records, read_records
from minigrad.errors import DataError

HUGE = b"y" * 10**7
BAD_ROWS = {
    "a.tsv": [
        b"text\tlabel\n",
        b"good\tx\n",
        b"\xff\tx\n",
        b"only one\n",
        b" \tx\n",
        b"nul\0\tx\n",
        b"%s\tx\n" % HUGE,
        b"last\ty\n",
    ],
    "a.csv": [
        b"text,label\n",
        b"good,x\n",
        b'"\xff\n",x\n',
        b"only one\n",
        b'" ",x\n',
        b'"nul\0",x\n',
        b"%s,x\n" % HUGE,
        b"last,y\n",
    ],
    "a.jsonl": [
        b"\n",
        b'{"text": "good", "label": "x"}\n',
        b'{"text": "\xff", "label": "x"}\n',
        b'{"label": "x"}\n',
        b'{"text": " ", "label": "x"}\n',
        b'{"text": "nul\\u0000", "label": "x"}\n',
        b'{"text": "%s", "label": "x"}\n' % HUGE,
        b'{"text": "last", "label": "y"}\n',
    ],
}
CODES = {
    "a.tsv": ["not-utf8", "column-count", "empty-text", "nul-character", "text-limit"],
    "a.csv": ["not-utf8", "column-count", "empty-text", "nul-character", "bad-csv"],
    "a.jsonl": ["bad-json", "not-utf8", "unknown-column", "empty-text", "nul-character", "text-limit"],
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_left_out_on_request(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, b"".join(BAD_ROWS[name]))
    skipped: list[DataError] = []
    assert pairs(read_records(path, skipped=skipped)) == [("good", "x"), ("last", "y")]
    assert [error.code for error in skipped] == CODES[name]
    assert [error.line for error in skipped] == {"a.tsv": [3, 4, 5, 6, 7], "a.csv": [3, 5, 6, 7, 8], "a.jsonl": [1, 3, 4, 5, 6, 7]}[name]
    assert refusal(path).code == skipped[0].code


def test_a_file_of_bad_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "fine"}\n' + "[]\n" * 3)
    skipped = [DataError("other.tsv", "from an earlier file")]
    assert len(read_records(path, skipped=skipped, max_skipped=3)) == 1
    assert len(skipped) == 4
    error = refusal(path, skipped=[], max_skipped=2)
    assert (error.code, error.line) == ("too-many-skipped", 4)
    assert "more than 2 row(s)" in str(error)
    assert "found an array" in str(error)
    assert "no records; 3 were left out" in str(refusal(write(tmp_path, "b.jsonl", "[]\n" * 3), skipped=[]))
    for name, content in (("c.tsv", "text\ttext\n"), ("c.csv", b"text,\xff\na,b\n"), ("absent.tsv", None)):  # the whole file
        path = tmp_path / name if content is None else write(tmp_path, name, content)
        assert refusal(path, skipped=[]).code in ("duplicate-column", "not-utf8", "missing-file")


# ---- one record at a time


def test_reading_one_at_a_time_gives_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b"}\n[]\n')
    records = iter_records(path)
    assert [next(records).text, next(records).text] == ["a", "b"]
    with pytest.raises(DataError, match=r"a\.jsonl:3"):
        next(records)


ROWS = {"a.csv": "{0},{1}\r\n", "a.tsv": "{0}\t{1}\n", "a.jsonl": '{{"text": "{0}", "label": "{1}"}}\n', "a.conll": "{0} B-{1}\n\n"}


@pytest.mark.parametrize("name", ROWS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("w", encoding="utf-8") as file:
        for number in range(4000):
            file.write(ROWS[name].format(f"{number:04d}" + "x" * 500, "l"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_records(path)) == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000 < path.stat().st_size / 4  # buffers and one record; the records together would be over 2 MB
