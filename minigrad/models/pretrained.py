"""Loading and saving whole models: config.json + model.safetensors, by published names.

Strict in everything but a new head: the parameters of a head (and a pooler the checkpoint lacks) may be newly initialised, which is said
aloud; anything else that is missing, left over or mis-shaped is an error.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from minigrad.errors import ArgumentError, WeightFileError
from minigrad.files import write_text
from minigrad.io import SafetensorsFile, find_checkpoint, save_file
from minigrad.models.config import CONFIG_NAME, BertConfig, default_labels
from minigrad.nn import Module, init

WEIGHTS_NAME = "model.safetensors"

logger = logging.getLogger("minigrad")

LEGACY = ((re.compile(r"(LayerNorm|layer_norm)\.gamma$"), r"\1.weight"), (re.compile(r"(LayerNorm|layer_norm)\.beta$"), r"\1.bias"))
"""Spellings of files converted from the first TensorFlow release."""

IGNORED = re.compile(r"(^|\.)embeddings\.(position_ids|token_type_ids)$")
"""Buffers that old files hold and nobody reads."""

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
        if id2label is not None and num_labels is not None and len(id2label) != num_labels:
            raise ArgumentError(f"num_labels is {num_labels}, but id2label names {len(id2label)} labels")
        if num_hidden_layers is not None and num_hidden_layers not in range(1, config.num_hidden_layers + 1):
            raise ArgumentError(
                f"num_hidden_layers={num_hidden_layers!r}: this checkpoint has 1 to {config.num_hidden_layers} layers to keep"
            )
        if id2label is not None:
            config = replace(config, id2label=dict(id2label))
        elif num_labels is not None and num_labels != config.num_labels:
            if not isinstance(num_labels, int) or num_labels < 1:
                raise ArgumentError(f"num_labels must be an integer of at least 1, got {num_labels!r}")
            config = replace(config, id2label=default_labels(num_labels))
        if num_hidden_layers is not None:
            config = replace(config, num_hidden_layers=num_hidden_layers)
        with init.skipped():
            model = cls(config)
        path = directory / WEIGHTS_NAME
        if not path.exists():
            raise WeightFileError(
                path, f"the directory holds no {WEIGHTS_NAME}; convert other weight files to safetensors first", code="missing-file"
            )
        model._read_weights(path, truncated=num_hidden_layers is not None)
        return model.eval()

    def _read_weights(self, path: Path, truncated: bool) -> None:
        """Read every parameter, or raise before the first is read. `truncated`: the file may hold more layers than this model."""
        parameters = dict(self.named_parameters())
        with SafetensorsFile(path) as file:
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
            problems += [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
            if problems:
                raise WeightFileError(path, "; ".join(problems), code="weights-mismatch")
            for name in parameters.keys() - set(new):
                file.read_into(sources[name], parameters[name].array)
                parameters[name].leaf.version += 1
        self._initialise(new)
        if new:
            logger.warning("%s: newly initialised, to be trained: %s", path, ", ".join(new))

    def _own_name(self, name: str) -> str:
        """The path in this model of a parameter that a file calls `name`."""
        for pattern, modern in LEGACY:
            name = pattern.sub(modern, name)
        bare = name.removeprefix("bert.")
        if self.base_prefix and not name.startswith(self.head) and not bare.startswith("cls."):
            return f"{self.base_prefix}.{bare}"
        return bare

    def _is_left_out(self, name: str, truncated: bool) -> bool:
        """Whether a name of the file may go unused: another head, or a layer beyond those that were asked for."""
        layer = re.search(r"(^|\.)encoder\.layer\.(\d+)\.", name) if truncated else None
        return bool(HEADS.search(name)) or (layer is not None and int(layer[2]) >= self.config.num_hidden_layers)

    def _initialise(self, names: list[str]) -> None:
        """Draw starting values for parameters that the file lacks: matrices normal with the configured deviation, vectors zero."""
        parameters = dict(self.named_parameters())
        for name in names:
            if parameters[name].ndim >= 2:
                parameters[name].assign(init.normal(parameters[name].shape, self.config.initializer_range))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors so that minigrad and transformers read them back. Each file appears whole or not at all.

        Raises: OSError if the directory cannot be written.
        """
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), target / WEIGHTS_NAME, metadata={"format": "pt"})
        text = json.dumps(self.config.to_dict(type(self).__name__), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_text(target / CONFIG_NAME, text)
