"""`python -m minigrad convert`: write a checkpoint of any format that minigrad reads as safetensors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from minigrad.data import Tokenizer
from minigrad.data.tokenization import TOKENIZER_FILES
from minigrad.errors import ArgumentError, ConfigError, TokenizerError, WeightFileError
from minigrad.files import as_path, listing, quoted, read_bounded, write_text
from minigrad.io import find_checkpoint
from minigrad.models.auto import HEADS, forecast, load
from minigrad.models.config import MAX_JSON_BYTES
from minigrad.models.sentence import SENTENCE_FILES

DESCRIPTION = (
    "Reads safetensors, pytorch_model.bin or a TensorFlow checkpoint and writes model.safetensors, config.json and tokenizer files under "
    "the published names; prints what was read, renamed and left out. What belongs to another head than the one chosen is left out."
)
STATUS = ""

DTYPES = {"float16": "float16", "bfloat16": "bfloat16", "float32": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a model directory, a Hugging Face id, or a named checkpoint")
    parser.add_argument(
        "target", metavar="DST", help="the directory to write, another one than SRC; what it holds of an older model is replaced"
    )
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of the weights that are written (default float32)")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="such as 500MB; larger weights become several files")
    parser.add_argument("--head", choices=list(HEADS), metavar="HEAD", help=f"where config.json does not say: {', '.join(HEADS)}")


def run(options: argparse.Namespace) -> int:
    source, target = find_checkpoint(options.source), as_path(options.target)
    if target.exists() and os.path.samefile(source, target):
        raise ArgumentError(f"DST is SRC ({quoted(str(target))}): name another directory, so that the original stays")
    if target.exists() and not target.is_dir():
        raise ArgumentError(f"DST: {target} is a file: name a directory")
    # Everything is read before anything is written.
    companions = {name: _text(source / name) for name in SENTENCE_FILES if os.path.lexists(source / name)}
    tokenizer = _tokenizer(source)
    model = _model(source, options.head)
    for name in (*SENTENCE_FILES, *TOKENIZER_FILES):
        if os.path.lexists(target / name) and (name not in companions if name in SENTENCE_FILES else tokenizer is None):
            raise ArgumentError(f"DST holds {name} of another model, for which SRC has nothing: name another directory, or remove it")
    try:
        model.save_pretrained(target, max_shard_size=options.max_shard_size, dtype=DTYPES[options.dtype])
        for name, text in companions.items():
            (target / name).parent.mkdir(exist_ok=True)
            write_text(target / name, text)
    except OSError as error:
        raise WeightFileError(target, f"cannot be written: {error.strerror or error}", code="write-failed") from error
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
    print(model.load_report)
    if absent := [part for part in model.optional if getattr(model, part) is None]:
        print(f"  left out, since SRC has none: the {', '.join(absent)}")
    words = "with its tokenizer" if tokenizer is not None else "SRC has no tokenizer files, so DST has none"
    print(f"{target}: {type(model).__name__} of {model.num_parameters():,} parameters as {options.dtype}, {words}")
    return 0


def _model(source: Path, head: str | None) -> Any:
    """The model. Raises: WeightFileError if the checkpoint lacks a part of it."""
    found = forecast(source, head)
    if missing := found.report.newly_initialised:
        message = f"does not hold {listing(missing)} of {found.cls.__name__}; choose another --head, such as base"
        raise WeightFileError(found.report.path, message, code="no-head")
    return load(source, head)


def _tokenizer(source: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_pretrained(source)
    except TokenizerError as error:
        if error.code == "missing-file":
            return None
        raise


def _text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_JSON_BYTES, ConfigError, "config-limit").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"not UTF-8: {error.reason}", code="bad-json") from None
