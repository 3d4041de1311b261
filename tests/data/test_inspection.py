"""The check of data files: what it finds equals what comparing all records finds, in memory that the file's size does not change."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from data_memory import measured, write_data
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import Tokenizer, copies
from minigrad.data.duplicates import folded, similarity
from minigrad.data.inspection import MAX_LABELS, check_files
from minigrad.errors import ArgumentError, DataError


def written(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def texts(*rows: str) -> list[dict[str, Any] | str]:
    return [{"text": text} for text in rows]


TEXTS = ["the parcel has not arrived yet", "The parcel has not  arrived yet!", "refund me", "refund me please", "x", "cafe\u0301"]
SPLITS = st.lists(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from("AB")), min_size=1, max_size=6), min_size=1, max_size=3)


@given(SPLITS)
def test_findings_are_those_of_comparing_all_with_all(
    tmp_path_factory: pytest.TempPathFactory, splits: list[list[tuple[str, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    names = ["train", "dev", "test"][: len(splits)]
    files = {}
    for name, rows in zip(names, splits, strict=True):
        files[name] = written(folder / f"{name}.jsonl", [{"text": text, "label": label} for text, label in rows])
    report = check_files(files)
    everything = [row for rows in splits for row in rows]
    labels = {text: {label for other, label in everything if other == text} for text, _ in everything}
    assert report.conflicts.count == sum(len(of_text) > 1 for of_text in labels.values())
    for name, rows in zip(names, splits, strict=True):
        found = report.splits[name]
        assert found.records == found.compared == len(rows)
        assert found.duplicates.count == len(rows) - len({text for text, _ in rows})
        assert found.labels == {label: sum(other == label for _, other in rows) for label in {label for _, label in rows}}
    for (a, rows_a), (b, rows_b) in combinations(zip(names, splits, strict=True), 2):
        in_a = {text for text, _ in rows_a}
        exact = [text for text, _ in rows_b if text in in_a]
        # No two of TEXTS are connected through a third one only, so that groups are what similarity says.
        near = [t for t, _ in rows_b if t not in in_a and any(similarity(folded(t), folded(other)) >= 0.8 for other in in_a)]
        for leaks, expected in ((report.leaks, exact), (report.near_leaks, near)):
            assert leaks[a, b].count == len(expected) if expected else (a, b) not in leaks
    assert report.ok == (not (report.conflicts.count or report.leaks or report.near_leaks))


def test_places_are_named(tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", [{"text": "one", "label": "A"}, {"text": "two", "label": "A"}, {"text": "two", "label": "B"}])
    dev = written(tmp_path / "dev.jsonl", [{"text": "three", "label": "A"}, {"text": "two", "label": "C"}, {"text": " ONE ", "label": "A"}])
    report = check_files([train, dev])
    assert report.splits["train"].duplicates.to_dict() == {"count": 1, "first": [f"{train}:3 = {train}:2"]}
    assert report.conflicts.to_dict() == {"count": 1, "first": [f"{train}:2 ≠ {train}:3 ≠ {dev}:2"]}
    assert report.leaks["train", "dev"].to_dict() == {"count": 1, "first": [f"{dev}:2 = {train}:2"]}
    assert report.near_leaks["train", "dev"].to_dict() == {"count": 1, "first": [f"{dev}:3 ≈ {train}:1"]}
    assert report.missing_labels == {"B": ["train"], "C": ["dev"]}
    assert check_files([train, dev], near_duplicates=None).near_leaks == {}


LABELS = [["A", "B"], ["B", "A", "A"], ["A"], [], "A, B", " "]


@given(st.lists(st.lists(st.tuples(st.sampled_from(TEXTS[:3]), st.sampled_from(LABELS)), min_size=1, max_size=6), min_size=1, max_size=3))
def test_several_labels_count_each(tmp_path_factory: pytest.TempPathFactory, splits: list[list[tuple[str, list[str] | str]]]) -> None:
    """Sets conflict, not lists of them; a label counts once in a record."""
    folder = tmp_path_factory.mktemp("splits")
    files = {}
    for number, rows in enumerate(splits):
        files[str(number)] = written(folder / f"{number}.jsonl", [{"text": text, "label": label} for text, label in rows])
    report = check_files(files, label_separator=",", near_duplicates=None)
    sets = [[(text, frozenset("AB") & frozenset(label)) for text, label in rows] for rows in splits]  # names are letters, also in strings
    everything = [row for rows in sets for row in rows]
    answers = {text: {labels for other, labels in everything if other == text} for text, _ in everything}
    assert report.conflicts.count == sum(len(of_text) > 1 for of_text in answers.values())
    having = {label: [name for name, rows in zip(files, sets, strict=True) if any(label in labels for _, labels in rows)] for label in "AB"}
    assert report.missing_labels == {label: names for label, names in having.items() if 0 < len(names) < len(files)}
    for name, rows in zip(files, sets, strict=True):
        found = report.splits[name]
        assert found.labels == Counter(label for _, labels in rows for label in labels)
        sizes = Counter(min(len(labels), 2) for _, labels in rows)
        assert found.to_dict()["labels_per_record"] == {"none": sizes[0], "one": sizes[1], "several": sizes[2]}


def test_one_label_a_record_is_not_counted_per_record(tmp_path: Path) -> None:
    report = check_files([written(tmp_path / "a.jsonl", [{"text": "one", "label": "A,B"}])])
    assert report.splits["a"].labels == {"A,B": 1} and "labels_per_record" not in report.splits["a"].to_dict()
    report = check_files([written(tmp_path / "b.jsonl", [{"text": "one", "label": ["A", "B"]}, {"text": "two", "label": "A"}])])
    assert report.splits["b"].unreadable["bad-label"].count == 1
    without = check_files([written(tmp_path / "c.jsonl", texts("one"))], label_separator=",")
    assert "labels_per_record" not in without.splits["c"].to_dict()


def test_pairs_and_entities_are_part_of_what_a_record_says(tmp_path: Path) -> None:
    pairs = [{"text": "one", "text_b": b, "label": label} for b, label in (("two", "A"), ("three", "B"), ("two", "C"))]
    report = check_files([written(tmp_path / "pairs.jsonl", [*pairs])])
    assert (report.splits["pairs"].duplicates.count, report.conflicts.count) == (1, 1)
    spans = [[], [{"start": 0, "end": 3, "type": "X"}], [{"start": 0, "end": 3, "type": "X"}], [{"start": 0, "end": 2, "type": "X"}]]
    rows = [{"text": "Ada went" if i < 3 else "Ada stayed", "entities": entities} for i, entities in enumerate(spans)]
    report = check_files([written(tmp_path / "spans.jsonl", [*rows])])
    found = report.splits["spans"]
    assert (found.duplicates.count, report.conflicts.count, found.entity_types) == (2, 1, {"X": 3})
    assert found.faults["span-off-words"].first[0][1].endswith(":4: X '[Ad]a stayed'")


def test_records_without_labels_do_not_conflict_with_others(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.jsonl", texts("one")), written(tmp_path / "b.jsonl", [{"text": "one", "label": "A"}])
    report = check_files({"a": a, "b": b})
    assert report.conflicts.count == 0 and report.leaks["a", "b"].count == 1 and report.missing_labels == {}
    report = check_files({"both": [a, b]})
    assert report.ok and report.splits["both"].duplicates.count == 1


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "fine"}\n{"text": "caf\xe9"}\n{"text": ""}\n' + b"{broken\n" * 1000 + b'{"text": "the end"}\n')
    report = check_files([path])
    found = report.splits["a"]
    assert found.records == 2 and found.byte_order_marks == [str(path)]
    assert {code: finding.count for code, finding in found.unreadable.items()} == {"not-utf8": 1, "empty-text": 1, "bad-json": 1000}
    assert [place for place, _ in found.unreadable["bad-json"].first] == [4, 5, 6, 7, 8]
    assert found.unreadable["not-utf8"].first[0][1].startswith(f"{path}:2: not UTF-8")
    assert report.ok
    path.write_bytes(b'{"text": "caf\xe9"}\n')
    assert check_files([path], encoding="latin-1").splits["a"].records == 1


def test_faults_of_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", texts("cafÃ©", "x\u200by", "lost \ufffd", "bell \x07", "cafe\u0301 once", "cafe\u0301 twice"))
    faults = {kind: finding.count for kind, finding in check_files([path]).splits["a"].faults.items()}
    kinds = {"mojibake": 1, "zero-width-character": 1, "replacement-character": 1, "control-character": 1}
    assert faults == {**kinds, "mixed-normal-forms": 2}  # the Ã of the first text is a composed letter
    consistent = written(tmp_path / "b.jsonl", texts("cafe\u0301 once", "cafe\u0301 twice"))
    assert check_files([consistent]).splits["b"].faults == {}


def test_lengths(tmp_path: Path, minilm: Path) -> None:
    rows = [{"text": "one two", "text_b": "three"} for _ in range(600)]
    lengths = check_files([written(tmp_path / "a.jsonl", [*rows])], tokenizer=Tokenizer.from_pretrained(minilm)).splits["a"].lengths
    assert {unit: (of.at(0.5), of.longest, of.counts.total()) for unit, of in lengths.items()} == {
        "characters": (12, 12, 600),
        "words": (3, 3, 600),
        "tokens": (6, 6, 600),
    }


def test_numbers_as_labels_are_counted_up_to_a_bound(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": f"text {i}", "label": i / 7} for i in range(2 * MAX_LABELS)])
    labels = check_files([path], near_duplicates=None).splits["a"].labels
    assert len(labels) == MAX_LABELS + 1 and labels["(other labels)"] == MAX_LABELS


def test_beyond_the_bounds_near_duplicates_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact copies are, and the report says how many records were compared."""
    rows = texts(*(f"{'abcdefgh'[i]} text number {i}" for i in range(8)), "exactly this", "nearly this, with a very long end")
    train = written(tmp_path / "train.jsonl", rows)
    dev = written(tmp_path / "dev.jsonl", texts("exactly this", "Nearly this, with a very long end"))
    report = check_files([train, dev], near_records=9)
    assert report.leaks and not report.near_leaks and report.splits["train"].compared == 9
    assert "the first 9 of 10 of train" in str(report)
    assert check_files([train, dev], near_records=10).near_leaks
    monkeypatch.setattr(copies, "NEAR_CHARS", 100)
    report = check_files([train, dev])
    assert not report.near_leaks and report.splits["train"].compared == 4  # of 15 characters each: the fourth passes 50


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """`python -m data_memory` (with PYTHONPATH=.:tests) does the same with files of any size."""
    peaks = []
    for megabytes in (1, 10):
        write_data(tmp_path / "data.jsonl", megabytes, characters=400)
        peaks.append(measured(tmp_path / "data.jsonl", near_records=1000)[2])
    # 9 MB more are 21,000 records more, of 20 bytes each; the rest is for what the allocator does. To hold the texts takes 9 MB at least.
    assert peaks[1] - peaks[0] < 4e6


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    a, same = written(tmp_path / "a.jsonl", texts("one")), written(tmp_path / "other" / "a.jsonl", texts("one"))
    for files, words in (
        ([a, same], "two files are called 'a'"),
        ([], "no files"),
        ({"train": []}, "a split without"),
        (str(a), "a list"),
        ([a, None], "got None"),
        ({"train": [0]}, "got 0"),
    ):
        with pytest.raises(ArgumentError, match=words):
            check_files(files)  # type: ignore[arg-type]
    for option in ({"near_records": -1}, {"near_duplicates": 0.1}, {"format": "xml"}, {"label_separator": ""}):
        with pytest.raises(ArgumentError):
            check_files([a], **option)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not exist"):
        check_files([tmp_path / "missing.jsonl"])
    with pytest.raises(DataError, match=r"not one row can be read; the first: .*a\.jsonl:1: no column 'body'"):
        check_files([a], text_column="body")
    with pytest.raises(DataError, match="no records"):
        check_files([written(tmp_path / "empty.jsonl", [])])
