"""A lock, so that one process at a time writes into a directory of checkpoints.

It is a kernel lock (`flock` on a lock file that stays), so it is released however its owner dies, and nothing has to be cleaned up.
"""

from __future__ import annotations

import os
import socket
import stat
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from minigrad.errors import CheckpointError
from minigrad.files import quoted

LOCK_NAME = ".lock"

_MAX_OWNER_BYTES = 300  # a process number and a host name
_descriptors: set[int] = set()


def _close_in_child() -> None:
    """A forked worker must not keep the lock of a trainer that died. Closing its copy does not release the lock of a living one."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)


class DirectoryLock:
    """The exclusive lock of one directory; `held` says whether this process has it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._descriptor = -1
        self._owner = 0

    @property
    def held(self) -> bool:
        return self._owner == os.getpid()

    def acquire(self) -> None:
        """Take the lock. Raises: CheckpointError with the code `locked`, naming the owner, or `not-a-regular-file`; OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(self._path, "is not a regular file; remove it", code="not-a-regular-file")
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                pid, _, host = os.pread(descriptor, _MAX_OWNER_BYTES, 0).decode("ascii", "replace").strip().partition(" ")
                message = f"process {quoted(pid)} on host {quoted(host)} trains here; wait for it, stop it, or use another directory"
                raise CheckpointError(self._path.parent, message, code="locked") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode("ascii", "replace"), 0)
        except BaseException:
            os.close(descriptor)
            raise
        _descriptors.add(descriptor)
        self._descriptor, self._owner = descriptor, os.getpid()

    def check(self) -> None:
        """Raises: CheckpointError with the code `directory-lost` if the directory was removed or replaced since the lock was taken."""
        try:
            same = os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            same = False
        if not same:
            message = "the directory, or its lock file, was removed or replaced during the run; nothing was saved"
            raise CheckpointError(self._path.parent, message, code="directory-lost")

    def release(self) -> None:
        """Release the lock. Does nothing in a process that was forked since, which does not hold it."""
        if not self.held:
            return
        self._owner = 0  # first: if Ctrl-C interrupts this, a second call must not close a new file with the same descriptor
        _descriptors.discard(self._descriptor)
        os.close(self._descriptor)
