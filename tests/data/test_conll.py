"""CoNLL files: columns, comments, schemes, what is refused, and the published data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.text_files import marked, refusal, write

from minigrad.data import conll
from minigrad.data.conll import joined
from minigrad.data.readers import read_records
from minigrad.data.records import Entity, LabelMap
from minigrad.data.tagging import repairs, scheme_of
from minigrad.errors import DataError

ANNA = [("Anna Berg", "PER"), ("Rome", "LOC")]


@pytest.mark.parametrize(
    "content",
    [
        "Anna\tB-PER\nBerg\tI-PER\nleft\tO\nRome\tB-LOC\n",
        "Anna B-PER\nBerg I-PER\nleft O\nRome B-LOC",
        "Anna\tB-PER\r\nBerg\tI-PER\r\nleft\tO\r\nRome\tB-LOC\r\n\r\n",
        "\ufeffAnna NNP I-NP I-PER\nBerg  NNP   I-NP I-PER \nleft VBD I-VP O\nRome NNP I-NP I-LOC\n",
        "-DOCSTART- -X- O O\n\nAnna -X- _ B-PER\nBerg -X- _ I-PER\nleft -X- _ O\nRome -X- _ B-LOC\n",
        "\n \n\t\nAnna\tB-PER\t\nBerg\tE-PER\nleft\tO\nRome\tS-LOC\n\t\n\n",
        "Anna B-PER\nBerg L-PER\nleft O\nRome U-LOC\n",
        "Anna I-PER\nBerg I-PER\nleft O\nRome I-LOC\n",
    ],
)
def test_reads(tmp_path: Path, content: str) -> None:
    (record,) = read_records(write(tmp_path, "a.conll", content))
    assert record.text == "Anna Berg left Rome"
    assert record.words == ((0, 4), (5, 9), (10, 14), (15, 19))
    assert marked(record) == ANNA
    assert (record.label, record.text_b) == (None, None)


def test_sentences_know_their_place_and_their_tags(tmp_path: Path) -> None:
    path = write(tmp_path, "a.iob", "\na O\n\n-DOCSTART- O\n\nb I-X\nc B-X\n-DOCSTART- O\nd O\n")
    records = read_records(path)
    assert [(record.line, record.text) for record in records] == [(2, "a"), (6, "b c"), (9, "d")]
    assert records[0].entities == ()
    assert records[1].entities == (Entity(0, 1, "X"), Entity(2, 3, "X"))
    assert records[1].fields == {"tags": ("I-X", "B-X")}
    assert LabelMap.of_tags(records).names == ("O", "B-X", "I-X")


def test_a_tab_lets_words_hold_spaces(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path, "a.bio", "New York\tB-LOC\n1\u00a0000 000\tO\n"))
    assert record.words == ((0, 8), (9, 18))
    assert marked(record) == [("New York", "LOC")]


def test_hashes_are_words_unless_the_file_has_comments_from_the_start(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path, "a.conll", "# O\nb O\n# O\n#a O\n"))
    assert record.text == "# b # #a"
    content = "# sent_id = 1 = one\n# text = a #\n# newpar\na O\n# O\n\n# sent_id = 2\nb O\n\n# the end\n"
    first, second = read_records(write(tmp_path, "b.conll", content))
    assert (first.text, first.line, second.text, second.line) == ("a #", 4, "b", 8)
    assert first.fields == {"sent_id": "1 = one", "text": "a #", "tags": ("O", "O")}
    assert second.fields == {"sent_id": "2", "tags": ("O",)}


def test_a_hash_in_the_first_line_of_a_file_with_tabs(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path, "a.conll", "#\tO\n=\tO\n"))
    assert record.text == "# ="


@pytest.mark.parametrize(
    ("content", "code", "line", "words"),
    [
        ("", "empty-file", None, "no records"),
        ("\n\n", "empty-file", None, "no records"),
        ("a O\nb\n", "missing-tag", 2, "the word 'b' has no tag"),
        ("a\tO\nb\t\n", "missing-tag", 2, "the word 'b' has no tag"),
        ("a x O\n\nb O\n", "column-count", 3, "2 columns, line 1 has 3"),
        ("a\tO\n\tO\n", "empty-text", 2, "the word is empty"),
        ("a O\nb NOUN\n", "bad-tag", 2, "'NOUN' is neither 'O' nor one of B-"),
        ("a B\n", "bad-tag", 1, "as in 'B-PERSON'"),
        (b"a O\n\xe9 O\n", "not-utf8", 2, "encoding='latin-1'"),
        ("a O\nb\0 O\n", "nul-character", 2, "position 1"),
        ("# a = b\n", "empty-file", None, "no records"),
    ],
)
def test_refuses(tmp_path: Path, content: str | bytes, code: str, line: int | None, words: str) -> None:
    error = refusal(write(tmp_path, "a.conll", content))
    assert (error.code, error.line) == (code, line)
    assert words in str(error)


def test_a_sentence_with_a_bad_line_is_left_out_whole(tmp_path: Path) -> None:
    content = b"a O\n\nb O\n\xff O\nc\nd O\n\ne O\n\nf NOUN\n-DOCSTART- O\ng O\n"
    skipped: list[DataError] = []
    records = read_records(write(tmp_path, "a.conll", content), skipped=skipped)
    assert [(record.text, record.line) for record in records] == [("a", 1), ("e", 8), ("g", 12)]
    assert [(error.code, error.line) for error in skipped] == [("not-utf8", 4), ("bad-tag", 10)]


def test_a_sentence_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conll, "MAX_TEXT_CHARACTERS", 40)
    error = refusal(write(tmp_path, "a.conll", "ab O\n" * 9))
    assert (error.code, error.line) == ("text-limit", 9)
    assert "are the empty lines missing?" in str(error)
    assert len(read_records(write(tmp_path, "a.conll", "ab O\n" * 8 + "\n" + "ab O\n" * 8))) == 2


def test_joined() -> None:
    text, places = joined(["a", "bc", "d"])
    assert text == "a bc d"
    assert [text[start:end] for start, end in places] == ["a", "bc", "d"]
    assert joined([]) == ("", ())


@pytest.mark.parametrize(
    ("name", "sentences", "entities"),
    [
        ("wnut17/wnut17train.conll", 3394, 1975),
        ("wnut17/emerging.dev.conll", 1009, 836),
        ("wnut17/emerging.test.annotated", 1287, 1079),
        ("ncbi_disease/train.tsv", 5424, 5134),
        ("ncbi_disease/devel.tsv", 923, 787),
        ("ncbi_disease/test.tsv", 940, 960),
    ],
)
def test_published_data(shared_data: Path, name: str, sentences: int, entities: int) -> None:
    """Sentences as the data sets count them, entities as their B- tags."""
    records = read_records(shared_data / name, format="conll")
    tags = [record.fields["tags"] for record in records]
    assert len(records) == sentences
    assert sum(len(record.entities or ()) for record in records) == entities
    assert scheme_of(tags) == "IOB2"  # type: ignore[arg-type]
    assert not any(repairs(sequence, "IOB2") for sequence in tags)  # type: ignore[arg-type]
