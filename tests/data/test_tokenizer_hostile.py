"""Hostile tokenizer files and texts, C06 to C09: refused quickly with a stable code, or handled in linear time; and what is opened."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizer_files import byte_pairs, charsmap, edit, pieces, write_roberta, write_xlmr, xlmr_description

from minigrad.data._tokenizer_vocab import MAX_JSON_BYTES, MAX_TOKENS
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import TokenizerError

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "pump", "##s", "a", "##a", "\u0301"]


def write_bert(folder: Path) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(BERT), encoding="utf-8")
    return folder


def saved_bert(tmp_path: Path) -> Path:
    Tokenizer.from_pretrained(write_bert(tmp_path / "bare")).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def families(tmp_path: Path) -> list[Path]:
    roberta = write_roberta(tmp_path / "roberta", *byte_pairs())
    xlmr = write_xlmr(tmp_path / "xlmr", xlmr_description(pieces(), charsmap({"ﬁ": "fi", "\u200b": ""})))
    return [write_bert(tmp_path / "bert"), roberta, xlmr]


def refused(folder: Path, code: str, words: str = "") -> None:
    """One error with `code`, in under a second of this process (the machine may be busy), with under 256 MB, quoting little."""
    start = time.process_time()
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_pretrained(folder)
    assert time.process_time() - start < 1
    assert caught.value.code == code, caught.value
    assert words in str(caught.value)
    assert len(str(caught.value)) < len(str(folder)) + 400
    tracemalloc.start()  # in a second run, because it takes several times as long
    try:
        with pytest.raises(TokenizerError):
            Tokenizer.from_pretrained(folder)
        assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    finally:
        tracemalloc.stop()


# ---- C06: vocab.txt


def test_c06_vocab_of_ten_gigabytes(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    os.truncate(folder / "vocab.txt", 10 * 2**30)  # a hole: it takes no room on the disk
    refused(folder, "vocab-limit", "larger than")


def test_c06_one_line_of_a_gigabyte(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    with open(folder / "vocab.txt", "wb") as file:
        file.write(b"a" * 2**20)
        file.truncate(2**30)
    refused(folder, "vocab-limit", "larger than")
    (folder / "vocab.txt").write_bytes("\n".join(BERT).encode() + b"\n" + b"a" * 2**20)
    refused(folder, "vocab-limit", "characters")


def test_c06_too_many_lines(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    (folder / "vocab.txt").write_bytes(b"\n" * (10 * 2**20))
    refused(folder, "vocab-limit", "lines")


def test_c06_duplicates(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    (folder / "vocab.txt").write_text("\n".join([*BERT, "the"]), encoding="utf-8")
    refused(folder, "vocab-invalid", "repeats the token 'the'")


def test_c06_not_utf8(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    (folder / "vocab.txt").write_bytes("\n".join(BERT).encode() + b"\n\xc3\x28\n")
    refused(folder, "not-utf8", f"line {len(BERT) + 1}")


# ---- C07: ids


def change_ids(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    folder = saved_bert(tmp_path)
    edit(folder, change)
    return folder


@pytest.mark.parametrize("number", [2**31, 2**63, -1, 10**400, 7.0, True, None, "7"])
def test_c07_ids_out_of_bounds(tmp_path: Path, number: Any) -> None:
    refused(change_ids(tmp_path, lambda d: d["model"]["vocab"].update(pump=number)), "vocab-invalid", "'pump'")


def test_c07_duplicated_id(tmp_path: Path) -> None:
    refused(change_ids(tmp_path, lambda d: d["model"]["vocab"].update(pump=5)), "vocab-invalid", "one id to two tokens")


@pytest.mark.parametrize("number", [2**31, -1, 10**400, 7])
def test_c07_added_ids(tmp_path: Path, number: int) -> None:
    token = {"content": "<new>", "id": number, "special": True}
    refused(change_ids(tmp_path, lambda d: d["added_tokens"].append(token)), "vocab-invalid", "'<new>'")


def test_an_added_token_of_which_nothing_is_left(tmp_path: Path) -> None:
    """The library looks for the normalised token, and panics where that is empty."""
    folder = write_bert(tmp_path / "bert")
    (folder / "added_tokens.json").write_text(json.dumps({"\u200b": len(BERT)}), encoding="utf-8")
    refused(folder, "vocab-invalid", "is empty after normalisation")


def test_c07_too_many_tokens(tmp_path: Path) -> None:
    folder = saved_bert(tmp_path)
    small = ",".join(["[]"] * (MAX_JSON_BYTES // 4))
    (folder / "tokenizer.json").write_text(f'{{"added_tokens": [{small}]}}', encoding="utf-8")
    refused(folder, "vocab-limit", "values")
    vocab = {f"{number}": number for number in range(MAX_TOKENS + 1)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}), encoding="utf-8")
    refused(folder, "vocab-limit", "entries")


def test_c07_too_many_added_tokens(tmp_path: Path) -> None:
    added = [{"content": f"<{number}>", "id": len(BERT) + number} for number in range(10_001)]
    refused(change_ids(tmp_path, lambda d: d.update(added_tokens=added)), "vocab-limit", "added tokens")


# ---- C08: paths


@pytest.mark.parametrize("key", ["vocab_file", "merges_file"])
@pytest.mark.parametrize("value", [".env", "/etc/passwd", "../vocab.txt", "./vocab.txt/../x", ["vocab.txt"], 5, {"a": 1}])
def test_c08_config_names_another_file(tmp_path: Path, key: str, value: Any) -> None:
    folder = write_bert(tmp_path / "bert")
    (folder / "tokenizer_config.json").write_text(json.dumps({key: value}), encoding="utf-8")
    refused(folder, "path-escapes-model-dir", key)


def test_c08_only_fixed_names_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever paths and classes the configuration mentions."""
    names = {"tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"}
    names |= {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    config = {
        "vocab_file": "vocab.txt",
        "tokenizer_file": "/etc/passwd",
        "special_tokens_map_file": "/root/.cache/map.json",
        "auto_map": {"AutoTokenizer": ["evil.py", None]},
        "chat_template": "{% include '/etc/passwd' %}",
        "name_or_path": "../../x",
        "added_tokens_file": ".env",
    }
    opened: list[Path] = []
    really_open = os.open

    def watched(path: Any, *rest: Any, **options: Any) -> int:
        opened.append(Path(path))
        return really_open(path, *rest, **options)

    really_fdopen = os.fdopen

    def only_descriptors(path: Any, *rest: Any, **options: Any) -> Any:
        assert isinstance(path, int), f"opened {path} by its name"
        return really_fdopen(path, *rest, **options)

    for folder in families(tmp_path):
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / ".env").write_text("SECRET", encoding="utf-8")
        Tokenizer.from_pretrained(folder)  # imports what it needs
        with monkeypatch.context() as patch:
            patch.setattr("os.open", watched)
            patch.setattr("builtins.open", only_descriptors)
            Tokenizer.from_pretrained(folder)
        assert opened and all(path.parent == folder and path.name in names for path in opened)
        opened.clear()


# ---- C09: texts


SIZE = int(os.environ.get("MINIGRAD_TOKENIZER_TEXT", "50000"))  # characters; 10000000 takes minutes
TEXTS = {
    "one word": "a",
    "combining marks": "\u0301",
    "zero width": "\u200b",
    "spaces": " ",
    "tabs and line ends": "\t\n",
    "special tokens": "[SEP]</s>",
    "halves of special tokens": "[SE<",
    "one letter words": "a ",
    "emoji joined": "\U0001f469\u200d",
    "hangul parts": "\u1100",
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    return [Tokenizer.from_pretrained(folder) for folder in families(tmp_path_factory.mktemp("families"))]


@pytest.mark.parametrize("name", TEXTS)
def test_c09_pathological_texts_take_linear_time(tokenizers: list[Tokenizer], name: str) -> None:
    """Four times the text takes at most about four times as long; a quadratic algorithm would take sixteen times."""
    for tokenizer in tokenizers:

        def seconds(text: str, tokenizer: Tokenizer = tokenizer) -> float:
            start = time.process_time()
            (encoding,) = tokenizer.encode([text], max_length=16)
            assert len(encoding) <= 16
            return time.process_time() - start

        times = SIZE // len(TEXTS[name])
        short, long = (min(seconds(text) for _ in range(3)) for text in (TEXTS[name] * (times // 4), TEXTS[name] * times))
        # 10 ms on top: what a short text costs is mostly noise. 10, not 4, because memory is slower than caches. The best of three each:
        # neighbours on the machine cost processor time, too.
        assert long < 10 * (short + 0.01)


# ---- anything else that is wrong


def break_somewhere(value: Any, generator: random.Random, values: list[Any]) -> None:
    """Walk down at random, then replace, remove or add one entry."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = generator.choice(keys) if keys else None
        inner = None if key is None else value[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.8:
            value = inner
            continue
        action = generator.choice(["replace", "remove", "add"])
        if action == "add" or key is None:
            if isinstance(value, dict):
                value[generator.choice(["type", "x", "[CLS]", "pattern", ""])] = generator.choice(values)
            else:
                value.append(generator.choice(values))
        elif action == "remove":
            del value[key]
        else:
            value[key] = generator.choice(values)
        return


def test_broken_descriptions_give_one_kind_of_error(tmp_path: Path) -> None:
    """Random edits of valid files: they load, or raise TokenizerError, and nothing else."""
    generator = random.Random(0)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        2**31,
        1e308,
        "",
        "x",
        "\ud800",
        [],
        {},
        [[]],
        {"type": "Sequence"},
        "Sequence",
        "[CLS]",
        "$A",
        "a" * 600,
    ]
    loaded = refused_count = 0
    for source in families(tmp_path):
        good = tmp_path / f"saved-{source.name}"
        Tokenizer.from_pretrained(source).save_pretrained(good)
        contents = {path.name: path.read_text(encoding="utf-8") for path in good.iterdir()}
        for _ in range(250):
            name = generator.choice([name for name in contents if name.endswith(".json")])
            edited = json.loads(contents[name])
            break_somewhere(edited, generator, values)
            (good / name).write_text(json.dumps(edited), encoding="utf-8")
            try:
                Tokenizer.from_pretrained(good).encode(["the pump [SEP] <mask> é"], pairs=["x"], max_length=9)
                loaded += 1
            except TokenizerError:
                refused_count += 1
            (good / name).write_text(contents[name], encoding="utf-8")
    assert loaded > 200 and refused_count > 100
