"""Aligns words with tokens, so that labels of words can be learned and read back.

A word is classified at its first piece; all other tokens are left out of loss and metrics. No word is lost: long texts are read in
overlapping windows, of which exactly one answers for each word, and a word that the tokenizer drops (a zero-width character, say) is
represented by the unknown token.

Entities and tags: a word belongs to the first entity that overlaps it, and an entity left without words is dropped. So entities survive the
round trip if they start and end at word boundaries; `unaligned` lists the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from minigrad.data.checks import check_count
from minigrad.data.records import Entity, Record, required_entities
from minigrad.data.tagging import Span, spans_of, tags_of
from minigrad.data.tokenization import Encoding, Tokenizer
from minigrad.data.windows import Rows, answering, window, windows
from minigrad.errors import ShapeError
from minigrad.ops.loss_arguments import IGNORED
from minigrad.packing import IntArray, token_rows

Place = tuple[int, int]
"""(first character, past the last character) of a word in its text."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of record number `record` that the model reads at once, special tokens included.

    `words[i]` is the number of the word whose first piece is token i, if this window answers for that word; else -1.

    Shapes: ids, type_ids, words (tokens,) int64.
    """

    record: int
    ids: IntArray
    type_ids: IntArray
    words: IntArray


@dataclass(frozen=True, slots=True, order=True)
class ScoredEntity(Entity):
    """An entity found by a model, with a score: the mean probability of its words' tags."""

    score: float


def word_places(record: Record, encoding: Encoding, kind: str) -> list[Place]:
    """The words of a record's text: those that its file separates, else the tokenizer's.

    A WordPiece tokenizer (`kind`, as `Tokenizer.kind`) splits around punctuation; its words are those of `encoding`, which encodes the
    whole text. For other kinds, words are separated by white space (in the token-classification pipeline, by spaces).
    """
    if record.words is not None:
        return list(record.words)
    if kind != "WordPiece":
        return [match.span() for match in re.finditer(r"\S+", record.text)]
    places: list[Place] = []
    before = -1
    for word, (start, end) in zip(encoding.word_ids.tolist(), encoding.offsets.tolist(), strict=True):
        if word >= 0 and word == before:
            places[-1] = (places[-1][0], end)
        elif word >= 0:
            places.append((start, end))
        before = word
    return places


# ---- entities and tags


def tags_of_words(record: Record, places: Sequence[Place]) -> list[str]:
    """The IOB2 tag of each word: that of the first entity that overlaps it.

    Raises: DataError (code missing-entities) for a record whose file has no entities.
    """
    return tags_of([span for span in _spans(record, places) if span[0] < span[1]], len(places))


def unaligned(record: Record, places: Sequence[Place]) -> list[Entity]:
    """The entities that word tags cannot express: they start or end inside a word, or share a word with an earlier entity.

    Raises: as `tags_of_words`.
    """
    found = []
    for entity, (first, past, _) in zip(required_entities(record), _spans(record, places), strict=True):
        if first == past or (places[first][0], places[past - 1][1]) != (entity.start, entity.end):
            found.append(entity)
    return found


@overload
def entities_of(places: Sequence[Place], tags: Sequence[str]) -> list[Entity]: ...
@overload
def entities_of(places: Sequence[Place], tags: Sequence[str], scores: Sequence[float]) -> list[ScoredEntity]: ...
def entities_of(places: Sequence[Place], tags: Sequence[str], scores: Sequence[float] | None = None) -> list[Entity] | list[ScoredEntity]:
    """The entities that word tags stand for (see `spans_of`), as character spans of the text.

    scores: the probability of each word's tag; entities then carry the mean over their words.
    Raises: ShapeError unless there is one tag (and score) per word; ArgumentError for a string that is not a tag.
    """
    if len(tags) != len(places) or (scores is not None and len(scores) != len(places)):
        given = f"{len(tags)} tags" + ("" if scores is None else f" and {len(scores)} scores")
        raise ShapeError(f"{len(places)} words but {given}: every word needs one")
    spans = [(slice(first, past), places[first][0], places[past - 1][1], kind) for first, past, kind in spans_of(tags)]
    if scores is None:
        return [Entity(start, end, kind) for _, start, end, kind in spans]
    return [ScoredEntity(start, end, kind, float(np.mean(scores[words]))) for words, start, end, kind in spans]


def _spans(record: Record, places: Sequence[Place]) -> list[Span]:
    """The words of each entity, each word at most once; an entity without words has an empty span."""
    spans: list[Span] = []
    past = 0
    for entity in required_entities(record):
        first = past
        while first < len(places) and places[first][1] <= entity.start:
            first += 1
        past = first
        while past < len(places) and places[past][0] < entity.end:
            past += 1
        spans.append((first, past, entity.type))
    return spans


# ---- words and tokens


def encode_words(
    tokenizer: Tokenizer, records: Sequence[Record], max_length: int, stride: int | None = None
) -> tuple[list[Window], list[list[Place]]]:
    """The windows of all records, in order, and the words of each record.

    max_length: maximum tokens of a window, special ones included. stride: the tokens that neighbouring windows of a long text share; None:
    128, or half of a small window. The window with the most context around a word's first piece answers for the word.
    Raises: ArgumentError if max_length leaves no room for text or stride does not fit into it; as `Tokenizer.encode`.
    """
    max_length = check_count("max_length", max_length)
    found: list[Window] = []
    places: list[list[Place]] = []
    for number, (record, encoding) in enumerate(zip(records, tokenizer.encode([record.text for record in records]), strict=True)):
        words = word_places(record, encoding, tokenizer.kind)
        found += _windows(number, _with_first_pieces(encoding, words, tokenizer.unk_id), max_length, stride)
        places.append(words)
    return found, places


def token_labels(windows: Sequence[Window], ids_of_words: Sequence[IntArray]) -> list[IntArray]:
    """The labels of each window's tokens: at the first piece of each word that the window answers for, the word's label; elsewhere -100.

    Shapes: ids_of_words, per record (words,) → per window (tokens,) int64.
    Raises: ShapeError, naming the record, for fewer labels than words; DTypeError for labels that are not integers.
    """
    ids = token_rows("labels of record", ids_of_words)
    labels = []
    for shown in windows:
        answered = shown.words >= 0
        needed = int(shown.words.max(initial=-1)) + 1
        if shown.record >= len(ids) or len(ids[shown.record]) < needed:
            held = len(ids[shown.record]) if shown.record < len(ids) else "no"
            raise ShapeError(f"record {shown.record} has at least {needed} words but {held} labels: every word needs one")
        own = np.full(len(shown.words), IGNORED, np.int64)
        own[answered] = ids[shown.record][shown.words[answered]]
        labels.append(own)
    return labels


def join_words(windows: Sequence[Window], rows: Sequence[Rows], counts: Sequence[int]) -> list[Rows]:
    """The rows of each record's words, collected from the tokens of all windows. counts: the number of words of each record.

    Shapes: rows, per window (tokens, d) → per record (words, d).
    Raises: ShapeError unless there is a row for every token of a window, and a window that answers for every word.
    """
    if len(rows) != len(windows):
        raise ShapeError(f"{len(windows)} windows but rows of {len(rows)}")
    like = rows[0] if rows else np.empty(0)
    found: list[Rows] = [np.empty((count, *like.shape[1:]), like.dtype) for count in counts]
    left = list(counts)
    for number, (shown, row) in enumerate(zip(windows, rows, strict=True)):
        if len(row) != len(shown.words):
            raise ShapeError(f"window {number} has {len(shown.words)} tokens but {len(row)} rows")
        words = shown.words[shown.words >= 0]
        if shown.record >= len(counts) or int(words.max(initial=-1)) >= counts[shown.record]:
            raise ShapeError(f"window {number} answers for words of record {shown.record} that counts do not know")
        found[shown.record][words] = row[shown.words >= 0]
        left[shown.record] -= len(words)
    if any(left):
        record = next(record for record, words in enumerate(left) if words)
        raise ShapeError(f"record {record} has {counts[record]} words, the windows answer for {counts[record] - left[record]}")
    return found


def _with_first_pieces(encoding: Encoding, places: Sequence[Place], unk_id: int) -> Encoding:
    """The encoding with word numbers in `word_ids` only at first pieces, and unknown tokens inserted for words without a token.

    A word's first piece is the first token that overlaps it, or an empty token at its start (the space that byte-level BPE may separate
    from a word), unless that token is another word's.
    """
    own = np.flatnonzero(~encoding.special_tokens_mask)
    token, past = (int(own[0]), int(own[-1]) + 1) if len(own) else (1, 1)
    offsets = encoding.offsets.tolist()
    numbers = np.full(len(encoding), -1, np.int64)
    dropped: list[tuple[int, int]] = []  # (token to insert before, word without a piece)
    for word, (start, end) in enumerate(places):
        while token < past and offsets[token][0] < start and offsets[token][1] <= start:
            token += 1
        if token < past and offsets[token][0] < end:
            numbers[token] = word
            token += 1
        else:
            dropped.append((token, word))
    if not dropped:
        return replace(encoding, word_ids=numbers)
    before, words = ([pair[i] for pair in dropped] for i in (0, 1))
    return replace(
        encoding,
        ids=np.insert(encoding.ids, before, unk_id),
        type_ids=np.insert(encoding.type_ids, before, 0),
        offsets=np.insert(encoding.offsets, before, [places[word] for word in words], axis=0),
        word_ids=np.insert(numbers, before, words),
        sequence_ids=np.insert(encoding.sequence_ids, before, 0),
    )


def _windows(number: int, encoding: Encoding, max_length: int, stride: int | None) -> list[Window]:
    """The windows of record `number`; `encoding` comes from `_with_first_pieces`."""
    parts = windows(encoding, 0, max_length, stride, "record", number)
    whole = parts[0][0], parts[-1][1]
    found = []
    for part, (first, past) in zip(parts, answering(parts), strict=True):
        shown = window(encoding, part, whole)
        begin, end = (whole[0] + token - part[0] for token in (first, past))
        words = np.full(len(shown), -1, np.int64)
        words[begin:end] = shown.word_ids[begin:end]
        found.append(Window(number, shown.ids, shown.type_ids, words))
    return found
