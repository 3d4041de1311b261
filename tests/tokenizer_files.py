"""Small RoBERTa and XLM-R tokenizers, made on the spot: no published file is small enough to keep, and a made one shows its parts.

Also what the tests of refused tokenizers share.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigrad.data import tokenization
from minigrad.errors import TokenizerError

TEXTS = ["the pumps were leaking, and the café's pump leaked again", "low lower lowest 2024 don't «naïve» 中文 👍", "a  b   c\tpump pumps"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_pairs(texts: list[str] = TEXTS, size: int = 400) -> tuple[dict[str, int], list[str]]:
    """A byte-level vocabulary of at most `size` tokens over all 256 bytes, and its merges, as RoBERTa's files hold them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [" ".join(merge) for merge in model["merges"]]


def pieces(texts: list[str] = TEXTS, size: int = 120) -> list[list[Any]]:
    """A Unigram vocabulary in the order of XLM-R's: <s>, <pad>, </s>, <unk>, the pieces, <mask>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL[:-1], unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(texts, trainer)
    found = [piece for piece in json.loads(backend.to_str())["model"]["vocab"] if piece[0] not in SPECIAL]
    return [*([token, 0.0] for token in SPECIAL[:-1]), *found, ["<mask>", 0.0]]


def write_roberta(folder: Path, vocab: dict[str, int], merges: list[str]) -> Path:
    """A directory with vocab.json and merges.txt alone."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return folder


def xlmr_description(vocab: list[list[Any]], charsmap: bytes | None = None) -> dict[str, Any]:
    """The tokenizer.json of XLM-R over `vocab`."""
    ids = {piece[0]: number for number, piece in enumerate(vocab)}

    def special(token: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": 0}}

    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": ids[token], "content": token, **rules, "lstrip": token == "<mask>"} for token in SPECIAL]
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": charsmap and {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode("ascii")},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("<s>"), first, special("</s>")],
            "pair": [special("<s>"), first, special("</s>"), special("</s>"), second, special("</s>")],
            "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("<s>", "</s>")},
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def write_xlmr(folder: Path, description: dict[str, Any]) -> Path:
    """A directory with tokenizer.json alone."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    return folder


def charsmap(replacements: dict[str, str]) -> bytes:
    """A character map as SentencePiece compiles it: a double-array trie over bytes, then the replacements.

    Every node of the trie owns a block of 256 units, wasteful and simple: its children stand at the block's start plus their byte,
    and the block's first unit holds the value where a word ends.
    """
    children: list[dict[int, int]] = [{}]
    values: dict[int, int] = {}
    table = b""
    for word, replacement in replacements.items():
        node = 0
        for byte in word.encode("utf-8"):
            if byte not in children[node]:
                children.append({})
                children[node][byte] = len(children) - 1
            node = children[node][byte]
        values[node] = len(table)
        table += replacement.encode("utf-8") + b"\0"
    units = [0] * (256 * (len(children) + 1))

    def place(position: int, node: int, label: int) -> None:
        start = 256 * (node + 1)
        units[position] = ((position ^ start) << 10) | (256 if node in values else 0) | label
        if node in values:
            units[start] = values[node] | 2**31
        for byte, child in children[node].items():
            place(start + byte, child, byte)

    place(0, 0, 0)
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    return len(trie).to_bytes(4, "little") + trie + table


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the folder's tokenizer.json."""
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    change(description)
    path.write_text(json.dumps(description), encoding="utf-8")


def refused(folder: Path, code: str, words: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        tokenization.Tokenizer.from_pretrained(folder)
    assert caught.value.code == code, caught.value
    assert words in str(caught.value)
