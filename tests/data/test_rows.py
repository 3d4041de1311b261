"""Rows to records: pairs of texts, words, sentences in JSON, and that a file is of one kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data.text_files import marked, pairs, refusal, write

from minigrad.data.readers import read_records
from minigrad.data.records import Record


def read(folder: Path, *rows: dict[str, Any], **arguments: Any) -> list[Record]:
    return read_records(write(folder, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)), **arguments)


def test_second_texts(tmp_path: Path) -> None:
    row = {"text": "a", "text_pair": "b", "sentence2": "c"}
    assert read(tmp_path, row)[0].text_b is None
    assert read(tmp_path, row, text_b_column="sentence2")[0].text_b == "c"
    assert read(tmp_path, row | {"text_b": "d"})[0].text_b == "d"
    assert read(tmp_path, row | {"text_b": None})[0].text_b is None
    (record,) = read(tmp_path, {"text_b": "x", "premise": "y"}, text_column="text_b", text_b_column="premise")
    assert (record.text, record.text_b) == ("x", "y")
    assert read(tmp_path, {"text_b": "x"}, text_column="text_b")[0].text_b is None
    path = write(tmp_path, "a.csv", "premise,hypothesis,gold\na,b,x\n")
    (record,) = read_records(path, text_column="premise", text_b_column="hypothesis", label_column="gold")
    assert (record.text, record.text_b, record.label) == ("a", "b", "x")


def test_asking_for_a_second_text_makes_the_first_row_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,other\na,b\n")
    assert read_records(path, text_b_column="other")[0].text_b == "b"
    assert "no column 'premise'; there are: 'text', 'other'" in str(refusal(path, text_b_column="premise"))
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n')
    assert refusal(path, text_b_column="premise").code == "unknown-column"


@pytest.mark.parametrize("names", [("tokens", "ner_tags"), ("words", "tags"), ("tokens", "tags")])
def test_sentences_in_json(tmp_path: Path, names: tuple[str, str]) -> None:
    words, tags = names
    row = {words: ["Anna", "Berg", "left"], tags: ["I-PER", "I-PER", "O"], "id": 7}
    (record,) = read(tmp_path, row)
    assert (record.text, record.words, marked(record)) == ("Anna Berg left", ((0, 4), (5, 9), (10, 14)), [("Anna Berg", "PER")])
    assert record.fields == {"id": 7, "tags": ("I-PER", "I-PER", "O")}
    assert read(tmp_path, row | {"label": "x", "text": "ignored"})[0].text == "Anna Berg left"
    assert read(tmp_path, row | {"label": "x"})[0].label == "x"
    assert read(tmp_path, row | {"text": "asked for"}, text_column="text")[0].words is None


def test_places_of_words(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"text": "a-b c", "words": [[0, 1], [2, 3], [4, 5]], "id": 1})
    assert record.words == ((0, 1), (2, 3), (4, 5))
    assert record.fields == {"text": "a-b c", "id": 1}
    assert read(tmp_path, {"text": "a", "words": []})[0].words == ()
    for column in (3, "three", ["a"], None):  # a column that happens to have the name
        (record,) = read(tmp_path, {"text": "a", "words": column})
        assert (record.words, record.fields["words"]) == (None, column)


def test_names_of_spans_mean_nothing_in_a_table(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path, "a.csv", "text,entities,words,tags\na,3,4,x\n"))
    assert (record.entities, record.words) == (None, None)
    assert record.fields == {"text": "a", "entities": "3", "words": "4", "tags": "x"}


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        ([{"text": "a", "text_b": 5}], "bad-text", "the second text must be a string"),
        ([{"text": "a", "text_b": " "}], "empty-text", "the second text is empty"),
        ([{"text": "a", "text_b": "b"}, {"text": "a"}], "missing-text-b", "this record has no text_b, line 1 has"),
        ([{"text": "a"}, {"text": "a", "text_b": "b"}], "missing-text-b", "this record has text_b, line 1 has none"),
        ([{"text": "a", "entities": []}, {"text": "a"}], "missing-entities", "this record has no entities, line 1 has"),
        ([{"text": "a"}, {"text": "a", "entities": []}], "missing-entities", "line 1 has none"),
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "bad-tag", "2 words but 1 tags"),
        ([{"tokens": ["a"], "tags": [0]}], "bad-tag", "tags must be strings"),
        ([{"tokens": ["a"], "tags": ["NOUN"]}], "bad-tag", "'NOUN' is neither"),
        ([{"tokens": ["a", " "], "tags": ["O", "O"]}], "empty-text", "the word is empty"),
        ([{"tokens": ["\ud800"], "tags": ["O"]}], "bad-text", "surrogate"),
        ([{"text": "abc", "words": [[0, 4]]}], "bad-words", "[0, 4] must be [start, end]"),
        ([{"text": "abc", "words": [[1, 1]]}], "bad-words", "[1, 1]"),
        ([{"text": "abc", "words": [[0, 2], [1, 3]]}], "bad-words", "[1, 3] must be [start, end], after the word before it"),
        ([{"text": "abc", "words": [[0, 1.5]]}], "bad-words", "[0, 1.5]"),
        ([{"text": "abc", "words": [[0, 1, 2]]}], "bad-words", "[0, 1, 2]"),
    ],
)
def test_refuses(tmp_path: Path, rows: list[dict[str, Any]], code: str, words: str) -> None:
    error = refusal(write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert (error.code, error.line) == (code, len(rows))
    assert words in str(error)


def test_the_first_usable_record_decides(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": " "}\n{"text": "a", "label": "x"}\n{"text": "b"}\n')
    skipped: list[Any] = []
    assert pairs(read_records(path, skipped=skipped)) == [("a", "x")]
    assert [error.code for error in skipped] == ["empty-text", "missing-label"]
