"""Loading and saving whole models: config.json + model.safetensors, by published names.

Strict in everything but a new head: the parameters of a head (and a pooler the checkpoint lacks) may be newly initialised, which is said
aloud; anything else that is missing, left over or mis-shaped is an error.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import ClassVar, NoReturn, Self

from minigrad.errors import ArgumentError, ConfigError, WeightFileError
from minigrad.files import listing, quoted, write_text
from minigrad.io import SafetensorsFile, find_checkpoint, save_file
from minigrad.models.config import CONFIG_NAME, MAX_LABELS, BertConfig, default_labels
from minigrad.nn import Module, init

WEIGHTS_NAME = "model.safetensors"

logger = logging.getLogger("minigrad")

LEGACY = ((re.compile(r"(LayerNorm|layer_norm)\.gamma$"), r"\1.weight"), (re.compile(r"(LayerNorm|layer_norm)\.beta$"), r"\1.bias"))
"""Spellings of files converted from the first TensorFlow release."""

IGNORED = re.compile(r"(^|\.)embeddings\.(position_ids|token_type_ids)$")
"""Buffers that old files hold and nobody reads."""

LAYER = re.compile(r"(^|\.)encoder\.layer\.(\d+)\.", re.ASCII)

HEADS = re.compile(r"^(bert\.)?(cls|classifier|qa_outputs|pooler)\.")
"""Parameters that belong to heads: dropped from a file when the model has another head, initialised when the file lacks them."""


class PretrainedModel(Module):
    """A model with `config`, `from_pretrained` and `save_pretrained`."""

    def __init__(self, config: BertConfig) -> None:
        self.config = config

    base_prefix: ClassVar[str]
    """Where the encoder stands in this model ("" if it is the encoder)."""
    head: ClassVar[tuple[str, ...]] = ()
    """Attributes that make up the head."""

    @classmethod
    def from_pretrained(
        cls,
        directory_or_name: str | os.PathLike[str],
        *,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        num_hidden_layers: int | None = None,
    ) -> Self:
        """Build the model a directory (or named checkpoint, or Hugging Face id) describes, and read its weights; in eval mode, float32.

        num_labels / id2label: the size (and names) of the classifier, which is newly initialised where the file's does not fit.
        num_hidden_layers: keep only the first so many layers.
        Raises: CheckpointUnavailableError, ConfigError, WeightFileError, ArgumentError.
        """
        directory = find_checkpoint(directory_or_name)
        config = BertConfig.from_file(directory / CONFIG_NAME)
        if id2label is not None and not isinstance(id2label, Mapping):
            raise ArgumentError(
                f"id2label must be a mapping such as {{0: 'no', 1: 'yes'}}, got {quoted(id2label)}; dict(enumerate(names)) is one"
            )
        if id2label is not None and num_labels is not None and len(id2label) != num_labels:
            raise ArgumentError(f"num_labels is {num_labels}, but id2label names {len(id2label)} labels")
        if num_hidden_layers is not None and num_hidden_layers not in range(1, config.num_hidden_layers + 1):
            raise ArgumentError(
                f"num_hidden_layers={num_hidden_layers!r}: this checkpoint has 1 to {config.num_hidden_layers} layers to keep"
            )
        path = directory / WEIGHTS_NAME
        if not path.exists():
            raise WeightFileError(
                path, f"the directory holds no {WEIGHTS_NAME}; convert other weight files to safetensors first", code="missing-file"
            )
        with SafetensorsFile(path) as file:
            cls._check_sizes(config, file)
            model = cls._build(config, num_labels, id2label, num_hidden_layers)
            model._read_weights(file, truncated=num_hidden_layers is not None)
        return model.eval()

    @classmethod
    def _build(cls, config: BertConfig, num_labels: int | None, id2label: Mapping[int, str] | None, num_hidden_layers: int | None) -> Self:
        """The model with the caller's wishes put into its configuration, and zeros for weights."""
        if id2label is not None:
            config = replace(config, id2label=dict(id2label))
        elif num_labels is not None and num_labels != config.num_labels:
            if not isinstance(num_labels, int) or not 1 <= num_labels <= MAX_LABELS:
                raise ArgumentError(f"num_labels must be an integer of at least 1 and at most {MAX_LABELS}, got {num_labels!r}")
            config = replace(config, id2label=default_labels(num_labels))
        if num_hidden_layers is not None:
            config = replace(config, num_hidden_layers=num_hidden_layers)
        with init.skipped():
            return cls(config)

    @classmethod
    def _check_sizes(cls, config: BertConfig, file: SafetensorsFile) -> None:
        """Compare a configuration with the tensors of its file, so that nothing is built that the file could not fill.

        Raises: ConfigError naming the key; WeightFileError if a tensor that shows a size is missing.
        """
        prefix = f"{cls.base_prefix}." if cls.base_prefix else ""
        shapes = {cls._own_name(name): file.shape(name) for name in file.names()}

        def compare(key: str, tensor: str, axis: int) -> None:
            shape = shapes.get(prefix + tensor)
            if shape is None:
                raise WeightFileError(file.path, f"missing: {prefix}{tensor}", code="weights-mismatch")
            if len(shape) != 2 or shape[axis] != getattr(config, key):
                refuse(key, f"{prefix}{tensor} in {file.path} has shape {shape}")

        def refuse(key: str, why: str) -> NoReturn:
            raise ConfigError(config.source, f"{key} = {getattr(config, key)}, but {why}", code="config-weights-mismatch")

        compare("hidden_size", "embeddings.word_embeddings.weight", 1)
        compare("vocab_size", "embeddings.word_embeddings.weight", 0)
        compare("max_position_embeddings", "embeddings.position_embeddings.weight", 0)
        compare("type_vocab_size", "embeddings.token_type_embeddings.weight", 0)
        layers = len({found[2] for name in shapes if (found := LAYER.search(name))})
        if config.num_hidden_layers > layers:
            refuse("num_hidden_layers", f"{file.path} holds {layers} layers")
        if config.num_hidden_layers:
            compare("intermediate_size", "encoder.layer.0.intermediate.dense.weight", 0)
        numbers = sum(prod(shape) for shape in shapes.values())
        if max(config.encoder_size(), config.hidden_size**2) > numbers:  # the square: a pooler is built even if the file has none
            refuse("hidden_size", f"a model of this shape has more numbers than the {numbers} in {file.path}")

    def _read_weights(self, file: SafetensorsFile, truncated: bool) -> None:
        """Read every parameter, or raise before the first is read. `truncated`: the file may hold more layers than this model."""
        parameters = dict(self.named_parameters())
        sources: dict[str, str] = {}  # parameter name -> name in the file
        new: list[str] = []
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []
        for name in file.names():
            target = self._own_name(name)
            if target in sources:
                problems.append(f"{sources[target]} and {name} are one parameter")
            elif target in parameters:
                sources[target] = name
            elif not IGNORED.search(name) and not self._is_left_out(target, truncated):
                unexpected.append(name)
        for name, parameter in parameters.items():
            if name not in sources:
                (new if HEADS.search(name) else missing).append(name)
            elif (shape := file.shape(sources[name])) == parameter.shape:
                continue
            elif name.startswith(self.head):  # a classifier for another number of labels
                new.append(name)
            else:
                problems.append(f"{sources[name]} has shape {shape}, the configuration asks for {parameter.shape}")
        problems += [f"{what}: {listing(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
        if problems:
            raise WeightFileError(file.path, "; ".join(problems[:20]), code="weights-mismatch")
        for name in parameters.keys() - set(new):
            file.read_into(sources[name], parameters[name].array)
            parameters[name].leaf.version += 1
        self._initialise(new)
        if new:
            logger.warning("%s: newly initialised, to be trained: %s", file.path, ", ".join(new))

    @classmethod
    def _own_name(cls, name: str) -> str:
        """The path in this model of a parameter that a file calls `name`."""
        for pattern, modern in LEGACY:
            name = pattern.sub(modern, name)
        bare = name.removeprefix("bert.")
        if cls.base_prefix and not name.startswith(cls.head) and not bare.startswith("cls."):
            return f"{cls.base_prefix}.{bare}"
        return bare

    def _is_left_out(self, name: str, truncated: bool) -> bool:
        """Whether a name of the file may go unused: another head, or a layer beyond those that were asked for."""
        layer = LAYER.search(name) if truncated else None
        return bool(HEADS.search(name)) or (layer is not None and int(layer[2]) >= self.config.num_hidden_layers)

    def _initialise(self, names: list[str]) -> None:
        """Draw starting values for parameters that the file lacks: matrices normal with the configured deviation, vectors zero."""
        parameters = dict(self.named_parameters())
        for name in names:
            if parameters[name].ndim >= 2:
                parameters[name].assign(init.normal(parameters[name].shape, self.config.initializer_range))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors so that minigrad and transformers read them back. Each file appears whole or not at all.

        Raises: ConfigError, before anything is written, for a configuration that no config.json can hold; WeightFileError with the code
        write-failed if the directory cannot be written.
        """
        target = Path(directory)
        text = self.config.to_text(type(self).__name__)
        try:
            target.mkdir(parents=True, exist_ok=True)
            save_file(self.state_dict(), target / WEIGHTS_NAME, metadata={"format": "pt"})
            write_text(target / CONFIG_NAME, text)
        except OSError as error:
            raise WeightFileError(target, f"cannot be written: {error.strerror or error}", code="write-failed") from error
