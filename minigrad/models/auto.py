"""Choose the class of a directory's model: the family by `model_type`, the head by `architectures` or by the caller."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from minigrad.errors import ArgumentError, ConfigError
from minigrad.files import listing, quoted
from minigrad.io import find_checkpoint, open_weights
from minigrad.models import bert, bert_pretraining, distilbert, electra, roberta
from minigrad.models.config import CONFIG_NAME, PretrainedConfig, read_json_object
from minigrad.models.loading import LoadReport
from minigrad.models.pretrained import TENSORFLOW_CONFIG_NAME, VOCABULARY_NAME, PretrainedModel, config_path


@dataclass(frozen=True)
class Family:
    """The modules of a family and the prefix of its class names: here, and in `architectures` if that differs."""

    modules: tuple[ModuleType, ...]
    prefix: str
    published_prefix: str = ""

    def classes(self) -> dict[str, type[PretrainedModel]]:
        """The class of each head."""
        named = [(head, self.prefix + ending) for head, endings in HEADS.items() for ending in endings]
        found = {name: value for module in self.modules for name, value in vars(module).items()}
        return {head: found[name] for head, name in named if name in found}

    def head_of(self, architecture: str) -> str | None:
        """The head that an entry of `architectures` stands for; None if the family has no such class."""
        ending = architecture.removeprefix(self.published_prefix or self.prefix)
        heads = [head for head, endings in HEADS.items() if ending in endings]
        return heads[0] if heads and ending != architecture and heads[0] in self.classes() else None


HEADS: Mapping[str, tuple[str, ...]] = {
    "base": ("Model",),
    "pretraining": ("ForPreTraining",),
    "masked-lm": ("ForMaskedLM",),
    "causal-lm": ("LMHeadModel", "ForCausalLM"),
    "next-sentence": ("ForNextSentencePrediction",),
    "sequence-classification": ("ForSequenceClassification",),
    "token-classification": ("ForTokenClassification",),
    "question-answering": ("ForQuestionAnswering",),
    "multiple-choice": ("ForMultipleChoice",),
}
"""Every head, and the possible endings of its class name."""

LOOK_ALIKES = frozenset({"sequence-classification", "token-classification", "multiple-choice"})
"""Heads whose weights may have the same names and shapes: only `architectures` says which one was trained."""

FAMILIES: Mapping[str, Family] = {
    "bert": Family((bert, bert_pretraining), "Bert"),
    **{name: Family((roberta,), "Roberta", published) for name, published in roberta.PUBLISHED_CLASSES.items()},
    "distilbert": Family((distilbert,), "DistilBert"),
    "electra": Family((electra,), "Electra"),
}
"""Families by the `model_type` of config.json."""


def load(directory_or_name: str | os.PathLike[str], head: str | None = None, **options: Any) -> Any:
    """Load the model of a directory (or named checkpoint, or Hugging Face id), whatever its family and head; in eval mode, float32.

    head: one of `HEADS`, such as "sequence-classification"; None takes the one that `architectures` names. options: as the
    `from_pretrained` of the class, such as num_labels.
    Raises: ConfigError for a family or architecture that minigrad does not have; ArgumentError for a head that the family does not have;
    otherwise as `from_pretrained`.
    """
    directory = find_checkpoint(directory_or_name)
    return model_class(directory, head).from_pretrained(directory, **options)


def model_class(directory: Path, head: str | None = None) -> type[PretrainedModel]:
    """The class that `load` builds. Raises: as `load`."""
    path, config, family = read_family(directory)
    classes = family.classes()
    if head is None and (head := named_head(directory)) is None:
        named = _architectures(path, config)
        says = f"architectures = {quoted(named)} names no class that minigrad has" if named else "names no architectures"
        raise ConfigError(path, f"{says}: pass head, one of {listing(classes)}", code="unknown-architecture")
    if not isinstance(head, str) or head not in classes:
        raise ArgumentError(f"head = {quoted(head)}: {family.prefix} has {listing(classes)}")
    return classes[head]


@dataclass(frozen=True)
class Forecast:
    """What `load` would build and read, known from configuration and headers alone."""

    cls: type[PretrainedModel]
    heads: tuple[str, ...]
    """Every head of the family."""
    num_parameters: int
    stored: Mapping[str, int]
    """How many of the weights to be loaded the file stores in each dtype (half and bfloat16 are read as float32)."""
    report: LoadReport


def forecast(directory: Path, head: str | None = None) -> Forecast:
    """What `load` would do, without reading a weight. Raises: as `load`."""
    cls = model_class(directory, head)
    path, _, family = read_family(directory)
    config = cls.config_class.from_file(path)
    with open_weights(directory) as source:
        model, plan = cls.planned(source, config)
        stored: Counter[str] = Counter()
        for tensor in plan.reads.values():
            stored[str(source.dtype(tensor.name))] += prod(tensor.shape)
    return Forecast(cls, tuple(family.classes()), model.num_parameters(), stored, plan.report)


def named_head(directory: Path) -> str | None:
    """The head that `architectures` of config.json names; None if it names none that minigrad has. Raises: ConfigError."""
    path, config, family = read_family(directory)
    return next(filter(None, map(family.head_of, _architectures(path, config))), None)


def head_of_model(model: Any) -> str | None:
    """The head of a model in memory; None if the model is of no family."""
    heads = {cls: head for family in FAMILIES.values() for head, cls in family.classes().items()}
    return next((heads[cls] for cls in type(model).__mro__ if cls in heads), None)


def max_tokens(config: PretrainedConfig) -> int:
    """The longest text, in tokens, that a model has positions for."""
    unused = config.pad_token_id + 1 if isinstance(config, roberta.RobertaConfig) else 0  # its positions start after pad_token_id
    return config.max_position_embeddings - unused


def check_length(model: PretrainedModel, max_length: int) -> None:
    """Raises: ArgumentError for more tokens than the model has positions for."""
    if max_length > (longest := max_tokens(model.config)):
        raise ArgumentError(f"max_length = {max_length}: this model reads {longest} tokens: set it to {longest} or less")


def read_family(directory: Path) -> tuple[Path, dict[str, Any], Family]:
    """The configuration's path, its content and its family. Raises: ConfigError."""
    path = config_path(directory)
    if path.name == TENSORFLOW_CONFIG_NAME:  # from BERT's original release, which names no family
        return path, read_json_object(path), FAMILIES["bert"]
    best = directory / "best"  # where a training run keeps its model
    if not os.path.lexists(path) and os.path.lexists(best / CONFIG_NAME):
        raise ConfigError(directory, f"is the directory of a run, not of a model: its model is in {best}", code="missing-file")
    config = read_json_object(path)
    name = config.get("model_type")
    if name is None:  # files of 2018 and 2019 name only the architecture, or nothing
        named = [known for known, family in FAMILIES.items() if any(family.head_of(entry) for entry in _architectures(path, config))]
        name = named[0] if named else None
        if not _architectures(path, config) and os.path.lexists(directory / VOCABULARY_NAME):
            name = "bert"  # RoBERTa's tensors have the same names but other positions; its vocabulary file is named differently
    if name is None:
        raise ConfigError(path, f"names no model_type and no known architecture; add one of {listing(FAMILIES)}", code="unknown-family")
    if not isinstance(name, str) or name not in FAMILIES:
        message = f"model_type = {quoted(name)} is a family that minigrad does not have; it has {listing(FAMILIES)}"
        raise ConfigError(path, message, code="unknown-family")
    return path, config, FAMILIES[name]


def _architectures(path: Path, config: Mapping[str, Any]) -> list[str]:
    named = config.get("architectures")
    if named is None:
        return []
    if not isinstance(named, list) or not all(isinstance(entry, str) for entry in named):
        raise ConfigError(path, f"architectures = {quoted(named)} must be a list of strings", code="config-type")
    return named
