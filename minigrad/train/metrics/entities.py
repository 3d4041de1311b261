"""Metrics of word tags: by whole entities and by single tags, side by side.

The two tell different stories. Most words lie outside of every entity and are easily right, so scores of tags look far better than
scores of entities, where a span counts only if its first word, its last word and its type are all right. Printing one without the
other misleads. The input is one tag per word: remove padding and the further pieces of a word first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data.tagging import Span, parse_tag, spans_of
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.files import listing, quoted
from minigrad.train.metrics.report import ClassificationReport, EntityReport, averaged, pooled, scores_of_counts

MODES = ("default", "strict")
"""How entities are read from tags: "default" treats invalid sequences as conlleval and seqeval do, so that an I- that continues no
entity begins one; "strict" is seqeval's strict IOB2: only B- begins one, an I- without it belongs to none, other tags are errors."""

Tags = Sequence[Sequence[str]]
"""The tags of the words of each sentence."""


@dataclass(frozen=True, slots=True)
class NerReport:
    """Scores of whole entities and of single tags. `print` shows them in one table, side by side."""

    entity: EntityReport
    token: ClassificationReport

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        left, right = str(self.entity).split("\n"), str(self.token).split("\n")
        # The averages are in the same rows, whichever side has more classes.
        split = max(len(self.entity.classes), len(self.token.classes)) + 1
        left, right = (_pad_classes(lines, split) for lines in (left, right))
        width = max(len(line) for line in left)
        rows = zip(["entities", *left], ["tags", *right], strict=True)
        return "\n".join(f"{entity:<{width}} | {tag}".rstrip() for entity, tag in rows)


def ner_report(gold: Tags, predicted: Tags, *, mode: str = "default") -> NerReport:
    """Precision, recall and F1 of the entities of each type, and of each tag.

    An entity is right if a gold one of the same sentence has the same first word, last word and type. A score whose denominator is
    zero is 0. With mode "default" the scores of entities equal seqeval's in its default mode, with "strict" in its strict mode with IOB2;
    those of tags equal scikit-learn's report over all words. Types and tags are those that occur, sorted.

    gold, predicted: the tags of the words of each sentence, such as [["B-PER", "I-PER", "O"], ["O"]].

    Raises:
        ShapeError: the numbers of sentences, or of a sentence's words, differ.
        DTypeError, ArgumentError: a tag is invalid, there are no words, or there is no such mode.
    """
    types, entities = entity_counts(gold, predicted, mode=mode)
    tags, words = tag_counts(gold, predicted, mode=mode)
    return NerReport(EntityReport.of(types, entities.sum(axis=0)), ClassificationReport.of(tags, words.sum(axis=0)))


def entity_counts(gold: Tags, predicted: Tags, *, mode: str = "default") -> tuple[list[str], NDArray[np.int64]]:
    """The entity types that occur, sorted, and for each sentence and type the numbers of right, predicted and gold entities.

    Entity scores need only these counts: a bootstrap can resample their rows, with `entity_f1` as the metric.

    Shapes: (sentences, types, 3)

    Raises: as `ner_report`.
    """
    return _counts([(set(_spans(true, mode)), set(_spans(claimed, mode))) for true, claimed in _sentences(gold, predicted, mode)])


def tag_counts(gold: Tags, predicted: Tags, *, mode: str = "default") -> tuple[list[str], NDArray[np.int64]]:
    """As `entity_counts`, for single tags: those that occur, and the numbers of words with each tag: right, predicted and gold."""
    return _counts([(_words(true), _words(claimed)) for true, claimed in _sentences(gold, predicted, mode)])


def entity_f1(counts: NDArray[np.int64]) -> float:
    """The micro F1 of some rows of `entity_counts`; 0 if there is no entity at all."""
    return pooled(counts).f1


def entity_precision(counts: NDArray[np.int64]) -> float:
    """The micro precision of some rows of `entity_counts`; 0 if no entity is predicted."""
    return pooled(counts).precision


def entity_recall(counts: NDArray[np.int64]) -> float:
    """The micro recall of some rows of `entity_counts`; 0 if there is no gold entity."""
    return pooled(counts).recall


def tag_accuracy(counts: NDArray[np.int64]) -> float:
    """The share of words with the right tag in some rows of `tag_counts`: every word has one tag, so this is the micro recall."""
    return pooled(counts).recall


def tag_f1_macro(counts: NDArray[np.int64]) -> float:
    """The macro F1 of the tags in some rows of `tag_counts`: the plain mean over all tags."""
    return averaged(scores_of_counts(*counts.sum(axis=0).T), "macro").f1


def _counts(sentences: Sequence[tuple[set[Span], set[Span]]]) -> tuple[list[str], NDArray[np.int64]]:
    """The types that occur, and for each sentence and type the numbers of hits, predicted spans and gold spans."""
    types = sorted({kind for pair in sentences for spans in pair for _, _, kind in spans})
    number = {kind: i for i, kind in enumerate(types)}
    counts = np.zeros((len(sentences), len(types), 3), dtype=np.int64)
    for row, (true, claimed) in zip(counts, sentences, strict=True):
        for column, spans in enumerate((true & claimed, claimed, true)):
            for _, _, kind in spans:
                row[number[kind], column] += 1
    return types, counts


def _sentences(gold: Tags, predicted: Tags, mode: str) -> list[tuple[Sequence[str], Sequence[str]]]:
    """(gold, predicted) tags of each sentence, checked."""
    if mode not in MODES:
        raise ArgumentError(f"mode must be one of {listing(MODES)}, got {quoted(mode)}")
    for what, sentences in (("gold", gold), ("predicted", predicted)):
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise DTypeError(f"{what} must be a sequence of sentences, each a sequence of tags, got {quoted(sentences)}")
    if len(gold) != len(predicted):
        raise ShapeError(f"gold and predicted must have equally many sentences, got {len(gold)} and {len(predicted)}")
    pairs = list(zip(gold, predicted, strict=True))
    known: set[str] = set()  # tags repeat: each is checked once
    for number, pair in enumerate(pairs):
        for what, tags in zip(("gold", "predicted"), pair, strict=True):
            _require_tags(f"sentence {number} of the {what} tags", tags, mode, known)
        if len(pair[0]) != len(pair[1]):
            raise ShapeError(
                f"sentence {number} has {len(pair[0])} gold tag(s) and {len(pair[1])} predicted one(s); "
                "give one tag per word, without padding and without the further pieces of a word"
            )
    if not known:
        raise ArgumentError("there are no tags: no score can be computed")
    return pairs


def _require_tags(where: str, tags: Sequence[str], mode: str, known: set[str]) -> None:
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise DTypeError(f"{where} must be a sequence of tags, got {quoted(tags)}")
    for place, tag in enumerate(tags):
        if not isinstance(tag, str):
            raise DTypeError(f"{where}: tag {place} must be a string such as 'B-PER' or 'O', got {quoted(tag)}")
        if tag in known:
            continue
        try:
            prefix, _ = parse_tag(tag)
        except ArgumentError as error:
            raise ArgumentError(f"{where}, word {place}: {error}") from None
        if mode == "strict" and prefix not in "BIO":
            raise ArgumentError(f"{where}, word {place}: the tag {quoted(tag)} is none of IOB2, which strict mode reads")
        known.add(tag)


def _spans(tags: Sequence[str], mode: str) -> list[Span]:
    spans = spans_of(tags)
    return spans if mode == "default" else [span for span in spans if tags[span[0]].startswith("B-")]


def _words(tags: Sequence[str]) -> set[Span]:
    """Each word as a span of its own, with its tag as the type."""
    return {(place, place + 1, tag) for place, tag in enumerate(tags)}


def _pad_classes(lines: list[str], split: int) -> list[str]:
    """A table padded with empty lines after its classes, so that its averages begin at line `split`."""
    classes = lines.index("")
    return lines[:classes] + [""] * (split - classes) + lines[classes:]
