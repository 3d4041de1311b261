"""The numbering of labels and tags, labels as numbers, and the errors that name the record's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.text_files import write

from minigrad.data.readers import read_records, records_from
from minigrad.data.records import LabelMap, numbers
from minigrad.errors import ArgumentError, DataError, DTypeError


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


@pytest.mark.parametrize("names", ["abc", ["a", "b"], ("a", 1), None, 5])
def test_label_map_takes_a_tuple_of_strings(names: object) -> None:
    with pytest.raises(DTypeError, match="a LabelMap takes a tuple of strings"):
        LabelMap(names)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("a", "b", "a")])
def test_label_map_refuses_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError):
        LabelMap(names)


def test_label_map_of_tags() -> None:
    rows = [
        {"text": "Anna in Rome", "entities": [[0, 4, "PER"], [8, 12, "LOC"]]},
        {"text": "Bob", "entities": [[0, 3, "PER"]]},
        {"text": "no one", "entities": []},
    ]
    assert LabelMap.of_tags(records_from(rows)).names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert LabelMap.of_tags(records_from(rows[2:])).names == ("O",)
    with pytest.raises(DataError, match="rows:1: the record has no entities") as caught:
        LabelMap.of_tags(records_from([{"text": "a"}]))
    assert caught.value.code == "missing-entities"


def test_labels_as_numbers(tmp_path: Path) -> None:
    found = numbers(read_records(write(tmp_path, "a.tsv", "a\t1\nb\t-0.5\nc\t .5e1 \nd\t+3.\n")))
    assert found.dtype == np.float64
    assert found.tolist() == [1.0, -0.5, 5.0, 3.0]
    assert numbers([]).shape == (0,)


@pytest.mark.parametrize("label", ["nan", "inf", "1e999", "1_000", "x", "1,5", "0x10", "true", "\u0661", "."])
def test_labels_that_are_no_numbers(tmp_path: Path, label: str) -> None:
    records = read_records(write(tmp_path, "a.tsv", f"a\t1\nb\t{label}\n"))
    with pytest.raises(DataError, match=r"a\.tsv:2: the label .* is no finite number") as caught:
        numbers(records)
    assert caught.value.code == "bad-label"


def test_numbers_need_labels() -> None:
    with pytest.raises(DataError, match="rows:1: the record has no label"):
        numbers(records_from([{"text": "a"}]))
