"""The header of a safetensors file: the one place that knows its rules.

A file is 8 bytes N (little-endian), N bytes of JSON, then the data. The JSON is untrusted, so every number in it
is checked against the size of the file before anything is allocated, and what parsing itself may build is bounded.
The reader builds on `parse_header`; the writer passes its own header through it, so that nothing is written that
would be refused later.

Source: the safetensors format description and reference implementation (huggingface/safetensors). Stricter than the
reference on purpose: no leading spaces, no duplicate keys, no unknown fields, bounded names, dimensions and counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minigrad.errors import WeightFileError
from minigrad.files import quoted, surrogate_at

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_TENSORS = 100_000  # keeps the time of a refusal under a second; the largest published models have fewer per file
MAX_DIMS = 64  # NumPy's limit
MAX_NAME_CHARS = 1024
MAX_TENSOR_CHARS = 16_384  # one tensor's JSON: 64 dimensions of 20 digits take a tenth of it
MAX_METADATA_CHARS = 4_000_000
MAX_ARRAY_BYTES = 2**63 - 1  # NumPy's limit, enforced even if a zero dimension hides the product
METADATA_KEY = "__metadata__"

# The reference sorts the tensors of a file by this order (by alignment), descending. NumPy has no bfloat16: its bits are held as uint16.
STORED_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "C64": np.dtype("<c8"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
UNSUPPORTED_DTYPES = frozenset({"F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "E8M0", "F6_E2M3", "F6_E3M2", "F4"})

_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: its stored dtype by the format's name, its shape, and its bytes [begin, end) counted from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Object(tuple[tuple[str, Any], ...]):
    """A JSON object as its members in order: a dict would hide duplicate keys."""


def name_problem(name: str) -> str | None:
    """What is wrong with a tensor's name, or None."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME_CHARS:
        return f"is longer than {MAX_NAME_CHARS} characters"
    return None if surrogate_at(name) is None else "holds half of a surrogate pair, which no UTF-8 file can hold"


def metadata_problem(metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with the free text entries of a header, or None."""
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            return f"metadata {quoted(key)} is not a string with a string value"
        if surrogate_at(key) is not None or surrogate_at(value) is not None:
            return f"metadata {quoted(key)} holds half of a surrogate pair"
    return None


def parse_header(path: Path, header: bytes | bytearray, data_bytes: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Parse a `header` that `data_bytes` bytes of data follow: the tensors in the order of their data, and the metadata.

    Raises: WeightFileError with the code of the first rule broken.
    """
    return _Header(path, header, data_bytes).parse()


class _Header:
    """One pass over the JSON, member by member, so that a hostile header is refused at its first bad tensor."""

    def __init__(self, path: Path, header: bytes | bytearray, data_bytes: int) -> None:
        self.path = path
        self.data_bytes = data_bytes
        try:
            self.text = header.decode("utf-8")
        except UnicodeDecodeError as error:
            self._fail("header-not-utf8", f"the header is not UTF-8 (byte {error.start})")
        self._decoder = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_bounded_int, parse_constant=self._refuse_constant)

    def parse(self) -> tuple[dict[str, TensorEntry], dict[str, str]]:
        entries: dict[str, TensorEntry] = {}
        metadata: dict[str, str] | None = None
        claimed = 0
        for name, value in self._members():
            if name in entries or (name == METADATA_KEY and metadata is not None):
                self._fail("duplicate-key", f"{quoted(name)} occurs twice in the header")
            if name == METADATA_KEY:
                metadata = self._metadata(value)
                continue
            if len(entries) == MAX_TENSORS:
                self._fail("too-many-tensors", f"the header names more than {MAX_TENSORS} tensors")
            entries[name] = entry = self._tensor(name, value)
            claimed += entry.end - entry.begin
            if claimed > self.data_bytes:  # each range lies in the file, but together they exceed it: two of them overlap
                self._fail("offset-overlap", f"tensor {quoted(name)} shares bytes with another tensor")
        ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
        self._check_layout(ordered)
        return ordered, metadata or {}

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each member of the root object."""
        if not self.text.startswith("{"):
            self._fail("header-not-object", "the header does not start with '{'")
        at = self._skip(1)
        if not self.text.startswith("}", at):
            while True:
                if not self.text.startswith('"', at):
                    self._fail("header-not-object", f"the header is not valid JSON: a name is missing at character {at}")
                name, at = self._value(at, MAX_TENSOR_CHARS, "bad-name")
                if problem := name_problem(name):
                    self._fail("bad-name", f"the name {quoted(name)} {problem}")
                at = self._expect(":", at)
                value, at = self._value(at, MAX_METADATA_CHARS if name == METADATA_KEY else MAX_TENSOR_CHARS, "entry-too-large")
                yield name, value
                if self.text.startswith("}", at):
                    break
                at = self._expect(",", at)
        if self._skip(at + 1) != len(self.text):
            self._fail("header-not-object", f"the header goes on after its JSON object (character {at + 1})")

    def _value(self, at: int, limit: int, too_long: str) -> tuple[Any, int]:
        """The JSON value at `at`, of at most `limit` characters, and where the next token starts."""
        window = self.text[at : at + limit]
        try:
            value, length = self._decoder.raw_decode(window)
        except json.JSONDecodeError as error:
            at_cut = error.pos >= limit - len("false") or error.msg.startswith("Unterminated string")
            if len(window) == limit and at_cut:
                self._fail(too_long, f"the value at character {at} of the header is longer than {limit} characters")
            self._fail("header-not-object", f"the header is not valid JSON: {error.msg} at character {at + error.pos}")
        except RecursionError:
            self._fail("too-deep", f"the value at character {at} of the header is nested too deeply")
        return value, self._skip(at + length)

    def _expect(self, token: str, at: int) -> int:
        if not self.text.startswith(token, at):
            self._fail("header-not-object", f"the header is not valid JSON: {token!r} is missing at character {at}")
        return self._skip(at + 1)

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return at if match is None else match.end()

    def _refuse_constant(self, word: str) -> NoReturn:
        self._fail("bad-number", f"the header holds {word}, which is not JSON")

    def _fields(self, value: _Object, where: str) -> dict[str, Any]:
        fields = dict(value)
        if len(fields) != len(value):
            self._fail("duplicate-key", f"{where} has a key twice")
        return fields

    def _metadata(self, value: Any) -> dict[str, str]:
        if not isinstance(value, _Object):
            self._fail("bad-metadata", f"{METADATA_KEY} is not an object")
        metadata = self._fields(value, METADATA_KEY)
        if problem := metadata_problem(metadata):
            self._fail("bad-metadata", problem)
        return metadata

    def _tensor(self, name: str, value: Any) -> TensorEntry:
        where = f"tensor {quoted(name)}"
        if not isinstance(value, _Object):
            self._fail("missing-field", f"{where} is not an object with dtype, shape and data_offsets")
        fields = self._fields(value, where)
        if unknown := sorted(fields.keys() - _FIELDS):
            self._fail("unknown-field", f"{where} has the unknown field {quoted(unknown[0])}")
        if missing := sorted(_FIELDS - fields.keys()):
            self._fail("missing-field", f"{where} has no {', '.join(missing)}")
        dtype = self._dtype(where, fields["dtype"])
        shape, count = self._shape(where, fields["shape"], STORED_DTYPES[dtype].itemsize)
        begin, end = self._offsets(where, fields["data_offsets"])
        if end - begin != count:
            self._fail(
                "size-mismatch", f"{where}: dtype {dtype} and shape {quoted(shape)} take {count} bytes, data_offsets give {end - begin}"
            )
        return TensorEntry(dtype, shape, begin, end)

    def _dtype(self, where: str, dtype: Any) -> str:
        if isinstance(dtype, str) and dtype in STORED_DTYPES:
            return dtype
        supported = ", ".join(STORED_DTYPES)
        if isinstance(dtype, str) and dtype in UNSUPPORTED_DTYPES:
            self._fail(
                "unsupported-dtype", f"{where} has dtype {dtype}, which minigrad does not read; convert the file to one of {supported}"
            )
        self._fail("unknown-dtype", f"{where} has dtype {quoted(dtype)}, which is none of {supported}")

    def _shape(self, where: str, shape: Any, itemsize: int) -> tuple[tuple[int, ...], int]:
        """The shape, and the size in bytes of an array of this shape."""
        if not isinstance(shape, list) or not all(_is_count(dim) for dim in shape):
            self._fail("bad-shape", f"{where}: shape {quoted(shape)} is not a list of integers >= 0")
        if len(shape) > MAX_DIMS:
            self._fail("too-many-dims", f"{where} has {len(shape)} dimensions; NumPy has at most {MAX_DIMS}")
        if itemsize * math.prod(dim for dim in shape if dim) > MAX_ARRAY_BYTES:
            self._fail("size-overflow", f"{where}: an array of shape {quoted(shape)} cannot exist")
        return tuple(shape), itemsize * math.prod(shape)

    def _offsets(self, where: str, offsets: Any) -> tuple[int, int]:
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
            self._fail("bad-offset", f"{where}: data_offsets {quoted(offsets)} are not two integers >= 0")
        begin, end = offsets
        if begin > end:
            self._fail("bad-offset", f"{where}: data_offsets {quoted(offsets)} run backwards")
        if end > self.data_bytes:
            self._fail("truncated-data", f"{where} ends at byte {end} of the data, the file has {self.data_bytes}; fetch the file again")
        return begin, end

    def _check_layout(self, ordered: Mapping[str, TensorEntry]) -> None:
        """Check that the tensors lie end to end and fill the data: bytes of no tensor could be another file's content."""
        at = 0
        for name, entry in ordered.items():
            if entry.begin < at:
                self._fail(
                    "offset-overlap",
                    f"tensor {quoted(name)} starts at byte {entry.begin} of the data, before byte {at} where the last ends",
                )
            if entry.begin > at:
                self._fail("offset-hole", f"bytes {at} to {entry.begin} of the data, before tensor {quoted(name)}, belong to no tensor")
            at = entry.end
        if at != self.data_bytes:
            self._fail("trailing-data", f"{self.data_bytes - at} bytes after the last tensor belong to no tensor")

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self.path, message, code=code)


def _bounded_int(digits: str) -> int | float:
    # 20 digits hold any 64-bit number. Longer ones become infinity, which no field takes, so that no time goes into converting them.
    return int(digits) if len(digits) <= 20 else math.inf


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # not isinstance: True is an int
