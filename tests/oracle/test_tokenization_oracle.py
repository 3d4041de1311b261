"""The tokenizer equals transformers' BERT tokenizer: ids, types, offsets, words and masks, on real vocabularies, real text and odd Unicode.

A few thousand lines for each vocabulary by default; MINIGRAD_TOKENIZER_LINES=100000 compares that many, and -s prints the counts.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.tokenizer_lines import tokenizer_lines

from minigrad.data.tokenization import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

VOCABULARIES = ["bert-base-uncased", "bert-base-cased", "bert-base-chinese", "bert-base-multilingual-cased"]
LINES = int(os.environ.get("MINIGRAD_TOKENIZER_LINES", "4000"))


@pytest.fixture(scope="module")
def lines(shared_data: Path) -> list[str]:
    return tokenizer_lines(shared_data, LINES)


@pytest.fixture(params=VOCABULARIES)
def directory(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> Path:
    """A model directory as the original checkpoints came: vocab.txt and the letter case."""
    shutil.copy(shared_data / "vocabs" / f"{request.param}.vocab.txt", tmp_path / "vocab.txt")
    config = {"do_lower_case": request.param.endswith("-uncased"), "tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def compare(
    ours: Tokenizer,
    theirs: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    max_length: int | None = None,
    truncation: str = "longest_first",
) -> int:
    """Every field of every encoding is equal; returns the number of encodings compared."""
    options = {} if max_length is None else {"truncation": truncation, "max_length": max_length}
    wanted = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
    expected = theirs(list(texts), None if pairs is None else list(pairs), **wanted, **options)
    found = ours.encode(texts, pairs=pairs, max_length=max_length, truncation=truncation)
    assert len(found) == len(texts)
    for i, (text, encoding) in enumerate(zip(texts, found, strict=True)):
        assert encoding.ids.tolist() == expected["input_ids"][i], text
        assert encoding.type_ids.tolist() == expected["token_type_ids"][i], text
        assert encoding.offsets.tolist() == [list(offset) for offset in expected["offset_mapping"][i]], text
        assert encoding.word_ids.tolist() == [-1 if word is None else word for word in expected.word_ids(i)], text
        assert encoding.sequence_ids.tolist() == [-1 if number is None else number for number in expected.sequence_ids(i)], text
        assert encoding.special_tokens_mask.tolist() == [bool(flag) for flag in expected["special_tokens_mask"][i]], text
        if max_length is not None:
            assert len(encoding) <= max_length
            assert encoding.truncated == bool(expected.encodings[i].overflowing), text
    return len(found)


def test_lines_equal_transformers(directory: Path, lines: list[str], request: pytest.FixtureRequest) -> None:
    """All lines alone, cut, in pairs, and in cut pairs by every strategy."""
    ours, theirs = Tokenizer.from_pretrained(directory), transformers.BertTokenizerFast.from_pretrained(directory)
    assert ours.vocab_size == len(theirs)
    special = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert special == (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id)
    start, counts = time.monotonic(), dict.fromkeys(("alone", "cut", "pairs", "cut pairs", "one cut alone"), 0)
    for at in range(0, len(lines), 5000):
        chunk = lines[at : at + 5000]
        counts["alone"] += compare(ours, theirs, chunk)
        counts["cut"] += compare(ours, theirs, chunk[::4], max_length=12)
        counts["pairs"] += compare(ours, theirs, chunk[::4], chunk[1::4])
        counts["cut pairs"] += compare(ours, theirs, chunk[::4], chunk[1::4], max_length=17)
        # Where one text has no more than 8 words' tokens, the other can always be cut to fit.
        lengths = [len(encoding) for encoding in ours.encode(chunk)]
        short = [text for text, length in zip(chunk, lengths, strict=True) if length <= 10]
        long = [text for text, length in zip(chunk, lengths, strict=True) if length > 20]
        short, long = short[: len(long)], long[: len(short)]
        counts["one cut alone"] += compare(ours, theirs, long, short, max_length=15, truncation="only_first")
        counts["one cut alone"] += compare(ours, theirs, short, long, max_length=15, truncation="only_second")
    print(f"\n{request.node.callspec.id}: {counts} encodings equal, {time.monotonic() - start:.0f} s")
    assert min(counts.values()) > 0


@pytest.mark.parametrize(
    "config",
    [
        None,  # a bare vocab.txt: the defaults
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": False, "tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "cls_token": "[SEP]", "sep_token": "[CLS]"},
    ],
)
def test_settings_equal_transformers(directory: Path, lines: list[str], config: dict[str, Any] | None) -> None:
    (directory / "tokenizer_config.json").unlink()
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    compare(Tokenizer.from_pretrained(directory), transformers.BertTokenizerFast.from_pretrained(directory), lines[:1500])


def test_saved_files_load_in_transformers(directory: Path, lines: list[str], tmp_path: Path) -> None:
    ours = Tokenizer.from_pretrained(directory)
    saved = tmp_path / "saved"
    ours.save_pretrained(saved)
    compare(ours, transformers.BertTokenizerFast.from_pretrained(saved), lines[:1000])
    compare(Tokenizer.from_pretrained(saved), transformers.AutoTokenizer.from_pretrained(saved), lines[:1000])
    (saved / "tokenizer.json").unlink()
    compare(ours, transformers.BertTokenizerFast.from_pretrained(saved), lines[:1000])


def test_files_of_transformers_load_here(directory: Path, lines: list[str], tmp_path: Path) -> None:
    theirs = transformers.BertTokenizerFast.from_pretrained(directory, strip_accents=False)
    theirs.add_tokens(["<extra>"])
    theirs.save_pretrained(tmp_path / "theirs")
    compare(Tokenizer.from_pretrained(tmp_path / "theirs"), theirs, [*lines[:1000], "an <extra> token"])


@pytest.mark.parametrize("name", ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizerFast"])
def test_kin_of_bert(directory: Path, lines: list[str], tmp_path: Path, name: str) -> None:
    """DistilBERT and ELECTRA tokenize as BERT does, and what is saved still says whose files they are."""
    config = {"do_lower_case": True, "tokenizer_class": name, "model_max_length": 512}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = Tokenizer.from_pretrained(directory)
    compare(ours, transformers.AutoTokenizer.from_pretrained(directory), lines[:300])
    ours.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"] == name
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.model_max_length == ours.model_max_length == 512
    compare(ours, theirs, lines[:300])


def test_added_tokens_of_older_files(directory: Path, lines: list[str]) -> None:
    """Beside a bare vocab.txt: added_tokens.json, and the added tokens of tokenizer_config.json."""
    size = Tokenizer.from_pretrained(directory).vocab_size
    texts = [*lines[:200], "the <E1> and <e1>, <Two>x <two>"]
    (directory / "added_tokens.json").write_text(json.dumps({"<E1>": size, "<Two>": size + 1}), encoding="utf-8")
    ours = Tokenizer.from_pretrained(directory)
    assert ours.vocab_size == size + 2
    compare(ours, transformers.BertTokenizerFast.from_pretrained(directory), texts)
    (directory / "added_tokens.json").unlink()
    rules = {"lstrip": True, "rstrip": False, "single_word": True, "normalized": False, "special": True}
    config = {"added_tokens_decoder": {str(size): {"content": "<E1>", **rules}}, "do_lower_case": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    compare(Tokenizer.from_pretrained(directory), transformers.BertTokenizerFast.from_pretrained(directory), texts)


@pytest.mark.parametrize("clean_up", [True, False])
def test_decode_equals_transformers(directory: Path, lines: list[str], clean_up: bool) -> None:
    ours, theirs = Tokenizer.from_pretrained(directory), transformers.BertTokenizerFast.from_pretrained(directory)
    rows = [encoding.ids for encoding in ours.encode([*lines[:1500], "I don't , they 're n't 's . ! ' ?"])]
    for skip in (True, False):
        found = ours.decode_batch(rows, skip_special_tokens=skip, clean_up_tokenization_spaces=clean_up)
        assert found == theirs.batch_decode(rows, skip_special_tokens=skip, clean_up_tokenization_spaces=clean_up)


def test_published_tokenizer_json(minilm: Path, lines: list[str]) -> None:
    ours, theirs = Tokenizer.from_pretrained(minilm), transformers.AutoTokenizer.from_pretrained(minilm)
    compare(ours, theirs, lines[:4000])
    ids = np.array(theirs("A pump leaks.")["input_ids"])
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
