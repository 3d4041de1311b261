"""Signs that columns are others than they were read as, and labels that are written in several ways; of sound data nothing is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from data.text_files import write

from minigrad.data.readers import read_records
from minigrad.data.suspicions import column_notices, label_notices

ROWS = "a good one,A\nanother,B\na third one,A\nthe last,B\n"


def notices(*paths: Path) -> list[str]:
    files = [read_records(path) for path in paths]
    return column_notices([file[0] for file in files], Counter(r.label for file in files for r in file if r.label is not None))


def test_a_header_of_other_names_is_told(tmp_path: Path) -> None:
    train, test = write(tmp_path, "train.csv", "review,sentiment\n" + ROWS), write(tmp_path, "test.csv", "review,sentiment\n" + ROWS)
    (told,) = notices(train)
    assert told.startswith(f"{train}:1 looks like a header but was read as a record of label 'sentiment'")
    assert "--text review --label sentiment, or in a config [data] text = 'review', label = 'sentiment'" in told
    assert len(notices(train, test)) == 2, "each file has one"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("headed.csv", "text,label\nreview,sentiment\n" + ROWS),
        ("common.csv", "fine,A\n" + ROWS),
        ("phrase.csv", "rarely seen,C\n" + ROWS),
        ("long.csv", "x" * 31 + ",C\n" + ROWS),
        ("rare.csv", "review,sentiment\n" + ROWS + "once,C\n"),
        ("alone.csv", "review,sentiment\n"),
        ("bare.csv", "review\nand another\n"),
        ("prose.csv", "first this; then that\nand another\n"),
        ("rows.jsonl", '{"text": "fine", "label": "C"}\n' + '{"text": "other", "label": "A"}\n' * 2),
        ("numbers.csv", "text,label\n" + "".join(f"text {i},{i / 7}\n" for i in range(50))),
    ],
)
def test_sound_files_are_not_told_of(tmp_path: Path, name: str, content: str) -> None:
    assert notices(write(tmp_path, name, content)) == []


def test_one_column_that_may_be_several_is_told(tmp_path: Path) -> None:
    (told,) = notices(write(tmp_path, "a.csv", "review;sentiment\na good one;A\n"))
    assert "a.csv:1 is one column, 'review;sentiment': the file seems to be separated by semicolons; save it with commas" in told
    (told,) = notices(write(tmp_path, "b.csv", "review\tsentiment\na good one\tA\n"))
    assert "separated by tabs; read it as tsv" in told


def test_labels_that_may_be_texts_are_told(tmp_path: Path) -> None:
    def rows(same: int, length: int) -> str:
        return "label,text\n" + "".join(f"{'x' * length}{max(i, same):03},A\n" for i in range(100))

    (told,) = notices(write(tmp_path, "a.csv", rows(same=9, length=27)))
    assert told.startswith("nearly every record has a long label of its own") and "--label" in told
    assert notices(write(tmp_path, "b.csv", rows(same=9, length=26))) == [], "short"
    assert notices(write(tmp_path, "c.csv", rows(same=91, length=27))) == [], "few"


def test_labels_in_several_spellings_are_told() -> None:
    (told,) = label_notices({"pos": 3, " pos": 1, "neg": 2, "Pos": 2, "STRASSE": 1, "Straße": 1, "po s": 1})
    assert told.endswith("classes of their own: ' pos' (1), 'Pos' (2), 'pos' (3); 'STRASSE' (1), 'Straße' (1); write the same label alike")
    (told,) = label_notices({spelling: 1 for i in range(7) for spelling in (f"a{i}", f"A{i}")})
    assert told.count("(1)") == 10 and "; and 2 more; " in told
    assert label_notices({"pos": 3, "neg": 2, "pos itive": 1, "1": 4, "1.0": 2}) == []
