"""The files of one checkpoint: written completely and synced to disk, and opened only after every byte has been verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import CheckpointError, WeightFileError
from minigrad.files import listing, parse_json, quoted, read_bounded
from minigrad.io.safetensors import SafetensorsFile
from minigrad.io.safetensors_write import write_tensors
from minigrad.train.checkpoints import disk
from minigrad.train.checkpoints.manifest import (
    ARRAYS_SUFFIX,
    MANIFEST_NAME,
    STATE_NAME,
    FileRecord,
    check_directory,
    encode_manifest,
    is_arrays_name,
)
from minigrad.train.checkpoints.trees import decode

MAX_STATE_BYTES = 64_000_000
"""The maximum size of state.json; arrays do not belong in it."""

_HALVES = "float16"  # the key in a file's metadata that lists its arrays of that dtype, which a reader would widen


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose bytes have been verified. `state` is the saved state, except that tuples are lists."""

    path: Path
    step: int
    state: dict[str, Any]

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays saved under `name`, exact to the last bit and in their dtypes.

        Raises: CheckpointError (missing-file) if there are none of that name; WeightFileError if the file cannot be read.
        """
        path = self.path / f"{name}{ARRAYS_SUFFIX}"
        if not is_arrays_name(name) or not path.exists():
            names = sorted(entry.name.removesuffix(ARRAYS_SUFFIX) for entry in self.path.glob(f"*{ARRAYS_SUFFIX}"))
            raise CheckpointError(self.path, f"holds no arrays {quoted(name)}; it holds {listing(names)}", code="missing-file")
        with SafetensorsFile(path) as file:
            halves = _halves(file)
            return {key: file.read(key, np.float16 if key in halves else None) for key in file.names()}


def open_checkpoint(path: Path, step: int) -> Checkpoint:
    """Open the checkpoint at `path`: check its files against the manifest, and their formats. Raises: CheckpointError."""
    files = check_directory(path, step)
    content = read_bounded(path / STATE_NAME, MAX_STATE_BYTES, CheckpointError, "bad-state")
    try:
        state = decode(content.decode("ascii"))
    except ValueError as error:
        raise CheckpointError(path / STATE_NAME, f"not a saved state: {error}", code="bad-state") from None
    for name in files.keys() - {STATE_NAME}:
        try:
            with SafetensorsFile(path / name) as file:
                _halves(file)
        except WeightFileError as error:
            raise CheckpointError(path, f"holds arrays that cannot be read: {error}", code="bad-arrays") from error
    return Checkpoint(path, step, state)


def write_checkpoint(path: Path, step: int, arrays: Mapping[str, Mapping[str, NDArray[Any]]], state: bytes) -> dict[str, FileRecord]:
    """Write a checkpoint into the empty directory `path`, synced to disk, and return the manifest's records. Raises: OSError."""
    files: dict[str, FileRecord] = {}
    for name, group in arrays.items():
        with _NewFile(path / f"{name}{ARRAYS_SUFFIX}") as file:
            halves = [key for key, array in group.items() if array.dtype.type is np.float16]
            write_tensors(file, file.path, group, {_HALVES: json.dumps(halves)} if halves else {}, None)
        files[file.path.name] = file.record()
    with _NewFile(path / STATE_NAME) as file:
        file.write(state)
    files[STATE_NAME] = file.record()
    with _NewFile(path / MANIFEST_NAME) as file:
        file.write(encode_manifest(step, files))
    disk.sync_directory(path)
    return files


class _NewFile:
    """A file being written, with its size and digest for the manifest. At the end of its `with` block it is synced to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = disk.create(path)
        self._size = 0
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> None:
        disk.write(self._descriptor, data)
        self._digest.update(data)
        self._size += memoryview(data).nbytes

    def record(self) -> FileRecord:
        return FileRecord(self._size, self._digest.hexdigest())

    def __enter__(self) -> _NewFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                disk.sync(self._descriptor)
        finally:
            disk.close(self._descriptor)


def _halves(file: SafetensorsFile) -> frozenset[str]:
    """The arrays of a file that were float16 when they were saved. Raises: WeightFileError for an invalid list of them."""
    try:
        names = parse_json(file.metadata.get(_HALVES, "[]"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not set(names) <= set(file.names()):
        raise WeightFileError(file.path, f"the metadata {_HALVES} is no list of tensors of the file", code="bad-metadata")
    return frozenset(names)
