"""Writing a model's weights into its directory: one file, or above a size limit several files and their index.

A crash must not leave shards of two saves that look like one model. So all files are on disk before the first is renamed to its final
name, the index is renamed last, and it records each shard's SHA-256, which `sharded` compares.

Source: the file names, order and index of Hugging Face's `save_pretrained`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from minigrad.errors import ArgumentError, WeightFileError
from minigrad.files import as_path, quoted, replacing
from minigrad.io._safetensors_header import STORED_DTYPES
from minigrad.io.safetensors_write import save_file, stored_names, write_tensors

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

_SHARD_NAME = "model-{:05}-of-{:05}.safetensors"
_OLD_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})(KB|MB|GB|TB)", re.ASCII)
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def save_weights(
    arrays: Mapping[str, NDArray[Any]],
    directory: str | os.PathLike[str],
    *,
    max_shard_size: int | str = "5GB",
    dtype: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write model.safetensors, or shards and their index if the data take more than `max_shard_size`, into a directory.

    The directory is created if necessary; files of an earlier save that are no longer used are removed at the end.
    max_shard_size: bytes, or a string such as "500MB" or "5GB". dtype, metadata: as `save_file`.
    Raises: as `save_file`; ArgumentError for an invalid size.
    """
    directory = as_path(directory)
    stored = stored_names(arrays, dtype)
    sizes = {name: array.size * STORED_DTYPES[stored[name]].itemsize for name, array in arrays.items()}
    groups = _split(sizes, parse_size(max_shard_size))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if len(groups) == 1:
            save_file(arrays, directory / WEIGHTS_NAME, metadata, dtype)
            written = {WEIGHTS_NAME}
        else:
            shards = {_SHARD_NAME.format(i + 1, len(groups)): {name: arrays[name] for name in group} for i, group in enumerate(groups)}
            _save_shards(shards, directory, sum(sizes.values()), dtype, metadata or {})
            written = {INDEX_NAME, *shards}
        for entry in os.listdir(directory):
            if entry not in written and (entry in (WEIGHTS_NAME, INDEX_NAME) or _OLD_SHARD.fullmatch(entry)):
                (directory / entry).unlink()
    except OSError as error:
        raise WeightFileError(directory, f"cannot be written: {error.strerror or error}", code="write-failed") from error


def _save_shards(
    shards: Mapping[str, Mapping[str, NDArray[Any]]], directory: Path, total_size: int, dtype: str | None, metadata: Mapping[str, str]
) -> None:
    digests: dict[str, str] = {}
    with ExitStack() as stack:  # closes the files in reverse order, so the first one is renamed last
        index = stack.enter_context(replacing(directory / INDEX_NAME))
        for shard, arrays in shards.items():
            file = _HashedFile(stack.enter_context(replacing(directory / shard)))
            write_tensors(file, directory / shard, arrays, metadata, dtype)
            file.sync()
            digests[shard] = file.digest.hexdigest()
        numbers = sum(array.size for arrays in shards.values() for array in arrays.values())
        content = {
            "metadata": {"total_parameters": numbers, "total_size": total_size, "sha256": digests},
            "weight_map": {name: shard for shard, arrays in shards.items() for name in arrays},
        }
        index.write(f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode())


class _HashedFile:
    """A file, and the SHA-256 of the bytes written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> None:
        self._file.write(data)
        self.digest.update(data)

    def sync(self) -> None:
        """Wait until all written bytes are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def parse_size(size: int | str) -> int:
    """Bytes, from a number or a string such as "500MB" (1 KB = 1000 bytes). Raises: ArgumentError."""
    if isinstance(size, str) and (match := _SIZE.fullmatch(size)):
        size = int(match[1]) * _UNITS[match[2]]
    if type(size) is not int or size < 1:
        raise ArgumentError(f'a shard size is a number of bytes above 0, or a text such as "500MB" or "5GB"; got {quoted(size)}')
    return size


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Split the names, in order, into groups of at most `limit` bytes; a larger tensor is a group of its own."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if groups[-1] and used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups
