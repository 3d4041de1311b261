"""Faults of texts that can be read: what is one, and what only looks like one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.records import Entity, Record
from minigrad.data.text_faults import FAULTS, faults_of, has_composed_letters, spans_off_words


@pytest.mark.parametrize("letter", "éèüöäßñçà€“’–—…😀")  # whose bytes all have characters in Windows-1252
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
def test_utf8_read_as_a_western_encoding_is_mojibake(letter: str, wrong: str) -> None:
    assert "mojibake" in faults_of(f"caf{letter.encode('utf-8').decode(wrong)} au lait")


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "CAFÉ»",
        "«IRMÃ» Ã",
        "Â la carte, Ânes",
        "10 € – 20 °C",
        "naïve “quoted” text…",
        "Đà Nẵng",
        "日本語テキスト",
        "ПРИВЕТ",
        "😀👩‍💻",
    ],
)
def test_texts_without_fault(text: str) -> None:
    assert list(faults_of(unicodedata.normalize("NFC", text))) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lost \ufffd letter", "replacement-character"),
        ("bell\x07", "control-character"),
        ("window\x85s", "control-character"),
        ("zero\u200bwidth", "zero-width-character"),
        ("mark\ufeff inside", "zero-width-character"),
        ("join\u200der", "zero-width-character"),
        ("reversed \u202etxt", "zero-width-character"),
        ("cafe\u0301", "mixed-normal-forms"),
    ],
)
def test_texts_with_one_fault(text: str, kind: str) -> None:
    assert list(faults_of(text)) == [kind]
    assert kind in FAULTS


@pytest.mark.parametrize("text", ["tab\tand\r\nlines", "می\u200cخواهم", "क्\u200dष"])
def test_line_ends_and_joiners_of_scripts_that_need_them(text: str) -> None:
    assert list(faults_of(text)) == []


@given(st.text())
def test_any_text_has_known_faults_at_most_once(text: str) -> None:
    found = list(faults_of(text))
    assert set(found) <= set(FAULTS) and len(set(found)) == len(found)


def test_composed_letters() -> None:
    assert has_composed_letters("é") and not has_composed_letters("e\u0301") and not has_composed_letters("plain 日")


@pytest.mark.parametrize(
    ("text", "span", "off"),
    [
        ("Ada Lovelace wrote", (0, 12), False),
        ("Ada Lovelace wrote", (0, 11), True),
        ("Ada Lovelace wrote", (1, 12), True),
        ("Ada Lovelace wrote", (0, 13), True),
        ("Ada Lovelace wrote", (3, 12), True),
        ("(Ada)'s", (1, 4), False),
        ("10km", (0, 2), True),
        ("東京都に住む", (0, 2), False),
        ("Ada", (0, 3), False),
    ],
)
def test_spans_at_borders_of_words(text: str, span: tuple[int, int], off: bool) -> None:
    record = Record(text, None, "a", 1, {}, entities=(Entity(*span, "X"),))
    assert bool(list(spans_off_words(record))) == off


def test_the_words_of_the_file_decide_where_it_has_any() -> None:
    record = Record("a.b c", None, "a", 1, {}, entities=(Entity(0, 1, "X"), Entity(4, 5, "Y")), words=((0, 3), (4, 5)))
    assert [entity.type for entity in spans_off_words(record)] == ["X"]
    assert list(spans_off_words(Record("a", None, "a", 1, {}))) == []
