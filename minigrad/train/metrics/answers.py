"""The metrics of SQuAD for text answers: exact match, and F1 of the words that an answer shares with a gold one.

Rajpurkar et al. 2016 ("SQuAD", section 6.1) and 2018 ("Know What You Don't Know") define them. Answers are compared after normalisation;
of several gold answers the best match counts; "no answer" is the empty text, which matches only the empty text.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.files import quoted

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Means over the questions, in [0, 1] (SQuAD's own tables show percent), and how many there were."""

    exact_match: float
    f1: float
    support: int


def normalised_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an and the, words separated by single spaces; in this order."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the normalised answer equals one of the normalised gold answers, else 0.0.

    gold: one or more answers. If there are none, or all normalise to nothing, there is no answer, and "" matches.
    """
    return float(normalised_answer(answer) in _normalised_gold(gold))


def answer_f1(answer: str, gold: Sequence[str]) -> float:
    """The best F1, over the gold answers, of the words in common, counted with multiplicity.

    F1 = 2 common / (words of the answer + words of the gold answer); if either has no words: 1.0 if neither has, else 0.0.
    gold: as for `exact_match`.
    """
    words = normalised_answer(answer).split()
    return max(_f1(words, other.split()) for other in _normalised_gold(gold))


def answer_scores(answers: Sequence[str], gold: Sequence[Sequence[str]]) -> AnswerScores:
    """The means of exact match and F1 over all questions.

    answers: one text per question, "" for no answer. gold: the gold answers of each question; [] for none.

    Raises:
        DTypeError, ShapeError, ArgumentError: an answer is no string, the lengths differ, or there are no questions.
    """
    if len(answers) != len(gold):
        raise ShapeError(f"answers and gold must have equal lengths, got {len(answers)} and {len(gold)}")
    if not answers:
        raise ArgumentError("answers are empty: no score can be computed")
    for number, (answer, others) in enumerate(zip(answers, gold, strict=True)):
        if isinstance(others, str):
            raise DTypeError(f"the gold answers of question {number} must be a sequence of strings, got {quoted(others)}")
        for text in (answer, *others):
            if not isinstance(text, str):
                raise DTypeError(f"the answers of question {number} must be strings, got {quoted(text)}")
    matches = [exact_match(answer, others) for answer, others in zip(answers, gold, strict=True)]
    shares = [answer_f1(answer, others) for answer, others in zip(answers, gold, strict=True)]
    return AnswerScores(sum(matches) / len(matches), sum(shares) / len(shares), len(answers))


def _normalised_gold(gold: Sequence[str]) -> list[str]:
    return [text for text in map(normalised_answer, gold) if text] or [""]


def _f1(words: list[str], others: list[str]) -> float:
    if not words or not others:
        return float(words == others)
    common = (Counter(words) & Counter(others)).total()
    return 2 * common / (len(words) + len(others))
