"""What the smaller tokenizer files say: special tokens without a role, added tokens of several files, lengths and sides.

Equality with transformers stands in tests/oracle/test_tokenizer_settings_oracle.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigrad.data.tokenization import Tokenizer
from minigrad.errors import TokenizerError

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pump", "[E3]", "e"]
SIZE = len(TOKENS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    return tmp_path


def write(folder: Path, **files: Any) -> Tokenizer:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return Tokenizer.from_pretrained(folder)


def tokens(tokenizer: Tokenizer, text: str, **options: Any) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer.encode([text], **options)[0].ids)[1:-1]


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
@pytest.mark.parametrize("form", [["[E3]", "[E1]"], {"a": "[E3]", "b": "[E1]"}, [{"content": "[E3]", "lstrip": False}, "[E1]"]])
def test_special_tokens_without_a_role(file: str, key: str, form: Any, folder: Path, tmp_path: Path) -> None:
    tokenizer = write(folder, **{file: {key: form}})
    text = "the[E3]pump [E1] [e1]"
    expected = ["the", "[E3]", "pump", "[E1]", "[UNK]", "[UNK]", "[UNK]"]
    assert tokens(tokenizer, text) == expected and tokenizer.vocab_size == SIZE + 1
    assert tokenizer.decode([5, 7, 6]) == "the pump", "they are special"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert tokens(Tokenizer.from_pretrained(tmp_path / "saved"), text) == expected
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["additional_special_tokens"] == ["[E3]", "[E1]"]


def test_a_role_that_the_vocabulary_lacks_gets_an_id(folder: Path) -> None:
    tokenizer = write(folder, tokenizer_config={"bos_token": "[BOS]"})
    assert tokenizer.bos_id == SIZE and tokens(tokenizer, "the[BOS]") == ["the", "[BOS]"]


def test_added_tokens_stand_in_several_files(folder: Path, tmp_path: Path) -> None:
    """Those of tokenizer.json are joined by those of the smaller files; of one token tokenizer_config.json is believed first."""
    write(folder, tokenizer_config={"additional_special_tokens": ["<A>"]}).save_pretrained(tmp_path / "saved")
    saved = tmp_path / "saved"
    (saved / "tokenizer_config.json").unlink()
    tokenizer = write(saved, added_tokens={"<B>": SIZE + 1, "<A>": SIZE})
    numbers = tokenizer.encode(["the<A>pump<B> <a> <b>"])[0].ids.tolist()
    assert numbers == [2, 5, SIZE, 6, SIZE + 1, 1, 1, 1, SIZE + 1, 3], "<A> is special and found as it stands, <B> in any letter case"
    rules = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
    tokenizer = write(saved, tokenizer_config={"added_tokens_decoder": {str(SIZE): {"content": "<A>", **rules}}})
    assert tokenizer.encode(["<A> <a>"])[0].ids.tolist() == [2, SIZE, SIZE, 3] and tokenizer.vocab_size == SIZE + 1
    (saved / "tokenizer_config.json").unlink()
    with pytest.raises(TokenizerError, match=r"the added token '<A>' has the id 10 here and 9 in another file") as caught:
        write(saved, added_tokens={"<B>": SIZE, "<A>": SIZE + 1})
    assert caught.value.code == "vocab-invalid"


def test_the_side_that_is_cut(folder: Path, tmp_path: Path) -> None:
    tokenizer = write(folder, tokenizer_config={"truncation_side": "left", "padding_side": "left"})
    assert tokens(tokenizer, "the e pump", max_length=4) == ["e", "pump"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert tokens(Tokenizer.from_pretrained(tmp_path / "saved"), "the e pump", max_length=4) == ["e", "pump"]
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (saved["truncation_side"], saved["padding_side"]) == ("left", "left")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"model_max_length": 512}, 512),
        ({"model_max_length": 512.0}, 512),
        ({"max_len": 256}, 256),
        ({"model_max_length": 512, "max_len": 256}, 512),
        ({"model_max_length": 10**30}, None),
        ({"model_max_length": 1e30}, None),
        ({"model_max_length": None}, None),
        ({"model_max_length": -1}, None),
        ({}, None),
    ],
)
def test_lengths(config: dict[str, Any], length: int | None, folder: Path) -> None:
    assert write(folder, tokenizer_config=config).model_max_length == length


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_max_length": "512"}, "model_max_length must be a number, found a string"),
        ({"max_len": True}, "max_len must be a number, found a boolean"),
        ({"truncation_side": "top"}, "truncation_side must be one of 'right', 'left', found 'top'"),
        ({"padding_side": ["left"]}, "padding_side must be one of"),
        ({"additional_special_tokens": "[E1]"}, "additional_special_tokens must be an array of tokens, found a string"),
        ({"extra_special_tokens": [7]}, "extra_special_tokens must be a string"),
        ({"extra_special_tokens": [{"content": 7}]}, "content must be a string"),
    ],
)
def test_what_makes_no_sense_is_refused(config: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(TokenizerError, match=words) as caught:
        write(folder, tokenizer_config=config)
    assert caught.value.code == "bad-setting"


def test_ids_of_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    assert [tokenizer.token_to_id(token) for token in ("the", "The", "[E3]")] == [5, None, 7]
