"""What is written reads back, in every format; what a format cannot hold is refused by name and leaves no file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigrad.data.conll import joined
from minigrad.data.readers import read_records, records_from
from minigrad.data.records import Entity, Record, labels_of
from minigrad.data.tagging import spans_of
from minigrad.data.writers import write_records
from minigrad.errors import ArgumentError, DataError

PLAIN = Record("a b", "x", "made", 1, {})
MARKED = Record("a b", None, "made", 1, {}, entities=(Entity(0, 1, "X"),), words=((0, 1), (2, 3)))
TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() and "\0" not in text)
FIELD_NAMES = st.sampled_from(["id", "split", "na me", "\ufeff", '"', ","])


@st.composite
def spans(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """Places in a text, in order, not empty, not overlapping."""
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=6)))
    return list(zip(cuts[::2], cuts[1::2], strict=False))


@st.composite
def files(draw: st.DrawFn, marked: bool = True, texts: st.SearchStrategy[str] = TEXTS) -> list[Record]:
    """The records of one file: all with or all without a label, a second text, entities and each field."""
    has_label, has_pair, has_entities, has_words = (draw(st.booleans()) for _ in range(4))
    names = draw(st.sets(FIELD_NAMES, max_size=2))
    records = []
    for line in range(draw(st.integers(1, 4))):
        text = draw(texts)
        entities = tuple(Entity(*place, draw(TEXTS)) for place in draw(spans(len(text)))) if marked and has_entities else None
        words = tuple(draw(spans(len(text)))) if marked and has_words else None
        fields = {name: draw(texts) for name in names}
        label, text_b = draw(texts) if has_label else None, draw(texts) if has_pair else None
        records.append(Record(text, label, "made", line + 1, fields, text_b, entities, words))
    return records


def check_round_trip(records: list[Record], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a fixture would be shared between Hypothesis examples
        path = Path(folder) / f"a{suffix}"
        write_records(path, records)
        found = read_records(path)
    for record, back in zip(records, found, strict=True):
        own = {name: value for name in ("text", "label", "text_b") if (value := getattr(record, name)) is not None}
        assert back == replace(record, path=str(path), line=back.line, fields=own | record.fields)


@given(files())
def test_jsonl_reads_back(records: list[Record]) -> None:
    check_round_trip(records, ".jsonl")


@given(files(marked=False))
def test_csv_reads_back(records: list[Record]) -> None:
    check_round_trip(records, ".csv")


@given(files(marked=False, texts=TEXTS.filter(lambda text: {"\t", "\n", "\r"}.isdisjoint(text))))
def test_tsv_reads_back(records: list[Record]) -> None:
    check_round_trip(records, ".tsv")


NAMES = st.text("ab;, \u00e9", min_size=1, max_size=3)


@st.composite
def records_of_several(draw: st.DrawFn) -> tuple[list[Record], str]:
    """Records as reading gives them: names of lists, and strings as they stand in tables; and what separates them."""
    separator = draw(st.sampled_from([",", ";", ";;", ", ", "a"]))
    rows = draw(st.lists(st.one_of(st.lists(NAMES, max_size=3), st.text("ab;, ", max_size=6)), min_size=1, max_size=4))
    records = []
    for row in rows:
        try:
            records += records_from([{"text": "a text", "label": row}], label_separator=separator)
        except DataError as error:
            assert error.code == "bad-label"  # a list that this separator cannot keep apart
    return [replace(record, line=line) for line, record in enumerate(records, start=1)], separator


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@given(records_of_several())
def test_several_labels_read_back(suffix: str, made: tuple[list[Record], str]) -> None:
    records, separator = made
    assume(records)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        try:
            write_records(path, records, label_separator=separator)
        except DataError as error:
            assert suffix == ".jsonl" and "cannot be told apart" in str(error) and os.listdir(folder) == []
            return
        found = read_records(path, label_separator=separator)
        again = Path(folder) / f"b{suffix}"
        write_records(again, found, label_separator=separator)
        assert again.read_bytes() == path.read_bytes()
    assert [labels_of(back, separator) for back in found] == [labels_of(record, separator) for record in records]
    if suffix != ".jsonl":
        assert [back.label for back in found] == [record.label for record in records]


def test_several_labels_are_lists_or_names_with_the_separator(tmp_path: Path) -> None:
    records = [replace(PLAIN, label="x; y"), replace(PLAIN, label="")]
    write_records(tmp_path / "a.jsonl", records, label_separator=";")
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"text": "a b", "label": ["x", "y"]}\n{"text": "a b", "label": []}\n'
    write_records(tmp_path / "a.csv", records, label_separator=";")
    assert (tmp_path / "a.csv").read_bytes() == b"text,label\r\na b,x; y\r\na b,\r\n"
    write_records(tmp_path / "b.jsonl", [replace(PLAIN, label=None)], label_separator=";")
    assert (tmp_path / "b.jsonl").read_text(encoding="utf-8") == '{"text": "a b"}\n'


@pytest.mark.parametrize(
    ("suffix", "record", "separator", "words"),
    [
        (".jsonl", replace(PLAIN, label="a; ;;b"), ";;", r"its labels 'a;', 'b' cannot be told apart with ';;' between them"),
        (".jsonl", replace(PLAIN, label="", fields={"labels": []}), ",", "its column 'labels' would be read as spans; rename it"),
        (".jsonl", replace(PLAIN, label="x,\ud800"), ",", "half a surrogate pair"),
        (".tsv", replace(PLAIN, label="x\ty"), "\ty", "holds a tab"),
        (".csv", replace(PLAIN, label="x\0y"), "\0", "NUL"),
        (".conll", replace(MARKED, label=""), ",", "it has label, for which a .conll file has no place"),
    ],
)
def test_several_labels_that_a_format_cannot_hold(tmp_path: Path, suffix: str, record: Record, separator: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        write_records(tmp_path / f"a{suffix}", [record], label_separator=separator)
    assert str(caught.value).startswith("made:1: ") and os.listdir(tmp_path) == []


def test_what_separates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="label_separator must be a string of more than white space, such as ','"):
        write_records(tmp_path / "a.jsonl", [PLAIN], label_separator="")


CHARACTERS = st.sampled_from("a# =\u00e9\U0001f600.-\u2028")
WORDS = st.text(CHARACTERS, min_size=1, max_size=4).filter(lambda word: word.strip() and not word.startswith("# "))
TAGS = st.sampled_from(["O", "B-X", "I-X", "B-a-b", "I-a-b"])


@given(st.lists(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=6), min_size=1, max_size=4))
def test_conll_reads_back(sentences: list[list[tuple[str, str]]]) -> None:
    records = []
    for sentence in sentences:
        text, places = joined([word for word, _ in sentence])
        found = spans_of([tag for _, tag in sentence])
        entities = tuple(Entity(places[first][0], places[past - 1][1], kind) for first, past, kind in found)
        records.append(Record(text, None, "made", 1, {}, entities=entities, words=places))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.conll"
        write_records(path, records)
        back = read_records(path)
    assert [(r.text, r.words, r.entities) for r in back] == [(r.text, r.words, r.entities) for r in records]


def test_what_is_read_can_be_written_and_read_again(tmp_path: Path) -> None:
    """Sentences keep their tags as they were, and JSON lines the types of their other columns."""
    (tmp_path / "a.conll").write_text("# id = 1\na I-X\nb B-X\n", encoding="utf-8")
    first = read_records(tmp_path / "a.conll")
    write_records(tmp_path / "a.jsonl", first)
    (back,) = read_records(tmp_path / "a.jsonl")
    assert (back.text, back.words, back.entities) == (first[0].text, first[0].words, first[0].entities)
    assert back.fields == {"text": "a b", "id": "1", "tags": ["I-X", "B-X"]}
    write_records(tmp_path / "b.conll", [back])
    assert (tmp_path / "b.conll").read_text(encoding="utf-8") == "a\tB-X\nb\tB-X\n\n"
    write_records(tmp_path / "c.jsonl", [replace(PLAIN, fields={"id": 7, "more": {"a": [None, 1.5]}})])
    assert read_records(tmp_path / "c.jsonl")[0].fields == {"text": "a b", "label": "x", "id": 7, "more": {"a": [None, 1.5]}}


def test_tables_hold_numbers_as_their_text(tmp_path: Path) -> None:
    write_records(tmp_path / "a.csv", [replace(PLAIN, fields={"id": 7, "share": 0.5, "new": True, "gone": None})])
    assert read_records(tmp_path / "a.csv")[0].fields == {"text": "a b", "label": "x", "id": "7", "share": "0.5", "new": "true", "gone": ""}


@pytest.mark.parametrize(
    ("suffix", "record", "words"),
    [
        (".xml", PLAIN, "use .jsonl, .csv, .tsv, .conll"),
        (".csv", MARKED, "it has entities, which a table cannot hold; use .jsonl"),
        (".tsv", replace(MARKED, entities=None), "it has words, which a table"),
        (".tsv", replace(PLAIN, text="a\tb"), "holds a tab or a line end"),
        (".tsv", replace(PLAIN, fields={"a\nb": "x"}), "holds a tab or a line end"),
        (".tsv", replace(PLAIN, label="a\r"), "holds a tab or a line end"),
        (".csv", replace(PLAIN, text="x" * 131_073), "longer than the 131072 characters that the csv module reads"),
        (".csv", replace(PLAIN, fields={"more": ["a"]}), "its column 'more' is no string or number"),
        (".csv", replace(PLAIN, fields={"more": "\ud800"}), "half a surrogate pair"),
        (".jsonl", replace(PLAIN, fields={"more": "\ud800"}), "half a surrogate pair"),
        (".jsonl", replace(PLAIN, fields={"more": {1, 2}}), "cannot be written as JSON"),
        (".jsonl", replace(PLAIN, fields={"more": float("nan")}), "cannot be written as JSON"),
        (".jsonl", replace(PLAIN, fields={"entities": "none"}), "would be read as spans; rename it"),
        (".jsonl", replace(PLAIN, text=" "), "the text is empty"),
        (".jsonl", replace(PLAIN, label=""), "the label is empty"),
        (".jsonl", replace(PLAIN, text_b="\0"), "NUL character"),
        (".conll", PLAIN, "it has label, for which a .conll file has no place"),
        (".conll", replace(MARKED, words=None), "needs words; give them with dataclasses.replace"),
        (".conll", replace(MARKED, entities=None), "needs entities (() for none)"),
        (".conll", replace(MARKED, entities=(Entity(0, 2, "X"),)), "does not start and end with a word"),
        (".conll", replace(MARKED, text="a\tb", words=((0, 3),), entities=()), "would be read as something else"),
        (".conll", replace(MARKED, text="# b", words=((0, 3),), entities=()), "would be read as something else"),
        (".conll", replace(MARKED, text="-DOCSTART-", words=((0, 10),), entities=()), "would be read as something else"),
        (".conll", replace(MARKED, text="a  ", words=((0, 1), (1, 2)), entities=()), "would be read as something else"),
        (".conll", replace(MARKED, entities=(Entity(0, 1, "X "),)), "would be read as something else"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, suffix: str, record: Record, words: str) -> None:
    with pytest.raises(DataError) as caught:
        write_records(tmp_path / f"a{suffix}", [record])
    assert words in str(caught.value)
    assert suffix == ".xml" or str(caught.value).startswith("made:1: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".jsonl", lambda record: replace(record, label=None)),
        (".jsonl", lambda record: replace(record, text_b="b")),
        (".jsonl", lambda record: replace(record, entities=())),
        (".csv", lambda record: replace(record, fields={"id": "1"})),
    ],
)
def test_records_of_two_kinds_make_no_file(tmp_path: Path, suffix: str, change: Callable[[Record], Record]) -> None:
    with pytest.raises(DataError) as caught:
        write_records(tmp_path / f"a{suffix}", [PLAIN, replace(change(PLAIN), line=2)])
    assert (caught.value.code, caught.value.line) == ("cannot-be-held", 2)
    assert os.listdir(tmp_path) == []


def test_no_records_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no records to write"):
        write_records(tmp_path / "a.jsonl", [])
    with pytest.raises(ArgumentError, match="pass the path of a file or directory, got None"):
        write_records(None, [PLAIN])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be written: No such file") as caught:
        write_records(tmp_path / "absent" / "a.jsonl", [PLAIN])
    assert caught.value.code == "write-failed"


def test_a_refusal_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_records(path, [PLAIN])
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_records(path, [PLAIN, MARKED])
    assert path.read_bytes() == before
