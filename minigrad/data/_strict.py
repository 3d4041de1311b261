"""What the readers of data files and of tokenizer files share.

Both take files from anyone, and must say in plain words what is wrong with them.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any


def file_problem(path: Path) -> tuple[str, str] | None:
    """Error code and words for why `path` is no file to read, or None. Asked before opening: opening a named pipe would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "missing-file", "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return "unreadable-file", f"cannot be read: {error}"
    return None if stat.S_ISREG(status.st_mode) else ("not-a-regular-file", "not a regular file")


def parse_json(text: str) -> Any:
    """Parse JSON as RFC 8259 has it, stricter than `json.loads`: no NaN or Infinity, no key twice in an object.

    Raises:
        ValueError: the text is anything else, or nested too deeply. The message completes "not valid JSON: ".
    """
    try:
        return json.loads(text, object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"the key {quoted(key)} stands twice in one object")
        fields[key] = value
    return fields


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def json_type(value: object) -> str:
    """The JSON name of a parsed value's type, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def quoted(text: str) -> str:
    """`text` for a message: escaped, and not much more than 80 characters of what a file says."""
    return repr(text if len(text) <= 80 else text[:80] + "...")


def listing(names: Iterable[str]) -> str:
    """The first names, quoted: enough to see a typing error, however many a file claims."""
    shown = [quoted(name) for name in islice(names, 21)]
    return ", ".join([*shown[:20], "..."] if len(shown) > 20 else shown)
