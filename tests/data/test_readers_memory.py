"""Rows in memory, as a data set of Hugging Face gives them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from data.text_files import pairs

from minigrad.data.readers import records_from
from minigrad.data.records import Entity
from minigrad.errors import DataError


def test_rows_in_memory() -> None:
    rows = [{"sentence": "one", "label": 1, "idx": np.int64(7)}, {"sentence": "two", "label": np.int64(0), "idx": 8}]
    records = records_from(iter(rows), text_column="sentence", label_names=("neg", "pos"), name="train")
    assert pairs(records) == [("one", "pos"), ("two", "neg")]
    assert (records[1].path, records[1].line, records[0].fields["idx"]) == ("train", 2, 7)
    assert pairs(records_from(rows, text_column="sentence")) == [("one", "1"), ("two", "0")]
    assert records_from([{"text": "a", "label": 0.5}])[0].label == "0.5"


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_rows_of_words_and_numbered_tags(kind: type) -> None:
    rows = [{"tokens": ["Anna", "Berg", "left"], "ner_tags": kind([1, 2, 0]), "id": "0"}]
    (record,) = records_from(rows, tag_names=["O", "B-PER", "I-PER"])
    assert (record.text, record.entities, record.words) == ("Anna Berg left", (Entity(0, 9, "PER"),), ((0, 4), (5, 9), (10, 14)))
    assert record.fields == {"id": "0", "tags": ("B-PER", "I-PER", "O")}
    with pytest.raises(DataError, match=r"rows:1: tags must be strings .* with tag_names"):
        records_from(rows)


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ([], {}, "rows: there are no records"),
        ([{"text": "a"}, "b"], {}, "rows:2: a row must be a mapping"),
        ([{"text": "a"}, {"text": " "}], {}, "rows:2: the text is empty"),
        ([{"text": "a", "label": 2}], {"label_names": ["x", "y"]}, "rows:1: label_names has 2 names, and none for 2"),
        ([{"text": "a", "label": -1}], {"label_names": ["x", "y"]}, "none for -1"),
        ([{"tokens": ["a"], "tags": [3]}], {"tag_names": ["O"], "name": "dev"}, "dev:1: tag_names has 1 names, and none for 3"),
        ([{"text": "a", "label": float("nan")}], {}, "found a number that is not finite"),
    ],
)
def test_rows_that_are_refused(rows: list[object], arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        records_from(rows, **arguments)  # type: ignore[arg-type]
