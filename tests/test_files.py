"""What all readers of files share: nothing waits, nothing is guessed, and no message repeats a whole file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from minigrad.errors import ArgumentError, ConfigError, DataError, FileFormatError, WeightFileError
from minigrad.files import (
    MAX_JSON_DEPTH,
    as_path,
    json_type,
    listing,
    open_regular,
    parse_json,
    quoted,
    read_bounded,
    replacing,
    surrogate_at,
    write_text,
)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (os.mkfifo, "not-a-regular-file"),
        (Path.mkdir, "not-a-regular-file"),
        (make_socket, "not-a-regular-file"),
        (lambda path: path.symlink_to("/dev/zero"), "not-a-regular-file"),
        (lambda path: path.symlink_to(path), "unreadable-file"),
        (lambda path: None, "missing-file"),
    ],
    ids=["pipe", "folder", "socket", "device", "loop", "nothing"],
)
@pytest.mark.parametrize("error", [ConfigError, DataError, WeightFileError])
def test_only_regular_files_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], code: str, error: type[FileFormatError]
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("x"))
    with pytest.raises(error) as caught:
        open_regular(Path("x"), error)
    assert (caught.value.code, caught.value.path) == (code, "x")


def test_a_file_is_read_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5, ConfigError, "config-limit") == b"12345"
    with pytest.raises(ConfigError, match="larger than 4 bytes") as caught:
        read_bounded(path, 4, ConfigError, "config-limit")
    assert caught.value.code == "config-limit"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
        ("{", "at character 2"),
        ("", "at character 1"),
        ("[" * 10**6, "nested too deeply"),
        ("[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1), "nested too deeply"),
        ('{"a":' * (MAX_JSON_DEPTH + 1) + "1" + "}" * (MAX_JSON_DEPTH + 1), "nested too deeply"),
        ("9" * 5000, "digits"),
    ],
)
def test_json_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json_that_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}
    assert parse_json("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH) is not None
    assert parse_json("[" + ",".join(["[]"] * 5000) + "]") == [[]] * 5000  # many brackets, but not deep
    assert parse_json('"' + "[" * 5000 + '"') == "[" * 5000


def test_words_for_messages() -> None:
    assert quoted("a\n") == r"'a\n'"
    for hostile in ("x" * 10**6, "\U000e0001" * 10**6, list(range(10**5))):
        assert len(quoted(hostile)) <= 80
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing(str(i) for i in range(10**6)).endswith("'19', ...")
    assert [json_type(value) for value in ({}, [], "", True, 1, 1.5, None)] == [
        "an object",
        "an array",
        "a string",
        "a boolean",
        "a number",
        "a number",
        "null",
    ]
    assert (surrogate_at("ab\ud800"), surrogate_at("a\U0001f600")) == (2, None)


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old ü")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert [(entry.name, entry.read_text(encoding="utf-8")) for entry in tmp_path.iterdir()] == [("file", "old ü")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_only_files_and_links_to_files_are_replaced(tmp_path: Path) -> None:
    """A device or a pipe would be a file from then on, for every program that uses it."""
    file, pipe, folder = tmp_path / "file", tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for target in (pipe, folder, Path("/dev/null")):
        link = tmp_path / f"link to {target.name}"
        link.symlink_to(target)
        for path in (target, link) if target != Path("/dev/null") else (link,):
            with pytest.raises(OSError, match="exists and is not a regular file"):
                write_text(path, "x")
            assert link.is_symlink() and not target.is_file()
    file.write_text("old", encoding="utf-8")
    for target, link in ((file, tmp_path / "link"), (tmp_path / "nowhere", tmp_path / "dangling")):
        link.symlink_to(target)
        write_text(link, "new")
        assert not link.is_symlink() and link.read_text(encoding="utf-8") == "new"
    assert file.read_text(encoding="utf-8") == "old" and not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob(".*")), "no part is left"


@pytest.mark.parametrize("path", [None, 5, 1.5, True, b"x", ["x"], "", "a\0b"], ids=repr)
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(ArgumentError, match="pass the path of a file or directory, got "):
        as_path(path)
    assert as_path("x") == as_path(Path("x")) == Path("x")
