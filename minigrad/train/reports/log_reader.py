"""Reads the log of a run, one JSON object per line, even if its writer was killed in the middle of a line.

A crash can only truncate the last line, which is replaced by a notice. Any other line that is no event means that the file is not a log,
and reading only part of it would mislead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigrad.data.tables import lines, parsed_object
from minigrad.errors import DataError
from minigrad.files import quoted


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log in their order, each with "event" (a string) and "step" (a whole number).

    A truncated last line becomes {"event": "notice", "step": that of the previous event, "message": ...}.
    Raises: DataError naming the file and, unless it cannot be opened, the line (code bad-event: it is JSON, but no event).
    """
    events: list[dict[str, Any]] = []
    for line, text, error in lines(path, "utf-8"):
        event = error or parsed_object(path, line, text)
        if not isinstance(event, DataError):
            events.append(_checked(path, line, event))
        elif text.endswith("\n") or event.code == "line-limit":
            raise event
        else:
            message = f"line {line} of the log is torn, as a killed process leaves it; it was left out"
            events.append({"event": "notice", "step": events[-1]["step"] if events else 0, "message": message})
    return events


def _checked(path: Path, line: int, event: dict[str, Any]) -> dict[str, Any]:
    kind, step = event.get("event"), event.get("step")
    if not isinstance(kind, str) or not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
        message = f'an event needs "event", a string, and "step", a whole number; found {quoted(kind)} and {quoted(step)}'
        raise DataError(path, message, line=line, code="bad-event")
    return event
