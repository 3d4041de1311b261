"""The smaller tokenizer files: tokenizer_config.json, special_tokens_map.json and added_tokens.json, in which versions of transformers said
the same things in different places.

Only fixed file names of one directory are opened, and keys that name classes, files or code are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigrad.data import _tokenizer_vocab as vocabularies
from minigrad.errors import TokenizerError
from minigrad.files import json_type, listing, quoted

BERT_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA_TOKENS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
    "bos_token": "<s>",
    "eos_token": "</s>",
}
SPECIAL_TOKENS = {"WordPiece": BERT_TOKENS, "BPE": ROBERTA_TOKENS, "Unigram": ROBERTA_TOKENS}
ROLES = tuple(ROBERTA_TOKENS)
EXTRA_KEYS = ("extra_special_tokens", "additional_special_tokens")
"""The key of special tokens without a role, in transformers 5 and in earlier versions."""
CONFIG_NAME = "tokenizer_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", CONFIG_NAME, "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""All files of a tokenizer that are read."""
# transformers never writes these keys, but opens the files they name if the directory lacks them.
FILE_KEYS = {"vocab_file": ("vocab.txt", "vocab.json", "sentencepiece.bpe.model"), "merges_file": ("merges.txt",)}
SIDES = ("right", "left")


@dataclass(frozen=True, slots=True)
class Settings:
    """A tokenizer's settings beyond its pipeline."""

    special_tokens: dict[str, str]
    extra_special_tokens: tuple[str, ...] = ()
    tokenizer_class: str | None = None
    model_max_length: int | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    """Kept only to be saved again: minigrad does not pad."""


def read_config(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the special tokens from special_tokens_map.json, where older versions keep them."""
    path = directory / CONFIG_NAME
    config = vocabularies.read_object(path) if path.exists() else {}
    for key, names in FILE_KEYS.items():
        if config.get(key) is not None and config[key] not in names:
            message = f"{key} names the file {quoted(config[key])}; only {listing(names)} of the same directory is read. Remove the key"
            raise TokenizerError(path, message, code="path-escapes-model-dir")
    for role in ROLES:
        if config.get(role) is not None:
            _content(path, config[role], role)
    map_path = directory / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and map_path.exists():
        stated = vocabularies.read_object(map_path)
        for role in ROLES:
            if stated.get(role) is not None:
                _content(map_path, stated[role], role)
                config[role] = stated[role]
        if not any(config.get(key) for key in EXTRA_KEYS):
            config |= {key: stated[key] for key in EXTRA_KEYS if key in stated}
    return config


def settings_of(path: Path, config: dict[str, Any], special: dict[str, str], extra: list[dict[str, Any]]) -> Settings:
    name = config.get("tokenizer_class")
    return Settings(
        special,
        tuple(token["content"] for token in extra),
        name if isinstance(name, str) else None,
        _max_length(path, config),
        *(_side(path, config, key) for key in ("truncation_side", "padding_side")),
    )


def role_tokens(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens stated in the files, by role."""
    tokens = {role: config[role] for role in ROLES if config.get(role) is not None}
    return {role: str(token["content"] if isinstance(token, dict) else token) for role, token in tokens.items()}


def rules_of(config: dict[str, Any], role: str) -> dict[str, Any] | None:
    """The matching rules of a role's token, if the files state them."""
    return config[role] if isinstance(config.get(role), dict) else None


def extra_special_tokens(path: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The special tokens without a role, in order, each with its matching rules."""
    found: dict[str, dict[str, Any]] = {}
    for key in EXTRA_KEYS:
        stated = config.get(key) or []
        tokens = list(stated.values()) if isinstance(stated, dict) else stated
        if not isinstance(tokens, list):
            raise TokenizerError(path, f"{key} must be an array of tokens, found {json_type(tokens)}", code="bad-setting")
        for token in tokens:
            rules = token if isinstance(token, dict) else {"content": _content(path, token, key)}
            checked = vocabularies.check_rules(path, {**rules, "special": True}, key)
            found[checked["content"]] = checked
    return list(found.values())


def read_added_tokens(directory: Path, config: dict[str, Any], stated: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The added tokens: those `stated` in tokenizer.json, and those of tokenizer_config.json, or of added_tokens.json in older directories.

    If a token is stated twice, tokenizer_config.json takes precedence over tokenizer.json, and that over added_tokens.json.
    """
    path, decoder = directory / CONFIG_NAME, config.get("added_tokens_decoder")
    if decoder is not None:
        if not isinstance(decoder, dict) or not all(isinstance(token, dict) for token in decoder.values()):
            raise TokenizerError(path, "added_tokens_decoder must be an object with id: token", code="vocab-invalid")
        # An id that is not a number is kept as it is, for the check to refuse.
        tokens = [{**token, "id": int(key) if key.isascii() and key.isdigit() and len(key) < 10 else key} for key, token in decoder.items()]
        return _merged(directory / "tokenizer.json", stated, vocabularies.check_added(path, tokens, "added_tokens_decoder"))
    path = directory / "added_tokens.json"
    if not path.exists():
        return stated
    special = {*role_tokens(config).values(), *(token["content"] for token in extra_special_tokens(directory / CONFIG_NAME, config))}
    tokens = [{"content": token, "id": number, "special": token in special} for token, number in vocabularies.read_object(path).items()]
    return _merged(path, vocabularies.check_added(path, tokens, "the file"), stated)


def _merged(path: Path, weaker: list[dict[str, Any]], stronger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = {token["content"]: token["id"] for token in stronger}
    for token in weaker:
        if ids.get(token["content"], token["id"]) != token["id"]:
            message = (
                f"the added token {quoted(token['content'])} has the id {token['id']} here and {ids[token['content']]} in another file"
            )
            raise TokenizerError(path, message, code="vocab-invalid")
    return [*(token for token in weaker if token["content"] not in ids), *stronger]


def _content(path: Path, token: Any, role: str) -> str:
    """The content of a special token, which is a string or an object with content and matching rules."""
    if isinstance(token, dict):
        return str(vocabularies.get(path, token, "content", str, "a string", role))
    return str(vocabularies.get(path, {role: token}, role, str, "a string"))


def _max_length(path: Path, config: dict[str, Any]) -> int | None:
    """The maximum length; None if unlimited, for which transformers writes 10**30. The first versions called the key max_len."""
    key = "model_max_length" if config.get("model_max_length") is not None else "max_len"
    length = vocabularies.get(path, config, key, (int, float, type(None)), "a number")
    return None if length is None or not 0 < length < 2**31 or length != int(length) else int(length)


def _side(path: Path, config: dict[str, Any], key: str) -> str:
    side = config.get(key)
    if side is not None and side not in SIDES:
        raise TokenizerError(path, f"{key} must be one of {listing(SIDES)}, found {quoted(side)}", code="bad-setting")
    return side or SIDES[0]
