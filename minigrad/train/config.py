"""config.toml, the file that describes a run: read strictly, and written back as understood.

    [model]
    name = "minilm-l6"
    layers = 2

    [data]
    train = "train.jsonl"
    dev = "dev.jsonl"

    [task]
    kind = "sequence-classification"

    [training]
    epochs = 3

    [output]
    directory = "runs/first"

Paths are relative to the current directory. Missing settings have defaults; unknown names are errors.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from minigrad.data.readers import FORMATS
from minigrad.errors import ArgumentError, ConfigError
from minigrad.files import listing, quoted, read_bounded
from minigrad.train.settings import MAX_FLOAT, TrainingSettings
from minigrad.train.tasks import KINDS

MAX_CONFIG_BYTES = 1 << 20
CONFIG_NAME = "config.toml"
OVERRIDDEN_BY = {("training", "epochs"): "steps", ("data", "batch_size"): "batch_tokens"}
"""For a setting, the one that takes precedence if a file has both. Files written by runs do: they hold the defaults, too."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """The model that training starts from. name: a directory, a named checkpoint or a Hugging Face id. layers: keep the first so many."""

    name: str
    layers: int | None = None

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise ArgumentError(f"layers must be at least 1, got {self.layers}")


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """The data files, and how they are read and batched.

    train, dev, test: files; dev selects the best model, test is evaluated once, at the end. format, text, label, text_b, label_separator,
    columns, encoding: as `read_records` takes them (format, text_column, …); label_separator is a comma by default in multi-label
    classification. group: a column by which results are also reported. on_bad_row: "raise" or "skip", at most max_skipped rows.
    max_length: in tokens. stride: how many tokens the windows of a long text share (token classification). batch_size: texts in a step;
    batch_tokens: tokens in a step, instead. by_length: batch texts of about equal length together.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    format: str | None = None
    text: str | None = None
    label: str | None = None
    text_b: str | None = None
    label_separator: str | None = None
    columns: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    group: str | None = None
    on_bad_row: str = "raise"
    max_skipped: int = 100
    max_length: int = 128
    stride: int | None = None
    batch_size: int = 32
    batch_tokens: int | None = None
    by_length: bool = False

    def __post_init__(self) -> None:
        if self.on_bad_row not in ("raise", "skip"):
            raise ArgumentError(f'on_bad_row must be "raise" or "skip", got {quoted(self.on_bad_row)}')
        if self.format is not None and self.format not in FORMATS:
            raise ArgumentError(f"format must be one of {listing(FORMATS)}, got {quoted(self.format)}")
        for name in ("train", "dev", "test"):
            if getattr(self, name) == "":
                raise ArgumentError(f"{name} must be the path of a file, got an empty one")
        for name in ("max_length", "batch_size", "max_skipped", "batch_tokens", "stride"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ArgumentError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class TaskPart:
    """The task. kind: sequence-classification, multi-label-classification, regression or token-classification. class_weights: "balanced",
    or a number for each label in the order of their names. label_smoothing: from 0 to 1."""

    kind: str
    class_weights: str | tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(f"kind must be one of {listing(KINDS)}, got {quoted(self.kind)}")
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise ArgumentError(f'class_weights must be "balanced" or a list of numbers, got {quoted(self.class_weights)}')
        if not 0 <= self.label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing must be a number from 0 to 1, got {self.label_smoothing}")
        one_class = self.kind in ("sequence-classification", "token-classification")
        if not one_class and (self.class_weights is not None or self.label_smoothing):
            raise ArgumentError(f"class_weights and label_smoothing belong to classes of which one is right; a {self.kind} has none")


@dataclass(frozen=True, kw_only=True)
class OutputPart:
    """The output of a run. directory: for all its files. tensorboard: write TensorBoard files there, too. report: write report.html at the
    end."""

    directory: str
    tensorboard: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        if not self.directory:
            raise ArgumentError("directory must be the path of a directory, got an empty one")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The configuration of a run, as in config.toml. Raises: ArgumentError for settings that contradict each other."""

    model: ModelPart
    data: DataPart
    task: TaskPart
    output: OutputPart
    training: TrainingSettings = field(default_factory=TrainingSettings)
    chosen_metric: bool = True
    """Whether the file names the metric; otherwise the task's default decides."""

    def __post_init__(self) -> None:
        figures = KINDS[self.task.kind].figures
        if self.training.metric not in figures:
            known = ", ".join(figures)
            raise ArgumentError(f"[training] metric must be one of those of {self.task.kind} ({known}), got {quoted(self.training.metric)}")
        for name in ("patience", "evaluate_every"):
            if getattr(self.training, name) is not None and self.data.dev is None:
                raise ArgumentError(f"[training] {name} is about evaluations, which need [data] dev")
        if self.data.stride is not None and self.task.kind != "token-classification":
            raise ArgumentError(f"[data] stride belongs to token-classification: {self.task.kind} cuts long texts")
        if self.data.label_separator is not None and self.task.kind != "multi-label-classification":
            raise ArgumentError(f"[data] label_separator belongs to multi-label-classification: {self.task.kind} has one label")

    @property
    def label_separator(self) -> str | None:
        """The separator between the labels of a record; None if a record has one label."""
        return (self.data.label_separator or ",") if self.task.kind == "multi-label-classification" else None

    @classmethod
    def from_toml(cls, path: Path, overrides: Sequence[str] = ()) -> RunConfig:
        """Read a file. overrides: texts such as "training.lr=1e-4", whose values are TOML, or strings if they are not valid TOML.

        An override also wins over a setting in the file that would take precedence: "training.epochs=2" removes the file's `steps`.
        Raises: ConfigError naming the file and the key.
        """
        content = read_bounded(path, MAX_CONFIG_BYTES, ConfigError, "config-limit")
        try:
            values = tomllib.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, an integer of thousands of digits
            raise ConfigError(path, f"not valid TOML: {error}", code="bad-toml") from None
        _override(path, values, overrides)
        return cls.from_dict(values, path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str | Path = "config") -> RunConfig:
        """From nested dicts. Raises: ConfigError."""
        parts = {"model": ModelPart, "data": DataPart, "task": TaskPart, "output": OutputPart, "training": TrainingSettings}
        if unknown := [name for name in values if name not in parts]:
            raise ConfigError(path, f"unknown sections {listing(unknown)}; there are {', '.join(parts)}", code="unknown-key")
        built: dict[str, Any] = {}
        for name, part in parts.items():
            section = values.get(name, {})
            if not isinstance(section, Mapping):
                raise ConfigError(path, f"{name} must be a section, [{name}], got {quoted(section)}", code="config-type")
            if part is TrainingSettings:
                section = {"workers": "auto", **section}  # safe: a run from a file has no hooks or closures that workers would miss
            built[name] = _parse_section(path, name, part, section)
        try:
            return cls(**built, chosen_metric="metric" in values.get("training", {}))
        except ArgumentError as error:  # each section is valid by itself, but they contradict each other
            raise ConfigError(path, str(error), code="config-value") from error

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Every setting by section, without those that are None, and without a metric that the file did not name."""
        sections = {name: asdict(getattr(self, name)) for name in ("model", "data", "task", "training", "output")}
        if not self.chosen_metric:
            del sections["training"]["metric"]
        return {
            name: {key: list(value) if isinstance(value, tuple) else value for key, value in section.items() if value is not None}
            for name, section in sections.items()
        }

    def to_toml(self) -> str:
        """The text of a file that `from_toml` reads back as an equal configuration."""
        sections = [
            "\n".join([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in section.items())])
            for name, section in self.to_dict().items()
        ]
        return "\n\n".join(sections) + "\n"


def _override(path: Path, values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply the overrides to the values of a file. Raises: ConfigError."""
    given = []
    for override in overrides:
        key, equals, text = override.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError(
                path, f"--set takes section.name=value, such as training.lr=1e-4, got {quoted(override)}", code="bad-override"
            )
        try:
            value = tomllib.loads(f"x = {text.strip()}")["x"]
        except (ValueError, RecursionError):
            value = text.strip()
        if not isinstance(values.setdefault(section, {}), dict):
            raise ConfigError(path, f"{section} must be a section, [{section}]", code="config-type")
        values[section].pop(OVERRIDDEN_BY.get((section, name)), None)
        given.append((section, name, value))
    for section, name, value in given:
        values[section][name] = value


def _parse_section(path: str | Path, section: str, kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from a section. Raises: ConfigError for an unknown or missing name, a value of the wrong type, or one it refuses."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise ConfigError(path, f"[{section}] has no {listing(unknown)}; it has {', '.join(known)}", code="unknown-key")
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        given[name] = _convert(value, hints[name])
        if given[name] is None:
            raise ConfigError(path, f"{section}.{name} = {quoted(value)} must be {_type_name(hints[name])}", code="config-type")
    if missing := [name for name, f in known.items() if name not in given and f.default is MISSING]:
        raise ConfigError(path, f"[{section}] needs {listing(missing)}", code="missing-key")
    try:
        return kind(**given)
    except ArgumentError as error:
        raise ConfigError(path, f"[{section}] {error}", code="config-value") from error


def _convert(value: Any, hint: Any) -> Any:
    """The value converted to its field's type (an integer to a float, a list to a tuple), or None if it has another type."""
    if isinstance(hint, UnionType):
        found = [_convert(value, option) for option in get_args(hint) if option is not type(None)]
        return next((option for option in found if option is not None), None)
    if get_origin(hint) is tuple:
        inner = [_convert(item, get_args(hint)[0]) for item in value] if isinstance(value, list | tuple) else [None]
        return None if None in inner else tuple(inner)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= MAX_FLOAT else None
    return value if type(value) is hint else None


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    if isinstance(hint, UnionType):
        return " or ".join(_type_name(option) for option in get_args(hint) if option is not type(None))
    return f"a list, each {_type_name(get_args(hint)[0])}" if get_origin(hint) is tuple else names[hint]


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):  # a JSON string is a TOML string, except that TOML escapes U+007F
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return ("true" if value else "false") if isinstance(value, bool) else repr(value)
