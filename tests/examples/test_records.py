"""The shipped records are what their README says."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

RECORDS = Path(__file__).parents[2] / "examples" / "data" / "records.jsonl"
ENTITY_TYPES = {"TIME", "PLACE", "ITEM", "QUANTITY", "MONEY", "CODE"}


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def grams(text: str) -> set[str]:
    """Character 5-grams of the lower-case words."""
    plain = re.sub(r"\W+", " ", text.lower())
    return {plain[i : i + 5] for i in range(max(1, len(plain) - 4))}


def test_counts(records: list[dict[str, Any]]) -> None:
    assert len(records) == 896
    assert set(Counter(r["label"] for r in records).values()) == {112}
    assert len({r["label"] for r in records}) == 8
    assert Counter(r["split"] for r in records) == {"train": 624, "dev": 136, "test": 136}
    for split in ("train", "dev", "test"):
        assert len({r["label"] for r in records if r["split"] == split}) == 8
    assert {e["type"] for r in records for e in r["entities"]} == ENTITY_TYPES


def test_spans_are_whole_words_in_order(records: list[dict[str, Any]]) -> None:
    for record in records:
        text, end = record["text"], 0
        assert text == text.strip() and "\t" not in text
        for entity in record["entities"]:
            span = text[entity["start"] : entity["end"]]
            assert end <= entity["start"] < entity["end"] <= len(text), record
            assert span == span.strip() and span, record
            before, after = text[: entity["start"]][-1:], text[entity["end"] :][:1]
            assert not (before.isalnum() and span[0].isalnum()), f"a span begins inside a word: {span!r} in {text!r}"
            assert not (after.isalnum() and span[-1].isalnum()), f"a span ends inside a word: {span!r} in {text!r}"
            end = entity["end"]


def test_no_two_records_are_near_duplicates(records: list[dict[str, Any]]) -> None:
    found = [grams(r["text"]) for r in records]
    worst = max((len(a & b) / len(a | b), i, j) for i, a in enumerate(found) for j, b in enumerate(found[:i]))
    assert worst[0] < 0.35, [records[k]["text"] for k in worst[1:]]
