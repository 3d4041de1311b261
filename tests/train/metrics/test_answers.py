"""Exact match and F1 of answers, by examples worked out by hand."""

from __future__ import annotations

import pytest

from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.train.metrics import AnswerScores, answer_f1, answer_scores, exact_match, normalised_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat, sat!", "cat sat"),
        ("an  apple\ta day", "apple day"),
        ("theatre Anna a.b", "theatre anna ab"),  # articles are whole words; punctuation vanishes without a space
        ("a-n", ""),  # punctuation goes first, and an article is what remains
        ("U.S.", "us"),
        ("  ", ""),
        ("“quoted” – Ärger", "“quoted” – ärger"),  # only ASCII punctuation
    ],
)
def test_normalisation(text: str, expected: str) -> None:
    assert normalised_answer(text) == expected


def test_exact_match_by_hand() -> None:
    assert exact_match("The Eiffel tower.", ["Louvre", "eiffel Tower"]) == 1.0
    assert exact_match("Eiffel", ["Eiffel tower"]) == 0.0


def test_f1_by_hand() -> None:
    assert answer_f1("in the old town", ["town", "old town hall"]) == pytest.approx(2 * 2 / (3 + 3), rel=1e-15)  # the best of 1/2 and 2/3
    assert answer_f1("no no no", ["no no"]) == 2 * 2 / 5  # a word counts as often as it stands in both
    assert answer_f1("north", ["south"]) == 0.0


def test_no_answer() -> None:
    for gold in ([], [""], ["the"]):
        assert exact_match("", gold) == answer_f1("", gold) == 1.0
        assert exact_match("word", gold) == answer_f1("word", gold) == 0.0
    assert exact_match("", ["word"]) == answer_f1("", ["word"]) == 0.0
    assert exact_match("", ["", "word"]) == answer_f1("", ["", "word"]) == 0.0  # there is an answer; the empty one is none


def test_means() -> None:
    found = answer_scores(["red", "", "old town"], [["red"], [], ["town"]])
    assert found == AnswerScores(exact_match=pytest.approx(2 / 3), f1=pytest.approx((1 + 1 + 2 / 3) / 3), support=3)  # order of the sum


def test_refused() -> None:
    with pytest.raises(ArgumentError, match="empty"):
        answer_scores([], [])
    with pytest.raises(ShapeError, match="got 1 and 2"):
        answer_scores(["a"], [["a"], ["b"]])
    with pytest.raises(DTypeError, match="gold answers of question 1 must be a sequence of strings, got 'b'"):
        answer_scores(["a", "b"], [["a"], "b"])
    with pytest.raises(DTypeError, match="question 0 must be strings, got None"):
        answer_scores([None], [["a"]])  # type: ignore[list-item]
