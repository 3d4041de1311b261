"""The command compare: what it prints and writes for each task, and that files which do not fit together are refused with their lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from minigrad.cli import compare
from minigrad.errors import ArgumentError, DataError


def written(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"row": i, **row}) + "\n" for i, row in enumerate(rows)), encoding="utf-8")
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    assert compare.run(parser.parse_args([str(argument) for argument in arguments])) == 0
    return capsys.readouterr().out


def refused(*arguments: object) -> str:
    with pytest.raises((ArgumentError, DataError)) as caught:
        parser = argparse.ArgumentParser()
        compare.add_arguments(parser)
        compare.run(parser.parse_args([str(argument) for argument in arguments]))
    return str(caught.value)


def labelled(right: int, wrong: int, *, probabilities: bool = True) -> list[dict[str, Any]]:
    """Texts of two classes; the first `right` predictions are right, the last `wrong` are not."""
    rows = []
    for i in range(right + wrong):
        label = ("no", "yes")[i % 2]
        prediction = label if i < right else ("yes", "no")[i % 2]
        row = {"text": f"text {i}", "label": label, "prediction": prediction, "group": "en" if i % 3 else "de"}
        rows.append({**row, "probabilities": {prediction: 0.8, ("no", "yes")[prediction == "no"]: 0.2}} if probabilities else row)
    return rows


def test_classification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(70, 30)), written(tmp_path / "b.jsonl", labelled(80, 20))
    lines = printed(capsys, a, b, "--resamples", 100).splitlines()
    assert lines[:3] == [f"A  {a}", f"B  {b}", "100 records, classification"]
    assert lines[4].split() == ["A", "B", "B", "-", "A", "p"]
    assert [line.split()[0] for line in lines[5:9]] == ["accuracy", "f1_macro", "mcc", "log_loss"]
    words = lines[5].split()
    assert words[1] == "0.7000" and words[4] == "0.8000" and words[7] == "+0.1000" and words[-1] == f"{2 / 101:.4g}"
    assert "log_loss (less is better)" in lines[8]
    # Ten discordant records, all for B: 2 / 2**10.
    assert lines[10] == "McNemar: 0 right in A alone, 10 in B alone; p = 0.001953 (exact)"


def test_same_seed_same_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(30, 10)), written(tmp_path / "b.jsonl", labelled(32, 8))
    one, same, other = (printed(capsys, a, b, "--resamples", 50, "--seed", seed) for seed in (3, 3, 4))
    assert one == same != other


def test_one_metric_groups_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(20, 10)), written(tmp_path / "b.jsonl", labelled(30, 0))
    target = tmp_path / "figures.json"
    found = printed(capsys, a, b, "--metric", "roc_auc", "--resamples", 20, "--group", "group", "--json", target)
    assert "roc_auc" in found and "accuracy" not in found
    group_lines = found[found.index("roc_auc by group") :].splitlines()
    assert group_lines[1].split()[0] == "de" and group_lines[1].split()[2:] == ["1.0000", "10"] and group_lines[2].split()[-1] == "20"
    assert group_lines[3].startswith("gap of best and worst") and group_lines[3].split()[-1] == "0.0000"
    assert group_lines[4] == "the group 'de' has 10 record(s), fewer than 30: its score says little"
    figures = json.loads(target.read_text(encoding="utf-8"))
    assert figures["task"] == "classification" and figures["records"] == 30 and list(figures["metrics"]) == ["roc_auc"]
    assert figures["metrics"]["roc_auc"]["b"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert figures["mcnemar"] == {"only_a": 0, "only_b": 10, "statistic": None, "p_value": 2 / 2**10}
    assert figures["groups"]["b"]["gap"] == 0.0


def test_the_figures_are_not_written_over_predictions(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(3, 1)), written(tmp_path / "b.jsonl", labelled(4, 0))
    for target in (a, b):
        assert "is the input: name another file" in refused(a, b, "--json", target)


def test_undefined_scores_are_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "x", "label": "no", "prediction": "no", "probabilities": {"no": 0.8, "yes": 0.2}}] * 3
    path, target = written(tmp_path / "a.jsonl", rows), tmp_path / "figures.json"
    printed(capsys, path, path, "--metric", "roc_auc", "--resamples", 5, "--json", target)
    assert json.loads(target.read_text(encoding="utf-8"))["metrics"]["roc_auc"]["a"] == {"value": None, "low": None, "high": None}


def test_many_discordant_records_use_chi_square(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(70, 30)), written(tmp_path / "b.jsonl", labelled(100, 0))
    assert "McNemar: 0 right in A alone, 30 in B alone; p = 1.192e-07 (chi-square 28.03)" in printed(capsys, a, b, "--resamples", 5)


def test_a_class_that_one_model_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = labelled(4, 0)
    a = written(tmp_path / "a.jsonl", rows)
    for row in rows:
        row["probabilities"] = {"no": 0.1, "maybe": 0.2, "yes": 0.7}
    assert "log_loss" in printed(capsys, a, written(tmp_path / "b.jsonl", rows), "--resamples", 5)


def test_without_probabilities_there_is_no_log_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a.jsonl", labelled(4, 0, probabilities=False)), written(tmp_path / "b.jsonl", labelled(4, 0))
    assert "log_loss" not in printed(capsys, a, b, "--resamples", 5)
    assert "log_loss and roc_auc need probabilities in both files" in refused(a, b, "--metric", "log_loss")


def test_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(error: float) -> list[dict[str, Any]]:
        return [{"text": f"{i}", "text_b": "x", "label": i, "prediction": i + error * (-1) ** i} for i in range(10)]

    a, b = written(tmp_path / "a.jsonl", rows(1.0)), written(tmp_path / "b.jsonl", rows(0.5))
    found = printed(capsys, a, b, "--resamples", 20)
    lines = found.splitlines()
    assert lines[2] == "10 records, regression" and [line.split()[0] for line in lines[5:]] == ["rmse", "mae", "pearson", "spearman"]
    assert "1.0000 [1.0000, 1.0000]  0.5000 [0.5000, 0.5000]  -0.5000 [-0.5000, -0.5000]" in lines[5]
    assert "McNemar" not in found
    assert "is none of regression here" in refused(a, b, "--metric", "accuracy")


def test_several_classes_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(broken: int) -> list[dict[str, Any]]:
        return [{"text": f"{i}", "labels": ["b", "a"], "predictions": ["a"] if i < broken else ["a", "b"]} for i in range(10)]

    a, b = written(tmp_path / "a.jsonl", rows(6)), written(tmp_path / "b.jsonl", rows(1))
    lines = printed(capsys, a, b, "--resamples", 20).splitlines()
    assert lines[2] == "10 records, multi-label classification"
    assert [line.split()[0] for line in lines[5:8]] == ["subset_accuracy", "f1_micro", "f1_macro"]
    assert lines[5].split()[1] == "0.4000" and lines[5].split()[4] == "0.9000"
    assert lines[6].split()[1] == f"{2 * 14 / (14 + 20):.4f}"
    assert lines[9] == "McNemar: 0 right in every label in A alone, 5 in B alone; p = 0.0625 (exact)"
    assert "f1_weighted" in printed(capsys, a, b, "--resamples", 5, "--metric", "f1_weighted")


def test_token_classification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = ["B-PER", "I-PER", "O"]

    def rows(broken: int) -> list[dict[str, Any]]:
        words = [[0, 1], [2, 3], [4, 5]]
        return [
            {"text": "a b c", "words": words, "tags": tags, "predicted": ["B-PER", "O", "O"] if i < broken else tags} for i in range(10)
        ]

    a, b = written(tmp_path / "a.jsonl", rows(6)), written(tmp_path / "b.jsonl", rows(1))
    lines = printed(capsys, a, b, "--resamples", 20).splitlines()
    assert lines[2] == "10 records, token classification"
    assert [line.split()[0] for line in lines[5:9]] == ["entity_f1", "entity_precision", "entity_recall", "token_accuracy"]
    assert lines[5].split()[1] == "0.4000" and lines[5].split()[4] == "0.9000" and lines[8].split()[1] == "0.8000"
    assert lines[10] == "McNemar: 0 sentences right in every tag in A alone, 5 in B alone; p = 0.0625 (exact)"
    assert "token_f1_macro" in printed(capsys, a, b, "--resamples", 5, "--metric", "token_f1_macro")


# ---------------------------------------------------------------- files that do not fit
def test_records_must_be_the_same(tmp_path: Path) -> None:
    rows = labelled(4, 0)
    a = written(tmp_path / "a.jsonl", rows)
    b = written(tmp_path / "b.jsonl", [rows[0], rows[2], rows[1], rows[3]])
    assert refused(a, b).startswith(f"{a}:2: text is 'text 1', in {b}:2 it is 'text 2'; both files must hold the same records")
    b = written(tmp_path / "b.jsonl", [*rows[:3], {**rows[3], "label": "no"}])
    assert refused(a, b).startswith(f"{a}:4: label is 'yes', in {b}:4 it is 'no'")
    b = written(tmp_path / "b.jsonl", [*rows[:3], {**rows[3], "text_b": "more"}])
    assert refused(a, b).startswith(f"{a}:4: text_b is None, in {b}:4 it is 'more'")
    b = written(tmp_path / "b.jsonl", rows[:3])
    assert refused(a, b).startswith(f"{a}:4: {b} ends before this record")
    assert refused(b, a).startswith(f"{a}:4: {b} ends before this record")


BROKEN = [
    ({"prediction": 3}, "prediction must be a string, found 3"),
    ({"label": 3}, "label must be a string, found 3"),
    ({"label": None}, "label must be a string, found None"),
    ({"probabilities": {"no": 0.5}}, "there are probabilities of 'no', on line 1 of"),
    ({"probabilities": {"no": 0.5, "yes": 0.9}}, "probabilities must be numbers from 0 to 1 with the sum 1"),
    ({"probabilities": {"no": 0.5, "yes": "0.5"}}, "probabilities must be numbers"),
    ({"probabilities": {"no": 0.5, "yes": "nan"}}, "probabilities must be numbers"),
    ({"probabilities": [0.5, 0.5]}, "probabilities must be an object"),
    ({"probabilities": None}, "there are probabilities of nothing"),
    ({"group": None}, "the group 'group' must be a string, a whole number or a boolean, found None"),
    ({"group": "\ud800"}, "the group 'group' must be a string"),
    ({"group": 0.5}, "group must be a string, a whole number or a boolean to group by, found 0.5"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_a_broken_line_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    rows = labelled(3, 0)
    rows[1] |= change
    path = written(tmp_path / "a.jsonl", rows)
    message = refused(path, path, "--group", "group")
    assert message.startswith(f"{path}:2: {words}")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tags": ["O", "O"], "predicted": ["O"]}, "there are 2 tags and 1 predicted ones"),
        ({"tags": ["O"], "predicted": ["X"]}, "the tag 'X'"),
        ({"labels": "a", "predictions": ["a"]}, "labels must be an array with names of labels, found 'a'"),
        ({"labels": ["a"], "predictions": ["a", 0]}, "predictions must be an array with names of labels"),
        ({"tags": ["O"], "predicted": [0]}, "predicted must be an array with one tag for each word"),
        ({"tags": "O", "predicted": ["O"]}, "tags must be an array with one tag for each word"),
        ({"tags": ["O"]}, "a row of predictions has prediction, predictions or predicted; there are 'row', 'text', 'tags'"),
        ({"label": 1.5, "prediction": True}, "prediction must be a number, found True"),
        ({"label": 1.5, "prediction": 10**400}, "prediction must be a number"),
        ({"label": 1.5, "prediction": "nan"}, "prediction must be a finite number, found 'nan'"),
        ({"prediction": "no"}, "label must be a string, found no such field"),
        ({"label": "no"}, "a row of predictions has prediction, predictions or predicted"),
    ],
)
def test_a_broken_first_line_is_named(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": "x", **row}])
    assert refused(path, path).startswith(f"{path}:1: {words}")


def test_other_refusals(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", labelled(3, 0))
    assert "the file does not exist" in refused(path, tmp_path / "b.jsonl")
    assert "there are 'row', 'text'" in refused(path, path, "--group", "language")
    assert "--metric 'nonsense' is none of classification here: 'accuracy'" in refused(path, path, "--metric", "nonsense")
    assert "resamples" in refused(path, path, "--resamples", 0)
    assert "seed" in refused(path, path, "--seed", -1)
    assert "--json" in refused(path, path, "--json", tmp_path / "nowhere" / "x.json")
    (tmp_path / "empty.jsonl").touch()
    assert "no predictions" in refused(tmp_path / "empty.jsonl", tmp_path / "empty.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": NaN}\n', encoding="utf-8")
    assert "broken.jsonl:1: not valid JSON" in refused(tmp_path / "broken.jsonl", path)
    assert "--json" in (line := refused(path, path, "--json", tmp_path)) and "exists and is not a regular file" in line
    assert "cannot be written" in refused(path, path, "--resamples", 5, "--json", tmp_path / ("x" * 300))
