"""Token classification: labels of tokens, and the named entities they form, with their places in the text.

Tokens become words and words become entities. `aggregation_strategy` says how disagreement between pieces of a word is settled; it and the
results are named as in transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from minigrad.data import Encoding, PackedTokens
from minigrad.data.tokenization import checked_texts
from minigrad.data.windows import joined, window, windows
from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted
from minigrad.pipeline.base import Chunk, Pipeline, Rows, softmax, split_rows

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Part:
    """A token or a word: its tokens in the vocabulary's spelling, its place in the text, and the probability of each label."""

    tokens: tuple[str, ...]
    start: int
    end: int
    scores: Rows
    index: int
    continues: bool
    """Whether it belongs to the same word as the token before it."""


class TokenClassification(Pipeline):
    """Finds the named entities of a text (or whatever else the model's labels stand for)."""

    head = "token-classification"

    def run(
        self, inputs: Any, *, aggregation_strategy: str = "none", ignore_labels: Collection[str] = ("O",), stride: int | None = None
    ) -> Any:
        """The entities of each text, in order; for a single text just its list.

        aggregation_strategy: "none" gives {"entity", "score", "index", "word", "start", "end"} for each token. The others merge neighbours
        of one type, where B- begins a new entity, into {"entity_group", "score", "word", "start", "end"}: "simple" token by token, the rest
        word by word, where the word's label is that of its "first" token, of its "average" probabilities, or of its most confident token
        ("max"). start and end are characters of the text; word is the decoded tokens; score is the mean probability. ignore_labels: labels
        to leave out. stride: a text of more tokens than the model reads (or than max_length) is read in windows that share this many tokens
        (None: 128, or half of a small window); each token's label comes from the window with the most context around it, so no entity is
        lost or cut.
        Raises: ArgumentError; as `Tokenizer.encode`.
        """
        if aggregation_strategy not in STRATEGIES:
            raise ArgumentError(f"aggregation_strategy must be one of {listing(STRATEGIES)}, got {quoted(aggregation_strategy)}")
        if isinstance(ignore_labels, str) or not isinstance(ignore_labels, Collection):
            raise ArgumentError(f"ignore_labels must be a list of labels, got {quoted(ignore_labels)}")
        return self._answers(inputs, lambda chunk: self._find(chunk, aggregation_strategy, ignore_labels, stride))

    def _find(self, chunk: Chunk, strategy: str, ignored: Collection[str], stride: int | None) -> list[Any]:
        texts = checked_texts("texts", chunk.inputs, chunk.first)
        encodings = self.tokenizer.encode(texts)
        size = min(self._longest(), self.max_length or self._longest())
        spans = [windows(encoding, 0, size, stride, "text", i) for i, encoding in enumerate(encodings, chunk.first)]
        shown = []
        for encoding, parts in zip(encodings, spans, strict=True):
            shown += [window(encoding, part, (parts[0][0], parts[-1][1])) for part in parts]
        scores = iter(self._compute(chunk, shown, self._probabilities))
        found = []
        for text, encoding, parts in zip(texts, encodings, spans, strict=True):
            rows = joined(parts, list(islice(scores, len(parts))))
            found.append(self._entities(self._parts(text, encoding, rows), strategy, ignored))
        return found

    def _probabilities(self, _: Sequence[int], tokens: PackedTokens) -> list[Rows]:
        return [softmax(rows) for rows in split_rows(self._rows(tokens), tokens)]

    def _parts(self, text: str, encoding: Encoding, scores: Rows) -> list[Part]:
        """The tokens of the text without the special ones around it. Shapes: scores (tokens of the text, labels)."""
        parts: list[Part] = []
        tokens = self.tokenizer.convert_ids_to_tokens(encoding.ids)
        places: list[tuple[int, int]] = [(start, end) for start, end in encoding.offsets.tolist()]
        own = np.flatnonzero(~encoding.special_tokens_mask).tolist()
        for (before, i), row in zip(pairwise([-1, *own]), scores, strict=True):
            start, end = places[i]
            continues = before >= 0 and encoding.word_ids[before] == encoding.word_ids[i]
            if self.tokenizer.kind != "WordPiece":  # their words are separated by spaces
                continues = start > 0 and before >= 0 and " " not in text[start - 1 : start + 1]
            unknown = encoding.ids[i] == self.tokenizer.unk_id
            parts.append(Part((text[start:end] if unknown else tokens[i],), start, end, row, i, bool(continues and not unknown)))
        return parts

    def _entities(self, parts: list[Part], strategy: str, ignored: Collection[str]) -> list[dict[str, Any]]:
        labels: Mapping[int, str] = self.model.config.id2label
        if strategy == "none":
            found = [
                {
                    "entity": labels[int(part.scores.argmax())],
                    "score": float(part.scores.max()),
                    "index": part.index,
                    "word": part.tokens[0],
                    "start": part.start,
                    "end": part.end,
                }
                for part in parts
            ]
            return [entity for entity in found if entity["entity"] not in ignored]
        if strategy != "simple":
            parts = [_word(pieces, strategy, self.tokenizer.convert_tokens_to_string) for pieces in _runs(parts, lambda _, b: b.continues)]
        groups = _runs(parts, lambda a, b: _joins(labels[int(a.scores.argmax())], labels[int(b.scores.argmax())]))
        entities = [self._entity(group, labels) for group in groups]
        return [entity for entity in entities if entity["entity_group"] not in ignored]

    def _entity(self, group: list[Part], labels: Mapping[int, str]) -> dict[str, Any]:
        return {
            "entity_group": labels[int(group[0].scores.argmax())].split("-", 1)[-1],
            "score": float(np.mean([part.scores.max() for part in group])),
            "word": self.tokenizer.convert_tokens_to_string([token for part in group for token in part.tokens]),
            "start": group[0].start,
            "end": group[-1].end,
        }


def _runs(parts: Iterable[Part], together: Any) -> list[list[Part]]:
    """Groups of neighbouring parts: a part joins the group of the one before it if `together(before, part)`."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and together(groups[-1][-1], part):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _word(pieces: list[Part], strategy: str, to_string: Any) -> Part:
    scores = pieces[0].scores
    if strategy == "max":
        scores = max((piece.scores for piece in pieces), key=lambda scores: float(scores.max()))
    if strategy == "average":
        scores = np.mean([piece.scores for piece in pieces], axis=0)
    word = to_string([token for piece in pieces for token in piece.tokens])
    return Part((word,), pieces[0].start, pieces[-1].end, scores, pieces[0].index, continues=False)


def _joins(before: str, label: str) -> bool:
    """Whether a label continues the entity of the label before it: it has the same type and is not a B-."""
    return _kind(before) == _kind(label) and not label.startswith("B-")


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label
