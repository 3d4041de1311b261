"""How far something is: a bar on a terminal, lines elsewhere, nothing of what is quick, and no error of a stream that is gone."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import pytest
from support import Broken, Terminal

from minigrad.data import progress
from minigrad.data.progress import progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one number is what time.monotonic gives."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def told(stream: Any, monkeypatch: pytest.MonkeyPatch, clock: list[float], total: int | None, shown: bool = True) -> str:
    """Of ten times 50 texts in 20 seconds."""
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total, shown) as bar:
        for _ in range(10):
            clock[0] += 20
            bar.update(50)
        assert bar.n == 500
    return "" if stream is None or stream.closed else stream.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    lines = told(io.StringIO(), monkeypatch, clock, 9500).splitlines()
    assert len(lines) == 5 and lines[0] == "100 of 9500 texts, 2.5 texts/s, 1:02:40 left" and lines[-1].startswith("500 of 9500 texts")
    assert told(io.StringIO(), monkeypatch, clock, None).splitlines()[0] == "100 texts, 2.5 texts/s"


def test_what_is_quick_or_not_wanted_shows_nothing(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    assert told(io.StringIO(), monkeypatch, clock, 500, shown=False) == ""
    assert told(Terminal(), monkeypatch, clock, 500, shown=False) == ""
    monkeypatch.setattr(progress, "LINE_SECONDS", 300.0)
    assert told(io.StringIO(), monkeypatch, clock, 500) == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    shown = told(Terminal(), monkeypatch, clock, 500)
    assert "500/500" in shown and "texts/s" not in shown


def test_streams_that_are_gone(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Broken()):
        told(stream, monkeypatch, clock, 500)
