"""Reading `pytorch_model.bin`, the zip file that torch.save writes, without PyTorch and without running any of it.

Such a file is a zip container (`_strict_zip`) of one pickle (`_pickle_stream`) that describes tensors (`_torch_state`) and one record per
storage. All of that is checked when the file is opened; a record's checksum is compared when its bytes are first read.

Source: torch/serialization.py and caffe2/serialize of PyTorch 1.6 to 2.13, and files written by them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minigrad.files import as_path, quoted
from minigrad.io._pickle_stream import MAX_STREAM_BYTES
from minigrad.io._safetensors_header import STORED_DTYPES
from minigrad.io._strict_zip import Record, StrictZip
from minigrad.io._torch_state import SAVE_AGAIN, TorchTensor, read_state_dict
from minigrad.io._weight_bytes import OpenFile, check_target, convert
from minigrad.io.source import Described

_BLOCK_BYTES = 1 << 20  # memory that a read takes in addition to its result; a multiple of every element's size

_ZIP_SIGNATURE = b"PK\x03\x04"
_OTHER_SIGNATURES = (
    (0, b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "the pickle stream that PyTorch wrote before version 1.6"),
    (0, b"\x80", "a pickle stream"),
    (257, b"ustar", "a tar archive, as PyTorch wrote before version 0.2"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the weights themselves"),
)


class TorchZipFile(Described[TorchTensor]):
    """One open torch.save file of a state dict, whose description has been checked in full; use it in a `with` statement.

    Raises: WeightFileError, whose `code` names the rule that the file breaks. A file that changes while it is open
    is reported by the next read as `file-changed`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path)
        self._file = OpenFile(self.path)
        self._verified: set[str] = set()
        try:
            self._entries = self._read_description()
            self._file.check_unchanged()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; arrays already read stay valid."""
        self._file.close()

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        """As for every source; a transposed or otherwise strided tensor takes a second copy of its span in the storage.

        Tensors that share a storage are each read in full.
        """
        entry = self._entry(name)
        check_target(name, entry.shape, self.dtype(name), out)
        if entry.strides is None:
            flat = out.reshape(-1)
            for at, elements in self._elements(name, entry):
                convert(self.path, name, entry.dtype, elements, flat[at : at + elements.size])
        else:
            stored = STORED_DTYPES[entry.dtype]
            span = np.empty(entry.span, stored)
            for at, elements in self._elements(name, entry):
                span[at : at + elements.size] = elements
            strides = tuple(stored.itemsize * stride for stride in entry.strides)
            convert(self.path, name, entry.dtype, np.ndarray(entry.shape, stored, span, strides=strides), out)
        self._file.check_unchanged()

    def _read_description(self) -> dict[str, TorchTensor]:
        self._refuse_other_containers()
        archive = StrictZip(self._file)
        root = self._root(archive.names)
        if root + "constants.pkl" in archive.names or any(name.startswith(root + "code/") for name in archive.names):
            self._fail("unsupported-container", f"is a TorchScript archive, which holds a program; {SAVE_AGAIN}")
        if root + "data.pkl" not in archive.names:
            self._fail("unsupported-container", "is a zip file, but not of torch.save: it holds no data.pkl")
        records = archive.records()
        if root + "byteorder" in records:
            order = records[root + "byteorder"]
            if order.size != len(b"little") or self._read_record(order) != b"little":
                self._fail("byteorder-unsupported", f"its numbers are not in little-endian byte order; {SAVE_AGAIN}")
        description = records[root + "data.pkl"]
        if description.size > MAX_STREAM_BYTES:
            self._fail("pickle-limit", f"its data.pkl has {description.size} bytes; a state dict needs at most {MAX_STREAM_BYTES}")
        storages = {name.removeprefix(root + "data/"): record for name, record in records.items() if name.startswith(root + "data/")}
        return read_state_dict(self.path, self._read_record(description), storages)

    def _refuse_other_containers(self) -> None:
        head = self._file.read(0, min(self._file.size, 512))
        if head.startswith(_ZIP_SIGNATURE):
            return
        for at, signature, what in _OTHER_SIGNATURES:
            if head.startswith(signature, at):
                self._fail("unsupported-container", f"is {what}; {SAVE_AGAIN}")
        StrictZip(self._file)  # raises if it is a broken zip file, and says in what way
        self._fail("not-a-plain-zip", "does not begin as a zip file of torch.save does, though it ends as one")

    def _root(self, names: Iterable[str]) -> str:
        """The folder that all entries lie in, with a trailing slash."""
        roots = {name.partition("/")[0] + "/" if "/" in name else "" for name in names}
        if len(roots) != 1 or "" in roots:
            self._fail("bad-entry-name", "its entries do not all lie in one folder, as those of torch.save do")
        return roots.pop()

    def _read_record(self, record: Record) -> bytes:
        content = self._file.read(record.begin, record.size)
        if zlib.crc32(content) != record.crc:
            self._fail_checksum(record.name)
        return content

    def _elements(self, name: str, entry: TorchTensor) -> Iterator[tuple[int, NDArray[Any]]]:
        """The stored elements from the tensor's first to its last, in blocks, each with the index of its first element.

        The first read of a record reads all of it and compares its checksum.
        """
        record, stored = entry.record, STORED_DTYPES[entry.dtype]
        begin, end = entry.offset * stored.itemsize, (entry.offset + entry.span) * stored.itemsize
        known = record.name in self._verified
        first, last = (begin, end) if known else (0, record.size)
        buffer = np.empty(min(_BLOCK_BYTES, last - first), np.uint8)
        checksum = 0
        for at in range(first, last, _BLOCK_BYTES):
            block = buffer[: min(_BLOCK_BYTES, last - at)]
            self._file.read_into(block.data, record.begin + at)
            if not known:
                checksum = zlib.crc32(block.data, checksum)
            start = max(at, begin)
            wanted = block[start - at : max(end - at, 0)]
            if wanted.size:
                yield (start - begin) // stored.itemsize, wanted.view(stored)
        if not known and checksum != record.crc:
            self._fail_checksum(name)
        self._verified.add(record.name)

    def _fail_checksum(self, what: str) -> NoReturn:
        way_out = "fetch the file again (or save it again, if PyTorch was told to write no checksums)"
        self._fail("crc-mismatch", f"the checksum of {quoted(what)} is wrong: its bytes are not those that were saved; {way_out}")
