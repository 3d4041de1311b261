"""What a run tells: the log and its rewinding, lines and bars on a stream that may be gone, TensorBoard's files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Broken, Terminal

from minigrad.errors import DataError, MissingExtraError
from minigrad.train.events import JsonLog, Progress, TensorBoard, memory_mb, rewind

STEP = {"event": "step", "step": 1, "loss": 0.5, "lr": 1e-4, "grad_norm": 1.0, "tokens_per_second": 100.0, "seconds_left": 3.0}
EVENTS: list[dict[str, Any]] = [
    {"event": "start", "step": 0, "total_steps": 3},
    STEP,
    {**STEP, "step": 2, "loss": None},
    {"event": "notice", "step": 2, "message": "row 7 was left out"},
    {"event": "evaluation", "step": 2, "split": "dev", "metrics": {"loss": 0.25, "f1_macro": 0.5}, "metric": "f1_macro", "best": True},
    {**STEP, "step": 3},
    {"event": "end", "step": 3, "reason": "finished"},
]


def strict(line: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(line, parse_constant=refuse)


# ---------------------------------------------------------------- log.jsonl
def test_the_log_has_a_line_for_each_event_at_once(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    for number, event in enumerate(EVENTS, start=1):
        log(event)
        lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == number and strict(lines[-1]) == event


@pytest.mark.parametrize("step", [-1, 0, 1, 2, 3, 9])
def test_rewinding_leaves_what_came_up_to_a_step(tmp_path: Path, step: int) -> None:
    path = tmp_path / "log.jsonl"
    for event in EVENTS:
        JsonLog(path)(event)
    rewind(path, step)
    left = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert left == [event for event in EVENTS if event["step"] <= step]
    JsonLog(path)(EVENTS[-1])
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(left) + 1, "the next line is one of its own"


@pytest.mark.parametrize(
    "torn", [b'{"event": "st', b"{", b'{"event": "step", "step": 2, "text": "\xc3', b"\0" * 40, b'{"event": "step"\n\0\0']
)
def test_a_torn_end_is_taken_out(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log.jsonl"
    for event in EVENTS[:2]:
        JsonLog(path)(event)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    rewind(path, 5)
    assert path.read_bytes() == whole


def test_rewinding_what_is_no_log(tmp_path: Path) -> None:
    rewind(tmp_path / "missing.jsonl", 1)
    assert not (tmp_path / "missing.jsonl").exists()
    for line in ("[1]", '{"event": "step"}', '{"step": "1"}', "3"):
        (tmp_path / "log.jsonl").write_text(line + "\n", encoding="utf-8")
        with pytest.raises(DataError, match="is not the log of a run"):
            rewind(tmp_path / "log.jsonl", 1)
        assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == line + "\n"


# ---------------------------------------------------------------- standard error
def shown(stream: Any, monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]] = EVENTS) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress()
    for event in events:
        progress(event)


def test_without_a_terminal_there_are_plain_lines_and_not_many(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shown(stream, monkeypatch, [EVENTS[0], *[{**STEP, "step": i} for i in range(1, 500)], *EVENTS[3:]])
    assert stream.getvalue().splitlines() == [
        "step 1: loss 0.5000, 100 tokens/s, 0:00:03 left",
        "step 2: row 7 was left out",
        "step 2: dev loss 0.2500, f1_macro 0.5000 (best so far)",
    ]
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_days_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shown(stream, monkeypatch, [EVENTS[0], {**STEP, "seconds_left": 90061.4}])
    assert "1 day, 1:01:01 left" in stream.getvalue()


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    shown(stream, monkeypatch)
    told = stream.getvalue()
    assert "3/3" in told and "step 2: row 7 was left out" in told and "f1_macro 0.5000 (best so far)" in told


def test_streams_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Broken()):
        shown(stream, monkeypatch)
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    progress = Progress()
    progress(EVENTS[0])
    later.close()
    for event in EVENTS[1:]:
        progress(event)


# ---------------------------------------------------------------- TensorBoard
def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_files_hold_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    board = TensorBoard(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists(), "nothing before the run begins"
    for event in [*EVENTS, {**EVENTS[4], "step": 3, "split": "test"}]:
        board(event)
    found = scalars(tmp_path / "tensorboard")
    assert found["train/loss"] == [(1, 0.5), (3, 0.5)], "a step without labels has no loss"
    assert [step for step, _ in found["train/lr"]] == [1, 2, 3]
    assert found["dev/f1_macro"] == [(2, 0.5)] and found["test/f1_macro"] == [(3, 0.5)]


def test_tensorboard_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an old one is beside a new protobuf."""
    (tmp_path / "tensorboardX.py").write_text('raise TypeError("Descriptors cannot be created directly.")', encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    with pytest.raises(MissingExtraError, match=r"cannot be imported \(TypeError\): pip install .minigrad-nn\[tensorboard\]"):
        TensorBoard(tmp_path / "tensorboard")


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"minigrad-nn\[tensorboard\]"):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())


def test_memory_is_that_of_this_process() -> None:
    assert memory_mb() == 0 or 10 < memory_mb() < 10**6, "0 where the system does not tell"
