"""BertConfig: what config.json says about a BERT, checked before anything is built from it.

A value that minigrad does not support is refused by name; a key it does not know is kept and written back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from minigrad.errors import ConfigError
from minigrad.nn.activation import ACTIVATIONS

CONFIG_NAME = "config.json"

MAX_SIZE = 1 << 24
"""No published model has a size above this; a larger number in a file is a mistake or an attempt to exhaust memory."""

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "problem_type": (None, "single_label_classification", "regression"),
}
"""Keys that change what the model computes, and the values for which minigrad computes it."""


@dataclass
class BertConfig:
    """The shape of a BERT. Field names and defaults are those of the published config.json (bert-base-uncased).

    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    classifier_dropout: float | None = None
    problem_type: str | None = None
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that minigrad does not use."""
    source: str = "BertConfig"
    """Where the configuration came from, for error messages."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size"):
            self._check_int(name, 1)
        self._check_int("num_hidden_layers", 0)
        self._check_int("pad_token_id", 0)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if not (value is None and name == "classifier_dropout"):
                self._check_number(name, 0.0, 1.0)
        self._check_number("initializer_range", 0.0, 1e3)
        self._check_number("layer_norm_eps", 0.0, 1.0)
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise self._refused("hidden_act", self.hidden_act, f"known are {', '.join(ACTIVATIONS)}")
        if self.problem_type not in SUPPORTED["problem_type"]:
            raise self._refused("problem_type", self.problem_type, f"supported are {SUPPORTED['problem_type'][1:]}")
        if self.hidden_size % self.num_attention_heads:
            raise self._refused("num_attention_heads", self.num_attention_heads, f"hidden_size {self.hidden_size} does not divide by it")
        if not self.id2label or any(type(i) is not int for i in self.id2label) or sorted(self.id2label) != list(range(len(self.id2label))):
            raise self._refused("id2label", self.id2label, "its keys must be 0, 1, 2, …", code="label-map-mismatch")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {label: i for i, label in self.id2label.items()}

    @property
    def attention_head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def _refused(self, name: str, value: Any, why: str, code: str | None = None) -> ConfigError:
        return ConfigError(self.source, f"{name} = {value!r:.80}: {why}", code=code)

    def _check_int(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if type(value) is not int:
            raise self._refused(name, value, "must be an integer", code="config-type")
        if not low <= value <= MAX_SIZE:
            raise self._refused(name, value, f"must lie between {low} and {MAX_SIZE}", code="config-limit")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float):
            raise self._refused(name, value, "must be a number", code="config-type")
        if not low <= value <= high:
            raise self._refused(name, value, f"must lie between {low} and {high}", code="config-limit")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "BertConfig") -> BertConfig:
        """A configuration from the keys of a config.json.

        Raises: ConfigError.
        """
        for name, allowed in SUPPORTED.items():
            if name in values and values[name] not in allowed:
                raise ConfigError(
                    source, f"{name} = {values[name]!r:.80} is not supported by minigrad; supported: {', '.join(map(repr, allowed))}"
                )
        known = {f.name for f in fields(cls)} - {"id2label", "extra", "source"}
        chosen = {name: value for name, value in values.items() if name in known}
        labels = values.get("id2label")
        if labels is None and "num_labels" in values:
            count = values["num_labels"]
            if type(count) is not int or not 1 <= count <= 1 << 20:
                raise ConfigError(source, f"num_labels = {count!r:.80} must be an integer of at least 1", code="config-type")
            labels = default_labels(count)
        if labels is not None:
            chosen["id2label"] = _label_map(labels, source)
        derived = {"id2label", "label2id", "num_labels", "model_type", "architectures"}
        extra = {name: value for name, value in values.items() if name not in known | derived}
        return cls(**chosen, extra=extra, source=source)

    @classmethod
    def from_file(cls, path: str | Path) -> BertConfig:
        """Read a config.json.

        Raises: ConfigError if the file is missing, no JSON object, or says something unsupported.
        """
        return cls.from_dict(read_json_object(Path(path)), str(path))

    def to_dict(self, architecture: str) -> dict[str, Any]:
        """The keys of a config.json that transformers reads back."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("extra", "source", "id2label")}
        labels = {"id2label": {str(i): label for i, label in self.id2label.items()}, "label2id": self.label2id}
        return {**self.extra, **own, **labels, "model_type": "bert", "architectures": [architecture]}


def default_labels(count: int) -> dict[int, str]:
    """LABEL_0, LABEL_1, …: the names used where nobody gave better ones."""
    return {i: f"LABEL_{i}" for i in range(count)}


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a (small) file.

    Raises: ConfigError.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(1 << 24)
        value = json.loads(raw.decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(path, "the file does not exist; a model directory needs one", code="missing-file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(path, f"cannot be read as JSON: {error}", code="bad-json") from error
    if not isinstance(value, dict):
        raise ConfigError(path, "must hold a JSON object", code="bad-json")
    return value


def _label_map(labels: Any, source: str) -> dict[int, str]:
    if not isinstance(labels, Mapping):
        raise ConfigError(source, f"id2label = {labels!r:.80} must be an object", code="label-map-mismatch")
    names: dict[int, str] = {}
    for key, label in labels.items():
        try:
            number = int(key)
        except (TypeError, ValueError) as error:
            raise ConfigError(source, f"id2label has a key that is no number: {error}", code="label-map-mismatch") from error
        if number in names:
            raise ConfigError(source, f"id2label names the label {number} twice", code="label-map-mismatch")
        names[number] = str(label)
    return dict(sorted(names.items()))
