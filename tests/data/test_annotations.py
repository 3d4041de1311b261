"""Spans as the annotation tools write them, and every span that cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data.text_files import marked, pairs, refusal, write
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import annotations
from minigrad.data.annotations import read_entities
from minigrad.data.readers import read_records
from minigrad.data.records import Entity, LabelMap
from minigrad.errors import DataError

TEXT = "Anna Berg left Rome"
ENTITIES = [("Anna Berg", "PER"), ("Rome", "LOC")]


@pytest.mark.parametrize(
    "fields",
    [
        {"entities": [{"start": 0, "end": 9, "type": "PER"}, {"start": 15, "end": 19, "type": "LOC"}]},
        {"entities": [{"start": 15, "end": 19, "label": "LOC"}, {"start": 0, "end": 9, "label": "PER"}]},
        {"entities": [[0, 9, "PER"], [15, 19, "LOC"]]},
        {"id": 3, "label": [[15, 19, "LOC"], [0, 9, "PER"]]},
        {"id": 3, "labels": [[0, 9, "PER"], [15, 19, "LOC"]], "Comments": []},
        {
            "entities": [
                {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 9},
                {"id": 2, "label": "LOC", "start_offset": 15, "end_offset": 19},
            ],
            "relations": [],
        },
        {"label": [{"start": 0, "end": 9, "text": "Anna Berg", "labels": ["PER"]}, {"start": 15, "end": 19, "labels": ["LOC"]}]},
    ],
)
@pytest.mark.parametrize("format", ["jsonl", "doccano", "label-studio"])
def test_spellings(tmp_path: Path, fields: dict[str, Any], format: str) -> None:
    row = json.dumps({"text": TEXT} | fields)
    (record,) = read_records(write(tmp_path, "a.x", f"[{row}]" if format == "label-studio" else row), format=format)
    assert marked(record) == ENTITIES
    assert record.label is None
    assert record.fields.get("id") == fields.get("id")
    assert {"entities", "label", "labels"}.isdisjoint(record.fields)


def test_doccano_without_spans_and_with_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": []}\n{"text": "b", "label": [[0, 1, "X"]]}\n')
    assert [marked(record) for record in read_records(path)] == [[], [("b", "X")]]
    path = write(tmp_path, "b.jsonl", '{"text": "a", "label": ["pos"]}\n{"text": "b", "label": ["neg"]}\n')
    assert pairs(read_records(path)) == [("a", "pos"), ("b", "neg")]
    (record,) = read_records(write(tmp_path, "b.jsonl", '{"text": "a", "labels": [0, 1, 1]}\n'))  # neither spans nor a label
    assert (record.label, record.entities, record.fields["labels"]) == (None, None, [0, 1, 1])
    path = write(tmp_path, "c.jsonl", '{"text": "a", "label": "pos", "entities": []}\n')
    (record,) = read_records(path)
    assert (record.label, record.entities) == ("pos", ())


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ([4, 4, "X"], "the entity 4 to 4 ('X') is empty"),
        ([5, 4, "X"], "the entity 5 to 4 ('X') is reversed"),
        ([-1, 4, "X"], "the entity -1 to 4 ('X') lies outside of the text, which has 19 characters"),
        ([15, 20, "X"], "the entity 15 to 20 ('X') lies outside"),
        ([8, 10, "X"], "the entities 0 to 9 ('PER') and 8 to 10 ('X') overlap"),
        ([0, 9, "PER"], "overlap"),
        ([10, 14, ""], "needs one type"),
        ([10, 14, None], "needs one type"),
        ({"start": 10, "end": 14, "labels": ["X", "Y"]}, "needs one type"),
        ({"start": 10, "end": 14}, "needs one type"),
        ([10, True, "X"], "must be integers"),
        ([10, 14.0, "X"], "must be integers"),
        ({"start": "/div[1]", "end": "/div[1]", "type": "X"}, "must be integers"),
        ({"start": 10, "type": "X"}, "is no span; write {'start'"),
        ([10, 14], "is no span"),
        (5, "5 is no span"),
        ({"start": 10, "end": 14, "type": "X", "text": "Rome"}, "the entity 10 to 14 ('X') should be 'Rome', but the text there is 'left'"),
    ],
)
def test_spans_that_cannot_be_meant(tmp_path: Path, span: object, words: str) -> None:
    rows = [{"text": "fine", "entities": []}, {"text": TEXT, "entities": [[0, 9, "PER"], span]}]
    error = refusal(write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert (error.code, error.line) == ("bad-entity", 2)
    assert words in str(error)


def test_entities_must_be_an_array(tmp_path: Path) -> None:
    assert "found an object" in str(refusal(write(tmp_path, "a.jsonl", '{"text": "a", "entities": {"start": 0}}\n')))
    assert refusal(write(tmp_path, "a.jsonl", '{"text": "a", "entities": [[0, 1, "\\u0000"]]}\n')).code == "nul-character"


@pytest.mark.parametrize(
    ("text", "span", "shown", "found"),
    [
        ("a,  b", (0, 5), "a, b", "a,  b"),  # white space folded
        ("a\nb c", (0, 3), "a\\nb", "a\nb"),  # a line end in two characters
        ("\U0001f600 Rome \U0001f600!", (3, 7), "Rome", "Rome"),  # counted as a browser counts
        ("\U0001f600 Rome \U0001f600!", (8, 11), "\U0001f600!", "\U0001f600!"),  # beyond the end, if counted in characters
        ("\U0001f600 Rome", (2, 6), "Rome", "Rome"),  # counted in characters
    ],
)
def test_the_repeated_text_settles_where_a_span_lies(text: str, span: tuple[int, int], shown: str, found: str) -> None:
    value = {"start": span[0], "end": span[1], "labels": ["X"], "text": shown}
    (entity,) = read_entities("a", 1, [value], text)
    assert text[entity.start : entity.end] == found


@given(st.text(st.sampled_from("ab\U0001f600\u00e9"), min_size=1, max_size=12), st.data())
def test_places_counted_in_utf16_are_found(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    before, span = len(text[:start].encode("utf-16-le")) // 2, len(text[start:end].encode("utf-16-le")) // 2
    value = {"start": before, "end": before + span, "labels": ["X"], "text": text[start:end]}
    (entity,) = read_entities("a", 1, [value], text)
    assert text[entity.start : entity.end] == text[start:end]


# ---- Label Studio


def task(text: str, *results: dict[str, Any], **annotation: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"text": text, "source": "desk"}, "annotations": [{"result": list(results), **annotation}], "predictions": []}


def span(start: int, end: int, kind: str) -> dict[str, Any]:
    return {"type": "labels", "from_name": "ner", "value": {"start": start, "end": end, "labels": [kind]}}


def choice(name: str, *values: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "value": {"choices": list(values)}}


def test_label_studio_spans(tmp_path: Path) -> None:
    tasks = [task("nothing"), task(TEXT, span(15, 19, "LOC"), span(0, 9, "PER"), {"type": "relation", "value": {}})]
    first, second = read_records(write(tmp_path, "a.json", json.dumps(tasks, indent=1)))
    assert (first.entities, marked(second)) == ((), ENTITIES)
    assert second.fields == {"id": 7, "text": TEXT, "source": "desk"}
    assert first.line == 2
    assert second.line > first.line
    assert LabelMap.of_tags([first, second]).names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_label_studio_choices(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", json.dumps([task("a", choice("mood", "good")), task("b", choice("mood", "bad"))]))
    records = read_records(path)
    assert pairs(records) == [("a", "good"), ("b", "bad")]
    assert records[0].entities is None
    two = task("a", choice("mood", "good"), choice("topic", "tea"))
    path = write(tmp_path, "b.json", json.dumps([two]))
    assert read_records(path)[0].label is None
    assert read_records(path, label_column="topic")[0].label == "tea"
    assert "2 labels, 'x', 'y'" in str(refusal(write(tmp_path, "c.json", json.dumps([task("a", choice("mood", "x", "y"))]))))


def test_of_several_annotations_one_must_count(tmp_path: Path) -> None:
    good, bad = task("a", choice("mood", "good")), task("a", choice("mood", "bad"))
    for mark in ({"was_cancelled": True}, {"ground_truth": False}):
        both = good | {"annotations": [bad["annotations"][0] | mark, good["annotations"][0] | {"ground_truth": True}]}
        assert read_records(write(tmp_path, "a.json", json.dumps([both])))[0].label == "good"
    for several in ([], good["annotations"] * 2):
        error = refusal(write(tmp_path, "a.json", "\n" + json.dumps([good | {"annotations": several}])))
        assert (error.code, error.line) == ("bad-annotation", 2)
        assert f"task 7 has {len(several)} annotations" in str(error)


@pytest.mark.parametrize(
    ("content", "code", "line", "words"),
    [
        ('{"text": "a"}\n', "bad-json", 1, "for one object per line use .jsonl"),
        ("", "bad-json", 1, "an array of tasks"),
        ("[]", "empty-file", None, "no records"),
        ("[\n1]", "bad-json", 2, "found a number"),
        ('[{"text": "a"}\n{"text": "b"}]', "bad-json", 1, "no comma and no ]"),
        ('[{"text": "a"}', "bad-json", 1, "no comma and no ]"),
        ('[{"text": "a"},\n]', "bad-json", 2, "not valid JSON in the task that begins here"),
        ('[{"text": "a"}]\n[]', "bad-json", 1, "more after the array"),
        ("[] x", "bad-json", 1, "more after the array"),
        ('[{"text": "a"},\n\n{"text": }]', "bad-json", 3, "not valid JSON"),
        ('[{"text": "a", "text": "b"}]', "bad-json", 1, "stands twice"),
        ('[{"x": ' + "[" * 10**5, "bad-json", 1, "not valid JSON"),
        (b'[{"text": "a"},\n{"text": "\xff"}]', "not-utf8", 2, "0xff"),
        ('[{"annotations": []}]', "bad-json", 1, "task None of Label Studio needs `data`"),
        ('[{"id": 2, "data": {"text": "a"}}]', "bad-json", 1, "task 2 of Label Studio needs"),
        ('[{"data": {"text": "a"}, "annotations": [{"result": [1]}]}]', "bad-annotation", 1, "no proper `result`"),
        ('[{"data": {"text": "a"}, "annotations": [{}]}]', "bad-annotation", 1, "no proper `result`"),
    ],
)
def test_refuses(tmp_path: Path, content: str | bytes, code: str, line: int | None, words: str) -> None:
    error = refusal(write(tmp_path, "a.json", content))
    assert (error.code, error.line) == (code, line)
    assert words in str(error)


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    """UTF-7 can spell one; UTF-8 cannot."""
    error = refusal(write(tmp_path, "a.json", b'[{"text": "+2AA-"}]'), encoding="utf-7")
    assert (error.code, error.line) == ("bad-text", 1)


def test_bad_tasks_are_left_out(tmp_path: Path) -> None:
    tasks = [task("a", span(0, 1, "X")), task("b", span(0, 9, "X")), task("c") | {"annotations": []}, 5, task("d")]
    skipped: list[DataError] = []
    records = read_records(write(tmp_path, "a.json", ",\n".join(json.dumps(one) for one in tasks).join("[]")), skipped=skipped)
    assert [(record.text, record.entities) for record in records] == [("a", (Entity(0, 1, "X"),)), ("d", ())]
    assert [(error.code, error.line) for error in skipped] == [("bad-entity", 2), ("bad-annotation", 3), ("bad-json", 4)]


def test_an_export_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps([task("a")])
    monkeypatch.setattr(annotations, "MAX_EXPORT_BYTES", len(content))
    assert len(read_records(write(tmp_path, "a.json", content))) == 1
    assert refusal(write(tmp_path, "a.json", content + " ")).code == "json-limit"
