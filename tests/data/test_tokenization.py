"""The tokenizer on a small vocabulary: what encodings hold, what is saved, and which files are refused.

Equality with transformers on real vocabularies stands in tests/oracle/test_tokenization_oracle.py.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_files import edit, refused

from minigrad.data import _tokenizer_vocab
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError, TokenizerError

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pump", "##s", "leak", "##ing", ".", "cafe", "Pump", "é", "中"]
ID = {token: number for number, token in enumerate(TOKENS)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with vocab.txt alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def saved(directory: Path, tmp_path: Path) -> Path:
    """A directory as `save_pretrained` writes it, with tokenizer.json."""
    Tokenizer.from_pretrained(directory).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def ids(tokenizer: Tokenizer, text: str) -> list[str]:
    return [TOKENS[number] for number in tokenizer.encode([text])[0].ids]


# ---- encoding


def test_encoding(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    (encoding,) = tokenizer.encode(["The pumps leaking."])
    assert [TOKENS[i] for i in encoding.ids] == ["[CLS]", "the", "pump", "##s", "leak", "##ing", ".", "[SEP]"]
    assert encoding.offsets.tolist() == [[0, 0], [0, 3], [4, 8], [8, 9], [10, 14], [14, 17], [17, 18], [0, 0]]
    assert encoding.word_ids.tolist() == [-1, 0, 1, 1, 2, 2, 3, -1]
    assert encoding.type_ids.tolist() == [0] * 8
    assert encoding.sequence_ids.tolist() == [-1, 0, 0, 0, 0, 0, 0, -1]
    assert encoding.special_tokens_mask.tolist() == [True, *[False] * 6, True]
    assert len(encoding) == 8
    assert not encoding.truncated
    arrays = (encoding.ids, encoding.type_ids, encoding.offsets, encoding.word_ids, encoding.sequence_ids)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}


def test_special_ids_and_size(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    found = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert found == (0, 1, 2, 3, 4)
    assert tokenizer.vocab_size == len(TOKENS)


def test_unknown_words_and_special_tokens_in_text(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    assert ids(tokenizer, "xyz [MASK] " + "s" * 101) == ["[CLS]", "[UNK]", "[MASK]", "[UNK]", "[SEP]"]


def test_empty_texts_and_no_texts(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    assert tokenizer.encode([]) == []
    assert ids(tokenizer, "") == ["[CLS]", "[SEP]"]
    assert tokenizer.encode([""])[0].offsets.shape == (2, 2)


def test_pairs(directory: Path) -> None:
    (encoding,) = Tokenizer.from_pretrained(directory).encode(["the pump"], pairs=["leaking"])
    assert [TOKENS[i] for i in encoding.ids] == ["[CLS]", "the", "pump", "[SEP]", "leak", "##ing", "[SEP]"]
    assert encoding.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert encoding.sequence_ids.tolist() == [-1, 0, 0, -1, 1, 1, -1]
    assert encoding.offsets[4:6].tolist() == [[0, 4], [4, 7]]
    assert encoding.word_ids.tolist() == [-1, 0, 1, -1, 0, 0, -1]


def test_truncation_is_an_argument_not_a_state(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    text = "the pump leak the pump leak"
    whole = tokenizer.encode([text])[0]
    (cut,) = tokenizer.encode([text], max_length=5)
    assert cut.ids.tolist() == [*whole.ids[:4].tolist(), tokenizer.sep_id]
    assert cut.truncated
    assert not tokenizer.encode([text], max_length=8)[0].truncated
    assert tokenizer.encode([text])[0].ids.tolist() == whole.ids.tolist()


def test_truncation_of_pairs_takes_from_the_longer(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    (encoding,) = tokenizer.encode(["the pump leak ."], pairs=["the"], max_length=6)
    assert [TOKENS[i] for i in encoding.ids] == ["[CLS]", "the", "pump", "[SEP]", "the", "[SEP]"]
    assert encoding.truncated


def test_truncation_of_one_text_alone(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    texts, pairs = ["the pump leak"], ["the pump leak ."]

    def tokens(truncation: str) -> list[str]:
        (encoding,) = tokenizer.encode(texts, pairs=pairs, max_length=8, truncation=truncation)
        return [TOKENS[i] for i in encoding.ids]

    assert tokens("only_first") == ["[CLS]", "the", "[SEP]", "the", "pump", "leak", ".", "[SEP]"]
    assert tokens("only_second") == ["[CLS]", "the", "pump", "leak", "[SEP]", "the", "pump", "[SEP]"]
    with pytest.raises(ArgumentError, match="the text to cut is too short"):
        tokenizer.encode(texts, pairs=pairs, max_length=5, truncation="only_first")
    with pytest.raises(ArgumentError, match="truncation must be one of"):
        tokenizer.encode(texts, pairs=pairs, max_length=5, truncation="longest")
    with pytest.raises(ArgumentError, match="with pairs only"):
        tokenizer.encode(texts, max_length=5, truncation="only_second")


def test_threads_may_share_a_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    wrong: list[int] = []

    def work(length: int) -> None:
        for _ in range(200):
            wrong.extend(len(e) for e in tokenizer.encode(["the " * 20] * 3, max_length=length) if len(e) != length)

    threads = [threading.Thread(target=work, args=(length,)) for length in (4, 9, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_decode(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    assert tokenizer.decode(tokenizer.encode(["The pumps leaking"])[0].ids) == "the pumps leaking"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([2, ID["the"], 3], skip_special_tokens=False) == "[CLS] the [SEP]"
    assert tokenizer.decode_batch([[ID["the"]], np.array([ID["leak"], ID["##ing"]])]) == ["the", "leaking"]
    assert tokenizer.decode_batch([]) == []
    for bad in ([5, len(TOKENS)], [-1]):
        with pytest.raises(IndexRangeError, match=f"token id {bad[-1]} at position {len(bad) - 1}"):
            tokenizer.decode(bad)
    for wrong in (["a"], [1.5], None, [2**70]):
        with pytest.raises(DTypeError, match="ids must be integers"):
            tokenizer.decode(wrong)  # type: ignore[arg-type]
    for shape in ([[1, 2]], 5):
        with pytest.raises(ShapeError, match="ids of one text"):
            tokenizer.decode(shape)  # type: ignore[arg-type]


def test_decode_with_clean_up(directory: Path) -> None:
    (directory / "vocab.txt").write_text(GOOD + "\n'\nt\ndon\n", encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(directory)
    (encoding,) = tokenizer.encode(["don't the pump."])
    assert tokenizer.decode(encoding.ids) == "don ' t the pump."
    assert tokenizer.decode(encoding.ids, clean_up_tokenization_spaces=True) == "don't the pump."


def test_wrong_arguments(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    with pytest.raises(DTypeError, match="one string"):
        tokenizer.encode("the pump")
    with pytest.raises(DTypeError, match=r"texts\[1\] must be a string, got int"):
        tokenizer.encode(["a", 5])  # type: ignore[list-item]
    with pytest.raises(DTypeError, match=r"pairs\[0\]"):
        tokenizer.encode(["a"], pairs=[None])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="surrogate"):
        tokenizer.encode(["a\ud800"])
    with pytest.raises(ArgumentError, match="got 2 and 1"):
        tokenizer.encode(["a", "b"], pairs=["c"])
    for length in (-1, 0, 2):
        with pytest.raises(ArgumentError, match="at least 3"):
            tokenizer.encode(["a"], max_length=length)
    with pytest.raises(ArgumentError, match="at least 4"):
        tokenizer.encode(["a"], pairs=["b"], max_length=3)
    for length in ("a", 3.5, 2**31, 2**70):
        with pytest.raises(ArgumentError, match=r"max_length must be an integer of at least 3 .* at most 2\*\*31 - 1"):
            tokenizer.encode(["a"], max_length=length)  # type: ignore[arg-type]
    for texts in (None, 5):
        with pytest.raises(DTypeError, match="texts must be a sequence of strings, got"):
            tokenizer.encode(texts)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="pass the path of a file or directory"):
        Tokenizer.from_pretrained(None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="path"):
        Tokenizer.from_pretrained(directory).save_pretrained("")


def test_texts_may_come_from_a_generator(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    texts, pairs = ["the pump", "leak"], ["the", "pump ."]
    found = tokenizer.encode((text for text in texts), pairs=(pair for pair in pairs), max_length=np.int64(9))  # type: ignore[arg-type]
    assert [e.ids.tolist() for e in found] == [e.ids.tolist() for e in tokenizer.encode(texts, pairs=pairs)]
    with pytest.raises(DTypeError, match=r"texts\[1\]"):
        tokenizer.encode(text for text in ["a", 5])  # type: ignore[misc]


# ---- settings


def test_tokenizer_config(directory: Path) -> None:
    text = "The Pump café 中the"
    assert ids(Tokenizer.from_pretrained(directory), text)[1:-1] == ["the", "pump", "cafe", "中", "the"]
    config = directory / "tokenizer_config.json"
    config.write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}', encoding="utf-8")
    assert ids(Tokenizer.from_pretrained(directory), text)[1:-1] == ["[UNK]", "Pump", "[UNK]", "[UNK]"]
    config.write_text('{"do_lower_case": false, "strip_accents": true}', encoding="utf-8")
    assert ids(Tokenizer.from_pretrained(directory), "Pump café é")[1:-1] == ["Pump", "cafe", "[UNK]"]
    config.write_text('{"strip_accents": false}', encoding="utf-8")
    assert ids(Tokenizer.from_pretrained(directory), "É")[1:-1] == ["é"]


def test_special_tokens_by_other_names(directory: Path) -> None:
    tokens = ["<pad>" if token == "[PAD]" else "<s>" if token == "[CLS]" else token for token in TOKENS]
    (directory / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    config = {"pad_token": "<pad>", "cls_token": {"content": "<s>", "lstrip": False}, "model_max_length": 512}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(directory)
    assert (tokenizer.pad_id, tokenizer.cls_id) == (0, 2)
    assert tokenizer.encode(["the"])[0].ids.tolist() == [2, ID["the"], 3]


def test_other_keys_of_the_config_are_not_followed(directory: Path) -> None:
    config = {
        "tokenizer_file": "/root/.cache/tokenizer.json",
        "auto_map": {"AutoTokenizer": "evil.Evil"},
        "tokenizer_class": "Evil",
        "never_split": None,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Tokenizer.from_pretrained(directory).vocab_size == len(TOKENS)


# ---- saving


def test_save_and_load_again(directory: Path, tmp_path: Path) -> None:
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}', encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(directory)
    tokenizer.encode(["the"], max_length=3)
    target = tmp_path / "new" / "folder"
    for _ in range(2):  # the second time over existing files
        tokenizer.save_pretrained(target)
    names = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(path.name for path in target.iterdir()) == names
    assert (target / "vocab.txt").read_bytes() == (directory / "vocab.txt").read_bytes()
    assert json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None
    config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (config["do_lower_case"], config["model_max_length"], config["tokenizer_class"]) == (False, 512, "BertTokenizer")
    text = "The Pump café [MASK] leaking " * 3
    expected = tokenizer.encode([text])[0].ids.tolist()
    assert Tokenizer.from_pretrained(target).encode([text])[0].ids.tolist() == expected
    (target / "tokenizer.json").unlink()
    assert Tokenizer.from_pretrained(target).encode([text])[0].ids.tolist() == expected


def test_stored_truncation_and_padding_are_not_taken_over(saved: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
        description["padding"] = {"strategy": {"Fixed": 16}, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]", "direction": "Right"}

    edit(saved, change)
    assert len(Tokenizer.from_pretrained(saved).encode(["the pump leak the"])[0]) == 6


def test_config_is_stronger_than_tokenizer_json(saved: Path) -> None:
    (saved / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    assert ids(Tokenizer.from_pretrained(saved), "Pump")[1:-1] == ["Pump"]
    (saved / "tokenizer_config.json").unlink()
    assert ids(Tokenizer.from_pretrained(saved), "Pump")[1:-1] == ["pump"]


def test_added_tokens_beyond_the_vocabulary(saved: Path, tmp_path: Path) -> None:
    edit(saved, lambda d: d["added_tokens"].append({"id": len(TOKENS), "content": "<new>", "special": False, "normalized": True}))
    tokenizer = Tokenizer.from_pretrained(saved)
    assert tokenizer.vocab_size == len(TOKENS) + 1
    assert tokenizer.encode(["the<new>pump"])[0].ids.tolist() == [2, ID["the"], len(TOKENS), ID["pump"], 3]
    tokenizer.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "vocab.txt").read_text(encoding="utf-8").splitlines()[-1] == "<new>"


def test_a_failed_save_leaves_the_old_file(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    target = tmp_path / "target"
    target.mkdir()
    (target / "tokenizer.json").write_text("old", encoding="utf-8")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(TokenizerError, match="No space left") as caught:
        tokenizer.save_pretrained(target)
    assert caught.value.code == "write-failed"
    assert [path.name for path in target.iterdir()] == ["tokenizer.json"]
    assert (target / "tokenizer.json").read_text(encoding="utf-8") == "old"


def test_a_directory_that_is_a_file(directory: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be written"):
        Tokenizer.from_pretrained(directory).save_pretrained(directory / "vocab.txt")


# ---- what is refused


def test_missing_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "missing-file", "no such directory; for a checkpoint's name or id, pass minigrad.io.find_checkpoint(name)")
    refused(tmp_path / ("x" * 5000), "missing-file", "no such directory")
    refused(tmp_path, "missing-file", "neither tokenizer.json nor vocab.txt")
    (tmp_path / "vocab.txt").mkdir()
    refused(tmp_path, "not-a-regular-file", "not a regular file")
    os.mkfifo(tmp_path / "tokenizer.json")
    refused(tmp_path, "not-a-regular-file", "not a regular file")


GOOD = "\n".join(TOKENS)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "vocab-invalid", "the file is empty"),
        (GOOD.encode() + b"\nthe\n", "vocab-invalid", f"line {len(TOKENS) + 1} repeats the token 'the' of line 6"),
        (GOOD.encode() + b"\n\nx\n\n", "vocab-invalid", f"line {len(TOKENS) + 3} repeats the token ''"),
        (GOOD.encode() + b"\na\0b\n", "vocab-invalid", f"line {len(TOKENS) + 1} holds"),
        (GOOD.encode() + b"\n\xff\n", "not-utf8", f"line {len(TOKENS) + 1}"),
        (GOOD.replace("[MASK]", "x").encode(), "special-token", "'[MASK]'"),
        (GOOD.replace("[UNK]", "x").encode(), "special-token", "'[UNK]'"),
    ],
)
def test_refused_vocab(directory: Path, content: bytes, code: str, words: str) -> None:
    (directory / "vocab.txt").write_bytes(content)
    refused(directory, code, words)


def test_vocab_with_windows_line_ends(directory: Path) -> None:
    (directory / "vocab.txt").write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert ids(Tokenizer.from_pretrained(directory), "the") == ["[CLS]", "the", "[SEP]"]


def test_an_empty_token_is_kept(directory: Path, tmp_path: Path) -> None:
    content = GOOD + "\n\nlast\n"
    (directory / "vocab.txt").write_text(content, encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(directory)
    assert tokenizer.encode(["last the"])[0].ids.tolist() == [2, len(TOKENS) + 1, ID["the"], 3]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "vocab.txt").read_text(encoding="utf-8") == content
    assert Tokenizer.from_pretrained(tmp_path / "saved").vocab_size == len(TOKENS) + 2


def test_oversized_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tokenizer_vocab, "MAX_VOCAB_BYTES", 20)
    refused(directory, "vocab-limit", "larger than 20 bytes")
    (directory / "tokenizer.json").write_text(" " * 50, encoding="utf-8")
    monkeypatch.setattr(_tokenizer_vocab, "MAX_JSON_BYTES", 20)
    refused(directory, "vocab-limit", "larger than 20 bytes")


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("{", "bad-json", "not valid JSON"),
        ("[]", "bad-json", "found an array"),
        ("[" * 10**6, "bad-json", "nested too deeply"),
        ('{"do_lower_case": true, "do_lower_case": false}', "bad-json", "stands twice"),
        ('{"do_lower_case": 1}', "bad-setting", "do_lower_case must be true or false"),
        ('{"tokenize_chinese_chars": null}', "bad-setting", "tokenize_chinese_chars"),
        ('{"strip_accents": "no"}', "bad-setting", "true, false or null"),
        ('{"cls_token": 5}', "bad-setting", "cls_token must be a string"),
        ('{"cls_token": {"text": "x"}}', "bad-setting", "content must be a string"),
        ('{"cls_token": "<s>"}', "special-token", "'<s>'"),
        ('{"pad_token": "\\ud800"}', "special-token", "lacks"),
    ],
)
def test_refused_config(directory: Path, content: str, code: str, words: str) -> None:
    (directory / "tokenizer_config.json").write_text(content, encoding="utf-8")
    refused(directory, code, words)


REFUSED_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "no model": (lambda d: d.pop("model"), "unsupported-pipeline", "model must be an object"),
    "another model": (lambda d: d["model"].update(type="WordLevel"), "unsupported-pipeline", "'WordLevel'"),
    "another prefix": (lambda d: d["model"].update(continuing_subword_prefix="@@"), "bad-setting", "##"),
    "no normalizer": (lambda d: d.update(normalizer=None), "unsupported-pipeline", "normalizer"),
    "normalizer with a pattern": (
        lambda d: d.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}),
        "unsupported-pipeline",
        "'Replace'",
    ),
    "normalizer flag": (lambda d: d["normalizer"].update(lowercase="yes"), "bad-setting", "normalizer.lowercase"),
    "pre-tokenizer with a pattern": (
        lambda d: d.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed", "invert": False}),
        "unsupported-pipeline",
        "pre_tokenizer",
    ),
    "no [CLS]": (lambda d: d["post_processor"]["single"].pop(0), "unsupported-pipeline", "post_processor"),
    "post-processor's ids": (
        lambda d: d["post_processor"]["special_tokens"]["[CLS]"].update(ids=[2**31]),
        "unsupported-pipeline",
        "post_processor",
    ),
    "another decoder": (lambda d: d.update(decoder={"type": "ByteLevel"}), "unsupported-pipeline", "decoder"),
    "long words": (lambda d: d["model"].update(max_input_chars_per_word=10**9), "bad-setting", "1..1000"),
    "no vocabulary": (lambda d: d["model"].pop("vocab"), "vocab-invalid", "model.vocab"),
    "huge id": (lambda d: d["model"]["vocab"].update(the=2**31), "vocab-invalid", "'the' the id '2147483648'"),
    "negative id": (lambda d: d["model"]["vocab"].update(the=-1), "vocab-invalid", "'-1'"),
    "boolean id": (lambda d: d["model"]["vocab"].update(the=True), "vocab-invalid", "'True'"),
    "id twice": (lambda d: d["model"]["vocab"].update(the=6), "vocab-invalid", "one id to two tokens"),
    "token with a line end": (lambda d: d["model"]["vocab"].update({"a\nb": len(TOKENS)}), "vocab-invalid", "line end"),
    "token of half a surrogate pair": (lambda d: d["model"]["vocab"].update({"\ud800": len(TOKENS)}), "vocab-invalid", "surrogate"),
    "added tokens no array": (lambda d: d.update(added_tokens={"a": 1}), "vocab-invalid", "array"),
    "added token no object": (lambda d: d["added_tokens"].append("x"), "vocab-invalid", "added_tokens[5]"),
    "added token without id": (lambda d: d["added_tokens"].append({"content": "x"}), "bad-setting", "added_tokens[5].id"),
    "added token with a gap": (lambda d: d["added_tokens"].append({"content": "x", "id": 10**6}), "vocab-invalid", "gap"),
    "added token with another id": (lambda d: d["added_tokens"][0].update(id=7), "vocab-invalid", "'[PAD]' has the id 7"),
    "added token's rule": (lambda d: d["added_tokens"][0].update(lstrip=1), "bad-setting", "lstrip"),
}


@pytest.mark.parametrize("name", REFUSED_CHANGES)
def test_refused_tokenizer_json(saved: Path, name: str) -> None:
    change, code, words = REFUSED_CHANGES[name]
    Tokenizer.from_pretrained(saved)  # fine before the change
    edit(saved, change)
    refused(saved, code, words)


def test_unknown_token_must_be_in_the_vocabulary_itself(saved: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (saved / name).unlink()  # they would name [UNK] again
    edit(saved, lambda d: (d["model"].update(unk_token="<unk>"), d["added_tokens"].append({"id": len(TOKENS), "content": "<unk>"})))
    refused(saved, "special-token", "'<unk>'")


@pytest.mark.parametrize("token", ["$A", "$Z", "a:b"])
def test_special_tokens_cannot_be_template_marks(directory: Path, token: str) -> None:
    (directory / "vocab.txt").write_text(GOOD.replace("[CLS]", token), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"cls_token": token}), encoding="utf-8")
    refused(directory, "special-token", repr(token))


@pytest.mark.parametrize("content", ["", "nonsense", "[]", "[" * 10**6, "{}"])
def test_broken_tokenizer_json(saved: Path, content: str) -> None:
    (saved / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError):
        Tokenizer.from_pretrained(saved)


def test_both_spellings_of_the_post_processor(saved: Path) -> None:
    edit(saved, lambda d: d.update(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}))
    assert ids(Tokenizer.from_pretrained(saved), "the") == ["[CLS]", "the", "[SEP]"]


def test_without_the_library(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    refused(directory, "missing-library", "pip install tokenizers")


def test_hostile_texts_take_linear_time(directory: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(directory)
    for text in ("s" * 10**6, "e" + "\u0301" * 10**6, "\u200b" * 10**6):
        assert len(tokenizer.encode([text], max_length=16)[0]) <= 16


@pytest.mark.parametrize("sizes", [[3] * 10, [40, 3, 3, 90, 2], [200], []])
def test_long_texts_are_encoded_a_few_at_a_time(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps many times a text's size while it encodes, so a run of texts is bounded by characters too."""
    from minigrad.data import tokenization

    monkeypatch.setattr(tokenization, "CHUNK_CHARACTERS", 50)
    monkeypatch.setattr(tokenization, "CHUNK_TEXTS", 4)
    texts = ["x" * size for size in sizes]
    chunks = list(tokenization._chunks(texts))
    assert [text for chunk in chunks for text in chunk] == texts
    assert all(len(chunk) == 1 or (len(chunk) <= 4 and sum(map(len, chunk)) <= 50) for chunk in chunks)
