"""Tokenizer files to a WordPiece backend: reads what a file states, checks it, and builds the BERT pipeline from it.

A tokenizer.json can describe any pipeline, regular expressions included, and it comes from anyone. So it is never handed
to the library as it is: the vocabulary, the added tokens and a few settings are taken out of it, the one pipeline that BERT
has is built from them, and the file is refused if it describes another one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minigrad.errors import TokenizerError
from minigrad.files import json_type, listing, parse_json, quoted, read_bounded, surrogate_at

if TYPE_CHECKING:
    import tokenizers

# Ten times the largest published BERT files (multilingual: 1 MB of vocab.txt, 3 MB of tokenizer.json).
MAX_VOCAB_BYTES = 10 * 2**20
MAX_JSON_BYTES = 32 * 2**20
# The time for a word grows with its square; BERT uses 100.
MAX_WORD_CHARS = 1000

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_MATCHING = ("single_word", "lstrip", "rstrip", "normalized", "special")

T = TypeVar("T")


@dataclass(slots=True)
class Settings:
    """What distinguishes one BERT tokenizer from another, apart from its vocabulary."""

    special_tokens: dict[str, str] = field(default_factory=SPECIAL_TOKENS.copy)
    clean_text: bool = True
    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: where text is lowercased
    tokenize_chinese_chars: bool = True
    max_word_chars: int = 100
    model_max_length: int | None = None


def load(directory: Path) -> tuple[tokenizers.Tokenizer, Settings]:
    """The backend and settings of tokenizer.json, or of vocab.txt where there is none.

    What tokenizer_config.json states about letter case, accents, Chinese characters and special tokens is stronger than
    tokenizer.json, as in transformers. Other keys, such as paths and class names, are not followed.

    Raises:
        TokenizerError: a file is missing, broken or describes another kind of tokenizer.
    """
    if not os.path.isdir(directory):  # unlike Path.is_dir, it has an answer for a name that is too long
        message = "no such directory; for a checkpoint's name or id, pass minigrad.io.find_checkpoint(name)"
        raise TokenizerError(directory, message, code="missing-file")
    settings = Settings()
    if (directory / "tokenizer.json").exists():
        path = directory / "tokenizer.json"
        description = _read_object(path)
        _take_settings(path, description, settings)
        _apply_config(directory / "tokenizer_config.json", settings)
        vocab = _json_vocab(path, description)
        backend = _build(path, vocab, _json_added_tokens(path, description), settings)
        _require_bert_pipeline(path, description, backend, settings)
    elif (directory / "vocab.txt").exists():
        path = directory / "vocab.txt"
        _apply_config(directory / "tokenizer_config.json", settings)
        backend = _build(path, _read_vocab(path), [], settings)
    else:
        raise TokenizerError(directory, "holds neither tokenizer.json nor vocab.txt", code="missing-file")
    return backend, settings


def _build(path: Path, vocab: dict[str, int], added: list[dict[str, Any]], settings: Settings) -> tokenizers.Tokenizer:
    """The BERT pipeline over `vocab`. `added` are tokens with id, content and matching rules; the special tokens are always added."""
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        message = f"the tokenizers library, which reads this file, cannot be imported ({error}); install it again: pip install tokenizers"
        raise TokenizerError(path, message, code="missing-library") from error

    special = settings.special_tokens
    added_names = {token["content"] for token in added}
    missing = [token for token in special.values() if token not in vocab and token not in added_names]
    if missing or special["unk_token"] not in vocab:  # WordPiece itself needs the unknown token, to be added is not enough
        names = listing(missing or [special["unk_token"]])
        raise TokenizerError(path, f"the vocabulary lacks the special token(s) {names}", code="special-token")
    for token in (special["cls_token"], special["sep_token"]):
        if token.startswith("$") or ":" in token:  # marks of the library's template language, used below
            raise TokenizerError(path, f"the special token {quoted(token)} must not start with $ or hold a colon", code="special-token")

    backend = Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"], max_input_chars_per_word=settings.max_word_chars))
    for entry in sorted(added, key=lambda entry: int(entry["id"])):
        name = entry["content"]
        backend.add_tokens([AddedToken(name, **{rule: entry[rule] for rule in _MATCHING if rule in entry})])
        if backend.token_to_id(name) != entry["id"]:
            message = f"the added token {quoted(name)} has the id {entry['id']}, which leaves a gap or differs from the vocabulary's"
            raise TokenizerError(path, message, code="vocab-invalid")
    backend.add_special_tokens([token for token in special.values() if token not in added_names])
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=settings.clean_text,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls_token, sep_token = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{cls_token}:0", "$A:0", f"{sep_token}:0"],
        pair=[f"{cls_token}:0", "$A:0", f"{sep_token}:0", "$B:1", f"{sep_token}:1"],
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls_token, sep_token)],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


# ---- vocab.txt


def _read_vocab(path: Path) -> dict[str, int]:
    """One token per line, its id the line's number counted from zero."""
    lines = _read_text(path, MAX_VOCAB_BYTES).split("\n")
    if lines[-1] == "":
        lines.pop()
    vocab: dict[str, int] = {}
    for number, line in enumerate(lines):
        token = line.removesuffix("\r")
        _check_token(path, token, f"line {number + 1}")
        if token in vocab:
            message = f"line {number + 1} repeats the token {quoted(token)} of line {vocab[token] + 1}"
            raise TokenizerError(path, message, code="vocab-invalid")
        vocab[token] = number
    if not vocab:
        raise TokenizerError(path, "the file is empty", code="vocab-invalid")
    return vocab


def _check_token(path: Path, token: str, where: str) -> None:
    """A token must fit on a line of vocab.txt, which `save_pretrained` writes. It may be empty: published files have that."""
    if any(mark in token for mark in "\0\r\n"):
        raise TokenizerError(path, f"{where} holds the token {quoted(token)}, with a NUL or a line end", code="vocab-invalid")
    if surrogate_at(token) is not None:
        raise TokenizerError(path, f"{where} holds half a surrogate pair, which is no character", code="vocab-invalid")


# ---- tokenizer.json


def _json_vocab(path: Path, description: dict[str, Any]) -> dict[str, int]:
    vocab = description["model"].get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise TokenizerError(path, "model.vocab must be an object with token: id", code="vocab-invalid")
    for token, number in vocab.items():
        _check_token(path, token, "model.vocab")
        if type(number) is not int or not 0 <= number < len(vocab):
            message = (
                f"model.vocab gives {quoted(token)} the id {quoted(str(number))}; {len(vocab)} tokens need the ids 0 to {len(vocab) - 1}"
            )
            raise TokenizerError(path, message, code="vocab-invalid")
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError(path, "model.vocab gives one id to two tokens", code="vocab-invalid")
    return vocab


def _json_added_tokens(path: Path, description: dict[str, Any]) -> list[dict[str, Any]]:
    added = description.get("added_tokens") or []
    if not isinstance(added, list):
        raise TokenizerError(path, f"added_tokens must be an array, found {json_type(added)}", code="vocab-invalid")
    for position, token in enumerate(added):
        where = f"added_tokens[{position}]"
        if not isinstance(token, dict):
            raise TokenizerError(path, f"{where} must be an object, found {json_type(token)}", code="vocab-invalid")
        _check_token(path, _get(path, token, "content", str, "a string", where), where)
        _get(path, token, "id", int, "an integer", where)
        for rule in _MATCHING:
            _get(path, {rule: False, **token}, rule, bool, "true or false", where)
    return added


def _take_settings(path: Path, description: dict[str, Any], settings: Settings) -> None:
    # Files of old versions of the library do not name the model's kind.
    model = {"type": "WordPiece", "max_input_chars_per_word": 100} | _section(path, description, "model")
    normalizer = _section(path, description, "normalizer")
    for name, kind, section in (("model", "WordPiece", model), ("normalizer", "BertNormalizer", normalizer)):
        if section.get("type") != kind:
            message = f"{name} must be of type {kind}, as in every BERT tokenizer; found {quoted(str(section.get('type')))}"
            raise TokenizerError(path, message, code="unsupported-pipeline")
    settings.special_tokens["unk_token"] = _get(path, model, "unk_token", str, "a string", "model")
    settings.max_word_chars = _get(path, model, "max_input_chars_per_word", int, "an integer", "model")
    if not 1 <= settings.max_word_chars <= MAX_WORD_CHARS:
        raise TokenizerError(path, f"model.max_input_chars_per_word must lie in 1..{MAX_WORD_CHARS}", code="bad-setting")
    for attribute, key in (
        ("clean_text", "clean_text"),
        ("do_lower_case", "lowercase"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ):
        setattr(settings, attribute, _get(path, normalizer, key, bool, "true or false", "normalizer"))
    if normalizer.get("strip_accents") is not None:
        settings.strip_accents = _get(path, normalizer, "strip_accents", bool, "true, false or null", "normalizer")


def _section(path: Path, description: dict[str, Any], name: str) -> dict[str, Any]:
    section = description.get(name)
    if not isinstance(section, dict):
        raise TokenizerError(path, f"{name} must be an object, found {json_type(section)}", code="unsupported-pipeline")
    return section


def _require_bert_pipeline(path: Path, description: dict[str, Any], backend: tokenizers.Tokenizer, settings: Settings) -> None:
    """Refuse a file whose other sections describe anything else than the pipeline that was built."""
    built = json.loads(backend.to_str())
    cls_token, sep_token = settings.special_tokens["cls_token"], settings.special_tokens["sep_token"]
    pairs = {"sep": [sep_token, backend.token_to_id(sep_token)], "cls": [cls_token, backend.token_to_id(cls_token)]}
    accepted = {
        "pre_tokenizer": [built["pre_tokenizer"]],
        "post_processor": [built["post_processor"], {"type": "BertProcessing", **pairs}],  # two spellings of the same
        "decoder": [built["decoder"]],
    }
    for name, sections in accepted.items():
        if description.get(name) not in sections:
            message = f"{name} is not the one of BERT; minigrad reads tokenizers of BERT models only"
            raise TokenizerError(path, message, code="unsupported-pipeline")
    if description["model"].get("continuing_subword_prefix", "##") != "##":
        raise TokenizerError(path, 'model.continuing_subword_prefix must be "##"', code="unsupported-pipeline")


# ---- tokenizer_config.json


def _apply_config(path: Path, settings: Settings) -> None:
    """Let the tokenizer_config.json, where there is one, speak on letter case, accents, Chinese characters and special tokens."""
    if not path.exists():
        return
    config = _read_object(path)
    for attribute in ("do_lower_case", "tokenize_chinese_chars"):
        if attribute in config:
            setattr(settings, attribute, _get(path, config, attribute, bool, "true or false"))
    if "strip_accents" in config:
        accents = config["strip_accents"]
        settings.strip_accents = None if accents is None else _get(path, config, "strip_accents", bool, "true, false or null")
    for role in SPECIAL_TOKENS:
        if config.get(role) is None:
            continue
        # transformers writes either the token or an object that describes it.
        holder, key = (config[role], "content") if isinstance(config[role], dict) else (config, role)
        settings.special_tokens[role] = _get(path, holder, key, str, "a string")
    if isinstance(config.get("model_max_length"), int):
        settings.model_max_length = config["model_max_length"]


# ---- reading


def _read_text(path: Path, limit: int) -> str:
    raw = read_bounded(path, limit, TokenizerError, "vocab-limit")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TokenizerError(path, f"not UTF-8 (byte {error.start}, line {line})", code="not-utf8") from None


def _read_object(path: Path) -> dict[str, Any]:
    text = _read_text(path, MAX_JSON_BYTES)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise TokenizerError(path, f"not valid JSON: {error}", code="bad-json") from None
    if not isinstance(value, dict):
        raise TokenizerError(path, f"must hold a JSON object, found {json_type(value)}", code="bad-json")
    return value


def _get(path: Path, section: dict[str, Any], key: str, kind: type[T], words: str, where: str = "") -> T:
    """The value of `key`, which must be of `kind` exactly: to Python, true is an integer."""
    value = section.get(key)
    if type(value) is not kind:
        name = f"{where}.{key}" if where else key
        raise TokenizerError(path, f"{name} must be {words}, found {json_type(value)}", code="bad-setting")
    return value
