"""Word tags ("B-PER", "I-PER", "O") and the spans they stand for.

Named entities are written as one tag per word, in one of three schemes. Models, metrics and files need the spans behind the tags, and must
agree on what a slightly malformed sequence means, so this is defined here only.

The schemes, for spans of types X (Ramshaw & Marcus 1995; Tjong Kim Sang & Veenstra 1999; Ratinov & Roth 2009):

    IOB2    B-X begins every span, I-X continues it, O is outside
    IOB1    I-X begins and continues a span; B-X begins one only where another of the same type ends right before it
    BIOES   B-X begins, I-X continues and E-X ends a span of several words, S-X is a span of one word; BILOU spells E as L and S as U
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted

SCHEMES = ("IOB2", "IOB1", "BIOES")

Span = tuple[int, int, str]
"""(first word, past the last word, type)."""

_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}


def parse_tag(tag: str) -> tuple[str, str]:
    """The prefix of a tag, with BILOU's letters mapped to those of BIOES, and its type; ("O", "") outside of every span.

    Raises:
        ArgumentError: the string is not a tag of any scheme.
    """
    if tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    if prefix not in _PREFIXES or not dash or not kind.strip():
        raise ArgumentError(f"the tag {quoted(tag)} is neither 'O' nor one of B-, I-, E-, S-, L-, U- and a type, as in 'B-PERSON'")
    return _PREFIXES[prefix], kind


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans that a sequence of tags stands for, in order.

    One rule covers all schemes, that of the CoNLL-2000 program conlleval. A span ends before O, B or S, before another type, and after E or
    S; any tag but O after an end begins a span. So an I- without a predecessor counts as B-.

    Raises:
        ArgumentError: a string is not a tag.
    """
    spans: list[Span] = []
    first, open_type = 0, ""
    for place, tag in enumerate(tags):
        prefix, kind = parse_tag(tag)
        if open_type and (prefix in "BSO" or kind != open_type):
            spans.append((first, place, open_type))
            open_type = ""
        if prefix != "O" and not open_type:
            first, open_type = place, kind
        if prefix in "ES":
            spans.append((first, place + 1, open_type))
            open_type = ""
    if open_type:
        spans.append((first, len(tags), open_type))
    return spans


def tags_of(spans: Iterable[Span], length: int, scheme: str = "IOB2") -> list[str]:
    """The tags of `length` words with these `spans`, which must not overlap.

    Raises:
        ArgumentError: a span is empty, lies outside the words or overlaps another one, or the scheme is unknown.
    """
    if scheme not in SCHEMES:
        raise ArgumentError(f"scheme must be one of {listing(SCHEMES)}, got {quoted(scheme)}")
    tags = ["O"] * length
    past_before, type_before = 0, ""
    for span in sorted(spans):
        first, past, kind = span
        if not past_before <= first < past <= length:
            raise ArgumentError(f"the span {span} is empty, overlaps the one before it or lies outside of the {length} word(s)")
        tags[first:past] = [f"I-{kind}"] * (past - first)
        if scheme != "IOB1" or (first == past_before and kind == type_before):
            tags[first] = f"B-{kind}"
        if scheme == "BIOES":
            tags[past - 1] = f"E-{kind}" if past - first > 1 else f"S-{kind}"
        past_before, type_before = past, kind
    return tags


def repairs(tags: Sequence[str], scheme: str) -> list[int]:
    """The places of the tags that `scheme` would write differently, such as an I- without B- in IOB2.

    `spans_of` accepts them all the same; this tells how much of a file relies on that.

    Raises:
        ArgumentError: a string is not a tag, or the scheme is unknown.
    """
    expected = tags_of(spans_of(tags), len(tags), scheme)
    return [place for place, (tag, due) in enumerate(zip(tags, expected, strict=True)) if parse_tag(tag) != parse_tag(due)]


def scheme_of(sequences: Iterable[Sequence[str]]) -> str:
    """The scheme of a file's tag sequences: the one that needs the fewest repairs; if equal, IOB2 before IOB1 before BIOES.

    Returns: "IOB2", "IOB1" or "BIOES", also for BILOU.

    Raises:
        ArgumentError: a string is not a tag.
    """
    needed = dict.fromkeys(SCHEMES, 0)
    for tags in sequences:
        for scheme in SCHEMES:
            needed[scheme] += len(repairs(tags, scheme))
    return min(SCHEMES, key=needed.__getitem__)
