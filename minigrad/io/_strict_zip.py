"""A strict reader for the zip container of PyTorch's files: whatever two readers could understand differently is refused.

A zip file says everything twice, once before each entry and once in a directory at the end, and most attacks make the two differ.
So both are read and compared; entries must be stored uncompressed, each under its own plain name, and lie end to end from the first
byte of the file to the directory, which only its end records may follow.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5; what PyTorch's writer (miniz) makes of it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

from minigrad.errors import WeightFileError
from minigrad.files import quoted
from minigrad.io._weight_bytes import OpenFile

MAX_ENTRIES = 16_000  # keeps the time of a refusal under a second; larger models are published in shards
MAX_NAME_BYTES = 1024
MAX_DIRECTORY_BYTES = 8 << 20

_END = struct.Struct("<4s4H2LH")  # signature, disk, directory's disk, entries here, entries, directory size and offset, comment length
_END64 = struct.Struct("<4sQ2H2L4Q")  # signature, size of the rest, versions, disk, directory's disk, then as above
_LOCATOR64 = struct.Struct("<4sLQL")  # signature, disk, offset of the record above, disks
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<4s3L")  # signature, CRC-32, two sizes: follows the data of an entry that was written as a stream
_DESCRIPTOR64 = struct.Struct("<4sL2Q")

_MANY16, _MANY32 = 0xFFFF, 0xFFFFFFFF  # "see the 64-bit field"
_DESCRIPTOR_FLAG, _UTF8_FLAG = 1 << 3, 1 << 11
_ZIP64_FIELD, _UNICODE_PATH_FIELD = 0x0001, 0x7075
_BAD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]|\A[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Record:
    """The content of one entry: `size` bytes of the file from `begin`, and their CRC-32."""

    name: str
    begin: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of the directory."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    size: int
    compressed_size: int
    offset: int

    @property
    def least_end(self) -> int:
        """The first byte at which the next entry may begin."""
        trailer = _DESCRIPTOR.size if self.flags & _DESCRIPTOR_FLAG else 0
        return self.offset + _LOCAL.size + len(self.raw_name) + self.compressed_size + trailer


class StrictZip:
    """The directory of a zip file, checked; `records` checks the entries themselves."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        count, self._directory, size = self._end_records()
        self._entries = self._read_directory(count, file.read(self._directory, size))

    @property
    def names(self) -> tuple[str, ...]:
        """The entries' names in the order of the directory."""
        return tuple(self._entries)

    def records(self) -> dict[str, Record]:
        """The entries by name, in the order of their data, after comparing each with the header before it.

        Raises: WeightFileError.
        """
        for entry in self._entries.values():
            self._check_storage(entry)
        ordered = sorted(self._entries.values(), key=lambda entry: entry.offset)
        ends = [*(entry.offset for entry in ordered[1:]), self._directory]
        for entry, end in zip(ordered, ends, strict=True):
            if entry.least_end > end:
                self._fail("overlapping-entries", f"entry {quoted(entry.name)} does not end before byte {end}, where the next part begins")
        if ordered and ordered[0].offset != 0:
            self._fail("not-a-plain-zip", f"its first entry begins at byte {ordered[0].offset}, not at the start of the file")
        return {entry.name: self._locate(entry, end) for entry, end in zip(ordered, ends, strict=True)}

    def _end_records(self) -> tuple[int, int, int]:
        """The number of entries, and the directory's offset and size, from the records at the end of the file."""
        at = self._file.size - _END.size
        end = _END.unpack(self._file.read(at, _END.size)) if at >= 0 else (b"",)
        if end[0] != b"PK\x05\x06" or end[-1] != 0:
            self._fail("not-a-plain-zip", "it does not end as a zip file does: it was cut short, or something was added; fetch it again")
        numbers = end[1:-1]
        if at >= _LOCATOR64.size:
            locator = _LOCATOR64.unpack(self._file.read(at - _LOCATOR64.size, _LOCATOR64.size))
            if locator[0] == b"PK\x06\x07":
                at, numbers = self._end_record64(locator, at - _LOCATOR64.size - _END64.size, numbers)
        disk, directory_disk, here, count, size, offset = numbers
        if disk or directory_disk or here != count:
            self._fail("not-a-plain-zip", "its end record speaks of several disks")
        if offset + size != at:
            self._fail("not-a-plain-zip", f"its directory should end at byte {at}, its end record says {offset + size}")
        if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
            self._fail("not-a-plain-zip", f"its directory has {count} entries and {size} bytes, more than a checkpoint needs")
        return count, offset, size

    def _end_record64(self, locator: tuple[Any, ...], at: int, short: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Where the 64-bit end record begins, and its numbers, which those of the 32-bit record must equal as far as they fit."""
        if locator[1:] != (0, at, 1):
            self._fail("not-a-plain-zip", "the locator of its 64-bit end record does not point to the record before it")
        signature, rest, _made_by, _needed, *numbers = _END64.unpack(self._file.read(at, _END64.size))
        if signature != b"PK\x06\x06" or rest != _END64.size - 12:
            self._fail("not-a-plain-zip", "its 64-bit end record is not where its locator says, or has unknown parts")
        for brief, full, many in zip(short, numbers, (_MANY16,) * 4 + (_MANY32,) * 2, strict=True):
            if brief not in (full, many):
                self._fail("not-a-plain-zip", "its two end records contradict each other")
        return at, tuple(numbers)

    def _read_directory(self, count: int, directory: bytes) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        at = 0
        for _ in range(count):
            entry, at = self._directory_row(directory, at)
            if entry.name in entries:
                self._fail("duplicate-entry", f"the entry {quoted(entry.name)} stands twice in its directory")
            entries[entry.name] = entry
        if at != len(directory):
            self._fail("not-a-plain-zip", f"{len(directory) - at} bytes of its directory belong to no entry")
        return entries

    def _directory_row(self, directory: bytes, at: int) -> tuple[_Entry, int]:
        """The row at `at`, and where the next one begins."""
        if at + _CENTRAL.size > len(directory):
            self._fail("not-a-plain-zip", "its directory is shorter than its end record says")
        row = _CENTRAL.unpack_from(directory, at)
        signature, flags, method, crc, compressed_size, size = row[0], row[3], row[4], *row[7:10]
        name_bytes, extra_bytes, comment_bytes, disk, offset = *row[10:14], row[16]
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_bytes
        end = extra_at + extra_bytes
        if signature != b"PK\x01\x02" or end > len(directory) or disk or comment_bytes:
            self._fail("not-a-plain-zip", f"byte {at} of its directory does not begin a plain entry")
        raw_name = directory[name_at:extra_at]
        name = self._name(raw_name, flags)
        if _MANY32 in (size, compressed_size, offset) or extra_bytes:
            size, compressed_size, offset = self._long_numbers(name, directory[extra_at:end], (size, compressed_size, offset))
        return _Entry(name, raw_name, flags, method, crc, size, compressed_size, offset), end

    def _name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & _UTF8_FLAG else "ascii")
        except UnicodeDecodeError:
            self._fail("bad-entry-name", f"the entry name {quoted(raw[:40])} is not UTF-8, or not marked as such")
        parts = name.split("/")
        if len(raw) > MAX_NAME_BYTES or _BAD_CHARACTERS.search(name) or not {"", ".", ".."}.isdisjoint(parts):
            self._fail("bad-entry-name", f"the entry name {quoted(name)} is not a plain relative path")
        return name

    def _long_numbers(self, name: str, extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, ...]:
        """Sizes and offset; those that do not fit 32 bits are taken from the 64-bit field of `extra`."""
        found: bytes | None = None
        at = 0
        while at < len(extra):
            kind, length = struct.unpack_from("<2H", extra, at) if at + 4 <= len(extra) else (0, len(extra))
            content = extra[at + 4 : at + 4 + length]
            if len(content) != length or kind == _UNICODE_PATH_FIELD or (kind == _ZIP64_FIELD and found is not None):
                self._fail("not-a-plain-zip", f"the extra fields of entry {quoted(name)} are broken or name it anew")
            if kind == _ZIP64_FIELD:
                found = content
            at += 4 + length
        long = [number == _MANY32 for number in numbers]
        if len(found or b"") != 8 * sum(long):
            self._fail("not-a-plain-zip", f"the 64-bit field of entry {quoted(name)} does not hold the numbers that are announced")
        wide = iter(struct.unpack(f"<{sum(long)}Q", found or b""))
        return tuple(next(wide) if is_long else number for number, is_long in zip(numbers, long, strict=True))

    def _check_storage(self, entry: _Entry) -> None:
        if entry.flags & ~(_DESCRIPTOR_FLAG | _UTF8_FLAG):
            self._fail("encrypted-entry", f"entry {quoted(entry.name)} has the flags {entry.flags:#06x}: encrypted, or unknown")
        if entry.method != 0:
            self._fail("compressed-entry", f"entry {quoted(entry.name)} is compressed (method {entry.method}); torch.save only stores")
        if entry.size != entry.compressed_size:
            self._fail("header-mismatch", f"entry {quoted(entry.name)} is not compressed and yet has two sizes")

    def _locate(self, entry: _Entry, end: int) -> Record:
        """Locate the data of `entry` by the header before it, which must agree with the directory. end: where the next part begins."""
        where = f"entry {quoted(entry.name)}"
        head = self._file.read(entry.offset, _LOCAL.size + len(entry.raw_name))
        signature, _needed, flags, method, _time, _date, crc, *sizes, name_bytes, extra_bytes = _LOCAL.unpack_from(head)
        if signature != b"PK\x03\x04":
            self._fail("header-mismatch", f"there is no header at byte {entry.offset}, where the directory puts {where}")
        if flags & ~(_DESCRIPTOR_FLAG | _UTF8_FLAG):
            self._fail("encrypted-entry", f"the header of {where} has the flags {flags:#06x}: encrypted, or unknown")
        if (flags, method) != (entry.flags, entry.method) or name_bytes != len(entry.raw_name) or head[_LOCAL.size :] != entry.raw_name:
            self._fail("header-mismatch", f"the directory and the header before the data disagree about {where}")
        begin = entry.offset + len(head) + extra_bytes
        trailer = end - begin - entry.size
        if trailer < 0:
            self._fail("overlapping-entries", f"{where} does not end before byte {end}, where the next part begins")
        if flags & _DESCRIPTOR_FLAG:  # the header may leave out what only the descriptor knows
            agrees = crc in (0, entry.crc) and all(size in (0, _MANY32, entry.size) for size in sizes)
            agrees &= self._descriptor_agrees(entry, end - trailer, trailer)
        else:
            if _MANY32 in sizes:
                extra = self._file.read(entry.offset + len(head), extra_bytes)
                sizes = list(self._long_numbers(entry.name, extra, (sizes[1], sizes[0], 0))[:2])
            agrees = crc == entry.crc and sizes == [entry.size] * 2
            if agrees and trailer:
                self._fail("not-a-plain-zip", f"the {trailer} bytes after {where} belong to no entry")
        if not agrees:
            self._fail("header-mismatch", f"the checksum or the sizes of {where} are not the same in the directory and around the data")
        return Record(entry.name, begin, entry.size, entry.crc)

    def _descriptor_agrees(self, entry: _Entry, at: int, count: int) -> bool:
        layout = {_DESCRIPTOR.size: _DESCRIPTOR, _DESCRIPTOR64.size: _DESCRIPTOR64}.get(count)
        if layout is None:
            self._fail("not-a-plain-zip", f"the {count} bytes after the data of entry {quoted(entry.name)} are no descriptor of it")
        return layout.unpack(self._file.read(at, count)) == (b"PK\x07\x08", entry.crc, entry.size, entry.size)

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self._file.path, message, code=code)
