"""Lines to compare tokenizers on: every kind of real text in the shared folder, special tokens in odd places, and exotic Unicode.

The first lines of any number are an even mixture of all kinds, so a short run sees what the long one sees.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

ODD = [
    "",
    "   \t ",
    "[CLS] spelled [MASK] out [SEP][PAD] [UNK] [unused1] [mask]",
    "<s> spelled <mask> out </s><pad> <unk> a<mask>b </s></s>",
    "naïve café Ångström Straße ﬁne ½ № ① İstanbul ǅ",
    "e\u0301 vs \u00e9, \u1e9b\u0323, \u0f73 and \u200bzero\u200dwidth\ufeff",
    "中文字符 and 日本語テキスト と 한국어 \u3000 \u30ab\u3099",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 \U0001f9ff \U00020000",
    "مرحبا بالعالم שלום हिन्दी ไทย ქართული",
    "tab\tline\nfeed\rreturn\u2028separator\u00a0space\u00adhyphen\x07bell\x00nul\ufffd",
    "a" * 99 + " " + "a" * 100 + " " + "a" * 101,
    "$1,234.56 @user #tag http://x.y/z?q=1&r=2 don't ``quote'' — –…«»",
    "Ⅷ ﷺ \ufdfa \u0300\u0301\u0302 \ue000 \U0010fffd",
    "▁ the▁piece marks ▁▁ and Ġ the byte marks Ċ  two  spaces   three ",
]
RANGES = [
    (0x20, 0x7F),
    (0xA0, 0x250),  # Latin with accents
    (0x300, 0x370),  # combining marks
    (0x370, 0x600),  # Greek, Cyrillic, Hebrew
    (0x600, 0x1200),  # Arabic to Hangul's parts
    (0x1E00, 0x2000),  # Latin and Greek with accents
    (0x2000, 0x2100),  # spaces, joiners, punctuation
    (0x2E80, 0x3400),  # CJK radicals, kana
    (0x4E00, 0x9FFF),
    (0xF900, 0xFFF0),  # compatibility forms
    (0x1F000, 0x1FAFF),  # emoji
    (0, sys.maxunicode),
]
SPECIAL = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<s>", "</s>", "<mask>", "<pad>", "<unk>"]


def tokenizer_lines(shared_data: Path, count: int) -> list[str]:
    """`count` lines, of which about a half are real text while that lasts; the same ones every time."""
    found = islice(chain(ODD, _mixed(_real(shared_data), _generated(random.Random(0)))), count)
    return list(found)


def _mixed(real: list[str], generated: Iterator[str]) -> Iterator[str]:
    for line in real:
        yield line
        yield next(generated)
    yield from generated


def _real(shared_data: Path) -> list[str]:
    """Sentences and lines of every data set, one of each in turn."""
    prose = [
        [sentence for line in _read(shared_data / "text_en" / name) for sentence in line.split(" . ") if sentence.strip()]
        for name in ("moby_dick.txt", "wikitext2_valid.txt", "wikitext2_test.txt")
    ]
    conll = ["wnut17/wnut17train.conll", "wnut17/emerging.dev.conll", "wnut17/emerging.test.annotated", "ncbi_disease/train.tsv"]
    sentences = [list(_sentences(_read(shared_data / name))) for name in conll]
    reviews = [
        [line.split("\t")[-1] for line in _read(shared_data / "reviews" / name, "latin-1")]
        for name in ("amazonReviewSnippets_GroundTruth.txt", "tweets_GroundTruth.txt")
    ]
    tokens = [
        _read(shared_data / "vocabs" / f"bert-base-{name}.vocab.txt") for name in ("chinese", "multilingual-cased")
    ]  # alone on its line, each is a word of some language
    words = [[" ".join(names[i : i + 8]) for i in range(0, len(names), 8)] for names in tokens]
    rows = zip_longest(*prose, *sentences, *reviews, *words)
    return [line for row in rows for line in row if line is not None]


def _read(path: Path, encoding: str = "utf-8") -> list[str]:
    return path.read_text(encoding=encoding).split("\n")


def _sentences(rows: list[str]) -> Iterator[str]:
    words: list[str] = []
    for row in [*rows, ""]:
        if row.strip():
            words.append(row.split("\t")[0])
        elif words:
            yield " ".join(words)
            words = []


def _generated(generator: random.Random) -> Iterator[str]:
    """Strings over one or a few ranges of Unicode, some with a special token inside."""
    while True:
        ranges = generator.sample(RANGES, generator.choice([1, 1, 3]))
        points = [generator.randint(*generator.choice(ranges)) for _ in range(generator.randint(1, 30))]
        characters = [" " if 0xD800 <= point < 0xE000 else chr(point) for point in points]
        if generator.random() < 0.2:
            characters[generator.randrange(len(characters))] = generator.choice(SPECIAL)
        if generator.random() < 0.3:
            characters.insert(generator.randrange(len(characters)), generator.choice([" ", "  ", "\t", "\u00a0", "\u200b", "\u0301"]))
        yield "".join(characters)
