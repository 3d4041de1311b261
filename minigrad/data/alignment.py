"""Words and their pieces: which token of a text stands for which word, so that labels of words can be learned and read back.

A classifier of words sees each word at its first piece; every other token is left out of loss and metrics. Nothing is lost on the
way: long texts are read in overlapping windows, each word is answered for in exactly one of them, and a word that the tokenizer
drops (a zero-width character, say) gets the unknown token for a place.

How entities become tags of words and tags entities: a word belongs to the first entity that overlaps it, and an entity that no
word is left for is dropped. So entities come back as they were where they start and end with words; `unaligned` names the others.
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
"""(first character, the character past the last one) of a word in its text."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A stretch of record number `record` that a model reads at once, its special tokens included.

    `words[i]` is the number of the word whose first piece is token i, if this window answers for that word; else -1.

    Shapes: ids, type_ids, words (tokens,) int64.
    """

    record: int
    ids: IntArray
    type_ids: IntArray
    words: IntArray


@dataclass(frozen=True, slots=True, order=True)
class ScoredEntity(Entity):
    """An entity that a model found, and how sure it is of it: the mean probability of its words' tags."""

    score: float


def word_places(record: Record, encoding: Encoding, kind: str) -> list[Place]:
    """The words of a record's text: those that its file separates, else the tokenizer's.

    A WordPiece tokenizer (`kind`, as `Tokenizer.kind`) splits around punctuation, and its words are those of `encoding`, that of the
    whole text. Words of the other kinds are what stands between spaces, as the token-classification pipeline reads them.
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

    Raises: DataError (code missing-entities) for a record whose file marks none.
    """
    return tags_of([span for span in _spans(record, places) if span[0] < span[1]], len(places))


def unaligned(record: Record, places: Sequence[Place]) -> list[Entity]:
    """The entities that tags of words cannot keep: they start or end within a word, or share one with an entity before them.

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
    """The entities that tags of words stand for, by `spans_of`, as characters of the text.

    scores: the probability of each word's tag; entities then carry the mean of their words'.
    Raises: ShapeError for another number of tags or scores than words; ArgumentError for a string that is no tag.
    """
    if len(tags) != len(places) or (scores is not None and len(scores) != len(places)):
        given = f"{len(tags)} tags" + ("" if scores is None else f" and {len(scores)} scores")
        raise ShapeError(f"{len(places)} words but {given}: every word needs one")
    spans = spans_of(tags)
    found = [Entity(places[first][0], places[past - 1][1], kind) for first, past, kind in spans]
    if scores is None:
        return found
    means = [float(np.mean(scores[first:past])) for first, past, _ in spans]
    return [ScoredEntity(entity.start, entity.end, entity.type, mean) for entity, mean in zip(found, means, strict=True)]


def _spans(record: Record, places: Sequence[Place]) -> list[Span]:
    """The words of each entity, none of them twice; an entity without a word has an empty span."""
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
    """The windows of all records, in their order, and the words of each record.

    max_length: the most tokens of a window, special ones included. stride: the tokens that neighbouring windows of a long text
    share; None: 128, or half of a small window. A word is answered for by the window that shows most around its first piece.
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
    """The label of each window's tokens: that of the word whose first piece a token is, where the window answers for it, else -100.

    Shapes: ids_of_words, per record (words,) → per window (tokens,) int64.
    Raises: ShapeError, naming the record, for fewer labels than words; DTypeError for labels that are no integers.
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
    """The rows of each record's words, put together from the tokens of all windows. counts: the words of each record.

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
    """The encoding with the number of a word in `word_ids` at its first piece alone, and unknown tokens for words without any.

    A word's first piece is the first token that overlaps it, or that is empty and stands at its start (the space that byte-level
    pairs write apart from a word), and that is no other word's.
    """
    own = np.flatnonzero(~encoding.special_tokens_mask)
    token, past = (int(own[0]), int(own[-1]) + 1) if len(own) else (1, 1)
    offsets = encoding.offsets.tolist()
    numbers = np.full(len(encoding), -1, np.int64)
    dropped: list[tuple[int, int]] = []  # the token before which one will be put in, and the word without a piece that it is for
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
    """The windows of record `number`, whose `encoding` comes from `_with_first_pieces`."""
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
