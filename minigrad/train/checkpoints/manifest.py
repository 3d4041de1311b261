"""Manifests, against which a checkpoint's directory is verified before use: it must hold exactly the listed files, with the listed bytes.

The manifest is written last, so a directory without one was never finished. A checkpoint may come from an untrusted source: files that the
manifest does not name, links, and names that contain a path are refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from minigrad.errors import CheckpointError
from minigrad.files import listing, open_regular, parse_json, quoted, read_bounded, sha256_of

FORMAT = 1
"""The version of the layout. Others are refused."""

MANIFEST_NAME = "manifest.json"
STATE_NAME = "state.json"
ARRAYS_SUFFIX = ".safetensors"

_MAX_MANIFEST_BYTES = 1_000_000
_ARRAYS_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The manifest's entry for one file."""

    size: int
    sha256: str


def is_arrays_name(name: Any) -> bool:
    """Whether arrays may be saved under `name`: lower case, so that names do not collide on a case-insensitive file system."""
    return isinstance(name, str) and _ARRAYS_NAME.fullmatch(name) is not None


def encode_manifest(step: int, files: Mapping[str, FileRecord]) -> bytes:
    """The content of manifest.json."""
    content = {"format": FORMAT, "step": step, "files": {name: asdict(files[name]) for name in sorted(files)}}
    return f"{json.dumps(content, indent=1)}\n".encode("ascii")


def check_directory(path: Path, step: int) -> dict[str, FileRecord]:
    """The manifest's entries for the checkpoint at `path`, after verifying every byte of its files.

    Raises: CheckpointError with the code missing-file, unknown-file, not-a-directory, not-a-regular-file, unreadable-file, bad-manifest,
    size-mismatch or digest-mismatch.
    """
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(path, "is not a directory", code="not-a-directory")
    files = _read_manifest(path / MANIFEST_NAME, step)
    try:
        found = set(os.listdir(path))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}", code="unreadable-file") from error
    if extra := found - files.keys() - {MANIFEST_NAME}:
        raise CheckpointError(path, f"the manifest does not name {listing(sorted(extra))}", code="unknown-file")
    for name, record in files.items():
        _check_file(path / name, record)
    return files


def _read_manifest(path: Path, step: int) -> dict[str, FileRecord]:
    def fail(message: str) -> NoReturn:
        raise CheckpointError(path, message, code="bad-manifest")

    _refuse_link(path)
    content = read_bounded(path, _MAX_MANIFEST_BYTES, CheckpointError, "bad-manifest")
    try:
        manifest = parse_json(content.decode("utf-8"))
    except ValueError as error:
        fail(f"is not valid JSON: {error}")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        fail(f"is not of format {FORMAT}, the one that this version of minigrad reads")
    if manifest.keys() != {"format", "step", "files"} or not isinstance(manifest["files"], dict):
        fail('must hold "format", "step" and "files"')
    if manifest["step"] != step:
        fail(f"is that of step {quoted(manifest['step'])}, and its directory is named for step {step}")
    files = {name: _file_record(record) for name, record in manifest["files"].items()}
    for name, record in files.items():
        if name != STATE_NAME and not (name.endswith(ARRAYS_SUFFIX) and is_arrays_name(name.removesuffix(ARRAYS_SUFFIX))):
            fail(f"names {quoted(name)}; a checkpoint holds {STATE_NAME} and NAME{ARRAYS_SUFFIX}, NAME in lower case")
        if record is None:
            fail(f'must give "size" and "sha256" for {quoted(name)}')
    if STATE_NAME not in files:
        fail(f"does not name {STATE_NAME}")
    return {name: record for name, record in files.items() if record is not None}


def _file_record(value: Any) -> FileRecord | None:
    """The manifest's entry for one file; None if it is invalid."""
    if not isinstance(value, dict) or value.keys() != {"size", "sha256"} or type(value["size"]) is not int:
        return None
    digest = value["sha256"]
    return FileRecord(value["size"], digest) if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def _check_file(path: Path, record: FileRecord) -> None:
    _refuse_link(path)
    with open_regular(path, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
    if size != record.size:
        raise CheckpointError(path, f"has {size} bytes, {record.size} were written", code="size-mismatch")
    if sha256_of(path, CheckpointError) != record.sha256:
        raise CheckpointError(path, "its bytes are not those that were written (SHA-256 differs)", code="digest-mismatch")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise CheckpointError(path, "is a symbolic link, which a checkpoint does not hold", code="not-a-regular-file")
