"""Labels of word pieces equal those of the usual recipe with transformers: words split beforehand, first pieces labelled, -100 elsewhere.

The recipe tokenizes word by word, minigrad the text that the words make, which is what a model reads later on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_files import byte_pairs, pieces, write_roberta, write_xlmr, xlmr_description

from minigrad.data.alignment import encode_words, tags_of_words, token_labels
from minigrad.data.readers import read_records
from minigrad.data.records import LabelMap, Record
from minigrad.data.tokenization import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[Record]:
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    return [record for name in names for record in read_records(shared_data / "wnut17" / name, format="conll")]


def recipe(tokenizer: Any, words: list[list[str]], ids: list[Any]) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of each sentence, as the examples of transformers make them."""
    encoded = tokenizer(words, is_split_into_words=True)
    found = []
    for i, row in enumerate(encoded["input_ids"]):
        numbers = encoded.word_ids(i)
        first = [word is not None and (place == 0 or numbers[place - 1] != word) for place, word in enumerate(numbers)]
        found.append((row, [int(ids[i][word]) if new else -100 for word, new in zip(numbers, first, strict=True)]))
    return found


def compare(ours: Tokenizer, theirs: Any, records: list[Record], dropped: int = 0) -> None:
    """`dropped`: words that have no piece in transformers, and the unknown token here, with its own label."""
    windows, places = encode_words(ours, records, 2000)
    assert len(windows) == len(records)
    number = {name: i for i, name in enumerate(LabelMap.of_tags(records).names)}
    tags = [tags_of_words(record, words) for record, words in zip(records, places, strict=True)]
    ids = [np.array([number[tag] for tag in row], np.int64) for row in tags]
    words = [[record.text[start:end] for start, end in row] for record, row in zip(records, places, strict=True)]
    expected = recipe(theirs, words, ids)
    for record, shown, labels, (row, wanted) in zip(records, windows, token_labels(windows, ids), expected, strict=True):
        kept = np.ones(len(row), bool)
        if len(shown.ids) > len(row):
            there = set(theirs([record.text.split(" ")], is_split_into_words=True).word_ids(0))
            kept = np.array([word < 0 or word in there for word in shown.words.tolist()])
            assert (shown.ids[~kept] == ours.unk_id).all()
            dropped -= int((~kept).sum())
        assert shown.ids[kept].tolist() == row, f"{record.path}:{record.line}"
        assert labels[kept].tolist() == wanted, f"{record.path}:{record.line}"
    assert dropped == 0


@pytest.mark.parametrize(("name", "dropped"), [("bert-base-uncased", 7), ("bert-base-cased", 0)])
def test_word_pieces(name: str, dropped: int, shared_data: Path, tmp_path: Path, records: list[Record]) -> None:
    """The uncased tokenizer strips accents, and of seven words nothing is left: they are lone selectors of emoji."""
    shutil.copy(shared_data / "vocabs" / f"{name}.vocab.txt", tmp_path / "vocab.txt")
    config = {"do_lower_case": name.endswith("-uncased"), "tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    compare(Tokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path), records, dropped)


def test_byte_pairs(tmp_path: Path, records: list[Record]) -> None:
    folder = write_roberta(tmp_path / "roberta", *byte_pairs([record.text for record in records], 3000))
    config = {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"}  # without the space the recipe refuses words
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    compare(Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder), records)


def test_unigram(tmp_path: Path, records: list[Record]) -> None:
    trained = pieces([record.text for record in records[::4]], 2000)
    folder = write_xlmr(tmp_path / "xlmr", xlmr_description([piece for piece in trained if decided(piece[0])]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}), encoding="utf-8")
    compare(Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder), records)


def decided(piece: str) -> bool:
    """Not several times one character: "0" and "00" may stand in "000" in either order with equal scores, and then rounding decides."""
    own = piece.removeprefix("▁")
    return len(own) <= 1 or len(set(own)) > 1
