"""The example on entities, on a tiny random model: what it learns, prints and keeps, from records and from CoNLL files."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples.scripts import script
from small_models import directory

from minigrad.errors import DataError, MinigradError


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return script("finetune_ner.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(directory(tmp_path_factory.mktemp("model") / "tiny", "BertModel"))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options for a task that a lookup of words solves: berlin is a place, maria a person, the rest is outside."""
    generator = np.random.default_rng(0)
    options = []
    for split, count in (("train", 48), ("dev", 12), ("test", 12)):
        sentences = []
        for _ in range(count):
            words = generator.choice(["pump", "berlin", "maria", "works", "well", "nurse"], generator.integers(3, 8))
            sentences.append("".join(f"{word} {({'berlin': 'B-LOC', 'maria': 'B-PER'}).get(str(word), 'O')}\n" for word in words))
        path = tmp_path / f"{split}.txt"
        path.write_text("\n".join(sentences), encoding="utf-8")
        options += [f"--{split}", str(path)]
    return [*options, "--format", "conll"]


def test_learns_and_reports_both_ways(
    example: ModuleType, model: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = example.main(["--model", model, *files, "--layers", "1", "--epochs", "10", "--lr", "1e-2", "--output", str(tmp_path / "run")])
    assert report.entity.micro.f1 > 0.9, "a lookup of words"
    assert report.entity.classes.keys() == {"LOC", "PER"} and report.token.classes.keys() == {"B-LOC", "B-PER", "O"}
    printed = capsys.readouterr().out
    assert "entities" in printed and "| tags" in printed and "micro average" in printed
    assert all(sentence in printed for sentence in example.SENTENCES)
    evaluations = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(e["metrics"]["entity_f1"] for e in evaluations if e["event"] == "evaluation") > 0.9
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 1 and config["id2label"]["0"] == "O"


def test_a_finished_run_can_be_asked_again(example: ModuleType, model: str, files: list[str], tmp_path: Path) -> None:
    arguments = ["--model", model, *files, "--layers", "1", "--epochs", "1", "--output", str(tmp_path / "run")]
    report = example.main(arguments)
    with pytest.raises(MinigradError, match="resume it, or name another directory"):
        example.main(arguments)
    assert example.main([*arguments, "--resume"]) == report


def test_the_shipped_records_have_six_types(example: ModuleType) -> None:
    records = example.load_records(example.parse_arguments([]))
    assert {split: len(rows) for split, rows in records.items()} == {"train": 624, "dev": 136, "test": 136}
    assert len({entity.type for record in records["train"] for entity in record.entities}) == 6


def test_a_type_unseen_in_training_names_its_line(example: ModuleType, model: str, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("berlin B-LOC\n\npump B-THING\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.txt:3: the tag 'B-THING' does not occur in training"):
        example.main(["--model", model, *files, "--layers", "1", "--output", str(tmp_path / "run")])


def test_files_go_together(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--train", "a.conll", "--dev", "b.conll"])
    assert "--train, --dev and --test go together" in capsys.readouterr().err
