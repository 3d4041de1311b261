"""RoBERTa's and XLM-R's tokenizers equal transformers', on vocabularies trained on the spot from real text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oracle.test_tokenization_oracle import compare
from oracle.tokenizer_lines import tokenizer_lines
from tokenizer_files import byte_pairs, charsmap, pieces, write_roberta, write_xlmr, xlmr_description

from minigrad.data.tokenization import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")


@pytest.fixture(scope="module")
def lines(shared_data: Path) -> list[str]:
    return tokenizer_lines(shared_data, 4000)


@pytest.fixture(scope="module")
def bpe(lines: list[str]) -> tuple[dict[str, int], list[str]]:
    return byte_pairs(lines, 3000)


@pytest.fixture(scope="module")
def unigram(lines: list[str]) -> list[list[Any]]:
    """Pieces in which some character differs from the first: "0" and "00" may stand in "000" in either order with equal scores, and then
    rounding decides."""
    trained = pieces([line for line in lines if max(line, default="") < "\u0250"], 2000)  # every character takes a piece of its own
    return [
        piece for piece in trained if len(piece[0]) == 1 or len(set(piece[0].removeprefix("▁"))) > 1 or len(piece[0].removeprefix("▁")) == 1
    ]


def compare_all(ours: Tokenizer, theirs: Any, lines: list[str]) -> None:
    assert ours.vocab_size == len(theirs)
    assert [getattr(ours, f"{role}_id") for role in ROLES] == [getattr(theirs, f"{role}_token_id") for role in ROLES]
    compare(ours, theirs, lines)
    compare(ours, theirs, lines[::4], max_length=12)
    compare(ours, theirs, lines[::4], lines[1::4])
    compare(ours, theirs, lines[::4], lines[1::4], max_length=17)
    rows = [encoding.ids for encoding in ours.encode(lines[::8])]
    for skip in (True, False):
        assert ours.decode_batch(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)


def round_trip(ours: Tokenizer, lines: list[str], folder: Path) -> None:
    """What is saved loads in transformers and here, and says the same."""
    ours.save_pretrained(folder)
    compare_all(ours, transformers.AutoTokenizer.from_pretrained(folder), lines[:1000])
    compare_all(Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder), lines[:1000])


@pytest.mark.parametrize("space", [False, True])
@pytest.mark.parametrize("trim", [True, False])
def test_roberta_tokenizer_json(bpe: tuple[dict[str, int], list[str]], lines: list[str], tmp_path: Path, space: bool, trim: bool) -> None:
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)
    merges = [tuple(merge.split(" ")) for merge in bpe[1]]
    theirs = transformers.RobertaTokenizer(dict(bpe[0]), merges, mask_token=mask, add_prefix_space=space, trim_offsets=trim)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Tokenizer.from_pretrained(tmp_path / "theirs")
    compare_all(ours, theirs, lines)
    (tmp_path / "theirs" / "tokenizer_config.json").unlink()  # tokenizer.json alone says the same
    compare_all(Tokenizer.from_pretrained(tmp_path / "theirs"), theirs, lines[:500])
    round_trip(ours, lines, tmp_path / "ours")


def test_roberta_vocab_and_merges(bpe: tuple[dict[str, int], list[str]], lines: list[str], tmp_path: Path) -> None:
    """The mask takes the space before it, as in the published tokenizer.json; of bare files only transformers 4 made it so."""
    write_roberta(tmp_path / "bare", *bpe)
    ours = Tokenizer.from_pretrained(tmp_path / "bare")
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)
    compare_all(ours, transformers.RobertaTokenizer.from_pretrained(tmp_path / "bare", mask_token=mask), lines)
    round_trip(ours, lines, tmp_path / "ours")
    (tmp_path / "ours" / "tokenizer.json").unlink()
    compare_all(ours, transformers.RobertaTokenizer.from_pretrained(tmp_path / "ours"), lines[:500])
    compare_all(Tokenizer.from_pretrained(tmp_path / "ours"), transformers.RobertaTokenizer.from_pretrained(tmp_path / "ours"), lines[:500])


def test_xlmr_tokenizer_json(unigram: list[list[Any]], lines: list[str], tmp_path: Path) -> None:
    words = {"ﬁ": "fi", "①": "1", "\u3000": " ", "\u00a0": " ", "\t": " ", "\u200b": "", "e\u0301": "é", "½": "1/2", "ﷺ": "صلى الله"}
    folder = write_xlmr(tmp_path / "theirs", xlmr_description(unigram, charsmap(words)))
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = Tokenizer.from_pretrained(folder)
    assert ours.encode(["①"])[0].ids.tolist() == ours.encode(["1"])[0].ids.tolist()  # the map is in use
    compare_all(ours, transformers.XLMRobertaTokenizer.from_pretrained(folder), lines)
    round_trip(ours, lines, tmp_path / "ours")


def test_unigram_with_other_normalizers(unigram: list[list[Any]], lines: list[str], tmp_path: Path) -> None:
    """A pipeline that no class of transformers rebuilds goes through tokenizer.json as it is, there and back."""
    description = xlmr_description(unigram)
    joined = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    description["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Lowercase"}, joined]}
    description["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    folder = write_xlmr(tmp_path / "theirs", description)
    names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "bos": "<s>", "eos": "</s>"}
    special = {f"{role}_token": token for role, token in names.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = Tokenizer.from_pretrained(folder)
    compare_all(ours, transformers.AutoTokenizer.from_pretrained(folder), lines)
    round_trip(ours, lines, tmp_path / "ours")
