"""Near-duplicates: the groups equal those of comparing every text with every other, whatever the texts are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.duplicates import NEIGHBOURS, Components, folded, folded_text, near_duplicate_groups, similarity
from minigrad.data.records import Record
from minigrad.errors import ArgumentError


def brute_force(forms: list[str], threshold: float) -> list[int]:
    groups = Components(len(forms))
    for i, j in combinations(range(len(forms)), 2):
        if similarity(forms[i], forms[j]) >= threshold:
            groups.join(i, j)
    return groups.numbers().tolist()


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Texts, and changed copies of them: with a character more, less or other, or with the halves exchanged."""
    texts = draw(st.lists(st.text("abcde é日", max_size=60), min_size=1, max_size=5))
    for _ in range(draw(st.integers(0, 12))):
        text = draw(st.sampled_from(texts))
        place = draw(st.integers(0, len(text)))
        texts.append(
            draw(st.sampled_from([text, text[:place] + "x" + text[place:], text[:place] + text[place + 1 :], text[place:] + text[:place]]))
        )
    return [folded(text) for text in draw(st.permutations(texts))]


@given(families(), st.sampled_from([0.5, 0.7, 0.8, 0.95, 1.0]))
def test_groups_are_those_of_comparing_all_with_all(forms: list[str], threshold: float) -> None:
    assert near_duplicate_groups(forms, threshold).tolist() == brute_force(forms, threshold)


@pytest.mark.parametrize(("changes", "near"), [(1, True), (2, True), (3, False)])  # similarities 91/101, 86/106 and 81/111
def test_thousands_of_copies_around_the_threshold(changes: int, near: bool) -> None:
    """Enough pairs that a banding with too few bands would miss some: one that misses one pair in a thousand fails here."""
    rng = np.random.default_rng(changes)
    alphabet = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    rows = rng.integers(0, 26, (4000, 100))
    copies = rows.copy()
    for place in rng.choice(range(10, 90, 5), changes, replace=False):
        copies[:, place] = (copies[:, place] + 1) % 26
    originals, others = (["".join(alphabet[row]) for row in table] for table in (rows, copies))
    groups = near_duplicate_groups([*originals, *others], 0.8).reshape(2, -1)
    assert np.all((groups[0] == groups[1]) == near)


def test_more_copies_than_are_compared_with_each_other_are_one_group() -> None:
    """A text and its thousand variants: everybody has only NEIGHBOURS neighbours, and still all are connected."""
    forms = [f"the order with the number {number:04d} was handed to the parcel service this morning" for number in range(10 * NEIGHBOURS)]
    assert set(near_duplicate_groups(forms).tolist()) == {0}


def test_folding() -> None:
    assert folded(" Straße\t\n X ") == "strasse x"
    assert near_duplicate_groups([folded("Hello  World"), folded("hello world\n"), folded("hello")]).tolist() == [0, 0, 2]
    assert folded_text(Record("One ", None, "", 1, {}, text_b="Two")) == "one two"


@pytest.mark.parametrize("short", ["", "a", "abcd"])
def test_texts_shorter_than_a_gram_equal_only_themselves(short: str) -> None:
    assert near_duplicate_groups([short, short + "e", short], 0.5).tolist() == [0, 1, 0]


def test_no_texts_no_groups() -> None:
    assert near_duplicate_groups([]).tolist() == []


@pytest.mark.parametrize("threshold", [0.49, 1.01, float("nan"), True, "0.8", None])
def test_impossible_thresholds(threshold: object) -> None:
    with pytest.raises(ArgumentError, match=r"0\.5 to 1"):
        near_duplicate_groups(["a"], threshold)  # type: ignore[arg-type]
