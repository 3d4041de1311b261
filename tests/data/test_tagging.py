"""Tags and spans: the three schemes by example, the round trip by property, and what broken sequences mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.tagging import SCHEMES, Span, parse_tag, repairs, scheme_of, spans_of, tags_of
from minigrad.errors import ArgumentError

TYPES = st.sampled_from(["PER", "creative-work"])


@st.composite
def span_sets(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans in order without overlap, often touching each other, and the number of words."""
    place, spans = 0, []
    for gap, size, kind in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), TYPES), max_size=6)):
        spans.append((place + gap, place + gap + size, kind))
        place += gap + size
    return spans, place + draw(st.integers(0, 2))


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB2", "B-X I-X B-X O B-Y"),
        ("IOB1", "I-X I-X B-X O I-Y"),
        ("BIOES", "B-X E-X S-X O S-Y"),
        ("BIOES", "B-X L-X U-X O U-Y"),
    ],
)
def test_schemes_by_example(scheme: str, tags: str) -> None:
    spans = [(0, 2, "X"), (2, 3, "X"), (4, 5, "Y")]
    assert spans_of(tags.split()) == spans
    assert [parse_tag(tag) for tag in tags_of(spans, 5, scheme)] == [parse_tag(tag) for tag in tags.split()]
    assert scheme_of([tags.split()]) == scheme
    assert repairs(tags.split(), scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@given(drawn=span_sets())
def test_round_trip(scheme: str, drawn: tuple[list[Span], int]) -> None:
    spans, length = drawn
    tags = tags_of(spans, length, scheme)
    assert len(tags) == length
    assert spans_of(tags) == spans
    assert tags_of(spans_of(tags), length, scheme) == tags
    assert repairs(tags, scheme) == []


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"])))
def test_any_sequence_is_repaired_once_and_for_all(tags: list[str]) -> None:
    spans = spans_of(tags)
    assert sum(past - first for first, past, _ in spans) == sum(tag != "O" for tag in tags)  # no tag is lost
    for scheme in SCHEMES:
        repaired = tags_of(spans, len(tags), scheme)
        assert spans_of(repaired) == spans
        assert [place for place in range(len(tags)) if tags[place] != repaired[place]] == repairs(tags, scheme)


def test_an_inside_without_a_beginning_counts_as_one() -> None:
    tags = ["O", "I-X", "I-X", "I-Y", "O", "I-X"]
    assert spans_of(tags) == [(1, 3, "X"), (3, 4, "Y"), (5, 6, "X")]
    assert repairs(tags, "IOB2") == [1, 3, 5]


def test_the_scheme_is_that_of_most_of_the_file() -> None:
    assert scheme_of([["B-X", "I-X"], ["O", "I-X"], ["B-X"]]) == "IOB2"  # the second sentence is the exception
    assert scheme_of([["I-X", "I-X"], ["I-X", "B-X"], ["B-X"]]) == "IOB1"
    assert scheme_of([["S-X"], ["B-X", "I-X"]]) == "IOB2"
    assert scheme_of([["O", "O"], []]) == "IOB2"
    assert scheme_of([]) == "IOB2"


@pytest.mark.parametrize("tag", ["", "B", "PER", "B-", "b-PER", "X-PER", "o", "BPER", "-PER", "I- "])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ArgumentError, match="as in 'B-PERSON'"):
        spans_of(["O", tag])


@pytest.mark.parametrize("spans", [[(1, 1, "X")], [(2, 1, "X")], [(-1, 1, "X")], [(2, 4, "X")], [(0, 2, "X"), (1, 3, "Y")]])
def test_spans_that_are_none(spans: list[Span]) -> None:
    with pytest.raises(ArgumentError, match="overlaps the one before it or lies outside of the 3"):
        tags_of(spans, 3)


def test_unknown_scheme() -> None:
    for call in (tags_of, lambda _, __, scheme: repairs([], scheme)):
        with pytest.raises(ArgumentError, match="'IOB2', 'IOB1', 'BIOES', got 'BMES'"):
            call([], 0, "BMES")
