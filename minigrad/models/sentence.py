"""Sentence embeddings: an encoder whose token vectors are pooled into one for each text, as sentence-transformers publishes them.

modules.json and 1_Pooling/config.json say how to pool, and whether to normalise the result. Only files of these names are opened: a
modules.json names classes and folders, and following those would let a checkpoint choose what is run and read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary, proxy

from minigrad import functional as F
from minigrad.backend import Array
from minigrad.creation import zeros
from minigrad.data import Tokenizer, batches_by_length
from minigrad.data.by_length import BATCH_TOKENS
from minigrad.errors import ArgumentError, ConfigError, WeightFileError
from minigrad.files import as_path, json_type, listing, quoted, write_text
from minigrad.io import find_checkpoint
from minigrad.models.auto import load, max_tokens
from minigrad.models.config import MAX_SIZE, read_json, read_json_object
from minigrad.models.pretrained import PretrainedModel
from minigrad.nn import Module
from minigrad.packing import PackedTokens, Packing
from minigrad.tensor import Tensor
from minigrad.workers import Replicas

MODULES_NAME = "modules.json"
POOLING_NAME = "1_Pooling/config.json"
LIMITS_NAME = "sentence_bert_config.json"
SENTENCE_FILES = (MODULES_NAME, POOLING_NAME, LIMITS_NAME, "config_sentence_transformers.json")
"""Files that a checkpoint of sentence-transformers has in addition to a model's own."""

_PACKAGE = "sentence_transformers"
_STAGES = ("Transformer", "Pooling", "Normalize")
_FOLDERS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}

POOLINGS: Mapping[str, Callable[[Tensor, Packing], Tensor]] = {
    "mean": lambda rows, packing: F.segment_mean(rows, packing=packing),
    "cls": lambda rows, packing: F.take_rows(rows, packing.first_rows),
    "max": lambda rows, packing: F.segment_max(rows, packing=packing),
}
"""Pool each text's token vectors, special tokens included, into one. Shapes: (rows, hidden) → (sequences, hidden)."""

_PUBLISHED_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True)
class SentenceSettings:
    """How a text is prepared for the encoder, and how the encoder's output becomes one vector."""

    pooling: str
    normalise: bool
    max_length: int | None = None
    """Longer texts are truncated to this many tokens, as the published model does."""
    lower_case: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.pooling, str) or self.pooling not in POOLINGS:
            raise ArgumentError(f"pooling must be one of {listing(POOLINGS)}, got {quoted(self.pooling)}")
        if type(self.normalise) is not bool:
            raise ArgumentError(f"normalise must be True or False, got {quoted(self.normalise)}")


class SentenceEncoder(Module):
    """Maps each text to one vector. Calling it with PackedTokens returns a Tensor to train on; `encode` turns texts into a NumPy array.

    Source: Reimers and Gurevych 2019, "Sentence-BERT".
    """

    def __init__(self, encoder: PretrainedModel, tokenizer: Tokenizer, settings: SentenceSettings) -> None:
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings

    @classmethod
    def from_pretrained(
        cls,
        directory_or_name: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        normalise: bool | None = None,
        max_length: int | None = None,
    ) -> SentenceEncoder:
        """The sentence encoder of a directory, named checkpoint or Hugging Face id; in eval mode, float32.

        pooling ("mean", "cls" or "max"), normalise (to length 1) and max_length (the tokens read of a text) override the files.
        A directory without modules.json does not say how to pool: for it pooling and normalise must be given ("mean" and True are what
        most published sentence encoders use).
        Raises: ConfigError for modules or poolings that minigrad does not have; ArgumentError if nothing says how to pool;
        otherwise as `minigrad.models.load`.
        """
        directory = find_checkpoint(directory_or_name)
        settings = read_settings(directory, pooling, normalise)
        encoder: PretrainedModel = load(directory, "base")
        length = min(settings.max_length or MAX_SIZE, max_tokens(encoder.config)) if max_length is None else max_length
        tokenizer = Tokenizer.from_pretrained(directory)
        return cls(encoder, tokenizer, SentenceSettings(settings.pooling, settings.normalise, length, settings.lower_case)).eval()

    def forward(self, tokens: PackedTokens) -> Tensor:
        """Shapes: → (sequences, hidden)."""
        rows = self.encoder(tokens).last_hidden_state
        vectors = POOLINGS[self.settings.pooling](rows, tokens.packing)
        if not self.settings.normalise:
            return vectors
        return vectors / F.maximum(F.norm(vectors, axis=-1, keepdims=True), 1e-12)  # a zero vector stays zero

    def encode(self, texts: Iterable[str], *, batch_tokens: int = BATCH_TOKENS, progress: bool = True) -> Array:
        """The vectors of texts, on the CPU. Texts are truncated to `settings.max_length` tokens.

        batch_tokens: the most tokens in a batch. progress: for long runs, show a bar or lines on standard error.
        Shapes: → (texts, hidden) float32. Raises: as `Tokenizer.encode`.
        """
        if self.settings.lower_case and not isinstance(texts, str):
            texts = [text.lower() if isinstance(text, str) else text for text in texts]
        encodings = self.tokenizer.encode(texts, max_length=self.settings.max_length)
        found: Array = zeros((len(encodings), self.encoder.config.hidden_size), dtype=self.encoder.parameters()[0].dtype).array
        if (vectors := _replicas.get(self)) is None:
            vectors = _replicas[self] = Replicas(proxy(self), workers=1)
        with self.evaluating():
            for numbers, tokens in batches_by_length(encodings, batch_tokens, progress):
                found[numbers] = vectors(tokens)
        return found

    def save_pretrained(self, directory: str | os.PathLike[str], *, max_shard_size: int | str = "5GB", dtype: str | None = None) -> None:
        """Write the model, its tokenizer and its settings, so that minigrad and sentence-transformers read them back.

        max_shard_size, dtype, Raises: as `PretrainedModel.save_pretrained`.
        """
        target, said = as_path(directory), self.settings
        self.encoder.save_pretrained(target, max_shard_size=max_shard_size, dtype=dtype)
        self.tokenizer.save_pretrained(target)
        limits = {"do_lower_case": said.lower_case} | ({} if said.max_length is None else {"max_seq_length": said.max_length})
        pooling = {key: name == said.pooling for key, name in _PUBLISHED_POOLINGS.items()}
        stages = _STAGES if said.normalise else _STAGES[:2]
        modules = [
            {"idx": i, "name": str(i), "path": _FOLDERS[stage], "type": f"{_PACKAGE}.models.{stage}"} for i, stage in enumerate(stages)
        ]
        try:
            (target / POOLING_NAME).parent.mkdir(exist_ok=True)
            write_text(target / LIMITS_NAME, json.dumps(limits, indent=2))
            write_text(target / POOLING_NAME, json.dumps({"word_embedding_dimension": self.encoder.config.hidden_size} | pooling, indent=2))
            write_text(target / MODULES_NAME, json.dumps(modules, indent=2))
        except OSError as error:
            raise WeightFileError(target, f"cannot be written: {error.strerror or error}", code="write-failed") from error


_replicas: WeakKeyDictionary[SentenceEncoder, Replicas] = WeakKeyDictionary()
"""The Replicas of each encoder, which keep its CUDA graphs between calls of `encode`. They are not an attribute: a copy of the encoder
would share them, and an unused encoder would stay in memory until Python collects cycles."""


# ---------------------------------------------------------------- the files
def read_settings(directory: Path, pooling: str | None = None, normalise: bool | None = None) -> SentenceSettings:
    """The settings in modules.json and its companions, with the caller's overrides. Raises: ConfigError, ArgumentError."""
    if os.path.lexists(directory / MODULES_NAME):
        stages = _stages(directory / MODULES_NAME)
        pooling = _pooling(directory / POOLING_NAME) if pooling is None else pooling
        normalise = "Normalize" in stages if normalise is None else normalise
    if pooling is None or normalise is None:
        raise ArgumentError(
            f"{directory} has no {MODULES_NAME} to say how its vectors are made: pass pooling ('mean', 'cls' or 'max') and normalise "
            "(True or False)"
        )
    limits = read_json_object(directory / LIMITS_NAME) if os.path.lexists(directory / LIMITS_NAME) else {}
    length, lower = limits.get("max_seq_length"), limits.get("do_lower_case", False)
    if length is not None and (type(length) is not int or not 2 < length < 2**31):
        raise ConfigError(directory / LIMITS_NAME, f"max_seq_length = {quoted(length)} is no number of tokens", code="config-type")
    if type(lower) is not bool:
        raise ConfigError(directory / LIMITS_NAME, f"do_lower_case = {quoted(lower)} must be true or false", code="config-type")
    return SentenceSettings(pooling, normalise, length, lower)


def _stages(path: Path) -> list[str]:
    """The stages that a modules.json lists, in order."""
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ConfigError(path, f"must hold an array of objects, found {json_type(modules)}", code="bad-json")
    stages = []
    for module in modules:
        kind, folder = module.get("type"), module.get("path")
        package, _, stage = kind.rpartition(".") if isinstance(kind, str) else ("", "", "")
        if stage not in _STAGES or package.partition(".")[0] != _PACKAGE:
            known = ", ".join(_STAGES)
            raise ConfigError(path, f"the module {quoted(kind)} is not supported; supported are {known}", code="unsupported-module")
        if folder != _FOLDERS[stage]:
            message = f"the module {stage} stands in {quoted(folder)}; only {quoted(_FOLDERS[stage])} of the same directory is read"
            raise ConfigError(path, message, code="path-escapes-model-dir")
        stages.append(stage)
    if stages not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        message = f"the modules are {listing(stages)}; supported are Transformer, Pooling and perhaps Normalize, in this order"
        raise ConfigError(path, message, code="unsupported-module")
    return stages


def _pooling(path: Path) -> str:
    values = read_json_object(path)
    if isinstance(mode := values.get("pooling_mode"), str):  # files since 2025
        chosen = [mode]
    else:
        chosen = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
    pooling = _PUBLISHED_POOLINGS.get(chosen[0], chosen[0]) if len(chosen) == 1 else ""
    if pooling not in POOLINGS:
        message = f"the pooling {listing(chosen)} is not supported; supported is one of {listing(POOLINGS)}"
        raise ConfigError(path, message, code="unsupported-module")
    return pooling
