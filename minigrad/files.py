"""Opens, parses and writes files for the whole package.

Input files are untrusted: opening one must not block for ever, parsing must not guess, and a message must not repeat everything it says.
Output files appear whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import IO, Any

from minigrad.errors import ArgumentError, FileFormatError

MAX_JSON_DEPTH = 100
"""Levels of nesting that `parse_json` accepts: far more than any file here needs, far fewer than Python can walk or serialise."""


def as_path(path: object) -> Path:
    """`path` as a Path. Raises: ArgumentError for anything but a path, and for "", which pathlib takes for the current directory."""
    if not isinstance(path, str | os.PathLike) or not isinstance(name := os.fspath(path), str) or not name or "\0" in name:
        raise ArgumentError(f"pass the path of a file or directory, got {quoted(path)}")
    return Path(name)


# ---- reading


def open_regular(path: Path, error: type[FileFormatError]) -> BufferedReader:
    """Open a regular file for reading. Never blocks: without O_NONBLOCK, opening a named pipe would wait for a writer.

    Raises: `error` with the code missing-file, not-a-regular-file or unreadable-file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError as cause:
        raise error(path, "the file does not exist", code="missing-file") from cause
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the path
        code = "not-a-regular-file" if getattr(cause, "errno", None) == errno.ENXIO else "unreadable-file"  # ENXIO: a socket
        raise error(path, f"cannot be opened: {getattr(cause, 'strerror', None) or cause}", code=code) from cause
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        what = "a directory, not a regular file" if stat.S_ISDIR(mode) else "not a regular file"
        raise error(path, f"is {what}", code="not-a-regular-file")
    return open(descriptor, "rb")


def read_bounded(path: Path, limit: int, error: type[FileFormatError], limit_code: str) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises: `error` as `open_regular`, or with `limit_code` for a larger file.
    """
    with open_regular(path, error) as file:
        try:
            content = file.read(limit + 1)
        except OSError as cause:
            raise error(path, f"cannot be read: {cause}", code="unreadable-file") from cause
    if len(content) > limit:
        raise error(path, f"larger than {limit} bytes, which no such file needs", code=limit_code)
    return content


def sha256_of(path: Path, error: type[FileFormatError]) -> str:
    """The SHA-256 of a regular file's content as hexadecimal digits. Raises: `error` as `open_regular`."""
    from hashlib import file_digest  # imported here because it is rarely needed

    with open_regular(path, error) as file:
        try:
            return file_digest(file, "sha256").hexdigest()
        except OSError as cause:
            raise error(path, f"cannot be read: {cause.strerror}", code="unreadable-file") from cause


class RepeatedKeyError(ValueError):
    """A JSON object has the same key twice, so its value is ambiguous."""


def parse_json(text: str) -> Any:
    """Parse JSON as defined by RFC 8259, more strictly than `json.loads`: no NaN or Infinity, no repeated keys, bounded nesting.

    Raises: RepeatedKeyError for a repeated key; another ValueError for other invalid text. The message completes "not valid JSON: ".
    """
    try:
        value = json.loads(text, object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _deeper_than(MAX_JSON_DEPTH, value):
        raise ValueError("it is nested too deeply")
    return value


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise RepeatedKeyError(f"the key {quoted(key)} stands twice in one object")
        fields[key] = value
    return fields


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _deeper_than(depth: int, value: Any) -> bool:
    level = [value]
    for _ in range(depth):
        containers = [inner for inner in level if isinstance(inner, dict | list)]
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return any(isinstance(inner, dict | list) for inner in level)


def surrogate_at(text: str) -> int | None:
    """The position of a lone surrogate in `text`, or None. JSON's escapes can spell one, but no UTF-8 file can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


# ---- file content in messages


def quoted(value: object) -> str:
    """`value` as shown in a message: escaped, and at most 80 characters of it."""
    shown = repr(value[:80] if isinstance(value, str) else value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def listing(names: Iterable[str]) -> str:
    """The first 20 names, quoted: enough to see a typing error, however many a file has."""
    shown = [quoted(name) for name in islice(names, 21)]
    return ", ".join([*shown[:20], "..."] if len(shown) > 20 else shown)


def json_type(value: object) -> str:
    """The JSON name of a parsed value's type, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


# ---- writing


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` if the block succeeds, and is deleted otherwise.

    The content is synced to disk before the rename, and the rename before this returns, so a crash never leaves half a file. A symbolic
    link is replaced, not its target.
    Raises: OSError if the folder cannot be written, or `path` is a directory, a device, a pipe or a link to one of those.
    """
    if path.exists() and not path.is_file():  # a device would become an ordinary file, for every program on the machine
        raise OSError(errno.EEXIST, f"{path.name} exists and is not a regular file")
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file, as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
