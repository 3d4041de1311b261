"""The commands train, resume and evaluate: a whole run, and what a clumsy user gets to read."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import NO_GPU, probed
from train.runs import last_digest, log_of, run_folder, save_config

from minigrad.cli import main
from minigrad.data import progress
from minigrad.train import scores
from minigrad.train.config import RunConfig
from minigrad.train.run import Run
from minigrad.train.tasks import SequenceClassification


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three epochs that has ended."""
    folder = tmp_path_factory.mktemp("trained")
    path = save_config(folder, run_folder(folder, save_every=4))
    assert main(["train", str(path)]) == 0
    return folder


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Status 2 and one line that says so."""
    capsys.readouterr()
    assert main(arguments) == 2
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("minigrad ")]
    assert len(lines) == 1 and told.err.splitlines()[-1] == lines[0], told.err
    assert "Traceback" not in told.err and "fault of minigrad" not in told.err, told.err
    for word in words:
        assert word in lines[0], lines[0]
    assert told.out == ""


# ---------------------------------------------------------------- what works
def test_train_writes_everything(trained: Path) -> None:
    run = trained / "run"
    assert {"config.toml", "log.jsonl", "checkpoints", "best", "predictions-dev.jsonl", "predictions-test.jsonl"} <= set(os.listdir(run))
    assert log_of(trained)[0]["run"]["command"][-2:] == ["train", str(trained / "config.toml")]


def test_evaluate_gives_the_figures_of_the_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = trained / "again.jsonl", trained / "figures.json"
    arguments = [
        "evaluate",
        str(trained / "run" / "best"),
        str(trained / "test.jsonl"),
        "--predictions",
        str(out),
        "--json",
        str(figures),
        "--workers",
        "1",
    ]
    assert main(arguments) == 0
    logged = log_of(trained)[-1]["metrics"]
    assert json.loads(figures.read_text(encoding="utf-8")) == logged
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed == {name: f"{value:.4f}" for name, value in logged.items()}
    assert out.read_bytes() == (trained / "run" / "predictions-test.jsonl").read_bytes()
    assert main([*arguments[:5], "--group", "desk"]) == 0
    assert all("group" in json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("kind", ["regression", "token-classification", "multi-label-classification"])
def test_evaluate_knows_the_kind_of_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    config = run_folder(tmp_path, kind, steps=2)
    if kind == "regression":
        rows = "".join(json.dumps({"text": f"pump {i}", "label": 1.5}) + "\n" for i in range(8))  # so that correlations are NaN
        for split in ("train", "dev", "test"):
            (tmp_path / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    separator = []
    if kind == "multi-label-classification":
        config = replace(config, data=replace(config.data, label_separator=";"), output=replace(config.output, report=True))
        separator = ["--label-separator", ";"]
        for split in ("train", "dev", "test"):
            rows = "".join(json.dumps({"text": f"pump {i}", "label": [[], ["a"], ["b", "a"]][i % 3]}) + "\n" for i in range(12))
            (tmp_path / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    assert main(["train", str(save_config(tmp_path, config))]) == 0
    capsys.readouterr()
    arguments = ["evaluate", str(tmp_path / "run" / "best"), str(tmp_path / "test.jsonl"), "--json", str(tmp_path / "x.json"), *separator]
    assert main([*arguments, "--workers", "1"]) == 0
    told = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(told) == log_of(tmp_path)[-1]["metrics"]
    assert ('"pearson": "nan"' in told) == (kind == "regression"), "JSON has no NaN"
    if kind == "multi-label-classification":
        assert log_of(tmp_path)[0]["run"]["data"]["train"]["labels"] == {"a": 8, "b": 4}
        figures = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["splits"][0]
        assert list(figures["report"]["classes"]) == ["a", "b"]
        assert figures["scores"]["subset accuracy"] == pytest.approx(json.loads(told)["subset_accuracy"])
        assert figures["report"]["micro"]["f1"] == pytest.approx(json.loads(told)["f1_micro"])
    if kind != "token-classification":
        predict = ["predict", str(tmp_path / "run" / "best"), "--task", "text-classification", "--data", str(tmp_path / "test.jsonl")]
        capsys.readouterr()
        assert main([*predict, "--top-k", "2", "--workers", "1"]) == 0
        lines = [json.loads(line)["prediction"] for line in capsys.readouterr().out.splitlines()]
        rows = [json.loads(line) for line in (tmp_path / "run" / "predictions-test.jsonl").read_text(encoding="utf-8").splitlines()]
        for line, row in zip(lines, rows, strict=True):
            wanted = row["probabilities"] if kind == "multi-label-classification" else {"LABEL_0": row["prediction"]}
            assert {entry["label"]: pytest.approx(entry["score"], abs=1e-6) for entry in line} == wanted  # in float32


def test_a_header_that_was_taken_for_a_record_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_folder(tmp_path, steps=1)
    (tmp_path / "train.csv").write_text("review,sentiment\n" + "pump works,thing\nnurse maria,person\n" * 3, encoding="utf-8")
    path = save_config(tmp_path, replace(config, data=replace(config.data, train=str(tmp_path / "train.csv"))))
    assert main(["train", str(path)]) == 0
    assert "[data] text = 'review', label = 'sentiment'" in capsys.readouterr().err
    assert ["looks like a header" in event["message"] for event in log_of(tmp_path) if event["event"] == "notice"] == [True]


def test_labels_in_several_spellings_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_folder(tmp_path, steps=1)
    with open(config.data.train, encoding="utf-8") as train:
        (tmp_path / "two.jsonl").write_text(train.read().replace('"thing"', '"Person"', 1), encoding="utf-8")
    path = save_config(tmp_path, replace(config, data=replace(config.data, train=str(tmp_path / "two.jsonl"))))
    assert main(["train", str(path)]) == 0
    assert capsys.readouterr().err.count("'Person' (1), 'person' (") == 1
    assert ["differ only in letter case" in event["message"] for event in log_of(tmp_path) if event["event"] == "notice"] == [True]


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_evaluate_cuts_texts_where_the_run_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    config = run_folder(tmp_path, kind, steps=2)
    stride = 1 if kind == "token-classification" else None
    path = save_config(tmp_path, replace(config, data=replace(config.data, max_length=5, stride=stride)))
    assert main(["train", str(path)]) == 0
    capsys.readouterr()
    best, out = tmp_path / "run" / "best", tmp_path / "again.jsonl"
    test, last = str(tmp_path / "test.jsonl"), ["--predictions", str(out), "--workers", "1"]
    assert main(["evaluate", str(best), test, *last]) == 0
    assert out.read_bytes() == (tmp_path / "run" / "predictions-test.jsonl").read_bytes()
    told = capsys.readouterr().err
    shutil.copytree(best, tmp_path / "best")  # of no run: up to what the model reads
    assert main(["evaluate", str(tmp_path / "best"), test, *last]) == 0
    assert out.read_bytes() != (tmp_path / "run" / "predictions-test.jsonl").read_bytes()
    assert capsys.readouterr().err == ""
    if kind == "sequence-classification":
        count = sum(len(json.loads(line)["text"].split()) > 3 for line in Path(test).read_text(encoding="utf-8").splitlines())
        cut = f"{count} of 16 texts have more than 5 tokens and are cut"
        assert told == f"minigrad evaluate: note: {cut} (--max-length)\n"
        assert f"test: {cut} (data.max_length)" in caplog.messages


def test_without_a_terminal_lines_say_how_far_evaluate_is(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(scores, "BATCH_TOKENS", 40)
    assert main(["evaluate", str(trained / "run" / "best"), str(trained / "test.jsonl"), "--workers", "1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and all(" of 16 texts, " in line and line.endswith(" left") for line in lines) and lines[-1].startswith("16 of")


@pytest.mark.parametrize("option", ["--json", "--predictions"])
def test_evaluate_refuses_a_file_without_a_place_before_it_computes(trained: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    arguments = ["evaluate", str(trained / "run" / "best"), str(trained / "test.jsonl"), option]
    failed([*arguments, str(trained / "nowhere" / "x.json")], capsys, f"{option}: {trained / 'nowhere'} is no directory")
    failed([*arguments, str(trained / "test.jsonl")], capsys, f"{option}: {trained / 'test.jsonl'} is the input: name another file")
    failed([*arguments, str(trained)], capsys, f"{option}: {trained} exists and is not a regular file")


def test_an_interrupted_run_is_resumed_to_the_same(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_folder(tmp_path, save_every=4)
    plain = Run._evaluate_dev

    def pressed(run: Run) -> dict[str, float]:
        if run.trainer.at.step == 4:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of an evaluation
        return plain(run)

    monkeypatch.setattr(Run, "_evaluate_dev", pressed)
    assert main(["train", str(save_config(tmp_path, config))]) == 130
    os.rename(tmp_path / "run", tmp_path / "it's moved")
    assert main(["resume", str(tmp_path / "it's moved")]) == 0
    os.rename(tmp_path / "it's moved", tmp_path / "run")
    assert last_digest(tmp_path) == last_digest(trained)
    best = "model.safetensors"
    assert (tmp_path / "run" / "best" / best).read_bytes() == (trained / "run" / "best" / best).read_bytes()


def test_other_paths_to_the_same_files_are_no_change(tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    half = replace(config, training=replace(config.training, steps=12))
    run = Run(half)
    run.trainer.callbacks.append(lambda e: os.kill(os.getpid(), signal.SIGTERM) if e["event"] == "step" and e["step"] == 5 else None)
    assert run.fit().exit_code == 143
    os.rename(tmp_path / "model", tmp_path / "elsewhere")
    os.rename(tmp_path / "dev.jsonl", tmp_path / "development.jsonl")
    changes = ["--set", f"model.name={tmp_path / 'elsewhere'}", "--set", f"data.dev={tmp_path / 'development.jsonl'}"]
    assert main(["resume", str(tmp_path / "run"), *changes]) == 0


def test_another_dev_file_is_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is best follows from it."""
    assert main(["train", str(save_config(tmp_path, run_folder(tmp_path, steps=2, workers="auto")))]) == 0
    rows = (tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "dev.jsonl").write_text("\n".join(rows[1:]) + "\n", encoding="utf-8")
    failed(["resume", str(tmp_path / "run")], capsys, "was saved with something else: dev: ")


def test_a_device_may_change_when_a_run_is_resumed(tmp_path: Path, trained: Path) -> None:
    """Without a GPU "auto" is the CPU, and the numbers are those of a run that names no device."""
    with probed(NO_GPU):
        path = save_config(tmp_path, run_folder(tmp_path, save_every=4))
        run = Run(RunConfig.from_toml(path, ["training.device=cpu"]))
        run.trainer.callbacks.append(lambda e: os.kill(os.getpid(), signal.SIGTERM) if e["event"] == "step" and e["step"] == 5 else None)
        assert run.fit().exit_code == 143
        assert main(["resume", str(tmp_path / "run"), "--set", "training.device=auto"]) == 0
    assert last_digest(tmp_path) == last_digest(trained)
    assert log_of(tmp_path)[0]["run"]["environment"]["device"] == "cpu"


def test_evaluate_on_the_best_device(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(trained / "run" / "best"), str(trained / "test.jsonl"), "--workers", "1"]
    told = []
    with probed(NO_GPU):
        for more in ([], ["--device", "auto"]):
            assert main([*arguments, *more]) == 0
            told.append(capsys.readouterr().out)
    assert told[0] == told[1] != ""


# ---------------------------------------------------------------- what does not
def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    with probed(NO_GPU):
        for arguments in (
            ["train", str(path), "--set", "training.device=cuda"],
            ["evaluate", str(trained / "run" / "best"), str(trained / "test.jsonl"), "--device", "cuda"],
            ["resume", str(trained / "run"), "--set", "training.device=cuda"],
        ):
            failed(arguments, capsys, f'device "cuda": {NO_GPU.reason}')
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "resume", "evaluate"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    told = capsys.readouterr().out
    assert caught.value.code == 0 and "Exit status: 0 done" in told
    options = [line for line in told.splitlines() if line.startswith("  ")]
    for i, line in enumerate(options):  # an option whose help is empty is followed by the next option
        if line.startswith("  -") and len(line.split()) <= 2:
            assert i + 1 < len(options) and options[i + 1].startswith("       "), line
    with pytest.raises(SystemExit) as caught:
        main([command])
    assert caught.value.code == 2 and "usage: " in capsys.readouterr().err


MISTAKES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "wrong file": (["data.train=nowhere.jsonl"], ("nowhere.jsonl", "does not exist")),
    "wrong metric": (["training.metric=accuarcy"], ("config.toml", "[training] metric", "accuarcy", "f1_macro")),
    "wrong key": (["training.learning_rate=1"], ("[training] has no 'learning_rate'",)),
    "wrong value": (["training.lr=fast"], ("training.lr = 'fast' must be a number",)),
    "no column of texts": (["data.text=sentence"], ("train.jsonl:1", "sentence")),
    "no column of labels": (["data.label=class"], ("train.jsonl", "class")),
    "no column of groups": (["data.group=branch"], ("train.jsonl:1", "no column 'branch' to group by")),
    "no such model": (["model.name=./nowhere"], ("nowhere",)),
    "too long": (["data.max_length=97"], ("max_length = 97: this model reads 96 tokens: set it to 96 or less",)),
    "nothing to train": (["training.freeze=['*']"], ("leaves nothing to train",)),
    "no such parameter": (["training.freeze=['encoder.layer.99']"], ("encoder.layer.99",)),
    "too few weights": (["task.class_weights=[1]"], ("class_weights",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    path = save_config(tmp_path, run_folder(tmp_path))
    failed(["train", str(path), *(word for change in changes for word in ("--set", change))], capsys, *words)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed(["train", str(tmp_path / "missing.toml")], capsys, "missing.toml", "does not exist")
    failed(["train", str(tmp_path)], capsys, "is a directory: name a config.toml")
    (tmp_path / "bad.toml").write_text("[model\nname = 1", encoding="utf-8")
    failed(["train", str(tmp_path / "bad.toml")], capsys, "bad.toml: not valid TOML")
    failed(["resume", str(tmp_path)], capsys, f"{tmp_path} holds no config.toml, so it is no output directory of a run")
    bad = tmp_path / "bad.toml"
    failed(["resume", str(bad)], capsys, f"resume: {bad} is a file: name the output directory of the run")


def test_an_output_directory_that_is_a_file_or_full(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    (tmp_path / "run").write_text("precious", encoding="utf-8")
    failed(["train", str(path)], capsys, str(tmp_path / "run"), "is no directory")
    assert (tmp_path / "run").read_text(encoding="utf-8") == "precious"
    failed(["train", str(path), "--set", f"output.directory={tmp_path / 'run' / 'below'}"], capsys, str(tmp_path / "run"))
    before = (trained / "run" / "log.jsonl").read_bytes()
    failed(["train", str(trained / "config.toml")], capsys, "holds a run already")
    assert (trained / "run" / "log.jsonl").read_bytes() == before


def test_a_best_model_without_checkpoints_is_a_run_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    failed(["train", str(save_config(tmp_path, run_folder(tmp_path)))], capsys, "holds a run already")


def test_the_file_that_describes_a_run_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    before = path.read_bytes()
    failed(["train", str(path), "--set", f"output.directory={tmp_path}"], capsys, "holds a config.toml that no run wrote")
    assert path.read_bytes() == before and not (tmp_path / "log.jsonl").exists()


def test_a_rate_that_explodes_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    failed(["train", str(path), "--set", "training.lr=1e30"], capsys, "step ", "not finite", "in rows", "smaller learning rate")


def test_a_model_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nonsense")
    failed(["train", str(path)], capsys, "model.safetensors")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_splits_without_labels_are_refused_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str) -> None:
    path = save_config(tmp_path, run_folder(tmp_path))
    (tmp_path / f"{split}.jsonl").write_text('{"text": "pump"}\n', encoding="utf-8")
    failed(["train", str(path)], capsys, f"{split}.jsonl", "no labels to compare with")
    assert not (tmp_path / "run").exists()


def test_a_refused_resume_leaves_the_run_as_it_was(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed(["resume", str(trained / "run"), "--set", "output.directory = elsewhere"], capsys, "a run goes on where it is")
    failed(
        ["resume", str(trained / "run" / "best")],
        capsys,
        f"holds no config.toml, so it is no output directory of a run; {trained / 'run'} is",
    )

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (trained / "run").rglob("*") if path.is_file() and path.name != ".lock"}

    before = content()
    failed(["resume", str(trained / "run"), "--set", "training.lr=0.5"], capsys, "training.lr: 0.001 then, 0.5 now", "(--force on")
    failed(["resume", str(trained / "run"), "--set", "model.layers=1"], capsys, "was saved with something else", "more")
    assert content() == before


def test_what_evaluate_refuses(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, test = str(trained / "run" / "best"), str(trained / "test.jsonl")
    out = tmp_path / "predictions.jsonl"
    (tmp_path / "bare.jsonl").write_text('{"text": "pump"}\n', encoding="utf-8")
    (tmp_path / "other.jsonl").write_text('{"text": "pump", "label": "plant"}\n', encoding="utf-8")
    failed(["evaluate", best, str(tmp_path / "bare.jsonl")], capsys, "bare.jsonl: has no labels to compare with")
    failed(["evaluate", best, str(tmp_path / "other.jsonl")], capsys, "other.jsonl:1: the label 'plant' does not occur")
    failed(["evaluate", best, str(tmp_path / "missing.jsonl")], capsys, "does not exist")
    failed(["evaluate", str(tmp_path), test], capsys, str(tmp_path))
    failed(["evaluate", str(trained / "model"), test], capsys)
    failed(["evaluate", str(trained / "run"), test], capsys, f"{trained / 'run'}: is the directory of a run", f"its model is in {best}")
    predict = ["predict", str(trained / "run"), "--task", "text-classification", "--text", "a"]
    failed(predict, capsys, f"its model is in {best}")
    failed(["evaluate", best, test, "--group", "branch", "--predictions", str(out)], capsys, "no column 'branch'")
    failed(["evaluate", best, test, "--max-length", "97"], capsys, "this model reads 96 tokens")
    failed(["evaluate", best, test, "--max-length", "0"], capsys, "max_length")
    failed(["evaluate", best, test, "--max-length", "-5"], capsys, "max_length")
    failed(["evaluate", best, test, "--encoding", "klingon"], capsys, "klingon")
    failed(["evaluate", best, test, "--label", "class"], capsys, "class")
    assert not out.exists()
    too_long = tmp_path / f"{'x' * 300}.jsonl"
    assert main(["evaluate", best, test, "--predictions", str(too_long)]) == 2
    told = capsys.readouterr()
    assert "accuracy" in told.out and len(told.err.splitlines()) == 1, "the figures are told, and why there is no file"
    assert f"{too_long}: cannot be written" in told.err


# ---------------------------------------------------------------- runs that end in an unusual way
def test_no_evaluation_is_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SequenceClassification.metrics

    def spoiled(task: Any, predictions: Any) -> dict[str, float]:
        return plain(task, predictions) | {"mcc": float("nan")}

    monkeypatch.setattr(SequenceClassification, "metrics", spoiled)
    path = save_config(tmp_path, run_folder(tmp_path, metric="mcc", ema=0.5, epochs=1))
    assert main(["train", str(path)]) == 0
    assert "no evaluation gave a finite mcc, so none is the best: the last weights are kept" in capsys.readouterr().err
    from minigrad.io import load_file

    newest = tmp_path / "run" / "checkpoints" / "step-00000004" / "average.safetensors"
    average, kept = load_file(newest), load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert all((np.asarray(kept[name]) == array).all() for name, array in average.items()), "of the average, which is asked for"


def test_an_evaluation_of_broken_weights_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Run._evaluate_dev

    def broken(run: Run) -> dict[str, float]:
        if run.trainer.at.step == 8:
            bias = run.model.classifier.bias
            bias.assign(np.full(bias.shape, np.nan, np.float32))
        return plain(run)

    monkeypatch.setattr(Run, "_evaluate_dev", broken)
    failed(["train", str(save_config(tmp_path, run_folder(tmp_path)))], capsys, "scores are not finite")
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints"))[-1] == "step-00000007"
    assert log_of(tmp_path)[-1]["reason"] == "error"
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "run")]) == 0


def test_forced_settings_take_effect(tmp_path: Path) -> None:
    config = run_folder(tmp_path, schedule="constant", warmup=0.0)
    run = Run(config)
    run.trainer.callbacks.append(lambda e: os.kill(os.getpid(), signal.SIGTERM) if e["event"] == "step" and e["step"] == 6 else None)
    assert run.fit().exit_code == 143
    rows = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(rows[:24]) + "\n", encoding="utf-8")  # two batches where there were four
    changes = {"lr": 0.002, "weight_decay": 0.5, "parts": 2, "ema": 0.9, "epochs": 5}
    words = [word for name, value in changes.items() for word in ("--set", f"training.{name}={value}")]
    assert main(["resume", str(tmp_path / "run"), "--force", *words]) == 0
    steps = [event for event in log_of(tmp_path) if event["event"] == "step"]
    assert [event["lr"] for event in steps] == [0.001] * 6 + [0.002] * 4 and steps[-1]["step"] == 10
    again = Run(replace(run.config, training=replace(run.config.training, **changes)))
    assert again.trainer.store is not None
    saved = again.trainer.store.latest()
    assert saved is not None and saved.state["position"]["parts"] == 2
    again.fit(resume=True)
    assert {group["weight_decay"] for group in again.trainer.optimizer.param_groups} == {0.0, 0.5}


def test_patience_goes_on_counting(tmp_path: Path) -> None:
    config = run_folder(tmp_path, patience=3, epochs=50, lr=1e-12, metric="accuracy", save_every=1000)
    run = Run(config)
    run.trainer.callbacks.append(lambda e: os.kill(os.getpid(), signal.SIGTERM) if e["event"] == "step" and e["step"] == 10 else None)
    assert run.fit().exit_code == 143
    result = Run(config).fit(resume=True)
    assert (result.reason, result.step) == ("early stopping", 16), "the first evaluation and three that are no better"
    assert Run(config).fit(resume=True).step == 16, "and it is saved that there were enough"


def test_a_trainer_that_is_asked_twice_has_no_more_to_do(tmp_path: Path) -> None:
    config = run_folder(tmp_path, steps=2)
    run = Run(config)
    run.fit()
    lines = len(log_of(tmp_path))
    again = run.trainer.fit(resume=True)
    assert (again.step, again.reason) == (2, "finished")
    starts = [event for event in log_of(tmp_path) if event["event"] == "start"]
    assert len(starts) == 2 and len(log_of(tmp_path)) == lines + 2, "each event once"
