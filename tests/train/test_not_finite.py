"""NaN and infinities in JSON: names that are read back, or null."""

from __future__ import annotations

from math import inf, isnan, nan
from pathlib import Path

import pytest
from train.test_events import strict

from minigrad.train.events import JsonLog
from minigrad.train.not_finite import named, nulled, number
from minigrad.train.predictions import write_predictions

VALUE = {"a": nan, "b": [inf, (1, -inf)], "c": {"d": nan, "e": "ä"}, "f": None, "g": True, "h": 0.5}


def test_names_in_logs_and_files_of_predictions(tmp_path: Path) -> None:
    wanted = {"a": "nan", "b": ["inf", [1, "-inf"]], "c": {"d": "nan", "e": "ä"}, "f": None, "g": True, "h": 0.5}
    assert named(VALUE) == wanted
    JsonLog(tmp_path / "log.jsonl")({"event": "notice", "step": 0, **VALUE})
    write_predictions(tmp_path / "predictions.jsonl", [VALUE])
    for name, extra in (("log.jsonl", {"event": "notice", "step": 0}), ("predictions.jsonl", {})):
        assert strict((tmp_path / name).read_text(encoding="utf-8")) == extra | wanted


def test_null_in_reports() -> None:
    assert nulled(VALUE) == {"a": None, "b": [None, [1, None]], "c": {"d": None, "e": "ä"}, "f": None, "g": True, "h": 0.5}


@pytest.mark.parametrize("value", [nan, inf, -inf, 0.25, 3])
def test_a_name_is_read_back_as_its_number(value: float) -> None:
    found = number(named(value))
    assert found == value or (found is not None and isnan(found) and isnan(value))


@pytest.mark.parametrize("value", [None, True, "1.5", "NaN", "infinity", [1.0], {}, 10**400])
def test_what_is_no_number(value: object) -> None:
    assert number(value) is None
