"""A disk that forgets: from the calls of a save, what may be left of a directory after the power fails between two of them.

The model is the weakest that POSIX allows. The bytes of a file are safe when the file was synced after they were written; a name in a
directory is safe when the directory was synced after it was given. Of everything else a disk may keep either state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.faults.saving import FaultyOs


@dataclass
class File:
    data: bytes = b""
    safe: bytes = b""


@dataclass
class Directory:
    entries: dict[str, File | Directory] = field(default_factory=dict)
    safe: dict[str, File | Directory] = field(default_factory=dict)


Change = Callable[[Directory], None]


def read_tree(path: Path) -> Directory:
    """A directory as it stands, all of it safe."""
    entries: dict[str, File | Directory] = {}
    for child in path.iterdir():
        entries[child.name] = read_tree(child) if child.is_dir() else File(child.read_bytes(), child.read_bytes())
    return Directory(entries, dict(entries))


Kept = dict[str, "bytes | Kept"]


def kept(directory: Directory, *, root_safe: bool, inner_safe: bool, data_safe: bool) -> Kept:
    """What the disk kept: in the root, in the directories within, and of the bytes, either what is safe or what came last."""
    return {
        name: kept(node, root_safe=inner_safe, inner_safe=inner_safe, data_safe=data_safe)
        if isinstance(node, Directory)
        else (node.safe if data_safe else node.data)
        for name, node in (directory.safe if root_safe else directory.entries).items()
    }


def write_kept(content: Kept, path: Path) -> None:
    """Make a directory of what was kept."""
    path.mkdir()
    for name, node in content.items():
        if isinstance(node, bytes):
            (path / name).write_bytes(node)
        else:
            write_kept(node, path / name)


class Recorder:
    """Performs the calls of a save in the directory `root` and notes what each changes there."""

    def __init__(self, root: Path) -> None:
        self.changes: list[Change] = []
        self.os = FaultyOs(self._note)
        self._root = root
        self._open: dict[int, tuple[str, ...]] = {}

    def _note(self, number: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        result = real(*arguments, **named)
        if name == "open":
            self._open[result] = place = self._place(arguments[0])
            if arguments[1] & os.O_CREAT:
                self.changes.append(lambda root: _parent(root, place).entries.setdefault(place[-1], File()) and None)
        elif name == "mkdir":
            place = self._place(arguments[0])
            self.changes.append(lambda root: _parent(root, place).entries.update({place[-1]: Directory()}))
        elif name in ("write", "pwrite"):
            place, written = self._open[arguments[0]], bytes(arguments[1])[:result]
            self.changes.append(lambda root: _append(root, place, written))
        elif name == "ftruncate":
            place = self._open[arguments[0]]
            self.changes.append(lambda root: _truncate(root, place))
        elif name == "fsync":
            place = self._open[arguments[0]]
            self.changes.append(lambda root: _make_safe(_node(root, place)))
        elif name == "rename":
            old, new = map(self._place, arguments)
            self.changes.append(lambda root: _parent(root, new).entries.update({new[-1]: _parent(root, old).entries.pop(old[-1])}))
        elif name in ("unlink", "rmdir"):
            place = (*self._open[named["dir_fd"]], arguments[0]) if "dir_fd" in named else self._place(arguments[0])
            self.changes.append(lambda root: _parent(root, place).entries.pop(place[-1]) and None)
        return result

    def _place(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self._root).parts


def _node(root: Directory, place: tuple[str, ...]) -> File | Directory:
    node: File | Directory = root
    for part in place:
        assert isinstance(node, Directory)
        node = node.entries[part]
    return node


def _parent(root: Directory, place: tuple[str, ...]) -> Directory:
    node = _node(root, place[:-1])
    assert isinstance(node, Directory)
    return node


def _append(root: Directory, place: tuple[str, ...], written: bytes) -> None:
    file = _node(root, place)
    assert isinstance(file, File)
    file.data += written


def _truncate(root: Directory, place: tuple[str, ...]) -> None:
    file = _node(root, place)
    assert isinstance(file, File)
    file.data = b""


def _make_safe(node: File | Directory) -> None:
    if isinstance(node, Directory):
        node.safe = dict(node.entries)
    else:
        node.safe = node.data
