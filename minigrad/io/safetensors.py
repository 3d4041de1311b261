"""Reading and writing safetensors files, in NumPy alone.

Weights arrive from strangers and are large. So a file is checked as a whole before a byte of it is used
(`_safetensors_header`), read with `pread` into memory that the caller owns (a mapped file that shrinks would kill the
process), and written so that a crash leaves either the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minigrad.errors import ArgumentError, DTypeError, ShapeError, WeightFileError
from minigrad.files import open_regular, quoted, replacing
from minigrad.io._safetensors_header import (
    MAX_HEADER_BYTES,
    METADATA_KEY,
    STORED_DTYPES,
    TensorEntry,
    metadata_problem,
    name_problem,
    parse_header,
)

_LENGTH_BYTES = 8
_BLOCK_BYTES = 1 << 20  # what a converting read holds besides its result
_READ_BYTES = 1 << 30  # one system call moves at most 2 GiB
_FILE_ORDER = {dtype: rank for rank, dtype in enumerate(STORED_DTYPES)}
_STORED_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items() if name != "BF16"}


class SafetensorsFile:
    """One open safetensors file whose header has been checked in full; use it in a `with` statement.

    Raises: WeightFileError, whose `code` names the rule that the file breaks. A file that changes while it is open
    is reported by the next read as `file-changed`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = open_regular(self.path, WeightFileError)
        try:
            self._state = self._fstat()
            self._data_start, self._entries, self._metadata = self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; arrays already read stay valid."""
        self._file.close()

    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of their data in the file."""
        return tuple(self._entries)

    @property
    def metadata(self) -> dict[str, str]:
        """The free text entries of the header (a copy)."""
        return dict(self._metadata)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype that `read(name)` gives: the stored one, but float32 for F16 and BF16 (every value of theirs is one of its)."""
        stored = self._entry(name).dtype
        return np.dtype(np.float32) if stored in ("F16", "BF16") else STORED_DTYPES[stored].newbyteorder("=")

    def read(self, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Tensor `name` as a fresh array of `dtype`, or of `self.dtype(name)`.

        Raises: as `read_into`.
        """
        out = np.empty(self.shape(name), self.dtype(name) if dtype is None else dtype)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        """Reads tensor `name` into `out`, a writable C-contiguous array of the same shape, without a second copy of it.

        Any float dtype is converted to any other; integers and booleans only where every value fits. A byte of a
        boolean other than 0 counts as True. After an error the content of `out` is undefined.

        Raises: ShapeError, ArgumentError or DTypeError when `out` does not fit the tensor; WeightFileError with the
        code `file-changed`, `missing-tensor`, `unreadable-file`, or `value-overflow` for a finite value beyond `out`'s dtype.
        """
        entry = self._entry(name)
        _check_target(name, entry, self.dtype(name), out)
        flat = out.reshape(-1)
        stored = STORED_DTYPES[entry.dtype]
        if out.dtype == stored and entry.dtype not in ("BF16", "BOOL"):
            self._pread(flat.view(np.uint8).data, self._data_start + entry.begin)
        else:
            self._read_converting(name, entry, flat)
        self._check_unchanged()

    def _read_converting(self, name: str, entry: TensorEntry, flat: NDArray[Any]) -> None:
        stored = STORED_DTYPES[entry.dtype]
        step = _BLOCK_BYTES // stored.itemsize
        buffer = np.empty(min(step, flat.size), np.uint8 if entry.dtype == "BOOL" else stored)
        for start in range(0, flat.size, step):
            target = flat[start : start + step]
            block = buffer[: target.size]
            self._pread(block.view(np.uint8).data, self._data_start + entry.begin + start * stored.itemsize)
            try:
                with np.errstate(over="raise", invalid="ignore"):  # invalid: a signalling NaN becomes a quiet one
                    target[...] = _values(entry.dtype, block)
            except FloatingPointError:
                message = f"tensor {quoted(name)} holds values beyond the range of {flat.dtype}; read it as a wider dtype"
                raise WeightFileError(self.path, message, code="value-overflow") from None

    def _read_header(self) -> tuple[int, dict[str, TensorEntry], dict[str, str]]:
        size = self._state.st_size
        if size < _LENGTH_BYTES:
            self._fail("header-too-small", f"{size} bytes are too few for a safetensors file")
        length_bytes = bytearray(_LENGTH_BYTES)
        self._pread(memoryview(length_bytes), 0)
        length = int.from_bytes(length_bytes, "little")
        if length == 0:
            self._fail("empty-header", "the header is empty")
        if length > MAX_HEADER_BYTES:
            self._fail(
                "header-too-large", f"a header of {length} bytes is announced, {MAX_HEADER_BYTES} are allowed; is this a safetensors file?"
            )
        start = _LENGTH_BYTES + length
        if start > size:
            self._fail("header-past-end", f"the header ends at byte {start}, the file at byte {size}; fetch the file again")
        header = bytearray(length)
        self._pread(memoryview(header), _LENGTH_BYTES)
        entries, metadata = parse_header(self.path, header, size - start)
        return start, entries, metadata

    def _entry(self, name: str) -> TensorEntry:
        entry = self._entries.get(name)
        if entry is None:
            self._fail(
                "missing-tensor", f"there is no tensor {quoted(name)} among the {len(self._entries)} of this file; `names()` lists them"
            )
        return entry

    def _pread(self, target: memoryview, offset: int) -> None:
        done = 0
        while done < target.nbytes:
            try:
                count = os.preadv(self._fileno(), [target[done : done + _READ_BYTES]], offset + done)
            except OSError as error:
                raise WeightFileError(self.path, f"cannot be read: {error.strerror}", code="unreadable-file") from error
            if count == 0:
                self._fail_changed()
            done += count

    def _check_unchanged(self) -> None:
        now = self._fstat()
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            self._fail_changed()

    def _fstat(self) -> os.stat_result:
        return os.fstat(self._fileno())

    def _fileno(self) -> int:
        if self._file.closed:
            raise ArgumentError(f"{self.path} has been closed; read it inside its `with` statement", code="file-closed")
        return self._file.fileno()

    def _fail_changed(self) -> NoReturn:
        self._fail("file-changed", "the file was changed while it was being read; read it again when its writer is done")

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self.path, message, code=code)


def load_file(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file by name, in the dtypes of `SafetensorsFile.dtype`.

    Raises: WeightFileError.
    """
    with SafetensorsFile(path) as file:
        return {name: file.read(name) for name in file.names()}


def save_file(arrays: Mapping[str, NDArray[Any]], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `arrays` as a safetensors file that is complete or absent: an older file at `path` stays until the new one is on disk.

    The bytes depend on the contents only, and equal those of the reference writer (with one metadata entry at most:
    the reference does not fix their order).

    Raises: ArgumentError for names or metadata that the format cannot hold; DTypeError for what is not an array of a
    storable dtype; WeightFileError with the code `write-failed`.
    """
    path = Path(path)
    stored = {name: _stored_name(name, array) for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (-_FILE_ORDER[stored[name]], name))
    header, data_bytes = _make_header([(name, stored[name], arrays[name]) for name in names], metadata or {})
    parse_header(path, header, data_bytes)
    try:
        with replacing(path) as file:
            file.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
            file.write(header)
            for name in names:
                little = np.ascontiguousarray(arrays[name], STORED_DTYPES[stored[name]])
                file.write(little.reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise WeightFileError(path, f"cannot be written: {error.strerror or error}", code="write-failed") from error


def _make_header(tensors: list[tuple[str, str, NDArray[Any]]], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """The header, padded so that the data starts at a multiple of 8, and the size of the data."""
    if problem := metadata_problem(metadata):
        raise ArgumentError(problem, code="bad-metadata")
    header: dict[str, Any] = {METADATA_KEY: dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, array in tensors:
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (at, at + array.nbytes)}
        at += array.nbytes
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return encoded.ljust(-(-len(encoded) // 8) * 8), at


def _stored_name(name: str, array: NDArray[Any]) -> str:
    """The format's name for the dtype of `array`, after checking that both can be stored."""
    if not isinstance(name, str):
        raise ArgumentError(f"the name {quoted(name)} of an array is not a string", code="bad-name")
    if name == METADATA_KEY or (problem := name_problem(name)):
        raise ArgumentError(f"the name {quoted(name)} of an array {'is reserved' if name == METADATA_KEY else problem}", code="bad-name")
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{quoted(name)} is a {type(array).__name__}; safetensors files hold NumPy arrays")
    stored = _STORED_NAMES.get(array.dtype.newbyteorder("<"))
    if stored is None:
        raise DTypeError(f"{quoted(name)} has dtype {array.dtype}; a safetensors file can hold {', '.join(map(str, _STORED_NAMES))}")
    return stored


def _check_target(name: str, entry: TensorEntry, dtype: np.dtype[Any], out: NDArray[Any]) -> None:
    if out.shape != entry.shape:
        raise ShapeError(f"tensor {quoted(name)} has shape {entry.shape}, the array to read into has {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ArgumentError(f"the array to read tensor {quoted(name)} into must be writable and C-contiguous")
    both_float = dtype.kind == "f" and out.dtype.kind == "f"
    if not both_float and not (out.dtype.kind in "biuf" and np.can_cast(dtype, out.dtype, "safe")):
        raise DTypeError(f"tensor {quoted(name)} holds {dtype}, which {out.dtype} cannot hold without loss")


def _values(dtype: str, block: NDArray[Any]) -> NDArray[Any]:
    """The numbers that a block of stored elements means."""
    if dtype == "BF16":  # the upper half of a float32
        return (block.astype(np.uint32) << 16).view(np.float32)
    return block != 0 if dtype == "BOOL" else block
