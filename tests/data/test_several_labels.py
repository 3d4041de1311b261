"""Records of several labels, or none: lists in JSON, separated names in tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.data import LabelMap, read_records, records_from
from minigrad.data.records import labels_of
from minigrad.errors import ArgumentError, DataError


def several(path: Path, **options: Any) -> list[list[str]]:
    separator = options.setdefault("label_separator", ",")
    return [labels_of(record, separator) for record in read_records(path, **options)]


@pytest.mark.parametrize("name", ["label", "labels", "topics"])
def test_lists_in_json(tmp_path: Path, name: str) -> None:
    rows = [{"text": "a", name: value} for value in (["x", "y"], [], ["y"], "x, z", "", 3, [1, True])]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert several(path, label_column=name) == [["x", "y"], [], ["y"], ["x", "z"], [], ["3"], ["1", "true"]]
    records = records_from(rows, label_column=name, label_separator="|")
    assert [record.label for record in records] == ["x|y", "", "y", "x, z", "", "3", "1|true"]


def test_names_in_tables(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tx; y\nb\t\nc\tz,z\n", encoding="utf-8")
    assert several(tmp_path / "a.tsv", label_separator=";") == [["x", "y"], [], ["z,z"]]


def test_spans_beside_labels_stay_spans(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a b", "label": [], "labels": [[0, 1, "X"]]}\n', encoding="utf-8")
    (record,) = read_records(tmp_path / "a.jsonl", label_separator=",")
    assert record.label == "" and record.entities is not None and record.entities[0].type == "X"


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (["x,y"], "bad-label", "the label 'x,y' is empty or holds ','"),
        (["x", " "], "bad-label", "the label ' ' is empty"),
        ([["x"]], "bad-label", "a label must be a string, a number or a boolean, found"),
        ({"x": 1}, "bad-label", "a label must be a string"),
        (["x\0"], "nul-character", "NUL"),
        (None, "missing-label", "no label in column 'label'"),
    ],
)
def test_what_are_no_labels(value: Any, code: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        records_from([{"text": "a", "label": ["x"]}, {"text": "a", "label": value}], label_separator=",")
    assert caught.value.code == code and caught.value.line == 2


def test_a_separator_that_makes_other_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the labels 'a;', 'b' cannot be told apart with ';;' between them: choose label_separator"):
        records_from([{"text": "a", "label": ["a;", "b"]}], label_separator=";;")
    (record,) = records_from([{"text": "a", "label": ["a", ";"]}], label_separator=";;;")
    assert labels_of(record, ";;;") == ["a", ";"]


@pytest.mark.parametrize("separator", ["", " ", 3])
def test_what_separates_nothing(separator: Any) -> None:
    with pytest.raises(ArgumentError, match="label_separator must be a string of more than white space, such as ','"):
        records_from([{"text": "a", "label": "x"}], label_separator=separator)


def test_numbering() -> None:
    records = records_from([{"text": "a", "label": value} for value in (["b", "a"], [], ["c", "c"])], label_separator=",")
    labels = LabelMap.of_several(records, ",")
    assert labels.names == ("a", "b", "c")
    flags = labels.flags(records, ",")
    assert flags.dtype == np.float32 and flags.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="the label 'c' does not occur in training; known are: 'a', 'b'") as caught:
        LabelMap(("a", "b")).flags(records, ",")
    assert caught.value.line == 3
    with pytest.raises(DataError, match="no record has a label"):
        LabelMap.of_several(records[1:2], ",")
    with pytest.raises(DataError, match="the record has no label"):
        LabelMap.of_several(records_from([{"text": "a"}]), ",")
