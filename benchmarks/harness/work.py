"""The timed work: models of BERT's sizes, and batches of texts of many lengths.

Both sides get the same token ids and labels in the same batches. Random ids are uniform over the vocabulary and so touch more rows of the
embedding than real text does, which slows down only sparse gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, LONGEST, FIRST_ID = 30522, 128, 1000
CLASSES, TAGS, IGNORED = 2, 9, -100
MIXED = {"mixed": LONGEST, "mixed-512": 512}
"""Random length distributions, and their longest text."""
UNLABELLED = 0.3
"""The share of tokens that a token head ignores, like the later pieces of words."""
WINDOW, WINDOWS = 50, 50
"""The number of batches sorted by length together, as transformers does, and of such windows from which grouped batches are taken."""

HEADS = ("sequence", "token")

Text = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Size:
    """The sizes of a BERT, and the number of texts per batch."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    batch: int


SIZES = {
    "tiny": Size(2, 128, 2, 512, 32),
    "mini": Size(4, 256, 4, 1024, 16),
    "small": Size(4, 512, 8, 2048, 16),
    "base": Size(12, 768, 12, 3072, 16),
}


@dataclass(frozen=True)
class Work:
    """One model and the batches of one pass, each a list of token-id lists."""

    size: Size
    head: str
    batches: Sequence[Sequence[Sequence[int]]]

    @property
    def lengths(self) -> list[list[int]]:
        """The number of tokens of every text, by batch."""
        return [[len(text) for text in batch] for batch in self.batches]

    @property
    def tokens(self) -> float:
        """Mean number of real tokens per batch."""
        return sum(map(sum, self.lengths)) / len(self.batches)

    def labels(self) -> list[list[Any]]:
        """The labels of every batch: a class per text, or for a token head a list per text. Always the same."""
        generator = np.random.default_rng(1)
        if self.head == "sequence":
            return [generator.integers(0, CLASSES, len(batch)).tolist() for batch in self.batches]
        return [[_tags(generator, length) for length in batch] for batch in self.lengths]


def _tags(generator: np.random.Generator, length: int) -> list[int]:
    tags: list[int] = np.where(generator.random(length) < UNLABELLED, IGNORED, generator.integers(0, TAGS, length)).tolist()
    return tags


# ---------------------------------------------------------------- texts
def draw_texts(lengths: str, count: int, generator: np.random.Generator, model: Path | None = None) -> list[Text]:
    """`count` texts. lengths: "full", 128 tokens each; "mixed", lognormal with mean 40 between 4 and 128; "mixed-512", the same with mean
    160 and up to 512; a number of tokens; or the path of a file with one text per line, which is sampled uniformly: with a model its
    tokenizer's ids, cut at 128; without one random ids, as many as the line has words and two more."""
    if lengths in MIXED:
        longest = MIXED[lengths]
        drawn = generator.lognormal(3.52, 0.6, count) * longest / LONGEST  # the mean of what is left after clipping is 40 of 128
        sizes = np.clip(np.rint(drawn), 4, longest).astype(int)
    elif lengths == "full" or lengths.isdecimal():
        sizes = np.full(count, LONGEST if lengths == "full" else int(lengths))
    else:
        lines = [line for line in Path(lengths).read_text(encoding="utf-8").splitlines() if line.strip()]
        chosen = generator.choice(len(lines), count, replace=len(lines) < count)
        if model is not None:
            return _tokenized([lines[i] for i in chosen], model)
        sizes = np.array([min(len(lines[i].split()) + 2, LONGEST) for i in chosen])
    return [generator.integers(FIRST_ID, VOCABULARY, size) for size in sizes]


def _tokenized(texts: Sequence[str], model: Path) -> list[Text]:
    from minigrad.data import Tokenizer

    found = [encoding.ids for encoding in Tokenizer.from_pretrained(model).encode(texts, max_length=LONGEST)]
    if (largest := max(int(ids.max()) for ids in found)) >= VOCABULARY:
        raise SystemExit(f"error: the tokenizer of {model} gives the id {largest}; the models timed have {VOCABULARY}")
    return found


# ---------------------------------------------------------------- batches
def plain_batches(texts: Sequence[Text], batch: int) -> list[list[Text]]:
    """In the order of the texts."""
    return [list(texts[start : start + batch]) for start in range(0, len(texts), batch)]


def grouped_batches(texts: Sequence[Text], batch: int) -> list[list[Text]]:
    """Grouped by length as in transformers: the texts of every 50 batches are sorted, the longest first."""
    size = WINDOW * batch
    windows = [sorted(texts[start : start + size], key=len, reverse=True) for start in range(0, len(texts), size)]
    return [group for window in windows for group in plain_batches(window, batch)]


def spread_sample(batches: Sequence[list[Text]], count: int) -> list[list[Text]]:
    """`count` representative batches: ordered by their number of tokens and cut into that many equal parts, the middle one of each."""
    order = sorted(batches, key=lambda batch: sum(map(len, batch)))
    return [order[int((i + 0.5) * len(order) / count)] for i in range(count)]


def make_work(size: Size, head: str, lengths: str, *, count: int, grouped: bool = False, model: Path | None = None) -> Work:
    """The work of one pass of `count` batches; always the same. grouped: by length."""
    generator = np.random.default_rng(0)
    if grouped:
        texts = draw_texts(lengths, WINDOW * WINDOWS * size.batch, generator, model)
        batches = spread_sample(grouped_batches(texts, size.batch), count)
        batches = [batches[i] for i in generator.permutation(count)]  # as training shuffles them
    else:
        batches = plain_batches(draw_texts(lengths, count * size.batch, generator, model), size.batch)
    return Work(size, head, [[text.tolist() for text in batch] for batch in batches])
