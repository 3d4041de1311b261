"""Vocabularies, merges and added tokens: read from plain files, or checked as stated in a tokenizer.json.

An id becomes a row of an embedding table, so n tokens must have the ids 0 to n - 1, each once.
"""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Any

from minigrad.errors import TokenizerError
from minigrad.files import json_type, parse_json, quoted, read_bounded, surrogate_at

# Ten times the largest published vocab.txt (multilingual BERT, 1 MB); three times the largest tokenizer.json (XLM-R, 9 MB).
MAX_VOCAB_BYTES = 10 * 2**20
MAX_JSON_BYTES = 32 * 2**20
# Twice the vocabulary of XLM-R, the largest supported. A JSON value of MAX_JSON_PARTS parts fits into 256 MB.
MAX_TOKENS = 500_000
MAX_JSON_PARTS = 4 * MAX_TOKENS
# The longest tokens of published files are runs of 128 spaces, dashes or bytes. Unigram's time per character grows with this limit.
MAX_TOKEN_CHARS = 512
MAX_SCORE = 1e6  # of log probabilities, so that no sum over a text overflows
MAX_ADDED_TOKENS = 10_000
MAX_ADDED_CHARS = 2**18

MATCHING = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_text(path: Path, limit: int) -> str:
    raw = read_bounded(path, limit, TokenizerError, "vocab-limit")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TokenizerError(path, f"not UTF-8 (byte {error.start}, line {line})", code="not-utf8") from None


def read_object(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_JSON_BYTES)
    if sum(map(text.count, ",:[{")) > MAX_JSON_PARTS:
        raise TokenizerError(path, f"holds more than {MAX_JSON_PARTS} values, which no such file needs", code="vocab-limit")
    try:
        value = parse_json(text)
    except ValueError as error:
        raise TokenizerError(path, f"not valid JSON: {error}", code="bad-json") from None
    if not isinstance(value, dict):
        raise TokenizerError(path, f"must hold a JSON object, found {json_type(value)}", code="bad-json")
    return value


def get(path: Path, section: dict[str, Any], key: str, kind: type | tuple[type, ...], words: str, where: str = "") -> Any:
    """The value of `key`, whose type must be exactly `kind`: in Python, True is an int."""
    value = section.get(key)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        name = f"{where}.{key}" if where else key
        raise TokenizerError(path, f"{name} must be {words}, found {json_type(value)}", code="bad-setting")
    return value


# ---- plain files


def read_vocab_txt(path: Path) -> dict[str, int]:
    """Read one token per line; its id is the line number, counted from zero."""
    vocab: dict[str, int] = {}
    for number, line in enumerate(_lines(path)):
        token = line.removesuffix("\r")
        _check_token(path, token, f"line {number + 1}")
        if token in vocab:
            message = f"line {number + 1} repeats the token {quoted(token)} of line {vocab[token] + 1}"
            raise _invalid(path, message)
        vocab[token] = number
    if not vocab:
        raise _invalid(path, "the file is empty")
    return vocab


def read_merges_txt(path: Path) -> list[list[str]]:
    """Read the merges of byte-pair encoding: two tokens per line, most frequent first. The first line may be a version comment."""
    merges: list[list[str]] = []
    for number, line in enumerate(_lines(path)):
        if number == 0 and line.startswith("#version"):
            continue
        parts = line.removesuffix("\r").split(" ")
        if len(parts) != 2 or "" in parts:
            raise _invalid(path, f"line {number + 1} must hold two tokens with one space between them, found {quoted(line)}")
        merges.append(parts)
    return merges


def _lines(path: Path) -> list[str]:
    """The lines, split only at line feeds: Unicode's other line ends occur in tokens."""
    text = read_text(path, MAX_VOCAB_BYTES)
    if text.count("\n") > MAX_TOKENS:  # before the lines take memory
        raise TokenizerError(path, f"more than {MAX_TOKENS} lines", code="vocab-limit")
    return text.removesuffix("\n").split("\n") if text else []


# ---- tokenizer.json and vocab.json


def check_vocab(path: Path, vocab: Any, name: str) -> dict[str, int]:
    if not isinstance(vocab, dict) or not vocab:
        raise _invalid(path, f"{name} must be an object with token: id")
    _check_count(path, vocab, name)
    for token, number in vocab.items():
        _check_token(path, token, name)
        if type(number) is not int or not 0 <= number < len(vocab):
            message = f"{name} gives {quoted(token)} the id {quoted(str(number))}; {len(vocab)} tokens need the ids 0 to {len(vocab) - 1}"
            raise _invalid(path, message)
    if len(set(vocab.values())) != len(vocab):
        raise _invalid(path, f"{name} gives one id to two tokens")
    return vocab


def check_pieces(path: Path, pieces: Any) -> dict[str, int]:
    """The token ids of a Unigram vocabulary, which is an array of [token, log probability]."""
    if not isinstance(pieces, list) or not pieces:
        raise _invalid(path, "model.vocab must be an array of [token, score]")
    _check_count(path, pieces, "model.vocab")
    vocab: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        where = f"model.vocab[{number}]"
        if not (isinstance(piece, list) and len(piece) == 2 and isinstance(piece[0], str) and type(piece[1]) in (int, float)):
            raise _invalid(path, f"{where} must be [token, score]")
        token, score = piece
        _check_token(path, token, where)
        if not token or token in vocab:
            raise _invalid(path, f"{where} is the empty token or repeats one: {quoted(token)}")
        if abs(score) > MAX_SCORE:
            raise _invalid(path, f"{where} has a score that is no logarithm of a probability")
        vocab[token] = number
    return vocab


def check_merges(path: Path, merges: Any, vocab: dict[str, int], name: str) -> list[list[str]]:
    """The merges as pairs of tokens whose concatenation is a token; each is stated as an array or as a string with a space in between."""
    if not isinstance(merges, list):
        raise _invalid(path, f"{name} must be an array")
    _check_count(path, merges, name)
    pairs: list[list[str]] = []
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(token, str) for token in pair):
            raise _invalid(path, f"{name}[{number}] must be two tokens")
        unknown = [token for token in (*pair, "".join(pair)) if token not in vocab]
        if unknown:
            raise _invalid(path, f"{name}[{number}] needs the token {quoted(unknown[0])}, which is not in the vocabulary")
        pairs.append(pair)
    return pairs


def check_added(path: Path, added: Any, name: str = "added_tokens") -> list[dict[str, Any]]:
    """The added tokens, sorted by id, each with all matching rules."""
    if not isinstance(added, list):
        raise _invalid(path, f"{name} must be an array, found {json_type(added)}")
    checked = [check_rules(path, token, f"{name}[{i}]") for i, token in enumerate(added)]
    for i, token in enumerate(checked):
        token["id"] = get(path, added[i], "id", int, "an integer", f"{name}[{i}]")
    return sorted(checked, key=lambda token: int(token["id"]))


def check_rules(path: Path, token: Any, where: str) -> dict[str, Any]:
    """The content and the matching rules of one added token; special tokens are by default matched in the text before normalisation."""
    if not isinstance(token, dict):
        raise _invalid(path, f"{where} must be an object, found {json_type(token)}")
    content = get(path, token, "content", str, "a string", where)
    _check_token(path, content, where)
    rules = {**dict.fromkeys(MATCHING, False), "normalized": not token.get("special", False)}
    return {"content": content, **{rule: get(path, {**rules, **token}, rule, bool, "true or false", where) for rule in MATCHING}}


def check_added_ids(path: Path, added: list[dict[str, Any]], vocab: dict[str, int]) -> None:
    """Check that added tokens in the vocabulary have their id there, and that the others follow the vocabulary without a gap."""
    if len(added) > MAX_ADDED_TOKENS or sum(len(token["content"]) for token in added) > MAX_ADDED_CHARS:
        raise TokenizerError(
            path, f"more than {MAX_ADDED_TOKENS} added tokens, or {MAX_ADDED_CHARS} characters in them", code="vocab-limit"
        )
    following = len(vocab)
    seen: set[str] = set()
    for token in added:
        content = token["content"]
        if not content or content in seen:
            raise _invalid(path, f"the added token {quoted(content)} is empty or stands twice")
        seen.add(content)
        expected = vocab.get(content, following)
        if token["id"] != expected:
            message = (
                f"the added token {quoted(content)} has the id {quoted(token['id'])}, which leaves a gap or differs from the vocabulary's"
            )
            raise _invalid(path, message)
        following += expected == following


def _check_token(path: Path, token: str, where: str) -> None:
    """A token must fit on a line of vocab.txt, which saving writes. It may be empty, as in some published files."""
    if any(mark in token for mark in "\0\r\n"):
        raise _invalid(path, f"{where} holds the token {quoted(token)}, with a NUL or a line end")
    if surrogate_at(token) is not None:
        raise _invalid(path, f"{where} holds half a surrogate pair, which is no character")
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenizerError(path, f"{where} holds a token of more than {MAX_TOKEN_CHARS} characters", code="vocab-limit")


def _check_count(path: Path, entries: Sized, name: str) -> None:
    if len(entries) > MAX_TOKENS:
        raise TokenizerError(path, f"{name} has more than {MAX_TOKENS} entries", code="vocab-limit")


def _invalid(path: Path, message: str) -> TokenizerError:
    return TokenizerError(path, message, code="vocab-invalid")
