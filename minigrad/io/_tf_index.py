"""The index of a TensorFlow checkpoint: its tensors, and which bytes of which data file each one occupies.

The index is a sorted table (`_sstable`) of protocol-buffer messages: a header under the empty key, then a BundleEntryProto for each
tensor under its name. Like a safetensors header it is untrusted, so it is checked by rules of its own before a data file is opened,
and against the sizes of the data files before memory is allocated.

Source: tensorflow/core/protobuf/tensor_bundle.proto and core/util/tensor_bundle, which writes little-endian, dense, uncompressed.
Stricter on purpose: no unknown fields, no two tensors on the same bytes, bounded names, dimensions and counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from minigrad.errors import WeightFileError
from minigrad.files import quoted, read_bounded
from minigrad.io._protobuf import Message, Wire
from minigrad.io._safetensors_header import MAX_ARRAY_BYTES, STORED_DTYPES, name_problem
from minigrad.io._sstable import Table

MAX_INDEX_BYTES = 8 << 20  # a thousand tensors take a hundredth of it
MAX_TENSORS = 5_000  # keeps the time of a refusal well under a second; BERT-large with its optimizer has 1,200
MAX_SHARDS = 256  # each is a file that stays open
MAX_DIMS = 16  # twice what TensorFlow's own operations take

DTYPES: Mapping[int, str] = {
    1: "F32", 2: "F64", 3: "I32", 4: "U8", 5: "I16", 6: "I8", 8: "C64", 9: "I64", 10: "BOOL", 14: "BF16", 17: "U16", 19: "F16", 22: "U32",
    23: "U64",
}  # fmt: skip
"""The name in safetensors files of each of TensorFlow's DataType numbers."""

UNSUPPORTED_DTYPES: Mapping[int, str] = {
    7: "string", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16", 18: "complex128", 20: "resource",
    21: "variant", 24: "float8_e5m2", 25: "float8_e4m3fn", 29: "int4", 30: "uint4",
}  # fmt: skip

_HEADER = {1: Wire.VARINT, 2: Wire.VARINT, 3: Wire.BYTES}  # num_shards, endianness, version
_VERSION = {1: Wire.VARINT, 2: Wire.VARINT}  # producer, min_consumer
_ENTRY = {
    1: Wire.VARINT, 2: Wire.BYTES, 3: Wire.VARINT, 4: Wire.VARINT, 5: Wire.VARINT, 6: Wire.FIXED32, 7: Wire.BYTES,
}  # fmt: skip  # dtype, shape, shard_id, offset, size, crc32c, slices
_SHAPE = {2: Wire.BYTES, 3: Wire.VARINT}  # dim, unknown_rank
_DIM = {1: Wire.VARINT}  # size

_FORMAT_VERSION = 1
_SLICE_KEY = b"\0"  # how the keys of a partitioned variable's pieces start


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: its dtype by the name of `STORED_DTYPES`, its shape, its bytes [begin, end) in a data file, their masked checksum."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    begin: int
    end: int
    crc32c: int


def read_index(path: Path) -> tuple[int, dict[str, TensorEntry]]:
    """The number of data files, and the tensors by name in the order of their data.

    Raises: WeightFileError with the code of the first rule broken.
    """
    return _Index(path).parse()


def check_layout(path: Path, entries: Mapping[str, TensorEntry], shard_sizes: Sequence[int]) -> None:
    """Check that every tensor lies inside its shard, and no two share a byte. Gaps between tensors are legal: TensorFlow may align them.

    Raises: WeightFileError with the code truncated-data or offset-overlap.
    """
    shard = at = 0
    for name, entry in entries.items():
        if entry.end > shard_sizes[entry.shard]:
            message = f"tensor {quoted(name)} ends at byte {entry.end} of data file {entry.shard}, which has {shard_sizes[entry.shard]}"
            raise WeightFileError(path, f"{message}; fetch the files again", code="truncated-data")
        if entry.shard == shard and entry.begin < at:
            message = f"tensor {quoted(name)} starts at byte {entry.begin} of data file {shard}, before byte {at} where the last ends"
            raise WeightFileError(path, message, code="offset-overlap")
        shard, at = entry.shard, entry.end


class _Index:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table(path, read_bounded(path, MAX_INDEX_BYTES, WeightFileError, "index-limit"))

    def parse(self) -> tuple[int, dict[str, TensorEntry]]:
        rows = iter(self.table)
        key, value = next(rows, (None, b""))
        if key != b"":
            self._fail("bad-header", "the index does not start with the header of a TensorFlow checkpoint")
        shards = self._header(value)
        entries: dict[str, TensorEntry] = {}
        for key, value in rows:
            if len(entries) == MAX_TENSORS:
                self._fail("index-limit", f"the index names more than {MAX_TENSORS} tensors")
            name = self._name(key)
            entries[name] = self._entry(name, value, shards)
        return shards, dict(sorted(entries.items(), key=lambda item: (item[1].shard, item[1].begin, item[1].end)))

    def _header(self, encoded: bytes) -> int:
        try:
            header = Message(encoded, _HEADER)
            version = Message(header.message(3), _VERSION)
        except ValueError as error:
            self._fail("bad-header", f"the header is broken: {error}")
        shards, needed = header.signed(1), version.signed(2)
        if header.unsigned(2):
            self._fail("byteorder-unsupported", "the checkpoint is big-endian; save it again on a little-endian machine")
        if needed > _FORMAT_VERSION:
            self._fail("unsupported-version", f"the checkpoint needs a reader of version {needed}, minigrad's is {_FORMAT_VERSION}")
        if shards < 1:
            self._fail("bad-header", f"the header announces {shards} data files")
        if shards > MAX_SHARDS:
            self._fail("index-limit", f"the header announces {shards} data files, {MAX_SHARDS} are allowed")
        return shards

    def _name(self, key: bytes) -> str:
        if key.startswith(_SLICE_KEY):
            self._fail_partitioned("a variable")
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError:
            self._fail("bad-name", f"the name {quoted(key.decode('latin-1'))} is not UTF-8")
        if problem := name_problem(name):
            self._fail("bad-name", f"the name {quoted(name)} {problem}")
        return name

    def _entry(self, name: str, encoded: bytes, shards: int) -> TensorEntry:
        where = f"tensor {quoted(name)}"
        try:
            entry = Message(encoded, _ENTRY)
            shape_message = Message(entry.message(2), _SHAPE)
            dims = [Message(dim, _DIM).signed(1) for dim in shape_message.messages(2)[: MAX_DIMS + 1]]
        except ValueError as error:
            self._fail("bad-entry", f"{where}: the entry is broken: {error}")
        if entry.messages(7):
            self._fail_partitioned(where)
        dtype = self._dtype(where, entry.unsigned(1))
        if shape_message.unsigned(3):
            self._fail("bad-shape", f"{where} has no known number of dimensions")
        begin, size, shard = entry.signed(4), entry.signed(5), entry.signed(3)
        count = self._bytes(where, dims, STORED_DTYPES[dtype].itemsize)
        if size != count:
            self._fail("size-mismatch", f"{where}: dtype {dtype} and shape {quoted(tuple(dims))} take {count} bytes, the entry says {size}")
        if begin < 0:
            self._fail("bad-offset", f"{where} starts at byte {begin}")
        if not 0 <= shard < shards:
            self._fail("bad-shard", f"{where} lies in data file {shard}, there are {shards}, counted from 0")
        return TensorEntry(dtype, tuple(dims), shard, begin, begin + size, entry.unsigned(6))

    def _dtype(self, where: str, number: int) -> str:
        if number in DTYPES:
            return DTYPES[number]
        supported = ", ".join(DTYPES.values())
        if number in UNSUPPORTED_DTYPES:
            kind = UNSUPPORTED_DTYPES[number]
            self._fail("unsupported-dtype", f"{where} has dtype {kind}, which minigrad does not read; it reads {supported}")
        self._fail("unknown-dtype", f"{where} has dtype number {number}, which is none of {supported}")

    def _bytes(self, where: str, dims: list[int], itemsize: int) -> int:
        """The size in bytes of an array of this shape."""
        if len(dims) > MAX_DIMS:
            self._fail("too-many-dims", f"{where} has more than {MAX_DIMS} dimensions")
        if any(dim < 0 for dim in dims):
            self._fail("bad-shape", f"{where}: shape {quoted(tuple(dims))} has a negative dimension")
        if itemsize * math.prod(dim for dim in dims if dim) > MAX_ARRAY_BYTES:
            self._fail("size-overflow", f"{where}: an array of shape {quoted(tuple(dims))} cannot exist")
        return itemsize * math.prod(dims)

    def _fail_partitioned(self, what: str) -> NoReturn:
        self._fail("partitioned-variable", f"{what} is stored in pieces, which minigrad does not join; save the checkpoint unpartitioned")

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self.path, message, code=code)
