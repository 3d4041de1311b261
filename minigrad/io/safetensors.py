"""Reading safetensors files with NumPy alone; `safetensors_write` writes them.

Weight files are untrusted and large. So the whole header is checked before any data is used (`_safetensors_header`), and data is
read into memory that the caller owns (`_weight_bytes`).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.files import as_path
from minigrad.io._safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, STORED_DTYPES, TensorEntry, parse_header
from minigrad.io._weight_bytes import OpenFile, check_target, convert
from minigrad.io.source import Described

_BLOCK_BYTES = 1 << 20  # memory that a converting read takes in addition to its result

_LOOKALIKES = {
    b"vers": "it looks like a Git LFS pointer: run `git lfs pull`",
    b"PK\3\4": "it looks like a file of torch.save: open it by minigrad.io.TorchZipFile",
}
"""First bytes of files that are often mistaken for safetensors files, and what to do."""


class SafetensorsFile(Described[TensorEntry]):
    """One open safetensors file whose header has been checked in full; use it in a `with` statement.

    Raises: WeightFileError, whose `code` names the rule that the file breaks. A file that changes while it is open
    is reported by the next read as `file-changed`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path)
        self._file = OpenFile(self.path)
        try:
            self._data_start, self._entries, self._metadata = self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; arrays already read stay valid."""
        self._file.close()

    @property
    def metadata(self) -> dict[str, str]:
        """The free text entries of the header (a copy)."""
        return dict(self._metadata)

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        entry = self._entry(name)
        check_target(name, entry.shape, self.dtype(name), out)
        flat = out.reshape(-1)
        stored = STORED_DTYPES[entry.dtype]
        if out.dtype == stored and entry.dtype not in ("BF16", "BOOL"):
            self._file.read_into(flat.view(np.uint8).data, self._data_start + entry.begin)
        else:
            self._read_converting(name, entry, flat)
        self._file.check_unchanged()

    def _read_converting(self, name: str, entry: TensorEntry, flat: NDArray[Any]) -> None:
        stored = STORED_DTYPES[entry.dtype]
        step = _BLOCK_BYTES // stored.itemsize
        buffer = np.empty(min(step, flat.size), stored)
        for start in range(0, flat.size, step):
            target = flat[start : start + step]
            block = buffer[: target.size]
            self._file.read_into(block.view(np.uint8).data, self._data_start + entry.begin + start * stored.itemsize)
            convert(self.path, name, entry.dtype, block, target)

    def _read_header(self) -> tuple[int, dict[str, TensorEntry], dict[str, str]]:
        size = self._file.size
        if size < LENGTH_BYTES:
            self._fail("header-too-small", f"{size} bytes are too few for a safetensors file")
        first = self._file.read(0, LENGTH_BYTES)
        length = int.from_bytes(first, "little")
        if length == 0:
            self._fail("empty-header", "the header is empty")
        if length > MAX_HEADER_BYTES:
            doubt = _LOOKALIKES.get(first[:4], "is this a safetensors file?")
            self._fail("header-too-large", f"a header of {length} bytes is announced, {MAX_HEADER_BYTES} are allowed; {doubt}")
        start = LENGTH_BYTES + length
        if start > size:
            self._fail("header-past-end", f"the header ends at byte {start}, the file at byte {size}; fetch the file again")
        entries, metadata = parse_header(self.path, self._file.read(LENGTH_BYTES, length), size - start)
        return start, entries, metadata


def load_file(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file by name, in the dtypes of `SafetensorsFile.dtype`.

    Raises: WeightFileError.
    """
    with SafetensorsFile(path) as file:
        return {name: file.read(name) for name in file.names()}
