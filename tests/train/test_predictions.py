"""Files of predictions: what was written is read back, and a field is checked by whoever asks for it."""

from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

from minigrad.data import Record
from minigrad.errors import DataError
from minigrad.train.predictions import GOLD, PREDICTION, check_column, read_rows, write_predictions

ROWS: dict[str, dict[str, Any]] = {
    "classification": {"label": "a", "prediction": "b", "score": 0.5, "probabilities": {"b": 0.5, "a": 0.5}},
    "multi-label classification": {"labels": ["a", "b"], "predictions": [], "probabilities": {"b": 0.25, "a": 0.5}},
    "regression": {"label": 1.5, "prediction": nan},
    "token classification": {"tags": ["O", "B-PER"], "predicted": ["I-PER", "O"]},
}


@pytest.mark.parametrize(("task", "fields"), ROWS.items())
def test_what_was_written_is_read_back(task: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.jsonl", [fields] * 3)
    rows = list(read_rows(tmp_path / "predictions.jsonl"))
    assert [row.line for row in rows] == [1, 2, 3] and {row.task() for row in rows} == {task}
    for row in rows:
        assert row.answer(GOLD[task], task) == fields[GOLD[task]]
        said, wanted = row.answer(PREDICTION[task], task), fields[PREDICTION[task]]
        assert said == wanted or (isnan(said) and isnan(wanted))
        assert list(row.probabilities().items()) == list(fields.get("probabilities", {}).items()), "in the model's order"


def test_a_class_called_nan_is_no_number(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.jsonl", [{"prediction": "nan", "score": 0.5}, {"prediction": nan}])
    assert [row.task() for row in read_rows(tmp_path / "p.jsonl")] == ["classification", "regression"]


def test_fields_are_checked_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prediction": "a", "group": True, "loss": "high", "tags": ["O", "?"]}), encoding="utf-8")
    (row,) = read_rows(tmp_path / "p.jsonl")
    assert row.string("prediction") == "a" and row.group() == "true" and row.group("absent") is None and row.probabilities() == {}
    for ask in (lambda: row.number("loss"), lambda: row.string("text"), lambda: row.answer("tags", "token classification")):
        with pytest.raises(DataError, match=r"p\.jsonl:1: ") as caught:
            ask()
        assert caught.value.code == "bad-prediction"


def test_a_column_to_group_by() -> None:
    records = [Record("a", None, "data.jsonl", 1, {"source": "x"}), Record("b", None, "data.jsonl", 2, {})]
    check_column(records[:1], "source")
    check_column(records, None)
    with pytest.raises(DataError, match="no column 'source' to group by") as caught:
        check_column(records, "source")
    assert caught.value.line == 2 and caught.value.code == "unknown-column"
