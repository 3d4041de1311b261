"""Reading weights in several files, with the index that says which tensor is in which; `sharded_write` writes them.

The index is untrusted text that names files to be opened. So a shard must be a plain file name in the index's directory, a link may
lead only into the blobs of the same hub cache, and each shard must hold exactly the tensors that the index gives it. If the index
records the SHA-256 of its shards (as those written by minigrad do), a shard of another save is refused.

Source: the index files of Hugging Face's `save_pretrained`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, WeightFileError
from minigrad.files import RepeatedKeyError, as_path, json_type, listing, parse_json, quoted, read_bounded, sha256_of, surrogate_at
from minigrad.io._safetensors_header import name_problem
from minigrad.io.source import WeightSource

MAX_INDEX_BYTES = 32 << 20
MAX_TENSORS = 100_000
MAX_SHARDS = 512
MAX_SHARD_CHARS = 255
"""No model that this library could hold comes near these. They keep a refusal within a second and 256 MB."""

SHARED_BLOBS_MARKER = ".huggingface-shared-blobs"
"""The file by which a hub cache marks a folder of blobs that all repositories share."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ShardedWeights(WeightSource):
    """The tensors of an index file, each read from its shard; a shard is opened, and checked against the index, when it is first needed.

    `open_shard` opens one shard. Raises: WeightFileError if the index or a shard breaks a rule.
    """

    def __init__(self, path: str | os.PathLike[str], open_shard: Callable[[Path], WeightSource]) -> None:
        self.path = as_path(path)
        self._open_shard = open_shard
        self._shard_of, self._digests = _read_index(self.path)
        self._members: dict[str, set[str]] = {}
        for name, shard in self._shard_of.items():
            self._members.setdefault(shard, set()).add(name)
        _check_shards(self.path, self._members)
        self._shards: dict[str, WeightSource] = {}
        self._closed = False

    def close(self) -> None:
        """Closes the shards; arrays already read stay valid."""
        self._closed = True
        while self._shards:
            self._shards.popitem()[1].close()

    def names(self) -> tuple[str, ...]:
        """The tensors' names, shard by shard."""
        return tuple(name for names in self._members.values() for name in sorted(names))

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shard(name).shape(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        return self._shard(name).dtype(name)

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        self._shard(name).read_into(name, out)

    def _shard(self, name: str) -> WeightSource:
        if self._closed:
            raise ArgumentError(f"{self.path} has been closed; read it inside its `with` statement", code="file-closed")
        shard = self._shard_of.get(name)
        if shard is None:
            raise WeightFileError(
                self.path, f"there is no tensor {quoted(name)} in this index; `names()` lists them", code="missing-tensor"
            )
        if shard not in self._shards:
            self._shards[shard] = self._opened(shard)
        return self._shards[shard]

    def _opened(self, shard: str) -> WeightSource:
        path = self.path.parent / shard
        if shard in self._digests and sha256_of(path, WeightFileError) != self._digests[shard]:
            raise WeightFileError(
                path,
                f"is not the file that {self.path.name} was written with (its SHA-256 differs); save the model again",
                code="digest-mismatch",
            )
        source = self._open_shard(path)
        found, expected = set(source.names()), self._members[shard]
        if found != expected:
            source.close()
            wrong = [("lacks", expected - found), ("holds what the index does not list for it:", found - expected)]
            said = "; ".join(f"{verb} {listing(sorted(names))}" for verb, names in wrong if names)
            raise WeightFileError(self.path, f"does not fit {quoted(shard)}, which {said}", code="index-mismatch")
        return source


def _read_index(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The shard of each tensor, and the SHA-256 of each shard for which the index has one."""

    def fail(code: str, message: str) -> NoReturn:
        raise WeightFileError(path, message, code=code)

    raw = read_bounded(path, MAX_INDEX_BYTES, WeightFileError, "index-limit")
    if raw.count(b",") > 2 * MAX_TENSORS:  # checked before parsing, whose result takes ten times the memory of the text
        fail("index-limit", f"lists more than {MAX_TENSORS} tensors, which no such file needs")
    try:
        index = parse_json(raw.decode("utf-8"))
    except RepeatedKeyError as error:
        fail("duplicate-key", str(error))
    except ValueError as error:  # UnicodeDecodeError is one
        fail("bad-index", f"not valid JSON: {error}")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        fail("bad-index", f"must be an object whose weight_map is an object, found {json_type(weight_map)}")
    if len(weight_map) > MAX_TENSORS:
        fail("index-limit", f"lists {len(weight_map)} tensors, at most {MAX_TENSORS} are read")
    for name, shard in weight_map.items():
        if problem := name_problem(name):
            fail("bad-name", f"the name {quoted(name)} {problem}")
        if not isinstance(shard, str) or len(shard) > MAX_SHARD_CHARS or surrogate_at(shard) is not None:
            fail("bad-index", f"the shard of {quoted(name)} is {quoted(shard)}, which is no file name")
    shards = set(weight_map.values())
    if len(shards) > MAX_SHARDS:
        fail("index-limit", f"names {len(shards)} shards, at most {MAX_SHARDS} are read")
    for kind, words in (("tensor", weight_map), ("shard", shards)):
        if twins := _case_twins(words):
            fail("ambiguous-name", f"the {kind} names {quoted(twins[0])} and {quoted(twins[1])} differ in case only")
    metadata = index.get("metadata")
    digests = metadata.get("sha256", {}) if isinstance(metadata, dict) else {}
    if not isinstance(digests, dict) or not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests.values()):
        fail("bad-index", "metadata.sha256 must give each shard 64 hexadecimal digits")
    if digests and digests.keys() != shards:
        fail("index-mismatch", f"metadata.sha256 and weight_map name different shards: {listing(sorted(digests.keys() ^ shards))}")
    return weight_map, digests


def _case_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that a case-insensitive file system takes for one; None if there are none."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None


def _check_shards(index: Path, shards: Iterable[str]) -> None:
    """Check that every shard is a regular file in the index's own directory, or a hub cache's link to its blob.

    Raises: WeightFileError.
    """
    folder = index.parent
    for shard in shards:
        if shard in ("", ".", "..") or any(mark in shard for mark in "/\\\0:"):
            raise WeightFileError(
                index,
                f"names the shard {quoted(shard)}; a shard is a file beside the index, named without a folder",
                code="path-escapes-model-dir",
            )
        path = folder / shard
        try:
            if path.is_symlink():
                _check_link(index, path)
            mode = os.stat(path).st_mode
        except FileNotFoundError as error:
            raise WeightFileError(index, f"the shard {quoted(shard)} is missing; fetch or copy all shards", code="missing-shard") from error
        except OSError as error:
            raise WeightFileError(path, f"cannot be opened: {error.strerror}", code="unreadable-file") from error
        if not stat.S_ISREG(mode):
            raise WeightFileError(path, "is not a regular file", code="not-a-regular-file")


def _check_link(index: Path, path: Path) -> None:
    """Raises: WeightFileError unless a link leads to a file beside it, or from snapshots/<revision> to the blobs of a hub cache.

    Those are the repository's own, or in newer caches <cache>/blobs/<two digits>, which all repositories share.
    """
    folder = Path(os.path.realpath(index.parent))
    try:
        target = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WeightFileError(path, f"is a link that leads nowhere: {error.strerror}", code="symlink-escapes") from error
    allowed = {folder}
    if folder.parent.name == "snapshots":
        repository = folder.parent.parent
        allowed.add(repository / "blobs")
        shared = repository.parent / "blobs"
        if target.parent.parent == shared and (shared / SHARED_BLOBS_MARKER).is_file():
            allowed.add(target.parent)
    if target.parent not in allowed:
        raise WeightFileError(path, "is a link out of the model's directory; put the file itself there", code="symlink-escapes")
