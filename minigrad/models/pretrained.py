"""Loading and saving whole models: a configuration and weights, by published names.

`loading` decides which tensor of a file goes where; this module builds the model and saves it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

from minigrad.errors import ArgumentError, GraphError, TokenizerError, WeightFileError
from minigrad.files import as_path, quoted, read_bounded, write_text
from minigrad.io import WeightSource, find_checkpoint, open_weights, save_weights
from minigrad.models.config import CODE_KEYS, CONFIG_NAME, MAX_LABELS, MAX_SIZE, SUPPORTED, PretrainedConfig, default_labels
from minigrad.models.loading import LoadReport, Plan, check_labels, check_sizes, contents_of, make_plan, read_weights
from minigrad.models.names import VOCABULARY, without_prefix
from minigrad.nn import Module, init
from minigrad.parameter import Parameter

TENSORFLOW_CONFIG_NAME = "bert_config.json"
VOCABULARY_NAME = "vocab.txt"
MAX_VOCABULARY_BYTES = 10 << 20

logger = logging.getLogger("minigrad")


class PretrainedModel(Module):
    """A model with `config`, `from_pretrained` and `save_pretrained`."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.config = config

    base_prefix: ClassVar[str]
    """The attribute that holds the encoder in this model ("" if the model is the encoder)."""
    family: ClassVar[str]
    """The attribute that holds the encoder in published models with a head: a prefix that names in a file may have."""
    config_class: ClassVar[type[PretrainedConfig]]
    """The class of the configuration."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Attributes that a loaded model has only if the file has them: no head needs them, so they would stay untrained."""
    load_report: LoadReport | None = None
    """What was loaded, ignored and renamed; None for a model that was not read from a file."""

    @classmethod
    def from_pretrained(
        cls,
        directory_or_name: str | os.PathLike[str],
        *,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        problem_type: str | None = None,
        num_hidden_layers: int | None = None,
    ) -> Self:
        """Build the model a directory (or named checkpoint, or Hugging Face id) describes, and read its weights; in eval mode, float32.

        num_labels / id2label: the size (and names) of the classifier, which is newly initialised if the file's does not fit.
        problem_type: the kind of sequence labels: "single_label_classification", "multi_label_classification" or "regression".
        num_hidden_layers: keep only this many layers, the first ones.
        The model's `load_report` says what was read, newly initialised, ignored and renamed.
        Raises: CheckpointUnavailableError, ConfigError, WeightFileError, TokenizerError (for a broken vocab.txt), ArgumentError.
        """
        directory = find_checkpoint(directory_or_name)
        config = cls.config_class.from_file(config_path(directory))
        overridden = _with_overrides(config, num_labels, id2label, problem_type, num_hidden_layers)
        with open_weights(directory) as source:
            new_labels = num_labels is not None or id2label is not None
            model, plan = cls.planned(source, config, overridden, num_hidden_layers, new_labels)
            parameters = model._paths()
            read_weights(source, plan, parameters)
        for name in plan.report.newly_initialised:  # matrices normal with the configured deviation; vectors stay as built
            if parameters[name].ndim >= 2:
                parameters[name].assign(init.normal(parameters[name].shape, config.initializer_range))
        if code := [key for key in CODE_KEYS if key in config.extra]:
            logger.warning("%s: %s ignored: minigrad runs no code of a checkpoint", config.source, ", ".join(code))
        if plan.report.newly_initialised:
            logger.warning("%s: newly initialised, to be trained: %s", source.path, ", ".join(plan.report.newly_initialised))
        _check_vocabulary(directory, config)
        model.load_report = plan.report
        return model.eval()

    @classmethod
    def planned(
        cls,
        source: WeightSource,
        config: PretrainedConfig,
        overridden: PretrainedConfig | None = None,
        layers: int | None = None,
        new_labels: bool = False,
    ) -> tuple[Self, Plan]:
        """Build the model for a file with its weights still zeros, and plan where each weight comes from; none is read.

        config: describes the file. overridden: the model to build, if it differs. layers: leave out layers from this number on. new_labels:
        whether the caller set the number of labels, so that a classifier of another size is no mistake.
        Raises: ConfigError, WeightFileError for a file that does not fit.
        """
        contents = contents_of(source, cls.family)
        check_sizes(config, contents)
        with init.skipped():
            model = cls(overridden or config)
        for part in cls.optional:
            if not any(name.startswith(f"{part}.") for name in contents.tensors):
                setattr(model, part, None)
        if not new_labels:
            check_labels(config, contents, model._paths(), cls.base_prefix)
        return model, make_plan(contents, model._paths(), cls.base_prefix, layers)

    def _paths(self) -> dict[str, Parameter]:
        """Parameters by path, shared ones under each of their paths, in attribute order."""
        self.named_parameters()  # raises if a parameter cannot be named
        return {path: value for path, value in self._walk() if isinstance(value, Parameter)}

    def resize_token_embeddings(self, rows: int) -> None:
        """Resize the vocabulary to `rows` tokens: existing rows are kept, new ones initialised randomly, surplus ones dropped from the end.

        Parameters shared with the embeddings, or with a row for each token (a decoder and its bias), are resized too.
        Raises: ArgumentError for a number of rows out of range; GraphError once an optimizer holds the parameters.
        """
        if not _is_integer(rows, self.config.pad_token_id + 1, MAX_SIZE):
            raise ArgumentError(
                f"resize_token_embeddings: the number of rows must lie between {self.config.pad_token_id + 1} and {MAX_SIZE}, "
                f"got {quoted(rows)}"
            )
        paths, rows = self._paths(), int(rows)
        old = {id(p): p for path, p in paths.items() if without_prefix(path, self.base_prefix) in VOCABULARY}
        if any(parameter.owner is not None for parameter in old.values()):
            raise GraphError("an optimizer holds the embeddings: resize them before building the optimizer", code="graph-owner")
        new = {key: self._resized(parameter, rows) for key, parameter in old.items()}
        for path, parameter in paths.items():
            if id(parameter) in new:
                holder, _, attribute = path.rpartition(".")
                setattr(dict(self.named_modules())[holder], attribute, new[id(parameter)])
        self.config = replace(self.config, vocab_size=rows)

    def _resized(self, old: Parameter, rows: int) -> Parameter:
        shape, kept = (rows, *old.shape[1:]), min(rows, old.shape[0])
        drawn = init.normal(shape, self.config.initializer_range) if old.ndim == 2 else init.zeros(shape)
        new = Parameter(drawn, old.requires_grad, dtype=old.dtype, device=old.device, gathered=old.gathered)
        new.array[:kept] = old.array[:kept]
        return new

    def save_pretrained(self, directory: str | os.PathLike[str], *, max_shard_size: int | str = "5GB", dtype: str | None = None) -> None:
        """Write config.json and the weights so that minigrad and transformers read them back. Each file appears whole or not at all.

        max_shard_size: bytes, or a string such as "500MB", above which the weights are split into several files with an index.
        dtype: "float16" or "bfloat16" to round the weights to it (nearest, ties to even); None keeps theirs.
        Raises: ConfigError or ArgumentError, before anything is written, for a configuration that no config.json can hold or arguments
        out of range; ArgumentError with the code value-overflow for weights beyond the range of `dtype`; WeightFileError with the code
        write-failed if the directory cannot be written.
        """
        target = as_path(directory)
        text = self._config_to_write(dtype).to_text(type(self).__name__)
        arrays = {path: value.numpy() for path, value in (*self.named_parameters(), *self.named_buffers())}
        try:
            save_weights(arrays, target, max_shard_size=max_shard_size, dtype=dtype, metadata={"format": "pt"})
            write_text(target / CONFIG_NAME, text)
        except OSError as error:
            raise WeightFileError(target, f"cannot be written: {error.strerror or error}", code="write-failed") from error

    def _config_to_write(self, dtype: str | None) -> PretrainedConfig:
        """The configuration, its dtype keys set to the dtype of the written weights."""
        said = [key for key in ("dtype", "torch_dtype") if key in self.config.extra]
        if dtype is None and not said:
            return self.config
        stored = dtype or self.parameters()[0].dtype.name
        return replace(self.config, extra=self.config.extra | dict.fromkeys(said or ["torch_dtype"], stored))


def _with_overrides(
    config: PretrainedConfig,
    num_labels: int | None,
    id2label: Mapping[int, str] | None,
    problem_type: str | None,
    num_hidden_layers: int | None,
) -> PretrainedConfig:
    """The configuration with the caller's overrides. Raises: ArgumentError, ConfigError for bad label names."""
    if id2label is not None:
        if not isinstance(id2label, Mapping):
            raise ArgumentError(
                f"id2label must be a mapping such as {{0: 'no', 1: 'yes'}}, got {quoted(id2label)}; dict(enumerate(names)) is one"
            )
        if num_labels is not None and len(id2label) != num_labels:
            raise ArgumentError(f"num_labels is {quoted(num_labels)}, but id2label names {len(id2label)} labels")
        config = replace(config, id2label=dict(id2label))
    elif num_labels is not None:
        if not _is_integer(num_labels, 1, MAX_LABELS):
            raise ArgumentError(f"num_labels must be an integer of at least 1 and at most {MAX_LABELS}, got {quoted(num_labels)}")
        if num_labels != config.num_labels:
            config = replace(config, id2label=default_labels(int(num_labels)))
    if problem_type is not None:
        if problem_type not in (known := SUPPORTED["problem_type"][1:]):
            raise ArgumentError(f"problem_type must be one of {', '.join(map(str, known))}, got {quoted(problem_type)}")
        config = replace(config, problem_type=problem_type)
    if num_hidden_layers is not None:
        if not _is_integer(num_hidden_layers, 1, config.num_hidden_layers):
            message = f"num_hidden_layers={num_hidden_layers!r:.80}: this checkpoint has 1 to {config.num_hidden_layers} layers to keep"
            raise ArgumentError(message)
        config = replace(config, num_hidden_layers=int(num_hidden_layers))
    return config


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def config_path(directory: Path) -> Path:
    """The path of config.json, or of a TensorFlow checkpoint's own file if only that exists."""
    tensorflow = directory / TENSORFLOW_CONFIG_NAME
    return tensorflow if os.path.lexists(tensorflow) and not os.path.lexists(directory / CONFIG_NAME) else directory / CONFIG_NAME


def _check_vocabulary(directory: Path, config: PretrainedConfig) -> None:
    """Warn if a vocabulary next to the weights has more tokens than the model.

    Raises: TokenizerError if the file cannot be read.
    """
    path = directory / VOCABULARY_NAME
    if not os.path.lexists(path):
        return
    text = read_bounded(path, MAX_VOCABULARY_BYTES, TokenizerError, "vocab-limit")
    tokens = text.count(b"\n") + (not text.endswith(b"\n"))
    if tokens > config.vocab_size:
        logger.warning(
            "%s names %d tokens, the model knows %d: ids from %d on are refused, unless resize_token_embeddings(%d) makes room for them",
            path, tokens, config.vocab_size, config.vocab_size, tokens,
        )  # fmt: skip
