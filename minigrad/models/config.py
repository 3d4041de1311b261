"""Model configurations read from config.json, checked before anything is built: the fields that families share, and BERT's class.

An unsupported value is refused by name; an unknown key is kept and written back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from minigrad.errors import ConfigError
from minigrad.files import as_path, json_type, parse_json, quoted, read_bounded, surrogate_at
from minigrad.nn.activation import ACTIVATIONS

CONFIG_NAME = "config.json"

MAX_SIZE = 1 << 24
MAX_LAYERS = 1000
MAX_LABELS = 1 << 16
MAX_JSON_BYTES = 1 << 24
MAX_PARAMETERS = 1 << 36  # parameters of an encoder: 256 GB in float32
"""No published model comes near these; a larger number in a file is a mistake or an attempt to exhaust memory."""

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "problem_type": (None, "single_label_classification", "multi_label_classification", "regression"),
}
"""Keys that change what the model computes, and the values for which minigrad computes it."""


CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Keys by which other libraries find code to run. minigrad runs none, and does not write these keys."""

_NUMBER = re.compile("[0-9]{1,9}")

SPECIAL_FIELDS = frozenset({"id2label", "extra", "source"})
"""Fields that are not copied to and from config.json as they are."""

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


@dataclass
class PretrainedConfig:
    """Configuration of a model of any family. Names and defaults are BERT's; each family has a class with its own.

    A field that a family's class declares `init=False` is fixed there: it is neither read from a file nor written.
    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    model_types: ClassVar[tuple[str, ...]]
    """The values of `model_type` in files of the family."""
    published_keys: ClassVar[Mapping[str, str]] = {}
    """The config.json key of each field that the family names differently."""
    size_tensors: ClassVar[Mapping[str, tuple[str, int]]] = {
        "hidden_size": (WORD_EMBEDDINGS, 1),
        "vocab_size": (WORD_EMBEDDINGS, 0),
        "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
        "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
        "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
    }
    """For each size, the tensor (name without prefix) and axis of a weight file that it must agree with."""

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
    is_decoder: bool = False
    """Whether attention is causal."""
    tie_word_embeddings: bool = True
    """Whether a language model's decoder shares the table of word embeddings."""
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that minigrad does not use."""
    source: str = ""
    """Where the configuration came from, for error messages; by default the name of the class."""

    def __post_init__(self) -> None:
        self.source = self.source or type(self).__name__
        self.check()
        if (numbers := self.encoder_size()) > MAX_PARAMETERS:
            message = f"a model of this shape has {numbers} numbers, more than the {MAX_PARAMETERS} that minigrad builds"
            raise self._refused("hidden_size", self.hidden_size, message, code="config-limit")

    def check(self) -> None:
        """Refuse, by name, values that no model can be built from or that cannot be written.

        Raises: ConfigError.
        """
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size"):
            self._check_int(name, 1)
        self._check_int("num_hidden_layers", 0, MAX_LAYERS)
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
        for name in ("is_decoder", "tie_word_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise self._refused(name, getattr(self, name), "must be true or false", code="config-type")
        if self.pad_token_id >= self.vocab_size:
            raise self._refused("pad_token_id", self.pad_token_id, f"the vocabulary has {self.vocab_size} tokens, 0 the first")
        if self.hidden_size % self.num_attention_heads:
            message = f"hidden_size {self.hidden_size} does not divide by it"
            raise self._refused("num_attention_heads", self.num_attention_heads, message, code="config-limit")
        if not self.id2label or any(type(i) is not int for i in self.id2label) or sorted(self.id2label) != list(range(len(self.id2label))):
            raise self._refused("id2label", self.id2label, "its keys must be 0, 1, 2, …", code="label-map-mismatch")
        if len(self.id2label) > MAX_LABELS:
            raise self._refused(
                "id2label", self.id2label, f"{len(self.id2label)} labels, at most {MAX_LABELS} are read", code="config-limit"
            )
        for i, label in self.id2label.items():
            if not isinstance(label, str) or surrogate_at(label) is not None:
                raise self._refused(f"id2label[{i}]", label, "must be a string without half surrogate pairs", code="config-text")
        for key, value in self.extra.items():
            try:
                _json_text({key: value}).encode("utf-8")
            except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
                raise self._refused(quoted(key), value, f"no config.json can hold it: {error}", code="config-text") from None

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {label: i for i, label in self.id2label.items()}

    @property
    def head_dropout_prob(self) -> float:
        """Dropout rate before a classifier: `classifier_dropout`, or the encoder's rate if that is unset."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def _refused(self, name: str, value: Any, why: str, code: str | None = None) -> ConfigError:
        return ConfigError(self.source, f"{self.published_keys.get(name, name)} = {quoted(value)}: {why}", code=code)

    def _check_int(self, name: str, low: int, high: int = MAX_SIZE) -> None:
        value = getattr(self, name)
        if type(value) is not int:
            raise self._refused(name, value, "must be an integer", code="config-type")
        if not low <= value <= high:
            raise self._refused(name, value, f"must lie between {low} and {high}", code="config-limit")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float):
            raise self._refused(name, value, "must be a number", code="config-type")
        if not low <= value <= high:
            raise self._refused(name, value, f"must lie between {low} and {high}", code="config-limit")

    @classmethod
    def _plain_keys(cls) -> dict[str, str]:
        """The field of each key that is copied as it is."""
        return {cls.published_keys.get(f.name, f.name): f.name for f in fields(cls) if f.init and f.name not in SPECIAL_FIELDS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "") -> Self:
        """A configuration from the keys of a config.json.

        Raises: ConfigError.
        """
        source = source or cls.__name__
        if values.get("model_type", "") is None:  # null means the same as a missing key
            values = {name: value for name, value in values.items() if name != "model_type"}
        for name, allowed in {"model_type": cls.model_types, **SUPPORTED}.items():
            if name in values and values[name] not in allowed:
                raise ConfigError(
                    source, f"{name} = {quoted(values[name])} is not supported by minigrad; supported: {', '.join(map(repr, allowed))}"
                )
        known = cls._plain_keys()
        chosen = {known[key]: value for key, value in values.items() if key in known}
        labels = values.get("id2label")
        if labels is None and "num_labels" in values:
            count = values["num_labels"]
            if type(count) is not int or count < 1:
                raise ConfigError(source, f"num_labels = {quoted(count)} must be an integer of at least 1", code="config-type")
            if count > MAX_LABELS:
                raise ConfigError(source, f"num_labels = {quoted(count)}: at most {MAX_LABELS} are read", code="config-limit")
            labels = default_labels(count)
        if labels is not None:
            chosen["id2label"] = _label_map(labels, source)
            if values.get("num_labels") not in (None, len(chosen["id2label"])):
                message = f"num_labels = {quoted(values['num_labels'])}, but id2label names {len(chosen['id2label'])} labels"
                raise ConfigError(source, message, code="label-map-mismatch")
        derived = {"id2label", "label2id", "num_labels", "model_type", "architectures"}
        extra = {name: value for name, value in values.items() if name not in known and name not in derived}
        return cls(**chosen, extra=extra, source=source)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a config.json.

        Raises: ConfigError if the file is missing, is not a JSON object, or says something unsupported.
        """
        return cls.from_dict(read_json_object(as_path(path)), str(path))

    def to_dict(self, architecture: str) -> dict[str, Any]:
        """The keys of a config.json that transformers reads back."""
        own = {key: getattr(self, name) for key, name in self._plain_keys().items()}
        names = self.id2label
        if architecture.endswith("ForQuestionAnswering") and len(names) != 2:  # transformers sizes this head's two outputs by the labels
            names = default_labels(2)
        labels = {"id2label": {str(i): label for i, label in names.items()}, "label2id": {label: i for i, label in names.items()}}
        extra = {key: value for key, value in self.extra.items() if key not in CODE_KEYS}
        return {**extra, **own, **labels, "model_type": self.model_types[0], "architectures": [architecture]}

    def to_text(self, architecture: str) -> str:
        """The content of a config.json.

        Raises: ConfigError if the configuration was changed into one that `from_file` would refuse.
        """
        self.check()
        return _json_text(self.to_dict(architecture)) + "\n"

    def encoder_size(self) -> int:
        """Number of parameters without pooler and head."""
        h, inner = self.hidden_size, self.intermediate_size
        embeddings = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size + 2) * h
        attention, feed_forward, norms = 4 * (h * h + h), 2 * h * inner + inner + h, 4 * h
        return embeddings + self.num_hidden_layers * (attention + feed_forward + norms)


@dataclass
class BertConfig(PretrainedConfig):
    """Configuration of a BERT. Field names and defaults are those of the published config.json (bert-base-uncased).

    Raises: ConfigError naming the key and value for anything that cannot be built.
    """

    model_types: ClassVar[tuple[str, ...]] = ("bert",)


def default_labels(count: int) -> dict[int, str]:
    """LABEL_0, LABEL_1, …: the default names."""
    return {i: f"LABEL_{i}" for i in range(count)}


def read_json(path: Path) -> Any:
    """The JSON in a (small) file. Raises: ConfigError."""
    raw = read_bounded(path, MAX_JSON_BYTES, ConfigError, "config-limit")
    try:
        return parse_json(raw.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(path, f"not valid JSON: {error}", code="bad-json") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a (small) file. Raises: ConfigError, also for JSON of another type."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ConfigError(path, f"must hold a JSON object, found {json_type(value)}", code="bad-json")
    return value


def _json_text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _label_map(labels: Any, source: str) -> dict[int, str]:
    if not isinstance(labels, Mapping):
        raise ConfigError(source, f"id2label = {quoted(labels)} must be an object", code="label-map-mismatch")
    names: dict[int, str] = {}
    for key, label in labels.items():
        if type(key) is not int and not (isinstance(key, str) and _NUMBER.fullmatch(key)):
            raise ConfigError(source, f"id2label has the key {quoted(key)}, a key that is no number", code="label-map-mismatch")
        number = int(key)
        if number in names:
            raise ConfigError(source, f"id2label names the label {number} twice", code="label-map-mismatch")
        names[number] = str(label)
    return dict(sorted(names.items()))
