"""What readers of all formats share: a file that must not change while it is open, and the conversion of stored elements.

A file is read with `pread` into memory that the caller owns (a memory-mapped file that shrinks would kill the process), and a change
while it is open is reported, so that no result is half old and half new.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, DTypeError, ShapeError, WeightFileError
from minigrad.files import open_regular, quoted
from minigrad.io._safetensors_header import STORED_DTYPES

_READ_BYTES = 1 << 30  # one system call moves at most 2 GiB


class OpenFile:
    """An open regular file that is read by position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path, WeightFileError)
        self._state = os.fstat(self._file.fileno())

    @property
    def size(self) -> int:
        """Bytes, when the file was opened."""
        return self._state.st_size

    def close(self) -> None:
        self._file.close()

    def read(self, offset: int, count: int) -> bytes:
        """The `count` bytes at `offset`. The caller has checked both against the file's size: memory is allocated before reading."""
        content = bytearray(count)
        self.read_into(memoryview(content), offset)
        return bytes(content)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fills `target` with the bytes at `offset`."""
        done = 0
        while done < target.nbytes:
            try:
                count = os.preadv(self._fileno(), [target[done : done + _READ_BYTES]], offset + done)
            except OSError as error:
                raise WeightFileError(self.path, f"cannot be read: {error.strerror}", code="unreadable-file") from error
            if count == 0:
                self._fail_changed()
            done += count

    def check_unchanged(self) -> None:
        """Raises: WeightFileError with the code `file-changed`."""
        now = os.fstat(self._fileno())
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            self._fail_changed()

    def _fileno(self) -> int:
        if self._file.closed:
            raise ArgumentError(f"{self.path} has been closed; read it inside its `with` statement", code="file-closed")
        return self._file.fileno()

    def _fail_changed(self) -> NoReturn:
        message = "the file was changed while it was being read; read it again when its writer is done"
        raise WeightFileError(self.path, message, code="file-changed")


def read_dtype(stored: str) -> np.dtype[Any]:
    """The dtype that a stored one is read as: itself, but float32 for F16 and BF16 (it holds all their values exactly)."""
    return np.dtype(np.float32) if stored in ("F16", "BF16") else STORED_DTYPES[stored].newbyteorder("=")


def check_target(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], out: NDArray[Any]) -> None:
    """Raises: ShapeError, ArgumentError or DTypeError unless `out` can take tensor `name`, whose numbers are of `dtype`."""
    if out.shape != shape:
        raise ShapeError(f"tensor {quoted(name)} has shape {shape}, the array to read into has {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ArgumentError(f"the array to read tensor {quoted(name)} into must be writable and C-contiguous")
    same_kind = dtype.kind == out.dtype.kind and dtype.kind in "fc"
    if not same_kind and not (out.dtype.kind in "biuf" and np.can_cast(dtype, out.dtype, "safe")):
        raise DTypeError(f"tensor {quoted(name)} holds {dtype}, which {out.dtype} cannot hold without loss")


def convert(path: Path, name: str, stored: str, elements: NDArray[Any], out: NDArray[Any]) -> None:
    """Converts stored `elements` of tensor `name` into `out`.

    `elements` are of the dtype that STORED_DTYPES gives. A byte of a boolean other than 0 counts as True.
    Raises: WeightFileError with the code `value-overflow` for a finite value beyond `out`'s dtype.
    """
    if stored == "BF16":  # the upper half of a float32
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    elif stored == "BOOL":
        elements = elements.view(np.uint8) != 0
    try:
        with np.errstate(over="raise", invalid="ignore"):  # invalid: a signalling NaN becomes a quiet one
            out[...] = elements
    except FloatingPointError:
        message = f"tensor {quoted(name)} holds values beyond the range of {out.dtype}; read it as a wider dtype"
        raise WeightFileError(path, message, code="value-overflow") from None
