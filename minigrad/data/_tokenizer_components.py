"""The components a tokenizer may have: an allow-list of types and their fields, checked before the library sees a file.

A tokenizer.json can describe any pipeline, regular expressions included, and is untrusted. The components listed here are data only, and
none takes more than linear time or lets a text grow without bound. Every other type and every field that is not listed is refused by name:
what is not understood is not run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigrad.data._charsmap import charsmap_fault
from minigrad.errors import TokenizerError
from minigrad.files import json_type, listing, quoted, surrogate_at

# WordPiece's time is quadratic in the length of a word; BERT uses 100.
MAX_WORD_CHARS = 1000
# Of a normalizer's pattern and its replacement; published files insert a space or nothing.
MAX_REPLACEMENT_CHARS = 16
MAX_SEQUENCE = 16


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a component: what its value must be, in words and as a predicate."""

    words: str
    fits: Callable[[Any], bool]
    required: bool = True


def _text(value: Any, shortest: int, longest: int) -> bool:
    return isinstance(value, str) and shortest <= len(value) <= longest and surrogate_at(value) is None


def _pattern(value: Any) -> bool:
    """Whether `value` is a plain string, or the one regular expression in published files, which joins spaces."""
    return value == {"Regex": " {2,}"} or (
        isinstance(value, dict) and list(value) == ["String"] and _text(value["String"], 1, MAX_REPLACEMENT_CHARS)
    )


_FLAG = Field("true or false", lambda value: type(value) is bool)
_MAYBE = Field("true or false", _FLAG.fits, required=False)
_METASPACE = {
    "replacement": Field("one character", lambda value: _text(value, 1, 1)),
    "prepend_scheme": Field('"always", "first" or "never"', lambda value: value in ("always", "first", "never"), required=False),
    "add_prefix_space": _MAYBE,
    "split": _MAYBE,
    "str_rep": Field("one character", lambda value: _text(value, 1, 1), required=False),
}
_BYTE_LEVEL = {"add_prefix_space": _FLAG, "trim_offsets": _FLAG, "use_regex": _MAYBE}

COMPONENTS: dict[str, dict[str, dict[str, Field]]] = {
    "normalizer": {
        "BertNormalizer": {
            "clean_text": _FLAG,
            "handle_chinese_chars": _FLAG,
            "strip_accents": Field("true, false or null", lambda value: value is None or type(value) is bool, required=False),
            "lowercase": _FLAG,
        },
        "Precompiled": {
            "precompiled_charsmap": Field("a character map of SentencePiece in base64", lambda value: not charsmap_fault(value))
        },
        "Replace": {
            "pattern": Field(f'a string of 1 to {MAX_REPLACEMENT_CHARS} characters or the expression " {{2,}}"', _pattern),
            "content": Field(
                f"a string of at most {MAX_REPLACEMENT_CHARS} characters", lambda value: _text(value, 0, MAX_REPLACEMENT_CHARS)
            ),
        },
        "Strip": {"strip_left": _FLAG, "strip_right": _FLAG},
        **{name: {} for name in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents")},
    },
    "pre_tokenizer": {"BertPreTokenizer": {}, "ByteLevel": _BYTE_LEVEL, "WhitespaceSplit": {}, "Metaspace": _METASPACE},
    "decoder": {
        "WordPiece": {"prefix": Field('"##"', lambda value: value == "##"), "cleanup": _FLAG},
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": _METASPACE,
    },
}
_TEXT_NORMALIZERS = ("Precompiled", "Replace", "Strip", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Sequence")
# The components allowed with each model. None: the component may be absent.
PIPELINES: dict[str, dict[str, tuple[str | None, ...]]] = {
    "WordPiece": {"normalizer": ("BertNormalizer",), "pre_tokenizer": ("BertPreTokenizer",), "decoder": ("WordPiece",)},
    "BPE": {"normalizer": (None, *_TEXT_NORMALIZERS), "pre_tokenizer": ("ByteLevel",), "decoder": ("ByteLevel",)},
    "Unigram": {
        "normalizer": (None, *_TEXT_NORMALIZERS),
        "pre_tokenizer": ("Metaspace", "WhitespaceSplit", "Sequence"),
        "decoder": ("Metaspace",),
    },
}
_PARTS_OF_SEQUENCE = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}

# The models' fields other than vocab, merges and the unknown token, each with its default.
MODELS: dict[str, dict[str, tuple[Field, Any]]] = {
    "WordPiece": {
        "continuing_subword_prefix": (Field('"##"', lambda value: value == "##"), "##"),
        "max_input_chars_per_word": (
            Field(f"an integer in 1..{MAX_WORD_CHARS}", lambda value: type(value) is int and 1 <= value <= MAX_WORD_CHARS),
            100,
        ),
    },
    "BPE": {
        "dropout": (Field("null: encoding must not be random", lambda value: value is None), None),
        "continuing_subword_prefix": (Field('null or ""', lambda value: value in (None, "")), None),
        "end_of_word_suffix": (Field('null or ""', lambda value: value in (None, "")), None),
        "fuse_unk": (_FLAG, False),
        "byte_fallback": (_FLAG, False),
        "ignore_merges": (_FLAG, False),
    },
    "Unigram": {"byte_fallback": (_FLAG, False)},
}
_VOCABULARY_FIELDS = {"WordPiece": {"unk_token"}, "BPE": {"unk_token", "merges"}, "Unigram": {"unk_id"}}


def model_type(path: Path, description: dict[str, Any]) -> str:
    """The model's type, inferred for files of old library versions, which do not state it."""
    model = description.get("model")
    if not isinstance(model, dict):
        raise _unsupported(path, f"model must be an object, found {json_type(model)}")
    guess = "BPE" if "merges" in model else "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"
    kind = model.get("type", guess)
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise _unsupported(path, f"model is of type {quoted(kind)}; minigrad reads {listing(PIPELINES)}")
    return kind


def checked_model(path: Path, model: dict[str, Any], kind: str) -> dict[str, Any]:
    """The settings of `model`, except its vocabulary, with defaults for absent ones."""
    unknown = set(model) - set(MODELS[kind]) - _VOCABULARY_FIELDS[kind] - {"type", "vocab"}
    if unknown:
        raise _unsupported(path, f"model has the field(s) {listing(sorted(unknown))}, which minigrad does not know")
    settings: dict[str, Any] = {"type": kind}
    for name, (field, default) in MODELS[kind].items():
        settings[name] = model.get(name, default)
        if not field.fits(settings[name]):
            raise TokenizerError(path, f"model.{name} must be {field.words}", code="bad-setting")
    return settings


def checked_component(path: Path, section: str, value: Any, kind: str) -> Any:
    """The section `value` of a pipeline around a model of type `kind`, after checking that every part is allowed and every field valid."""
    allowed = PIPELINES[kind][section]
    if value is None and None in allowed:
        return None
    if not isinstance(value, dict):
        raise _unsupported(path, f"{section} must be an object, found {json_type(value)}")
    parts_name = _PARTS_OF_SEQUENCE.get(section)
    if value.get("type") != "Sequence" or "Sequence" not in allowed or parts_name is None:
        return _checked_part(path, section, value, section, allowed, kind)
    parts = value.get(parts_name)
    if set(value) != {"type", parts_name} or not isinstance(parts, list) or len(parts) > MAX_SEQUENCE:
        raise _unsupported(path, f"{section} of type 'Sequence' must hold {parts_name}, an array of at most {MAX_SEQUENCE} parts, alone")
    simple = tuple(name for name in allowed if name != "Sequence")
    checked = [_checked_part(path, section, part, f"{section}.{parts_name}[{i}]", simple, kind) for i, part in enumerate(parts)]
    return {"type": "Sequence", parts_name: checked}


def _checked_part(path: Path, section: str, value: Any, where: str, allowed: tuple[str | None, ...], kind: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unsupported(path, f"{where} must be an object, found {json_type(value)}")
    name = value.get("type")
    if not isinstance(name, str) or name not in allowed:
        known = listing(entry for entry in allowed if entry is not None)
        raise _unsupported(path, f"{where} is of type {quoted(name)}; beside a {kind} model minigrad runs {known}")
    fields = COMPONENTS[section][name]
    unknown = set(value) - set(fields) - {"type"}
    if unknown:
        raise _unsupported(path, f"{where} has the field(s) {listing(sorted(unknown))}, which minigrad does not know")
    for key, field in fields.items():
        if (key in value or field.required) and not field.fits(value.get(key)):
            raise TokenizerError(path, f"{where}.{key} must be {field.words}", code="bad-setting")
    return value


def checked_post_processor(path: Path, section: Any, allowed: list[dict[str, Any]]) -> dict[str, Any]:
    """The post-processor `section`. Refuses one that puts special tokens anywhere but where the models expect them."""
    if section not in allowed:
        kind = section.get("type") if isinstance(section, dict) else None
        raise _unsupported(path, f"post_processor, of type {quoted(kind)}, must frame texts with cls_token and sep_token and their ids")
    return allowed[allowed.index(section)]  # ours: the file's compares equal even with false for 0


def post_processors(cls: tuple[str, int], sep: tuple[str, int]) -> list[dict[str, Any]]:
    """All accepted post-processors: `[CLS] a [SEP]`, for a pair `[CLS] a [SEP] b [SEP]` or `<s> a </s></s> b </s>`.

    The first in the list is BERT's, the second RoBERTa's.
    """
    ends = {"sep": list(sep), "cls": list(cls)}
    flags = [(trim, prefix) for trim in (True, False) for prefix in (False, True)]
    roberta = [{"type": "RobertaProcessing", **ends, "trim_offsets": trim, "add_prefix_space": prefix} for trim, prefix in flags]
    templates = [_template(cls, sep, doubled, second) for doubled, second in ((False, 1), (True, 0), (False, 0))]
    return [templates[0], *roberta, *templates[1:], {"type": "BertProcessing", **ends}]


def _template(cls: tuple[str, int], sep: tuple[str, int], doubled: bool, second: int) -> dict[str, Any]:
    def special(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [special(cls[0], 0), text("A", 0), special(sep[0], 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *([special(sep[0], 0)] if doubled else []), text("B", second), special(sep[0], second)],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (cls, sep)},
    }


def _unsupported(path: Path, message: str) -> TokenizerError:
    return TokenizerError(path, message, code="unsupported-pipeline")
