"""Builds a backend of the `tokenizers` library from tokenizer files, using only what has been checked.

Only fixed file names of one directory are opened. A tokenizer.json is never passed to the library as it is: a new description is assembled
from the parts that passed the checks and from the settings in the smaller files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigrad.data import _tokenizer_components as components
from minigrad.data import _tokenizer_config as configuration
from minigrad.data import _tokenizer_vocab as vocabularies
from minigrad.data._tokenizer_config import BERT_TOKENS, CONFIG_NAME, SPECIAL_TOKENS, Settings
from minigrad.errors import TokenizerError
from minigrad.files import listing, quoted

if TYPE_CHECKING:
    import tokenizers

# Keys of tokenizer_config.json that are settings of the pipeline.
NORMALIZER_KEYS = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars", "strip_accents": "strip_accents"}
BYTE_LEVEL_KEYS = ("add_prefix_space", "trim_offsets")


def load(directory: Path) -> tuple[tokenizers.Tokenizer, Settings]:
    """The backend and settings from tokenizer.json, else from vocab.txt, else from vocab.json and merges.txt.

    tokenizer_config.json and special_tokens_map.json override tokenizer.json on letter case, accents, Chinese characters, the leading space
    and special tokens, as in transformers. Keys that name classes or code are ignored.

    Raises:
        TokenizerError: a file is missing, broken or describes another kind of tokenizer.
    """
    if not os.path.isdir(directory):  # unlike Path.is_dir, it does not raise for a name that is too long
        message = "no such directory; for a checkpoint's name or id, pass minigrad.io.find_checkpoint(name)"
        raise TokenizerError(directory, message, code="missing-file")
    config_path = directory / CONFIG_NAME
    config = configuration.read_config(directory)
    path, description = _description(directory, config)
    kind = description["model"]["type"]
    _apply_config(config_path, config, description)
    vocab = description.pop("vocab")
    special = SPECIAL_TOKENS[kind] | _stated_unk_token(path, description, vocab) | configuration.role_tokens(config)
    extra = configuration.extra_special_tokens(config_path, config)
    ids = _add_special_tokens(path, description, vocab, special, extra, config)
    _set_post_processor(path, description, special, ids, config_path, config)
    backend = _build(path, description, len(vocab.keys() | ids.keys()))
    found = {role: token for role, token in special.items() if token in ids}
    return backend, configuration.settings_of(config_path, config, found, extra)


# ---- the pipeline


def _description(directory: Path, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The file with the vocabulary, and the checked pipeline, whose extra key "vocab" maps every token of the model to its id."""
    path = directory / "tokenizer.json"
    if path.exists():
        description = _checked_pipeline(path, vocabularies.read_object(path))
        description["added_tokens"] = configuration.read_added_tokens(directory, config, description["added_tokens"])
        return path, description
    added = configuration.read_added_tokens(directory, config, [])
    for path in (directory / "vocab.txt", directory / "vocab.json"):
        if path.exists():
            break
    else:
        message = "holds neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt"
        if (directory / "sentencepiece.bpe.model").exists():
            message += "; of its sentencepiece.bpe.model transformers makes a tokenizer.json (save_pretrained)"
        raise TokenizerError(directory, message, code="missing-file")
    if path.name == "vocab.txt":
        return path, _bert_pipeline(vocabularies.read_vocab_txt(path)) | {"added_tokens": added}
    vocab = vocabularies.check_vocab(path, vocabularies.read_object(path), "the file")
    merges_path = directory / "merges.txt"
    merges = vocabularies.check_merges(merges_path, vocabularies.read_merges_txt(merges_path), vocab, "the file")
    return path, _roberta_pipeline(vocab, merges) | {"added_tokens": added}


def _checked_pipeline(path: Path, stated: dict[str, Any]) -> dict[str, Any]:
    kind = components.model_type(path, stated)
    model = stated["model"]
    checked = components.checked_model(path, model, kind)
    if kind == "Unigram":
        vocab = vocabularies.check_pieces(path, model.get("vocab"))
        checked |= {"vocab": model["vocab"], "unk_id": vocabularies.get(path, model, "unk_id", int, "an integer", "model")}
        if not 0 <= checked["unk_id"] < len(vocab):
            raise TokenizerError(path, f"model.unk_id must be one of the {len(vocab)} ids", code="vocab-invalid")
    else:
        vocab = vocabularies.check_vocab(path, model.get("vocab"), "model.vocab")
        checked |= {"vocab": vocab, "unk_token": model.get("unk_token")}
        if kind == "BPE":
            checked["merges"] = vocabularies.check_merges(path, model.get("merges"), vocab, "model.merges")
    sections = {name: components.checked_component(path, name, stated.get(name), kind) for name in components.PIPELINES[kind]}
    added = vocabularies.check_added(path, stated.get("added_tokens") or [])
    return {"model": checked, **sections, "post_processor": stated.get("post_processor"), "added_tokens": added, "vocab": vocab}


def _bert_pipeline(vocab: dict[str, int]) -> dict[str, Any]:
    """The pipeline of BERT, DistilBERT and ELECTRA: uncased, unless a configuration says otherwise."""
    normalizer = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "vocab": vocab,
            "unk_token": BERT_TOKENS["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "vocab": vocab,
    }


def _roberta_pipeline(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    """The pipeline of RoBERTa: byte-level BPE."""
    defaults = {name: default for name, (_, default) in components.MODELS["BPE"].items()}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": None, **defaults},
        "vocab": vocab,
    }


def _apply_config(path: Path, config: dict[str, Any], description: dict[str, Any]) -> None:
    """Override letter case, accents, Chinese characters and the leading space with tokenizer_config.json."""
    if description["model"]["type"] == "WordPiece":
        for key, field in NORMALIZER_KEYS.items():
            if key in config:
                words = "true or false" if key != "strip_accents" else "true, false or null"
                kinds = bool if key != "strip_accents" else (bool, type(None))
                description["normalizer"][field] = vocabularies.get(path, config, key, kinds, words)
    elif description["model"]["type"] == "BPE" and "add_prefix_space" in config:
        description["pre_tokenizer"]["add_prefix_space"] = vocabularies.get(path, config, "add_prefix_space", bool, "true or false")


def _stated_unk_token(path: Path, description: dict[str, Any], vocab: dict[str, int]) -> dict[str, str]:
    """The unknown token that the model itself states, if any; byte-level models need none."""
    model = description["model"]
    if model["type"] == "Unigram":
        return {"unk_token": model["vocab"][model["unk_id"]][0]}
    if model["type"] == "BPE" and model["unk_token"] is None:
        return {}
    return {"unk_token": vocabularies.get(path, model, "unk_token", str, "a string", "model")}


def _add_special_tokens(
    path: Path,
    description: dict[str, Any],
    vocab: dict[str, int],
    special: dict[str, str],
    extra: list[dict[str, Any]],
    config: dict[str, Any],
) -> dict[str, int]:
    """Make every special token an added token, which is recognised in texts; returns the ids of all added tokens."""
    model, added = description["model"], description["added_tokens"]
    names = {token["content"] for token in added}
    missing = [token for role, token in special.items() if role in BERT_TOKENS and token not in vocab and token not in names]
    if model.get("unk_token") is not None:  # the model looks it up in its own vocabulary, so adding it is not enough
        model["unk_token"] = special["unk_token"]
        missing = missing or [token for token in [special["unk_token"]] if token not in vocab]
    if missing:
        raise TokenizerError(path, f"the vocabulary lacks the special token(s) {listing(missing)}", code="special-token")
    wanted = []
    for role, content in special.items():
        if content in vocab or config.get(role) is not None:
            # A RoBERTa token includes the space before its word, so the mask absorbs that space.
            lstrip = role == "mask_token" and model["type"] != "WordPiece"
            rules = configuration.rules_of(config, role) or {"content": content, "lstrip": lstrip}
            wanted.append(vocabularies.check_rules(path, {**rules, "special": True}, role))
    size = len(vocab.keys() | names)
    for token in [*wanted, *extra]:
        if token["content"] not in names:
            added.append(token | {"id": vocab.get(token["content"], size)})
            names.add(token["content"])
            size += token["content"] not in vocab
    added.sort(key=lambda token: int(token["id"]))
    vocabularies.check_added_ids(path, added, vocab)
    return {token["content"]: token["id"] for token in added}


def _set_post_processor(
    path: Path, description: dict[str, Any], special: dict[str, str], ids: dict[str, int], config_path: Path, config: dict[str, Any]
) -> None:
    """Set or check the post-processor, which puts the special tokens around texts."""
    ends = [special["cls_token"], special["sep_token"]]
    for token in ends:
        if token.startswith("$") or ":" in token:  # syntax of the template language in which transformers writes such tokens
            raise TokenizerError(path, f"the special token {quoted(token)} must not start with $ or hold a colon", code="special-token")
    allowed = components.post_processors(*((token, ids[token]) for token in ends))
    if "post_processor" in description:
        description["post_processor"] = components.checked_post_processor(path, description["post_processor"], allowed)
    else:
        description["post_processor"] = allowed[0 if description["model"]["type"] == "WordPiece" else 1]
    if description["post_processor"]["type"] == "RobertaProcessing":
        for key in BYTE_LEVEL_KEYS:
            if key in config:
                description["post_processor"][key] = vocabularies.get(config_path, config, key, bool, "true or false")


def _build(path: Path, description: dict[str, Any], size: int) -> tokenizers.Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        message = f"the tokenizers library, which reads this file, cannot be imported ({error}); install it again: pip install tokenizers"
        raise TokenizerError(path, message, code="missing-library") from error
    description |= {"version": "1.0", "truncation": None, "padding": None}
    try:
        backend = Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library raises bare Exceptions; all known causes were refused above
        raise TokenizerError(path, f"the tokenizers library refuses it: {quoted(str(error))}", code="unsupported-pipeline") from error
    if backend.get_vocab_size(with_added_tokens=True) != size:
        raise TokenizerError(path, "the vocabulary and the added tokens do not fit together", code="vocab-invalid")
    for token in description["added_tokens"]:  # the library matches the normalised token, and panics if that is empty
        if token["normalized"] and backend.normalizer is not None and not backend.normalizer.normalize_str(token["content"]):
            message = f"the added token {quoted(token['content'])} is empty after normalisation"
            raise TokenizerError(path, message, code="vocab-invalid")
    return backend
