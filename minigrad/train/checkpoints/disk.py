"""All disk operations of saving a checkpoint, each as a small function around one system call.

Nothing else in the package writes checkpoints, so the tests can interrupt a save before, after and in the middle of each of these calls,
or make any of them fail.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any


def make_directories(path: Path) -> None:
    """Make `path` and its missing parent directories, each synced to disk before the next."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is a file") from None
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory, which must not exist yet."""
    os.mkdir(path)


def create(path: Path) -> int:
    """Create a file, which must not exist yet, and return its descriptor for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def write(descriptor: int, data: Any) -> None:
    """Write all bytes of `data`, however many calls that takes."""
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]


def sync(descriptor: int) -> None:
    """Wait until what was written is on disk."""
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    """Close a file descriptor."""
    os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Rename a directory within its parent."""
    os.rename(old, new)


def remove(path: Path) -> None:
    """Remove a directory and the files in it. Never follows a link, and fails at a nested directory."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(path)


def free_bytes(path: Path) -> int:
    """The free space for unprivileged users on the file system of `path`."""
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize if usage.f_blocks else sys.maxsize  # a tmpfs without a limit reports no blocks
