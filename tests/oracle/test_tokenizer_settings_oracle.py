"""Tokenizer directories in every mixture of files, as versions of transformers wrote them, mean the same here and there.

Left out is what transformers 5 reads unlike transformers 4, which wrote it: a tokenizer.json whose letter case tokenizer_config.json does
not repeat, additional_special_tokens in special_tokens_map.json beside an added_tokens.json, and both names of extra tokens in one file.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from oracle.test_tokenization_oracle import compare
from oracle.tokenizer_lines import ODD
from small_models import TOKENS

from minigrad.data.tokenization import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

VOCAB = [*TOKENS, "[E3]", "Maria", "É", "中", "<V>"]
TEXTS = [*ODD, "Maria [E1] x<E2>y <e2>  [E3]z <E2> [e1]", "The Pump é É 中the <V> <v>", "a[MASK]b [MASK]  c", "maria[E1]", "E1 [E 1]"]
RULES = ("lstrip", "rstrip", "normalized", "single_word", "special")


def write_directory(folder: Path, draw: random.Random) -> None:
    """One of the mixtures."""
    numbers = {token: number for number, token in enumerate(VOCAB)}
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    config: dict[str, Any] = {"tokenizer_class": "BertTokenizer"}
    full = draw.random() < 0.5
    if full:
        flags = {"do_lower_case": draw.random() < 0.5, "strip_accents": draw.choice([None, True, False])}
        theirs = transformers.BertTokenizerFast(vocab=numbers, tokenize_chinese_chars=draw.random() < 0.7, **flags)
        added = [{rule: draw.random() < 0.3 for rule in RULES} for _ in range(draw.randint(0, 3))]
        names = draw.sample(["[E1]", "<E2>", "[E3]"], len(added))
        theirs.add_tokens([transformers.AddedToken(name, **rules) for name, rules in zip(names, added, strict=True)])
        theirs.save_pretrained(folder)
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    mask = {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "__type": "AddedToken"}
    options: dict[str, list[Any]] = {
        "do_lower_case": [True, False],
        "strip_accents": [None, True, False],
        "tokenize_chinese_chars": [True, False],
        "never_split": [None, ["Maria"]],
        "truncation_side": ["left", "right"],
        "padding_side": ["left"],
        "model_max_length": [512, 7, 10**30],
        "mask_token": ["[MASK]", mask],
        "bos_token": ["[CLS]", "[BOS]"],
        draw.choice(["additional_special_tokens", "extra_special_tokens"]): [["[E1]"], ["<E2>", "[E3]"], ["[unused9]", "<E2>"]],
    } | ({} if full else {"cls_token": ["[CLS]", "<V>"], "max_len": [9]})
    config |= {key: draw.choice(values) for key, values in options.items() if draw.random() < 0.25}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if not full and draw.random() < 0.4:
        added_tokens = draw.choice([{"[E1]": len(VOCAB)}, {"<E2>": len(VOCAB), "[E1]": len(VOCAB) + 1}])
        (folder / "added_tokens.json").write_text(json.dumps(added_tokens), encoding="utf-8")
    elif draw.random() < 0.4:
        stated: dict[str, Any] = {"unk_token": "[UNK]", "sep_token": "[SEP]"}
        if draw.random() < 0.5:
            stated["additional_special_tokens"] = draw.choice([["[E1]"], ["<E2>", "[E3]"]])
        if draw.random() < 0.5:
            stated["mask_token"] = {key: value for key, value in mask.items() if key != "__type"}
        (folder / "special_tokens_map.json").write_text(json.dumps(stated), encoding="utf-8")


@pytest.mark.parametrize("seed", range(60))
def test_directories(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_directory(folder, random.Random(seed))
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.BertTokenizerFast.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "saved")
    for mine in (ours, Tokenizer.from_pretrained(tmp_path / "saved")):
        for other in (theirs, transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")):
            assert mine.vocab_size == len(other)
            assert mine.model_max_length == (other.model_max_length if other.model_max_length < 2**31 else None)
            compare(mine, other, TEXTS)
            compare(mine, other, TEXTS, max_length=6)
            compare(mine, other, TEXTS, TEXTS[::-1], max_length=9)
