"""Sorted string tables: the file format of a TensorFlow checkpoint's index.

    data block ... | metaindex block (empty) | index block | footer of 48 bytes

A block holds entries in the order of their keys, each key without the bytes it shares with the one before, then the offsets of the
entries that share none (restarts). A trailer of 5 bytes gives its compression and its checksum. The index block holds one entry for
each data block: a key no smaller than any of the block's, and the block's offset and size (a handle).

Every checksum is checked, and so is everything that the file states twice: blocks lie end to end and fill the file, keys rise
strictly, restarts are where they say. So any content has only one valid form, and handles cannot form a cycle.

Source: the table format of LevelDB (doc/table_format.md), as written by TensorFlow (core/lib/io/table_builder).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from minigrad.errors import WeightFileError
from minigrad.io._crc32c import masked_crc32c
from minigrad.io._protobuf import varint

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 1024  # a tensor of 64 dimensions takes half of it

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_UNCOMPRESSED, _SNAPPY = 0, 1


class Table:
    """A whole table in memory; iterating checks it and gives its entries."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._content = content

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each entry, in the order of the keys. They can be trusted only once the iteration has ended without an error.

        Raises: WeightFileError with the code bad-footer, bad-handle, bad-block, crc-mismatch, unsupported-compression, duplicate-key,
        key-order or index-limit.
        """
        (meta_at, meta_size), (index_at, index_size) = self._footer()
        self._check_follows(index_at, meta_at + meta_size + _TRAILER_BYTES, "the index block")
        self._check_follows(len(self._content) - _FOOTER_BYTES, index_at + index_size + _TRAILER_BYTES, "the footer")
        for _ in self._block(meta_at, meta_size):
            self._fail("bad-block", "the metaindex block has an entry, a kind that TensorFlow does not write")
        end = 0
        last: bytes | None = None  # no key up to here is greater
        for bound, encoded in self._block(index_at, index_size):
            at, size = self._handle(encoded)
            self._check_follows(at, end, f"a data block at byte {at}")
            end = at + size + _TRAILER_BYTES
            if end > meta_at:
                self._fail("bad-handle", f"the data block at byte {at} runs into the metaindex block")
            key: bytes | None = None
            for key, value in self._block(at, size):
                self._check_order(last, key)
                last = key
                yield key, value
            if key is None:
                self._fail("bad-block", f"the data block at byte {at} is empty")
            if bound < key:
                self._fail("key-order", f"the index gives the block at byte {at} a smaller key than it holds")
            last = bound
        self._check_follows(meta_at, end, "the metaindex block")

    def _footer(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Offset and size of the metaindex block and of the index block."""
        footer = self._content[-_FOOTER_BYTES:]
        if len(footer) < _FOOTER_BYTES:
            self._fail("bad-footer", f"{len(footer)} bytes are too few for the index of a TensorFlow checkpoint")
        if int.from_bytes(footer[-8:], "little") != _MAGIC:
            self._fail("bad-footer", "it does not end as the index of a TensorFlow checkpoint does; is it one, and whole?")
        try:
            numbers, at = [], 0
            for _ in range(4):
                number, at = varint(footer[:-8], at, len(self._content))
                numbers.append(number)
        except ValueError as error:
            self._fail("bad-footer", f"the footer is broken: {error}")
        if any(footer[at:-8]):
            self._fail("bad-footer", "the footer has bytes between its numbers and its end that are not zero")
        return (numbers[0], numbers[1]), (numbers[2], numbers[3])

    def _handle(self, encoded: bytes) -> tuple[int, int]:
        try:
            offset, at = varint(encoded, 0, len(self._content))
            size, at = varint(encoded, at, len(self._content))
        except ValueError as error:
            self._fail("bad-handle", f"the place of a data block is broken: {error}")
        if at != len(encoded):
            self._fail("bad-handle", "the place of a data block has extra bytes")
        return offset, size

    def _check_follows(self, at: int, end: int, what: str) -> None:
        if at != end:
            self._fail("bad-handle", f"{what} does not start at byte {end}, where what is before it ends")

    def _block(self, at: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """The entries of one block. The caller has checked that its bytes and trailer lie in the file."""
        with_type = memoryview(self._content)[at : at + size + 1]
        stored = int.from_bytes(self._content[at + size + 1 : at + size + _TRAILER_BYTES], "little")
        if masked_crc32c(with_type) != stored:
            self._fail("crc-mismatch", f"the checksum of the block at byte {at} is wrong; fetch the file again")
        if with_type[-1] != _UNCOMPRESSED:
            kind = "compressed by snappy" if with_type[-1] == _SNAPPY else f"compressed in the unknown way {with_type[-1]}"
            self._fail("unsupported-compression", f"the block at byte {at} is {kind}; save the checkpoint without compression")
        yield from self._entries(at, bytes(with_type[:-1]))

    def _entries(self, start: int, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        restarts, end = self._restarts(start, block)
        entries = block[:end]
        at = passed = 0
        key: bytes | None = None
        while at < end:
            is_restart = passed < len(restarts) and restarts[passed] == at
            passed += is_restart
            try:
                shared, at = varint(entries, at, end)
                unshared, at = varint(entries, at, end)
                length, at = varint(entries, at, end)
            except ValueError as error:
                self._fail("bad-block", f"the block at byte {start} is broken: {error}")
            if shared > len(key or b"") or (is_restart and shared) or unshared + length > end - at:
                self._fail("bad-block", f"an entry of the block at byte {start} shares or takes more bytes than there are")
            if shared + unshared > MAX_KEY_BYTES or length > MAX_VALUE_BYTES:
                message = f"{MAX_KEY_BYTES} and {MAX_VALUE_BYTES} are allowed"
                self._fail("index-limit", f"an entry has a key of {shared + unshared} and a value of {length} bytes; {message}")
            before, key = key, (key or b"")[:shared] + entries[at : at + unshared]
            at += unshared + length
            self._check_order(before, key)
            yield key, entries[at - length : at]
        if passed < len(restarts) and not (end == 0 and len(restarts) == 1):  # an empty block has one restart too
            self._fail("bad-block", f"restart {passed} of the block at byte {start} is not where an entry starts")

    def _restarts(self, start: int, block: bytes) -> tuple[tuple[int, ...], int]:
        """The offsets of entries that share nothing, and where the entries end."""
        count = int.from_bytes(block[-4:], "little")
        end = len(block) - 4 * (count + 1)
        if count == 0 or end < 0:
            self._fail("bad-block", f"the block at byte {start} is too small for its {count} restarts, or has none")
        restarts = struct.unpack_from(f"<{count}I", block, end)
        if restarts[0] != 0:
            self._fail("bad-block", f"the first restart of the block at byte {start} is not its start")
        return restarts, end

    def _check_order(self, before: bytes | None, key: bytes) -> None:
        if before is not None and key <= before:
            code, what = ("duplicate-key", "occurs twice") if key == before else ("key-order", "is out of order")
            shown = ascii(key.decode("latin-1")[:60])
            self._fail(code, f"the key {shown} {what}")

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self._path, message, code=code)
