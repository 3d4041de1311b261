"""The fine-tuning example, on a tiny random model made here: its files, its report, and what it says of bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples.scripts import EXAMPLES, script

import minigrad as mg
from minigrad.data import Batch, PackedLoader, Tokenizer
from minigrad.errors import CheckpointError, MinigradError
from minigrad.models import BertConfig, BertForSequenceClassification, BertModel

SCRIPT = EXAMPLES / "finetune_bert_tiny.py"
WORDS = ["the", "pump", "card", "train", "is", "was", "not", "broken", "late", "paid", "very", "good", "bad", "again", "today"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return script("finetune_bert_tiny.py")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    mg.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return directory


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options for a small separable task: which of three words occurs."""
    rng = np.random.default_rng(0)
    options = []
    for split, count in (("train", 60), ("dev", 20), ("test", 20)):
        rows = []
        for i in range(count):
            label = ("pump", "card", "train")[i % 3]
            words = [*rng.choice(WORDS[4:], 4), label]
            rows.append({"text": " ".join(words), "label": label})
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        options += [f"--{split}", str(path)]
    return options


def test_learns_saves_reports(
    example: ModuleType,
    model_dir: Path,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report.json"
    example.main(
        [
            "--model",
            str(model_dir),
            *files,
            "--epochs",
            "8",
            "--batch-size",
            "8",
            "--lr",
            "5e-3",
            "--output",
            "out",
            "--report",
            str(report),
        ]
    )
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["test"]["accuracy"] > 0.9 and figures["dev"]["accuracy"] > 0.9
    assert figures["test"]["classes"].keys() == {"card", "pump", "train"}
    assert len(figures["seconds_per_epoch"]) == 8 and figures["tokens_per_second"] > 0 and figures["peak_memory_mb"] > 0
    assert figures["options"]["lr"] == 5e-3 and figures["options"]["layers"] == 2
    printed = capsys.readouterr()
    assert "precision" in printed.out and "support" in printed.out and "step 64: dev loss" in printed.err
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "out" / "best")
    assert saved.config.id2label == {0: "card", 1: "pump", 2: "train"} and saved.config.num_hidden_layers == 2
    events = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [event["lr"] for event in events if event["event"] == "step"]
    assert len(rates) == 8 * 8 and rates[0] == 0.0 and max(rates) == pytest.approx(5e-3)
    accuracies = [event["metrics"]["accuracy"] for event in events if event["event"] == "evaluation"]
    assert len(accuracies) == 8 and max(accuracies) == figures["dev"]["accuracy"]


def test_frozen_parameters_stay(
    example: ModuleType, model_dir: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example.main(
        ["--model", str(model_dir), *files, "--epochs", "1", "--freeze", "bert.embeddings", "bert.encoder.layer.0", "--output", "out"]
    )
    before = BertForSequenceClassification.from_pretrained(model_dir, num_labels=3, num_hidden_layers=2).state_dict()
    after = BertForSequenceClassification.from_pretrained(tmp_path / "out" / "best").state_dict()
    for name in before:
        same = np.array_equal(before[name], after[name])
        frozen = name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))
        if frozen or "key.bias" not in name:  # a key bias has gradient zero but for rounding
            assert same == frozen, name


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}  # this checkout, whether it is installed or not
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.tsv", "text\tlabel\nfine\tgood\n\tbad\n", "empty.tsv:3"),
        ("columns.csv", "text,label\nfine,good\nonly one\n", "columns.csv:3"),
        ("bytes.tsv", b"text\tlabel\nfine\tgood\n\xff\xfe\tbad\n", "bytes.tsv:3"),
        ("unknown.doc", "text\tlabel\n", ".tsv"),
    ],
)
def test_bad_files_are_one_clear_line(model_dir: Path, tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    done = run_script("--model", str(model_dir), "--train", str(path), "--dev", str(path), "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and said in done.stderr and "Traceback" not in done.stderr


def test_a_label_unseen_in_training_names_its_line(model_dir: Path, files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text('{"text": "pump", "label": "pump"}\n{"text": "x", "label": "boat"}\n', encoding="utf-8")
    done = run_script("--model", str(model_dir), *files, "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "dev.jsonl:2" in done.stderr and "boat" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train", "nowhere.tsv", "--dev", "nowhere.tsv"], "nowhere.tsv"),
        (["--epochs", "0"], "epochs must be an integer of at least 1, got 0"),
        (["--batch-size", "0"], "batch_size must be an integer of at least 1, got 0"),
        (["--warmup-ratio", "2"], "warmup must be a number from 0 to 1, got 2.0"),
        (["--layers", "99"], "99"),
        (["--layers", "0"], "num_hidden_layers"),
        (["--lr", "0"], "lr must be a number above 0, got 0.0"),
        (["--lr", "nan"], "lr must be a number above 0, got nan"),
        (["--lr", "inf"], "lr must be a number above 0, got inf"),
        (["--weight-decay", "-0.1"], "weight_decay must be a number of at least 0, got -0.1"),
        (["--max-length", "2"], "max_length"),
        (["--seed", "-1"], "seed must be an integer of at least 0, got -1"),
        (["--freeze", "bert", "classifier"], "freeze = 'bert', 'classifier' leaves nothing to train"),
        (["--freeze", "bert.nothing"], "bert.nothing"),
    ],
)
def test_bad_options(example: ModuleType, model_dir: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(MinigradError, match=re.escape(said)):
        example.main(["--model", str(model_dir), "--output", str(tmp_path / "out"), *arguments])


def test_files_go_together(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--train", "nowhere.tsv"])
    assert "--train and --dev go together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--report", "nowhere/report.json"), ("--report", "."), ("--output", "afile"), ("--output", "afile/model")],
)
def test_places_that_cannot_be_written_are_found_before_the_training(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("content", encoding="utf-8")
    done = run_script("--model", "no/model", *files, "--output", "out", option, value)  # the model is not even looked for
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {option} {value} ") and done.stderr.count("\n") == 1
    assert (tmp_path / "afile").read_text(encoding="utf-8") == "content"


def test_one_class_is_no_classification(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "pump", "label": "pump"}\n' * 3, encoding="utf-8")
    done = run_script("--model", "no/model", *files, "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "train.jsonl: every record has the label 'pump': there is nothing to learn" in done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that is meant to happen
@pytest.mark.parametrize(
    ("batch_size", "words"),
    [("20", "step 2: the loss is nan.*a smaller learning rate may help"), ("60", "finite")],
    ids=["within an epoch", "in its last step"],
)
def test_a_training_that_diverges_stops_and_keeps_what_was_saved(
    example: ModuleType,
    model_dir: Path,
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(model_dir), *files, "--batch-size", batch_size, "--lr"]
    example.main([*arguments, "1e-3", "--epochs", "1", "--output", "out"])
    before = contents(tmp_path / "out" / "best")
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run: resume it, or name another directory"):
        example.main([*arguments, "1e30", "--epochs", "9", "--output", "out"])
    with pytest.raises(MinigradError, match=words):
        example.main([*arguments, "1e30", "--epochs", "9", "--output", "new", "--warmup-ratio", "0"])
    assert contents(tmp_path / "out" / "best") == before
    assert not (tmp_path / "new" / "best").exists()


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_model(
    example: ModuleType, model_dir: Path, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(model_dir), *files, "--epochs", "4", "--lr", "1e-3", "--output"]
    example.main([*arguments, "whole"])
    deal = PackedLoader.epoch

    def interrupted(loader: PackedLoader, number: int = 0, start: int = 0) -> Iterator[Batch]:
        if loader.shuffle and number == epoch:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C: the step that follows is finished and saved
        return deal(loader, number, start)

    with monkeypatch.context() as patch:
        patch.setattr(PackedLoader, "epoch", interrupted)
        with pytest.raises(SystemExit) as left:
            example.main([*arguments, "out"])
    assert left.value.code == 128 + signal.SIGINT
    assert (tmp_path / "out" / "best").exists() == (epoch > 0)
    example.main([*arguments, "out", "--resume"])
    assert contents(tmp_path / "out" / "best") == contents(tmp_path / "whole" / "best")
    assert Tokenizer.from_pretrained(tmp_path / "out" / "best").encode(["the pump"])


def test_too_long_texts_are_counted(
    example: ModuleType,
    model_dir: Path,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    example.main(["--model", str(model_dir), *files, "--epochs", "1", "--max-length", "5", "--output", "out"])
    assert "train: 60 of 60 texts are longer than 5 tokens and were cut" in capsys.readouterr().out
