"""The command report: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from example_runs import write_run

from minigrad.cli import report
from minigrad.errors import DataError


def run(directory: Path) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.run(parser.parse_args([str(directory)]))


def test_it_prints_what_is_absent_and_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    assert run(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(tmp_path / "report.html"), str(tmp_path / "report.json")]
    assert all(Path(line).is_file() for line in lines) and str(tmp_path / "confusion.svg") in lines
    (tmp_path / "predictions-test.jsonl").unlink()
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.startswith("There are no predictions-*.jsonl: no scores by class and no mistakes.\n")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no directory of a run"):
        run(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    write_run(tmp_path)
    monkeypatch.setattr("minigrad.train.reports.report.write_text", full)
    with pytest.raises(DataError, match="the report cannot be written: No space left on device"):
        run(tmp_path)
