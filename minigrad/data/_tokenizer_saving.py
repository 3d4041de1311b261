"""Serialises a tokenizer to the files that other programs read: tokenizer.json, and the simpler ones of older versions."""

from __future__ import annotations

import json
from typing import Any

from minigrad.data._tokenizer_config import Settings
from minigrad.data._tokenizer_files import BYTE_LEVEL_KEYS, NORMALIZER_KEYS
from minigrad.data._tokenizer_vocab import MATCHING

# Classes of transformers equivalent to this model's usual pipeline; the first is the default if the files named none.
CLASSES = {
    "WordPiece": ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizerFast"),
    "BPE": ("RobertaTokenizer", "RobertaTokenizerFast"),
    "Unigram": ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast"),
}
GENERAL_CLASS = "PreTrainedTokenizerFast"  # uses tokenizer.json as it is


def files_of(description: str, settings: Settings) -> dict[str, str]:
    """The content of each file by name. `description`: the library's serialisation of the tokenizer."""
    pipeline = json.loads(description)
    kind = pipeline["model"]["type"]
    config: dict[str, Any] = {"tokenizer_class": _class_name(pipeline, settings), **settings.special_tokens}
    if kind == "WordPiece":
        config |= {key: pipeline["normalizer"][field] for key, field in NORMALIZER_KEYS.items()}
    elif kind == "BPE":
        config |= {key: pipeline["pre_tokenizer"][key] for key in BYTE_LEVEL_KEYS}
        config |= {key: pipeline["post_processor"][key] for key in BYTE_LEVEL_KEYS if key in pipeline["post_processor"]}
    if settings.model_max_length is not None:
        config["model_max_length"] = settings.model_max_length
    config |= {key: side for key in ("truncation_side", "padding_side") if (side := getattr(settings, key)) != "right"}
    if settings.extra_special_tokens:
        config["additional_special_tokens"] = list(settings.extra_special_tokens)
    added = pipeline["added_tokens"]
    config["added_tokens_decoder"] = {str(token["id"]): {key: token[key] for key in ("content", *MATCHING)} for token in added}
    return {
        "tokenizer.json": _json_text(pipeline),
        **_vocabulary_files(pipeline),
        "tokenizer_config.json": _json_text(config),
        "special_tokens_map.json": _json_text(settings.special_tokens),
    }


def _vocabulary_files(pipeline: dict[str, Any]) -> dict[str, str]:
    """The plain-text vocabulary files. Unigram has none: its only other format is SentencePiece's binary one."""
    model = pipeline["model"]
    if model["type"] == "Unigram":
        return {}
    vocab = model["vocab"] | {token["content"]: token["id"] for token in pipeline["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    if model["type"] == "WordPiece":
        return {"vocab.txt": "".join(f"{token}\n" for token in tokens)}
    merges = "".join(f"{first} {second}\n" for first, second in model["merges"])
    return {"vocab.json": _json_text({token: vocab[token] for token in tokens}), "merges.txt": f"#version: 0.2\n{merges}"}


def _class_name(pipeline: dict[str, Any], settings: Settings) -> str:
    """The class for transformers to load; a family's class builds its usual pipeline and takes only the vocabulary from tokenizer.json."""
    kind = pipeline["model"]["type"]
    if kind == "WordPiece":
        usual = True
    elif kind == "BPE":
        usual = pipeline["normalizer"] is None and pipeline["post_processor"]["type"] == "RobertaProcessing"
    else:
        normalizer, before = pipeline["normalizer"], pipeline["pre_tokenizer"]
        parts = [part["type"] for part in before.get("pretokenizers", [])]
        usual = (normalizer is None or normalizer["type"] == "Precompiled") and parts == ["WhitespaceSplit", "Metaspace"]
    if not usual:
        return GENERAL_CLASS
    known = CLASSES[kind]
    return settings.tokenizer_class if settings.tokenizer_class in known else known[0]


def _json_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
