"""The tokenizer equals transformers' BERT tokenizer: ids, types, offsets and words, on real vocabularies, real text and odd Unicode."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigrad.data.tokenization import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

VOCABULARIES = ["bert-base-uncased", "bert-base-cased", "bert-base-chinese", "bert-base-multilingual-cased"]
LINES = 3000
ODD = [
    "",
    "   \t ",
    "[CLS] spelled [MASK] out [SEP][PAD] [UNK] [unused1] [mask]",
    "naïve café Ångström Straße ﬁne ½ № ① İstanbul ǅ",
    "e\u0301 vs \u00e9, \u1e9b\u0323, \u0f73 and \u200bzero\u200dwidth\ufeff",
    "中文字符 and 日本語テキスト と 한국어 \u3000 \u30ab\u3099",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 \U0001f9ff \U00020000",
    "مرحبا بالعالم שלום हिन्दी ไทย ქართული",
    "tab\tline\nfeed\rreturn\u2028separator\u00a0space\u00adhyphen\x07bell\x00nul\ufffd",
    "a" * 99 + " " + "a" * 100 + " " + "a" * 101,
    "$1,234.56 @user #tag http://x.y/z?q=1&r=2 don't ``quote'' — –…«»",
    "Ⅷ ﷺ \ufdfa \u0300\u0301\u0302 \ue000 \U0010fffd",
]


@pytest.fixture(scope="module")
def lines(shared_data: Path) -> list[str]:
    """Some thousand lines of real text, and random strings over odd ranges of Unicode."""
    found: list[str] = []
    for name in ("moby_dick.txt", "wikitext2_test.txt"):
        text = (shared_data / "text_en" / name).read_text(encoding="utf-8")
        found += [line for line in text.split("\n") if line.strip()][: LINES // 2]
    found += (shared_data / "vocabs" / "bert-base-multilingual-cased.vocab.txt").read_text(encoding="utf-8").split("\n")[::40]
    generator = random.Random(0)
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x300, 0x370),
        (0x370, 0x600),
        (0x2000, 0x2100),
        (0x3000, 0x3100),
        (0x4E00, 0x9FFF),
        (0, sys.maxunicode),
    ]
    for _ in range(LINES):
        low, high = generator.choice(ranges)
        points = (generator.randint(low, high) for _ in range(generator.randint(1, 30)))
        found.append("".join(" " if 0xD800 <= point < 0xE000 else chr(point) for point in points))
    return ODD + found


@pytest.fixture(params=VOCABULARIES)
def directory(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> Path:
    """A model directory as the original checkpoints came: vocab.txt and the letter case."""
    shutil.copy(shared_data / "vocabs" / f"{request.param}.vocab.txt", tmp_path / "vocab.txt")
    config = {"do_lower_case": not request.param.endswith("-cased"), "tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def compare(ours: Tokenizer, theirs: Any, texts: list[str], pairs: list[str] | None = None, max_length: int | None = None) -> None:
    truncation = {} if max_length is None else {"truncation": "longest_first", "max_length": max_length}
    expected = theirs(texts, pairs, return_offsets_mapping=True, **truncation)
    found = ours.encode(texts, pairs=pairs, max_length=max_length)
    assert len(found) == len(texts)
    for i, (text, encoding) in enumerate(zip(texts, found, strict=True)):
        assert encoding.ids.tolist() == expected["input_ids"][i], text
        assert encoding.type_ids.tolist() == expected["token_type_ids"][i], text
        assert encoding.offsets.tolist() == [list(offset) for offset in expected["offset_mapping"][i]], text
        assert encoding.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(i)], text
        if max_length is not None:
            whole = ours.encode([text], pairs=None if pairs is None else [pairs[i]])[0]
            assert encoding.truncated == (len(whole) > max_length)


def test_equals_transformers(directory: Path, lines: list[str]) -> None:
    ours, theirs = Tokenizer.from_pretrained(directory), transformers.BertTokenizerFast.from_pretrained(directory)
    assert ours.vocab_size == len(theirs)
    special = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert special == (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id)
    compare(ours, theirs, lines)
    compare(ours, theirs, lines[:500], max_length=12)
    compare(ours, theirs, lines[:500], lines[500:1000])
    compare(ours, theirs, lines[:500], lines[500:1000], max_length=17)


def test_saved_files_load_in_transformers(directory: Path, lines: list[str], tmp_path: Path) -> None:
    ours = Tokenizer.from_pretrained(directory)
    saved = tmp_path / "saved"
    ours.save_pretrained(saved)
    compare(ours, transformers.BertTokenizerFast.from_pretrained(saved), lines[::5])
    compare(Tokenizer.from_pretrained(saved), transformers.AutoTokenizer.from_pretrained(saved), lines[::5])
    (saved / "tokenizer.json").unlink()
    compare(ours, transformers.BertTokenizerFast.from_pretrained(saved), lines[::5])


def test_files_of_transformers_load_here(directory: Path, lines: list[str], tmp_path: Path) -> None:
    theirs = transformers.BertTokenizerFast.from_pretrained(directory, strip_accents=False)
    theirs.add_tokens(["<extra>"])
    theirs.save_pretrained(tmp_path / "theirs")
    compare(Tokenizer.from_pretrained(tmp_path / "theirs"), theirs, [*lines[::5], "an <extra> token"])


def test_published_tokenizer_json(minilm: Path, lines: list[str]) -> None:
    ours, theirs = Tokenizer.from_pretrained(minilm), transformers.AutoTokenizer.from_pretrained(minilm)
    compare(ours, theirs, lines)
    ids = np.array(theirs("A pump leaks.")["input_ids"])
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
