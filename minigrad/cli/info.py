"""`python -m minigrad info`: what a model directory holds and what would be loaded, from configuration and headers alone."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from minigrad.data import Tokenizer
from minigrad.data.tokenization import TOKENIZER_FILES
from minigrad.errors import TokenizerError
from minigrad.files import quoted
from minigrad.io import find_checkpoint
from minigrad.io.weights import READERS
from minigrad.models.auto import HEADS, forecast, read_family
from minigrad.models.config import CONFIG_NAME
from minigrad.models.pretrained import TENSORFLOW_CONFIG_NAME
from minigrad.models.sentence import MODULES_NAME, read_settings

DESCRIPTION = "Prints family, class, heads, parameters, dtype, files and tokenizer of a model directory. Reads no weights, only headers."
STATUS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="DIR", help="a model directory, a Hugging Face id, or a named checkpoint")
    parser.add_argument("--head", choices=list(HEADS), metavar="HEAD", help=f"instead of the file's own: {', '.join(HEADS)}")


def run(options: argparse.Namespace) -> int:
    directory = find_checkpoint(options.model)
    found = forecast(directory, options.head)
    _, config, _ = read_family(directory)
    stated = config.get("dtype", config.get("torch_dtype"))
    lines = [
        ("directory", str(directory)),
        ("family", quoted(config.get("model_type", "bert")).strip("'")),
        ("class", found.cls.__name__),
        ("heads", ", ".join(found.heads)),
        ("parameters", f"{found.num_parameters:,}"),
        ("read as", ", ".join(f"{dtype} ({count:,} numbers)" for dtype, count in found.stored.items())),
        *([("stored as", f"{quoted(stated)} (config.json)")] if stated is not None else []),
        ("tokenizer", _tokenizer(directory)),
        *([("sentences", _sentences(directory))] if os.path.lexists(directory / MODULES_NAME) else []),
    ]
    for name, value in lines:
        print(f"{name:<12}{value}")
    files = _files(directory)
    print(f"{'size':<12}{_size(sum(files.values()))} in {len(files)} files")
    for name, size in files.items():
        read = "  <- weights read from here" if Path(found.report.path).name == name else ""
        print(f"{'':<12}{_size(size):>10}  {name if name.isprintable() else quoted(name)}{read}")
    print(found.report)
    return 0


def _tokenizer(directory: Path) -> str:
    try:
        tokenizer = Tokenizer.from_pretrained(directory)
    except TokenizerError as error:
        return f"none that can be used: {error}"
    longest = "" if tokenizer.model_max_length is None else f", texts of up to {tokenizer.model_max_length} tokens"
    return f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens{longest}"


def _sentences(directory: Path) -> str:
    settings = read_settings(directory)
    return f"{settings.pooling} pooling{', normalised' if settings.normalise else ''}, texts cut at {settings.max_length} tokens"


def _files(directory: Path) -> dict[str, int]:
    """The sizes of the files that minigrad looks for by name, and of shards and data files beside them."""
    known = {CONFIG_NAME, TENSORFLOW_CONFIG_NAME, MODULES_NAME, *READERS, *TOKENIZER_FILES}
    found = {}
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_file() and (entry.name in known or entry.name.endswith((".safetensors", ".bin")) or ".ckpt.data-" in entry.name):
            found[entry.name] = entry.stat().st_size
    return found


def _size(size: float) -> str:
    """With three digits; 1 KB = 1000 bytes."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
