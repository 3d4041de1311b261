"""Match the tensors of a file with the parameters of a model, by name and shape, before any weight is read.

Strict except for a new head: the parameters of a head (and of the pooler that it reads) may be newly initialised, with a warning;
anything else that is missing, unexpected or of the wrong shape is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NoReturn

from minigrad.errors import ConfigError, WeightFileError
from minigrad.files import listing, quoted
from minigrad.io import TensorFlowCheckpoint, WeightSource
from minigrad.models.config import PretrainedConfig
from minigrad.models.names import SIZED_BY_LABELS, is_head, layer_of, published, without_prefix
from minigrad.parameter import Parameter

logger = logging.getLogger("minigrad")


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors and of a model's parameters; printed, a summary of a few lines."""

    path: str
    loaded: tuple[str, ...] = ()
    """Parameters that were read."""
    newly_initialised: tuple[str, ...] = ()
    """Parameters of a head that the file lacks, or has for another number of labels: to be trained."""
    ignored: tuple[str, ...] = ()
    """Tensors of the file that this model does not use."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The file's name → the parameter's path, where the two differ."""

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.loaded)} parameters loaded"]
        if self.newly_initialised:
            lines.append(f"  newly initialised, to be trained: {len(self.newly_initialised)} ({listing(self.newly_initialised)})")
        if self.ignored:
            lines.append(f"  ignored: {len(self.ignored)} (such as {listing(self.ignored[:3])})")
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            lines.append(f"  renamed: {len(self.renamed)} (such as {quoted(old)} to {quoted(new)})")
        return "\n".join(lines)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its name there, and its shape in the model (after transposition, if `transposed`)."""

    name: str
    shape: tuple[int, ...]
    floating: bool
    transposed: bool


@dataclass
class Contents:
    """The tensors of a file by published name without prefix, and the names of those that belong to no model."""

    path: Path
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def contents_of(source: WeightSource, prefix: str) -> Contents:
    """List the tensors of a file. `prefix`: a first part that its names may have, such as "bert".

    Raises: WeightFileError if the file cannot be read.
    """
    contents = Contents(source.path)
    for name in source.names():
        known = published(name, isinstance(source, TensorFlowCheckpoint))
        if known is None:
            contents.ignored.append(name)
            continue
        bare, shape = without_prefix(known.name, prefix), source.shape(name)
        tensor = StoredTensor(name, shape[::-1] if known.transposed else shape, source.dtype(name).kind == "f", known.transposed)
        if (other := contents.tensors.setdefault(bare, tensor)) is not tensor:
            contents.problems.append(f"{quoted(other.name)} and {quoted(name)} are one parameter")
    return contents


def check_sizes(config: PretrainedConfig, contents: Contents) -> None:
    """Compare a configuration with the tensors of its file, so that nothing is built that the file could not fill.

    Raises: ConfigError naming the key; WeightFileError if a tensor of `size_tensors` is missing.
    """
    tensors, path = contents.tensors, contents.path

    def compare(key: str, name: str, axis: int) -> None:
        tensor = tensors.get(name)
        if tensor is None:
            raise WeightFileError(path, f"missing: {name}", code="weights-mismatch")
        if len(tensor.shape) != 2 or tensor.shape[axis] != getattr(config, key):
            refuse(key, f"{quoted(tensor.name)} in {path} has shape {tensor.shape}")

    def refuse(key: str, why: str) -> NoReturn:
        said = f"{config.published_keys.get(key, key)} = {getattr(config, key)}"
        raise ConfigError(config.source, f"{said}, but {why}", code="config-weights-mismatch")

    in_layers = {key for key, (name, _) in config.size_tensors.items() if layer_of(name) is not None}
    for key, (name, axis) in config.size_tensors.items():
        if key not in in_layers:
            compare(key, name, axis)
    layers = len({layer for name in tensors if (layer := layer_of(name)) is not None})
    if config.num_hidden_layers > layers:
        refuse("num_hidden_layers", f"{path} holds {layers} layers")
    for key in sorted(in_layers) if config.num_hidden_layers else ():
        compare(key, *config.size_tensors[key])
    numbers = sum(prod(tensor.shape) for tensor in tensors.values())
    if max(config.encoder_size(), config.hidden_size**2) > numbers:  # the square is a pooler's, which is built even if the file has none
        refuse("hidden_size", f"a model of this shape has more numbers than the {numbers} in {path}")


def check_labels(config: PretrainedConfig, contents: Contents, parameters: Mapping[str, Parameter], prefix: str) -> None:
    """Compare the labels of a configuration with the classifier of its file, so that no trained classifier is dropped by mistake.

    One row is always accepted: multiple choice has one, whatever the labels.
    Raises: ConfigError.
    """
    for path, parameter in parameters.items():
        tensor = contents.tensors.get(without_prefix(path, prefix))
        if tensor is None or without_prefix(path, prefix) not in SIZED_BY_LABELS or not _differ_in_rows(tensor.shape, parameter.shape):
            continue
        rows = tensor.shape[0]
        if parameter.shape[0] == config.num_labels and rows != 1:
            message = (
                f"id2label names {config.num_labels} labels, but {quoted(tensor.name)} in {contents.path} has {rows} rows: "
                f"name these, or pass num_labels ({rows} to keep the classifier, any other for a new one)"
            )
            raise ConfigError(config.source, message, code="label-map-mismatch")


def _differ_in_rows(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(shape) == len(other) and shape[1:] == other[1:] and shape != other


@dataclass
class Plan:
    """Where each parameter of a model comes from."""

    reads: dict[str, StoredTensor]
    """By the parameter's path."""
    repeats: list[tuple[str, StoredTensor]]
    """Second tensors for parameters that the model shares between two places."""
    report: LoadReport


def make_plan(contents: Contents, parameters: Mapping[str, Parameter], prefix: str, layers: int | None) -> Plan:
    """Match a file with a model by name and shape.

    parameters: by path, shared ones under each of their paths. prefix: of the encoder's paths in the model. layers: ignore the file's
    layers from this number on.
    Raises: WeightFileError naming everything that does not fit.
    """
    own: dict[int, str] = {}  # the first path of each parameter, under which the model saves it
    path_of = {without_prefix(path, prefix): own.setdefault(id(parameter), path) for path, parameter in parameters.items()}
    reads: dict[str, StoredTensor] = {}
    repeats: list[tuple[str, StoredTensor]] = []
    ignored, unexpected, problems = list(contents.ignored), [], list(contents.problems)
    first_names = {without_prefix(path, prefix) for path in own.values()}
    for name, tensor in sorted(contents.tensors.items(), key=lambda item: item[0] not in first_names):  # first paths first
        if name in path_of:
            if reads.setdefault(path_of[name], tensor) is not tensor:
                repeats.append((path_of[name], tensor))
        elif is_head(name) or (layers is not None and (layer_of(name) or 0) >= layers):
            ignored.append(tensor.name)
        else:
            unexpected.append(tensor.name)
    new: list[str] = []
    missing: list[str] = []
    begun = {name.rpartition(".")[0] for name in contents.tensors}  # a bias missing from such a layer is an error, not new
    for path in own.values():
        name, shape = without_prefix(path, prefix), parameters[path].shape
        if path not in reads:
            (new if is_head(name) and name.rpartition(".")[0] not in begun else missing).append(path)
        elif reads[path].shape == shape:
            if not reads[path].floating:
                problems.append(f"{quoted(reads[path].name)} does not hold floats")
        elif name in SIZED_BY_LABELS and _differ_in_rows(reads[path].shape, shape):  # a head for another number of labels
            ignored.append(reads.pop(path).name)
            new.append(path)
        else:
            problems.append(f"{quoted(reads[path].name)} has shape {reads[path].shape}, the configuration asks for {shape}")
    problems[:0] = [f"{what}: {listing(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
    if problems:
        more = [f"and {len(problems) - 5} more faults"] if len(problems) > 5 else []
        raise WeightFileError(contents.path, "; ".join(problems[:5] + more), code="weights-mismatch")
    ignored += [tensor.name for _, tensor in repeats]
    renamed = {tensor.name: path for path, tensor in reads.items() if tensor.name != path}
    return Plan(reads, repeats, LoadReport(str(contents.path), tuple(reads), tuple(new), tuple(ignored), renamed))


def read_weights(source: WeightSource, plan: Plan, parameters: Mapping[str, Parameter]) -> None:
    """Read each planned tensor into its parameter, one at a time and without a second copy, except of TensorFlow's matrices.

    Raises: WeightFileError.
    """
    for path, tensor in plan.reads.items():
        parameter = parameters[path]
        if tensor.transposed:
            parameter.array[...] = source.read(tensor.name, parameter.dtype).T
        else:
            source.read_into(tensor.name, parameter.array)
        parameter.leaf.version += 1
    for path, tensor in plan.repeats:
        shared = parameters[path]
        if tensor.shape != shared.shape or not (source.read(tensor.name, shared.dtype) == shared.array).all():
            hint = "; a model with tie_word_embeddings=false has two" if shared.ndim == 2 else ""
            names = quoted(tensor.name), quoted(plan.reads[path].name)
            logger.warning("%s: %s is left out: it differs from %s, and this model has one parameter for both%s", source.path, *names, hint)
