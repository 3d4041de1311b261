"""The file of a run: read strictly, written back to the same, and every mistake named by file, section and key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError, ConfigError
from minigrad.train.config import MAX_CONFIG_BYTES, RunConfig

LEAST = """\
[model]
name = "minilm-l6"
[data]
train = "train.jsonl"
[task]
kind = "sequence-classification"
[output]
directory = "runs/first"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def with_key(section: str, line: str) -> str:
    """The least file with one more key, or another value for one that it has."""
    key = line.split("=")[0].strip()
    lines = [old for old in LEAST.splitlines() if not old.startswith(f"{key} =")]
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")
    lines.insert(lines.index(f"[{section}]") + 1, line)
    return "\n".join(lines) + "\n"


def test_the_least_file_and_its_defaults(tmp_path: Path) -> None:
    config = RunConfig.from_toml(written(tmp_path, LEAST))
    assert config.model.name == "minilm-l6" and config.data.train == "train.jsonl" and config.data.dev is None
    assert (config.data.max_length, config.data.batch_size, config.training.epochs, config.output.report) == (128, 32, 3, True)
    assert not config.chosen_metric
    assert RunConfig.from_toml(written(tmp_path, config.to_toml())) == config


# Half a surrogate pair, which TOML's UTF-8 cannot hold, is the only kind of string that is left out.
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(name=STRINGS, train=STRINGS, columns=st.none() | st.lists(STRINGS, max_size=3).map(tuple), lr=st.floats(1e-300, 1e300))
def test_written_and_read_again(tmp_path_factory: pytest.TempPathFactory, name: str, train: str, columns: Any, lr: float) -> None:
    least = RunConfig.from_dict(
        {
            "model": {"name": name, "layers": 2},
            "data": {"train": train, "by_length": True} | ({} if columns is None else {"columns": list(columns)}),
            "task": {"kind": "token-classification", "class_weights": [0.5, 1, 1e-9], "label_smoothing": 1},
            "training": {"lr": lr, "workers": "auto", "freeze": [name], "metric": "entity_f1", "clip": 3},
            "output": {"directory": train},
        }
    )
    path = written(tmp_path_factory.mktemp("config"), least.to_toml())
    assert RunConfig.from_toml(path) == least


def test_odd_strings(tmp_path: Path) -> None:
    for odd in ('a"b', "it's", "C:\\new\\table", "line\nline", "tab\tbell\x07\x7f", "Zürich 漢字 🎈", "# no comment", "'''", '"""'):
        config = RunConfig.from_toml(written(tmp_path, LEAST))
        config = replace(config, output=replace(config.output, directory=odd))
        assert RunConfig.from_toml(written(tmp_path, config.to_toml())).output.directory == odd


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.lr=1e-4", 1e-4),
        ("training.lr = 1", 1.0),
        ("training.freeze=['bert.embeddings']", ("bert.embeddings",)),
        ("training.workers=auto", "auto"),
        ("training.workers=2", 2),
        ("training.device=auto", "auto"),
        ("data.by_length=true", True),
        ("data.dev=some where/dev=1.jsonl", "some where/dev=1.jsonl"),
        ("data.dev='[x].csv'", "[x].csv"),
        ("task.class_weights=[1, 2.5]", (1.0, 2.5)),
        ("task.class_weights=balanced", "balanced"),
    ],
)
def test_overrides(tmp_path: Path, override: str, value: Any) -> None:
    config = RunConfig.from_toml(written(tmp_path, LEAST), [override])
    section, name = override.split("=")[0].strip().split(".")
    assert getattr(getattr(config, section), name) == value


def test_an_override_counts_beside_a_stronger_setting_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST.replace("[task]", "batch_size = 8\nbatch_tokens = 99\n[task]") + "[training]\nepochs = 2\nsteps = 7\n")
    config = RunConfig.from_toml(path)
    assert (config.training.steps, config.data.batch_tokens) == (7, 99), "they take the places of epochs and batch_size"
    config = RunConfig.from_toml(path, ["training.epochs=5", "data.batch_size=16"])
    assert (config.training.epochs, config.training.steps, config.data.batch_size, config.data.batch_tokens) == (5, None, 16, None)
    for both in (["training.epochs=5", "training.steps=3"], ["training.steps=3", "training.epochs=5"]):
        assert RunConfig.from_toml(path, both).training.steps == 3, "as in a file"


@pytest.mark.parametrize("override", ["lr=1", "training.lr", "training.=1", "=", "", ".lr=1", "a.b.c=1", "model=x", "other.x=1"])
def test_overrides_that_are_none(tmp_path: Path, override: str) -> None:
    path = written(tmp_path, LEAST)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_toml(path, [override])
    assert str(path) in str(caught.value) and caught.value.code in ("bad-override", "unknown-key")


TYPES = [
    ("model", "name = 1", "must be a string"),
    ("model", "layers = 2.0", "must be an integer"),
    ("model", "layers = true", "must be an integer"),
    ("data", 'max_length = "128"', "must be an integer"),
    ("data", "by_length = 1", "must be true or false"),
    ("data", 'columns = "text"', "must be a list, each a string"),
    ("data", "columns = [1]", "must be a list, each a string"),
    ("data", "dev = 2024-01-01", "must be a string"),
    ("data", "dev = ['a', 'b']", "must be a string"),
    ("task", "label_smoothing = '0.1'", "must be a number"),
    ("task", "label_smoothing = [0.1]", "must be a number"),
    ("task", "class_weights = ['a']", "must be a string or a list, each a number"),
    ("training", "epochs = 1.5", "must be an integer"),
    ("training", "lr = true", "must be a number"),
    ("training", f"lr = 1{'0' * 400}", "must be a number"),
    ("training", "freeze = 'bert'", "must be a list, each a string"),
    ("training", "workers = 1.5", "must be an integer or a string"),
    ("training", "device = 0", "must be a string"),
    ("output", "report = 'no'", "must be true or false"),
]


@pytest.mark.parametrize(("section", "line", "words"), TYPES)
def test_values_of_another_type(tmp_path: Path, section: str, line: str, words: str) -> None:
    path = written(tmp_path, with_key(section, line))
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_toml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {section}.{line.split(' ')[0]} = ") and words in message and len(message) < 400
    assert caught.value.code == "config-type"


VALUES = [
    ("model", "layers = 0"),
    ("data", 'train = ""'),
    ("data", 'dev = ""'),
    ("data", 'format = "xlsx"'),
    ("data", 'on_bad_row = "ignore"'),
    ("data", "max_length = 0"),
    ("data", "batch_size = -1"),
    ("data", "batch_tokens = 0"),
    ("data", "max_skipped = 0"),
    ("data", "stride = 0"),
    ("data", "stride = 16"),
    ("task", 'kind = "classification"'),
    ("task", 'class_weights = "inverse"'),
    ("task", "label_smoothing = 1.5"),
    ("task", "label_smoothing = nan"),
    ("data", 'label_separator = ";"'),
    ("training", "lr = nan"),
    ("training", "lr = inf"),
    ("training", "epochs = 0"),
    ("training", 'schedule = "step"'),
    ("training", 'workers = "many"'),
    ("training", 'metric = "accuarcy"'),
    ("training", 'metric = "entity_f1"'),
    ("training", "patience = 2"),
    ("output", 'directory = ""'),
    ("training", "evaluate_every = 100"),
]


@pytest.mark.parametrize(("section", "line"), VALUES)
def test_values_that_are_refused(tmp_path: Path, section: str, line: str) -> None:
    path = written(tmp_path, with_key(section, line))
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_toml(path)
    message, key = str(caught.value), line.split(" ")[0]
    assert message.startswith(f"{path}: [{section}] {key} ") and caught.value.code == "config-value", message


def test_what_belongs_to_classes_is_no_part_of_a_regression(tmp_path: Path) -> None:
    text = with_key("task", "label_smoothing = 0.1").replace("sequence-classification", "regression")
    with pytest.raises(ConfigError, match=r"\[task\] class_weights and label_smoothing belong to classes"):
        RunConfig.from_toml(written(tmp_path, text))


def test_what_belongs_to_several_classes_at_once(tmp_path: Path) -> None:
    config = RunConfig.from_toml(written(tmp_path, LEAST))
    several = replace(config, task=replace(config.task, kind="multi-label-classification"))
    assert config.label_separator is None and several.label_separator == ","
    assert replace(several, data=replace(several.data, label_separator="|")).label_separator == "|"
    for changes in ({"class_weights": "balanced"}, {"label_smoothing": 0.1}):
        with pytest.raises(ArgumentError, match="belong to classes of which one is right; a multi-label-classification has none"):
            replace(several.task, **changes)


def test_a_metric_of_another_kind_is_refused_whoever_builds_the_configuration(tmp_path: Path) -> None:
    config = RunConfig.from_toml(written(tmp_path, LEAST))
    with pytest.raises(ArgumentError, match=r"metric must be one of those of regression \(loss, mse, .*'accuracy'"):
        replace(config, task=replace(config.task, kind="regression"), training=replace(config.training, metric="accuracy"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (with_key("training", "learning_rate = 1"), r"\[training\] has no 'learning_rate'; it has epochs, .*lr"),
        (with_key("model", "size = 1"), r"\[model\] has no 'size'; it has name, layers"),
        (LEAST + "[trainer]\nlr = 1\n", r"unknown sections 'trainer'; there are model, data"),
        ("lr = 1\n" + LEAST, r"unknown sections 'lr'"),
        (LEAST.replace('name = "minilm-l6"', ""), r"\[model\] needs 'name'"),
        (LEAST.replace('[task]\nkind = "sequence-classification"', ""), r"\[task\] needs 'kind'"),
        ("", r"\[model\] needs 'name'"),
        ("model = 1\n", r"model must be a section, \[model\], got 1"),
        (LEAST + "[[training]]\nlr = 1\n", r"training must be a section"),
    ],
)
def test_names_that_are_unknown_or_missing(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        RunConfig.from_toml(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"[model",
        b"x = ",
        b"[model]\nname = \xff\n",
        b"[model]\n[model]\n",
        b"x = " + b"[" * 5000,
        b"x = " + b"9" * 5000,
        b"\x00",
        b'{"a": 1}',
    ],
    ids=["section", "value", "not UTF-8", "twice", "deep", "digits", "NUL", "JSON"],
)
def test_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        RunConfig.from_toml(path)
    assert caught.value.code == "bad-toml" and str(caught.value).startswith(f"{path}: ")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        RunConfig.from_toml(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="not a regular file"):
        RunConfig.from_toml(tmp_path)
    with pytest.raises(ConfigError, match="larger than"):
        RunConfig.from_toml(written(tmp_path, "#" * (MAX_CONFIG_BYTES + 1)))


def test_a_file_that_is_not_there_is_not_called_bad_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file does not exist") as caught:
        RunConfig.from_toml(tmp_path / "none.toml")
    assert caught.value.code == "missing-file" and "TOML" not in str(caught.value)
