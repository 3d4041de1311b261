"""Scores by group and their gap."""

from __future__ import annotations

import json
import math

import pytest

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.train.metrics import GroupScore, accuracy, by_group, mean_absolute_error, roc_auc

GROUPS = ["en", "de", "en", "de", "fr", "en"]
LABELS, PREDICTIONS = [1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 1, 0]


def test_by_hand() -> None:
    report = by_group(accuracy, GROUPS, LABELS, PREDICTIONS, minimum_support=2)
    assert report.groups == {"de": GroupScore(1 / 2, 2), "en": GroupScore(2 / 3, 3), "fr": GroupScore(1.0, 1)}
    assert list(report.groups) == ["de", "en", "fr"]
    assert (report.best, report.worst, report.gap) == ("fr", "de", 0.5)
    assert report.notes == ("the group 'fr' has 1 record(s), fewer than 2: its score says little",)


def test_less_is_better_for_an_error() -> None:
    report = by_group(mean_absolute_error, ["x", "y"], [1.0, 1.0], [1.5, 3.0], higher_is_better=False)
    assert (report.best, report.worst, report.gap) == ("x", "y", 1.5)


def test_undefined_scores_take_no_part_in_the_gap() -> None:
    report = by_group(roc_auc, ["x", "x", "y"], [0, 1, 1], [0.1, 0.9, 0.5])
    assert math.isnan(report.groups["y"].value) and (report.best, report.worst, report.gap) == ("x", "x", 0.0)
    nothing = by_group(roc_auc, ["y"], [1], [0.5])
    assert nothing.best is None and nothing.worst is None and math.isnan(nothing.gap)
    assert json.loads(json.dumps(nothing.to_dict(), allow_nan=False))["groups"] == {"y": {"value": None, "support": 1}}
    assert "nan" in str(nothing)


def test_table_and_dict() -> None:
    report = by_group(accuracy, GROUPS, LABELS, PREDICTIONS)
    lines = str(report).splitlines()
    assert lines[1].split() == ["de", "0.5000", "2"]
    assert lines[4].split() == ["gap", "0.5000", "best", "fr,", "worst", "de"]
    assert len(lines) == 5 + len(report.notes) == 8
    assert json.loads(json.dumps(report.to_dict()))["gap"] == 0.5


@pytest.mark.parametrize(
    ("groups", "labels", "error", "words"),
    [
        ([], [], ArgumentError, "groups are empty"),
        (["a", "b"], [1], ShapeError, r"each of the 2 records, got the shape \(1,\)"),
        (["a", 1], [1, 1], DTypeError, "groups must be a sequence of strings"),
        ("ab", [1, 1], DTypeError, "groups"),
        (5, [1], DTypeError, "groups"),
    ],
)
def test_refused(groups: object, labels: object, error: type[MinigradError], words: str) -> None:
    with pytest.raises(error, match=words):
        by_group(accuracy, groups, labels, labels)  # type: ignore[arg-type]
