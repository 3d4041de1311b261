"""Checkpoints of a training run: a crash at any moment leaves the old one or the new one, never a broken one that is used.

A checkpoint is a directory `step-00001234` that holds NAME.safetensors files, state.json and manifest.json. It is built under a temporary
name in the same parent; each file is synced to disk before the manifest lists it, and everything before the directory gets its final name.
Then it is read back, and older ones are removed only after every byte has been verified. A step that is saved again gets a directory of its
own, `step-00001234-2`, so that there is no moment without one.

Source: the order of writes, fsyncs and renames that survives a crash is that of T. S. Pillai et al., "All File Systems Are Not
Created Equal", OSDI 2014.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minigrad.errors import ArgumentError, CheckpointError
from minigrad.files import quoted
from minigrad.io.safetensors_write import stored_names
from minigrad.train.checkpoints import disk
from minigrad.train.checkpoints.contents import MAX_STATE_BYTES, Checkpoint, open_checkpoint, write_checkpoint
from minigrad.train.checkpoints.lock import DirectoryLock
from minigrad.train.checkpoints.manifest import FileRecord, check_directory, is_arrays_name
from minigrad.train.checkpoints.trees import encode

logger = logging.getLogger("minigrad")

MAX_STEP = 10**15

_PLACE = re.compile(r"step-(\d{8,16})(?:-([2-9]|[1-9]\d{1,5}))?", re.ASCII)
_TEMPORARY = re.compile(r"\.tmp-([1-9]\d{0,6})-([0-9a-f]{8})[0-9a-f]{8}", re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class CheckpointStore:
    """The checkpoints of one run in one directory.

    directory: made when the first checkpoint is saved. keep: how many of the newest valid checkpoints are kept, at least 2.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2) -> None:
        if type(keep) is not int or keep < 2:
            raise ArgumentError(f"keep is a whole number of at least 2, so that there is a checkpoint to fall back to; got {quoted(keep)}")
        self.directory = Path(directory)
        self.keep = keep
        self._lock = DirectoryLock(self.directory)
        self._verified: set[Path] = set()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory, so that no other process saves into it; reentrant.

        Raises: CheckpointError with the code `locked`, naming the process and host that hold it, or `write-failed`.
        """
        if self._lock.held:
            yield
            return
        try:
            disk.make_directories(self.directory)
            self._lock.acquire()
        except OSError as error:
            raise self._write_error("cannot be locked", error) from error
        try:
            self._remove_stale()
            yield
        finally:
            self._lock.release()

    # ---------------------------------------------------------------- writing
    def save(self, step: int, arrays: Mapping[str, Mapping[str, NDArray[Any]]], state: Mapping[str, Any]) -> Path:
        """Save a checkpoint that is complete, verified and on disk when this returns, remove those beyond `keep`, and return its path.

        arrays: for each NAME (such as "model") the arrays by name. state: as `trees.encode` takes it. If an identical valid checkpoint of
        the step exists, that one is kept instead. Checkpoints of higher steps are left alone.

        Raises: ArgumentError or DTypeError for what cannot be stored; CheckpointError with the code disk-full, write-failed, locked,
        directory-lost, or why the new one could not be verified. After any error the older checkpoints are as they were.
        """
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MAX_STEP:
            raise ArgumentError(f"step is a whole number from 0 to {MAX_STEP}, got {quoted(step)}")
        for name, group in arrays.items():
            if not is_arrays_name(name):
                raise ArgumentError(f"arrays are saved under a name of a-z, 0-9 and _ that starts with a letter, got {quoted(name)}")
            stored_names(group, None)
        encoded = encode(state)
        if len(encoded) > MAX_STATE_BYTES:
            raise ArgumentError(f"the state takes {len(encoded)} bytes, {MAX_STATE_BYTES} are possible; save arrays as arrays")
        with self.lock():
            try:
                self._lock.check()
                self._check_space(len(encoded) + sum(array.nbytes for group in arrays.values() for array in group.values()))
                path = self._build(step, arrays, encoded)
            except OSError as error:
                raise self._write_error(f"the checkpoint of step {step} was not saved", error) from error
            self._prune(step, path)
        return path

    def _build(self, step: int, arrays: Mapping[str, Mapping[str, NDArray[Any]]], state: bytes) -> Path:
        """Write a checkpoint, rename it to its final name and verify it. Returns its path, or that of an identical older one."""
        temporary = self._temporary()
        path = self._free_place(step)
        try:
            disk.make_directory(temporary)
            files = write_checkpoint(temporary, step, arrays, state)
            if identical := self._identical(step, files):
                self._discard(temporary)
                return identical
            disk.rename(temporary, path)
        except BaseException:
            self._discard(temporary)
            raise
        try:
            disk.sync_directory(self.directory)
            check_directory(path, step)
        except (OSError, CheckpointError):
            self._discard(path)
            raise
        self._verified.add(path)
        return path

    def _free_place(self, step: int) -> Path:
        """The path of the next checkpoint of `step`."""
        name = f"step-{step:08d}"
        generation = max((generation for number, generation, _ in self._found() if number == step), default=0) + 1
        return self.directory / (name if generation == 1 else f"{name}-{generation}")

    def _identical(self, step: int, files: Mapping[str, FileRecord]) -> Path | None:
        """A valid checkpoint of `step` with exactly these files, or None."""
        for number, _, path in self._found():
            if number == step and self._verified_files(step, path) == files:
                return path
        return None

    def _prune(self, step: int, saved: Path) -> None:
        """Remove checkpoints up to `step` beyond the `keep` newest valid ones, counting the one just saved."""
        valid = 1
        for number, _, path in self._found():
            if path == saved or number > step:
                continue
            if number == step or valid == self.keep:
                self._discard(path)
            elif path in self._verified or self._verified_files(number, path) is not None:
                valid += 1

    def _verified_files(self, step: int, path: Path) -> dict[str, FileRecord] | None:
        """The files of the checkpoint at `path`, or None, with a warning, if it is broken."""
        try:
            files = check_directory(path, step)
        except CheckpointError as error:
            logger.warning("a broken checkpoint does not count: %s", error)
            return None
        self._verified.add(path)
        return files

    def _discard(self, path: Path) -> None:
        """Remove a directory of the store. It is renamed first, on disk, so that a crash leaves no half checkpoint under its name."""
        self._verified.discard(path)
        try:
            if not _TEMPORARY.fullmatch(path.name):
                temporary = self._temporary()
                disk.rename(path, temporary)
                path = temporary
                disk.sync_directory(self.directory)
            disk.remove(path)
        except FileNotFoundError:  # removed already
            pass
        except OSError as error:
            logger.warning("%s could not be removed: %s", path, error.strerror or error)

    def _temporary(self) -> Path:
        return self.directory / f".tmp-{os.getpid()}-{_host_mark()}{secrets.token_hex(4)}"

    def _remove_stale(self) -> None:
        """Remove the leftovers of interrupted saves. Called with the lock just taken, while this process is not saving."""
        for name in self._entries():
            if match := _TEMPORARY.fullmatch(name):
                pid = int(match[1])
                if match[2] == _host_mark() and (pid == os.getpid() or not _alive(pid)):
                    self._discard(self.directory / name)

    def _check_space(self, size: int) -> None:
        free = disk.free_bytes(self.directory)
        if free < 2 * size:
            message = f"{free} bytes are free, and a checkpoint of {size} bytes is only begun with twice that; make room and save again"
            raise CheckpointError(self.directory, message, code="disk-full")

    def _write_error(self, what: str, error: OSError) -> CheckpointError:
        code = "disk-full" if error.errno in _FULL else "write-failed"
        return CheckpointError(self.directory, f"{what}: {error.strerror or error}; older checkpoints are untouched", code=code)

    # ---------------------------------------------------------------- reading
    def steps(self) -> list[int]:
        """The steps that have checkpoints, in ascending order; only `at` and `latest` verify them."""
        return sorted({step for step, _, _ in self._found()})

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint, or None; for each newer broken one a warning says what is wrong."""
        for step, _, path in self._found():
            try:
                return self._opened(step, path)
            except CheckpointError as error:
                logger.warning("a broken checkpoint is passed over: %s", error)
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of one step.

        Raises: CheckpointError with the code `no-checkpoint`, or the code of what is wrong with it.
        """
        problem: CheckpointError | None = None
        for number, _, path in self._found():
            if number == step:
                try:
                    return self._opened(number, path)
                except CheckpointError as error:
                    logger.warning("a broken checkpoint is passed over: %s", error)
                    problem = problem or error
        known = ", ".join(map(str, self.steps())) or "none"
        raise problem or CheckpointError(
            self.directory, f"there is no checkpoint of step {quoted(step)}; known: {known}", code="no-checkpoint"
        )

    def _opened(self, step: int, path: Path) -> Checkpoint:
        checkpoint = open_checkpoint(path, step)
        self._verified.add(path)
        return checkpoint

    def _found(self) -> list[tuple[int, int, Path]]:
        """Step, generation and path of every directory entry named like a checkpoint, newest first."""
        matches = [match for name in self._entries() if (match := _PLACE.fullmatch(name))]
        return sorted(((int(match[1]), int(match[2] or 1), self.directory / match[0]) for match in matches), reverse=True)

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(self.directory, f"cannot be read: {error.strerror}", code="unreadable-file") from error


def _host_mark() -> str:
    """A short hash of this host's name, for names on a shared file system: process numbers are only meaningful on one host."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        pass
    return True
