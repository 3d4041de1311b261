"""How good tags of words are: by whole entities and by single tags, side by side.

The two tell different stories. Most words lie outside of every entity and are easily right, so scores of tags look far better than
scores of entities, where a span counts only if its first word, its last word and its type are all right. Printing one without the
other misleads. Only tags of words come in here: padding and the further pieces of a word must have been left out before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from minigrad.data.tagging import Span, parse_tag, spans_of
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.files import listing, quoted
from minigrad.train.metrics._rows import ratio
from minigrad.train.metrics.classification import classification_report
from minigrad.train.metrics.report import ClassificationReport, EntityReport, averaged, scores_of_counts

MODES = ("default", "strict")
"""What an entity is: "default" reads a broken sequence as conlleval and seqeval do, so that an I- that nothing precedes begins an entity;
"strict" is seqeval's strict IOB2: only B- begins one, an I- without it belongs to none, and B-, I- and O are all the tags there are."""

Tags = Sequence[Sequence[str]]
"""The tags of the words of each sentence."""


@dataclass(frozen=True, slots=True)
class NerReport:
    """Scores of whole entities, and of single tags. `print` shows them in one table, side by side."""

    entity: EntityReport
    token: ClassificationReport

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts and numbers, fit for JSON."""
        return {"entity": self.entity.to_dict(), "token": self.token.to_dict()}

    def __str__(self) -> str:
        left, right = str(self.entity).split("\n"), str(self.token).split("\n")
        # The averages stand in the same rows, whichever side has more classes.
        split = max(len(self.entity.classes), len(self.token.classes)) + 1
        left, right = (_stretched(lines, split) for lines in (left, right))
        width = max(len(line) for line in left)
        titles = [f"{'entities':<{width}} | tags"]
        rows = [f"{one:<{width}} | {other}".rstrip() for one, other in zip_longest(left, right, fillvalue="")]
        return "\n".join(titles + rows)


def ner_report(gold: Tags, predicted: Tags, *, mode: str = "default") -> NerReport:
    """Precision, recall and F1 of the entities of each type, and of each tag.

    An entity is right if a gold one of the same sentence has the same first word, last word and type. A score whose denominator is
    zero is 0. With mode "default" the entities equal seqeval's in its default mode, with "strict" those of its strict mode with IOB2;
    the tags equal scikit-learn's report over all words. Types and tags are those that occur, sorted.

    gold, predicted: the tags of the words of each sentence, such as [["B-PER", "I-PER", "O"], ["O"]].

    Raises:
        ShapeError: numbers of sentences, or of the words of a sentence, differ.
        DTypeError, ArgumentError: a tag is no tag; there is no word at all, or no such mode.
    """
    sentences = _sentences(gold, predicted, mode)
    types, counts = entity_counts(gold, predicted, mode=mode)
    hits, claimed, support = counts.sum(axis=0).T
    scores = scores_of_counts(hits, claimed, support)
    micro = scores_of_counts(*(np.array([count.sum()]) for count in (hits, claimed, support)))[0]
    entity = EntityReport(dict(zip(types, scores, strict=True)), micro, averaged(scores, "macro"), averaged(scores, "weighted"))
    names = sorted({tag for pair in sentences for tags in pair for tag in tags})
    number = {name: i for i, name in enumerate(names)}
    labels, predictions = ([number[tag] for pair in sentences for tag in pair[side]] for side in (0, 1))
    return NerReport(entity, classification_report(labels, predictions, names))


def entity_counts(gold: Tags, predicted: Tags, *, mode: str = "default") -> tuple[list[str], NDArray[np.int64]]:
    """The types of entities that occur, sorted, and for each sentence and type how many are right, predicted, and in the gold tags.

    All that scores of entities need, and small: the bootstrap resamples its rows, with `entity_f1` as the metric.

    Shapes: (sentences, types, 3)

    Raises: as `ner_report`.
    """
    found = [(set(_spans(one, mode)), set(_spans(other, mode))) for one, other in _sentences(gold, predicted, mode)]
    types = sorted({kind for pair in found for spans in pair for _, _, kind in spans})
    number = {kind: i for i, kind in enumerate(types)}
    counts = np.zeros((len(found), len(types), 3), dtype=np.int64)
    for row, (true, claimed) in zip(counts, found, strict=True):
        for column, spans in enumerate((true & claimed, claimed, true)):
            for _, _, kind in spans:
                row[number[kind], column] += 1
    return types, counts


def entity_f1(counts: NDArray[np.int64]) -> float:
    """The micro F1 of the entities of some rows of `entity_counts`; 0 where there is no entity at all."""
    hits, claimed, support = counts.reshape(-1, counts.shape[-2] * 3).sum(axis=0).reshape(-1, 3).sum(axis=0)
    return float(ratio(2 * hits, claimed + support))


def _sentences(gold: Tags, predicted: Tags, mode: str) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Both sides sentence by sentence, once all of it is checked."""
    if mode not in MODES:
        raise ArgumentError(f"mode must be one of {listing(MODES)}, got {quoted(mode)}")
    for what, sentences in (("gold", gold), ("predicted", predicted)):
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise DTypeError(f"{what} must be a sequence of sentences, each a sequence of tags, got {quoted(sentences)}")
    if len(gold) != len(predicted):
        raise ShapeError(f"gold and predicted must have equally many sentences, got {len(gold)} and {len(predicted)}")
    pairs = list(zip(gold, predicted, strict=True))
    known: set[str] = set()  # tags repeat: each is read once
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


def _stretched(lines: list[str], split: int) -> list[str]:
    """A table whose averages begin at line `split`, by empty lines after its classes."""
    classes = lines.index("")
    return lines[:classes] + [""] * (split - classes) + lines[classes:]
