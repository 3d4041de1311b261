"""RoBERTa's and XLM-R's tokenizers on small vocabularies made here: what they give, what is saved, which descriptions are refused.

Equality with transformers stands in tests/oracle/test_tokenizer_families_oracle.py.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizer_files import byte_pairs, charsmap, edit, pieces, refused, write_roberta, write_xlmr, xlmr_description

from minigrad.data._charsmap import charsmap_fault
from minigrad.data.tokenization import Tokenizer

MAP = {"ﬁ": "fi", "①": "1", "\u3000": " ", "\u200b": ""}


@pytest.fixture(scope="module")
def bpe() -> tuple[dict[str, int], list[str]]:
    return byte_pairs()


@pytest.fixture(scope="module")
def unigram() -> list[list[Any]]:
    return pieces()


@pytest.fixture
def roberta(tmp_path: Path, bpe: tuple[dict[str, int], list[str]]) -> Path:
    return write_roberta(tmp_path / "roberta", *bpe)


@pytest.fixture
def xlmr(tmp_path: Path, unigram: list[list[Any]]) -> Path:
    return write_xlmr(tmp_path / "xlmr", xlmr_description(unigram, charsmap(MAP)))


def special_ids(tokenizer: Tokenizer) -> list[int | None]:
    return [getattr(tokenizer, f"{role}_id") for role in ("bos", "pad", "eos", "unk", "mask", "cls", "sep")]


# ---- what they give


def test_roberta(roberta: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(roberta)
    assert special_ids(tokenizer) == [0, 1, 2, 3, 4, 0, 2]
    one, two = tokenizer.encode(["the café's pump", "中"], pairs=["low", ""])
    assert one.ids[0] == 0 and one.ids[-1] == 2 and not one.type_ids.any()
    ends = [i for i, token in enumerate(one.ids) if token == 2]
    assert ends[1] == ends[0] + 1  # </s></s> between the two
    assert one.sequence_ids.tolist() == [-1, *[0] * (ends[0] - 1), -1, -1, *[1] * (len(one) - ends[1] - 2), -1]
    assert one.special_tokens_mask.tolist() == [number < 0 for number in one.sequence_ids]
    assert tokenizer.decode(one.ids) == "the café's pumplow"  # what stands between them is special
    assert {tuple(offset) for offset in two.offsets[1:-3].tolist()} == {(0, 1)}  # three bytes of one character
    assert tokenizer.decode(two.ids) == "中"


def test_the_mask_takes_the_space_before_it(roberta: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(roberta)
    (encoding,) = tokenizer.encode(["the <mask> leaked"])
    where = encoding.ids.tolist().index(tokenizer.mask_id)
    assert encoding.offsets[where].tolist() == [4, 10]
    before = tokenizer.encode(["the"])[0].ids.tolist()
    assert encoding.ids[: where + 1].tolist() == [*before[:-1], tokenizer.mask_id]  # no token for the space


def test_xlmr(xlmr: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(xlmr)
    assert special_ids(tokenizer)[:4] == [0, 1, 2, 3]
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    (encoding,) = tokenizer.encode(["the \u3000pumps"], pairs=["leaked"])
    ends = [i for i, token in enumerate(encoding.ids) if token == 2]
    assert ends[1] == ends[0] + 1 and not encoding.type_ids.any()
    assert encoding.offsets[ends[0] - 1, 1] == 10  # offsets are those of the text as it was given, not of the mapped one
    assert tokenizer.decode(encoding.ids) == "the pumps leaked"
    assert tokenizer.encode(["①"])[0].ids.tolist() == tokenizer.encode(["1"])[0].ids.tolist()


def test_save_and_load_again(roberta: Path, xlmr: Path, tmp_path: Path) -> None:
    text = "the pumps <mask> leaked, naïve  中 ① again"
    plain = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    for source, files in ((roberta, plain | {"vocab.json", "merges.txt"}), (xlmr, plain)):
        tokenizer = Tokenizer.from_pretrained(source)
        target = tmp_path / f"saved-{source.name}"
        tokenizer.save_pretrained(target)
        assert {path.name for path in target.iterdir()} == files
        again = Tokenizer.from_pretrained(target)
        assert special_ids(again) == special_ids(tokenizer)
        assert again.encode([text])[0].ids.tolist() == tokenizer.encode([text])[0].ids.tolist()
    target = tmp_path / "saved-roberta"
    assert json.loads((target / "vocab.json").read_text(encoding="utf-8")) == json.loads(
        (roberta / "vocab.json").read_text(encoding="utf-8")
    )
    assert (target / "merges.txt").read_bytes() == (roberta / "merges.txt").read_bytes()
    (target / "tokenizer.json").unlink()
    assert (
        Tokenizer.from_pretrained(target).encode([text])[0].ids.tolist()
        == Tokenizer.from_pretrained(roberta).encode([text])[0].ids.tolist()
    )


def test_space_in_front(roberta: Path) -> None:
    plain = Tokenizer.from_pretrained(roberta).encode([" pump"])[0].ids.tolist()
    (roberta / "tokenizer_config.json").write_text('{"add_prefix_space": true}', encoding="utf-8")
    assert Tokenizer.from_pretrained(roberta).encode(["pump"])[0].ids.tolist() == plain


def test_limits_of_the_model(roberta: Path) -> None:
    for stated, found in (("512", 512), ("1000000000000000019884624838656", None), ("1e30", None), ("null", None)):
        (roberta / "tokenizer_config.json").write_text(f'{{"model_max_length": {stated}}}', encoding="utf-8")
        assert Tokenizer.from_pretrained(roberta).model_max_length == found


def test_old_spellings_of_merges_and_types(roberta: Path, tmp_path: Path) -> None:
    """Older versions of the library wrote a merge as one string, and no model type."""
    Tokenizer.from_pretrained(roberta).save_pretrained(tmp_path / "saved")

    def change(description: dict[str, Any]) -> None:
        description["model"]["merges"] = [" ".join(merge) for merge in description["model"]["merges"]]
        for name in ("type", "byte_fallback", "ignore_merges"):
            del description["model"][name]

    edit(tmp_path / "saved", change)
    found, expected = (Tokenizer.from_pretrained(folder).encode(["the pumps"])[0].ids.tolist() for folder in (tmp_path / "saved", roberta))
    assert found == expected


def test_sentencepiece_model_alone(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\n\x0c")
    refused(tmp_path, "missing-file", "transformers makes a tokenizer.json")


# ---- what is refused


SPLIT = {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed", "invert": False}
REPLACE = {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}
Changes = dict[str, tuple[Callable[[dict[str, Any]], object], str, str]]

BPE_CHANGES: Changes = {
    "a pattern before": (lambda d: d.update(pre_tokenizer=SPLIT), "unsupported-pipeline", "pre_tokenizer is of type 'Split'"),
    "a sequence before": (
        lambda d: d.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]}),
        "unsupported-pipeline",
        "is of type 'Sequence'",
    ),
    "a pattern in the normalizer": (lambda d: d.update(normalizer=REPLACE), "bad-setting", "normalizer.pattern must be"),
    "another decoder": (lambda d: d.update(decoder={"type": "CTC"}), "unsupported-pipeline", "decoder is of type 'CTC'"),
    "no decoder": (lambda d: d.update(decoder=None), "unsupported-pipeline", "decoder must be an object"),
    "an unknown field": (lambda d: d["pre_tokenizer"].update(script="x"), "unsupported-pipeline", "'script'"),
    "an unknown field of the model": (lambda d: d["model"].update(cache="x"), "unsupported-pipeline", "'cache'"),
    "chance": (lambda d: d["model"].update(dropout=0.1), "bad-setting", "model.dropout must be null"),
    "a suffix": (lambda d: d["model"].update(end_of_word_suffix="</w>"), "bad-setting", "model.end_of_word_suffix"),
    "ends with other ids": (lambda d: d["post_processor"].update(sep=["</s>", 7]), "unsupported-pipeline", "'RobertaProcessing'"),
    "ends with ids out of bounds": (lambda d: d["post_processor"].update(cls=["<s>", 2**31]), "unsupported-pipeline", "post_processor"),
    "no ends": (lambda d: d.update(post_processor=None), "unsupported-pipeline", "post_processor"),
    "no merges": (lambda d: d["model"].update(merges=None), "vocab-invalid", "model.merges must be an array"),
    "a merge of three": (lambda d: d["model"]["merges"].append("a b c"), "vocab-invalid", "must be two tokens"),
    "a merge of numbers": (lambda d: d["model"]["merges"].append([1, 2]), "vocab-invalid", "must be two tokens"),
    "a merge of strangers": (lambda d: d["model"]["merges"].append(["a", "<nope>"]), "vocab-invalid", "'<nope>'"),
    "a merge to a stranger": (lambda d: d["model"]["merges"].append(["Q", "Q"]), "vocab-invalid", "'QQ'"),
    "an added token twice": (lambda d: d["added_tokens"].append(dict(d["added_tokens"][0])), "vocab-invalid", "stands twice"),
    "an empty added token": (lambda d: d["added_tokens"].append({"content": "", "id": 400}), "vocab-invalid", "is empty"),
    "a model type that is no name": (lambda d: d["model"].update(type=["BPE"]), "unsupported-pipeline", "minigrad reads"),
    "a part type that is no name": (lambda d: d["decoder"].update(type=[]), "unsupported-pipeline", "decoder is of type"),
}


@pytest.mark.parametrize("name", BPE_CHANGES)
def test_refused_roberta(roberta: Path, tmp_path: Path, name: str) -> None:
    change, code, words = BPE_CHANGES[name]
    Tokenizer.from_pretrained(roberta).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer_config.json").unlink()
    Tokenizer.from_pretrained(tmp_path / "saved")  # fine before the change
    edit(tmp_path / "saved", change)
    refused(tmp_path / "saved", code, words)


def encoded(content: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode("ascii")}


UNIGRAM_CHANGES: Changes = {
    "no unknown": (lambda d: d["model"].update(unk_id=None), "bad-setting", "model.unk_id must be an integer"),
    "boolean unknown": (lambda d: d["model"].update(unk_id=True), "bad-setting", "model.unk_id"),
    "unknown out of bounds": (lambda d: d["model"].update(unk_id=2**31), "vocab-invalid", "model.unk_id"),
    "infinite score": (lambda d: d["model"]["vocab"][5].__setitem__(1, 10**400), "vocab-invalid", "model.vocab[5]"),
    "boolean score": (lambda d: d["model"]["vocab"][5].__setitem__(1, True), "vocab-invalid", "model.vocab[5]"),
    "a piece twice": (lambda d: d["model"]["vocab"].append(["<s>", 0.0]), "vocab-invalid", "'<s>'"),
    "an empty piece": (lambda d: d["model"]["vocab"].append(["", 0.0]), "vocab-invalid", "empty"),
    "a piece without score": (lambda d: d["model"]["vocab"].append(["x"]), "vocab-invalid", "must be [token, score]"),
    "a piece of a megabyte": (lambda d: d["model"]["vocab"].append(["x" * 10**6, 0.0]), "vocab-limit", "characters"),
    "a vocabulary of another kind": (lambda d: d["model"].update(vocab={"a": 0}), "vocab-invalid", "array of [token, score]"),
    "a mark of two": (lambda d: d["decoder"].update(replacement="ab"), "bad-setting", "decoder.replacement must be one character"),
    "half a pair as mark": (lambda d: d["decoder"].update(replacement="\ud800"), "bad-setting", "decoder.replacement"),
    "an unknown scheme": (lambda d: d["decoder"].update(prepend_scheme="x"), "bad-setting", "decoder.prepend_scheme"),
    "a pattern inside": (
        lambda d: d["pre_tokenizer"]["pretokenizers"].append(SPLIT),
        "unsupported-pipeline",
        "pre_tokenizer.pretokenizers[2] is of type 'Split'",
    ),
    "a sequence inside": (
        lambda d: d["pre_tokenizer"]["pretokenizers"].append({"type": "Sequence", "pretokenizers": []}),
        "unsupported-pipeline",
        "is of type 'Sequence'",
    ),
    "an endless sequence": (
        lambda d: d["pre_tokenizer"].update(pretokenizers=[{"type": "WhitespaceSplit"}] * 17),
        "unsupported-pipeline",
        "16",
    ),
    "a part that is none": (lambda d: d["pre_tokenizer"]["pretokenizers"].append("x"), "unsupported-pipeline", "must be an object"),
    "text that grows": (
        lambda d: d.update(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6}),
        "bad-setting",
        "normalizer.content",
    ),
    "nothing replaced": (
        lambda d: d.update(normalizer={"type": "Replace", "pattern": {"String": ""}, "content": ""}),
        "bad-setting",
        "pattern",
    ),
    "a prefix that grows": (lambda d: d.update(normalizer={"type": "Prepend", "prepend": "a"}), "unsupported-pipeline", "'Prepend'"),
    "an empty map": (lambda d: d.update(normalizer=encoded(b"")), "bad-setting", "precompiled_charsmap"),
    "a map that is no base64": (lambda d: d["normalizer"].update(precompiled_charsmap="!"), "bad-setting", "base64"),
}


@pytest.mark.parametrize("name", UNIGRAM_CHANGES)
def test_refused_xlmr(xlmr: Path, name: str) -> None:
    change, code, words = UNIGRAM_CHANGES[name]
    Tokenizer.from_pretrained(xlmr)  # fine before the change
    edit(xlmr, change)
    refused(xlmr, code, words)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("merges.txt", None, "missing-file", "does not exist"),
        ("merges.txt", b"a b c\n", "vocab-invalid", "line 1 must hold two tokens"),
        ("merges.txt", b"#version: 0.2\na\n", "vocab-invalid", "line 2"),
        ("merges.txt", b"a <nope>\n", "vocab-invalid", "'<nope>'"),
        ("merges.txt", b"\xff \xfe\n", "not-utf8", "line 1"),
        ("vocab.json", b"{}", "vocab-invalid", "object with token: id"),
        ("vocab.json", b"[1]", "bad-json", "found an array"),
        ("vocab.json", b'{"a": 1}', "vocab-invalid", "the ids 0 to 0"),
        ("vocab.json", b'{"a": 0, "a": 0}', "bad-json", "twice"),
        ("tokenizer_config.json", b'{"add_prefix_space": 1}', "bad-setting", "add_prefix_space"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "y"}}}', "bad-setting", "added_tokens_decoder[0].id"),
        (
            "tokenizer_config.json",
            b'{"added_tokens_decoder": {"2147483648": {"content": "y"}}}',
            "bad-setting",
            "added_tokens_decoder[0].id",
        ),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"214748364": {"content": "y"}}}', "vocab-invalid", "leaves a gap"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', "vocab-invalid", "added_tokens_decoder must be an object"),
        ("added_tokens.json", b'{"<new>": -1}', "vocab-invalid", "'<new>' has the id -1"),
        ("special_tokens_map.json", b'{"mask_token": 5}', "bad-setting", "mask_token"),
        ("special_tokens_map.json", b'{"mask_token": {"content": "<mask>", "lstrip": 1}}', "bad-setting", "lstrip"),
    ],
)
def test_refused_files_beside(roberta: Path, name: str, content: bytes | None, code: str, words: str) -> None:
    Tokenizer.from_pretrained(roberta)
    if content is None:
        (roberta / name).unlink()
    else:
        (roberta / name).write_bytes(content)
    refused(roberta, code, words)


def test_every_map_that_passes_can_be_used() -> None:
    """Flipped bytes in a character map are refused, or the library maps with them; without the check it would abort."""
    from tokenizers import normalizers

    sound = charsmap(MAP)
    assert charsmap_fault(base64.b64encode(sound).decode()) == ""
    generator = random.Random(0)
    texts = ["".join(MAP), "a①b", *("".join(chr(generator.randint(1, 0x3100)) for _ in range(50)) for _ in range(5))]
    used = [i for i in range(len(sound)) if sound[i]]  # most units are empty, and changing them changes little
    passed = 0
    for _ in range(400):
        content = bytearray(sound)
        for _ in range(generator.randint(1, 3)):
            content[generator.choice(used)] = generator.randrange(256)
        if not charsmap_fault(base64.b64encode(content).decode()):
            passed += 1
            normalizer = normalizers.Precompiled(bytes(content))
            for text in texts:
                assert len(normalizer.normalize_str(text)) <= 128 * len(text)
    assert 20 < passed < 380  # both happen


@pytest.mark.parametrize("encoded", ["AAAA==", "AB==", "AAAA====", "AA"])
def test_only_canonical_base64_reaches_the_library(encoded: str) -> None:
    assert charsmap_fault(encoded) == "not base64"
