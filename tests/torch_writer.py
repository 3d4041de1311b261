"""Writes files as torch.save does, piece by piece, so that each piece can be made to lie: the zip container, and pickle opcodes."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

DESCRIPTOR, UTF8 = 0x0008, 0x0800


# ---- the zip container


@dataclass(frozen=True)
class Entry:
    """One entry, with what its two headers and its descriptor say; None: the truth."""

    name: str | bytes
    data: bytes = b""
    crc: int | None = None
    size: int | None = None
    compressed: int | None = None
    method: int = 0
    flags: int = DESCRIPTOR | UTF8
    offset: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    gap: bytes = b""  # after the entry
    local_name: str | bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_crc: int | None = None  # None: 0, as before the data is known
    local_size: int | None = None
    local_extra: bytes = b"FB\x02\x00ZZ"  # torch.save's padding
    descriptor: bytes | None = None
    wide: bool = False  # sizes and offset in 64-bit fields, whether they need them or not


def raw(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def zipped(
    entries: Sequence[Entry],
    *,
    prefix: bytes = b"",
    suffix: bytes = b"",
    comment: bytes = b"",
    wide_end: bool = True,
    end: Mapping[str, int] | None = None,
    end64: Mapping[str, int] | None = None,
    locator: Mapping[str, int] | None = None,
) -> bytes:
    """A zip file; `end`, `end64` and `locator` replace numbers of the end records by name."""
    body, directory = bytearray(prefix), bytearray()
    for e in entries:
        crc = zlib.crc32(e.data) if e.crc is None else e.crc
        size = len(e.data) if e.size is None else e.size
        compressed = size if e.compressed is None else e.compressed
        offset = len(body) if e.offset is None else e.offset
        late = bool(e.flags & DESCRIPTOR)
        local_size = (0 if late else size) if e.local_size is None else e.local_size
        local_crc = (0 if late else crc) if e.local_crc is None else e.local_crc
        local_extra = (struct.pack("<2H2Q", 1, 16, size, compressed) if e.wide else b"") + e.local_extra
        narrow = (0xFFFFFFFF,) * 2 if e.wide and not late else (local_size, local_size)
        name = raw(e.name if e.local_name is None else e.local_name)
        flags = e.flags if e.local_flags is None else e.local_flags
        method = e.method if e.local_method is None else e.local_method
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 0, flags, method, 0, 0, local_crc, *narrow, len(name), len(local_extra))
        body += name + local_extra + e.data
        if e.descriptor is not None:
            body += e.descriptor
        elif late:
            body += struct.pack("<4sL2Q" if e.wide else "<4s3L", b"PK\7\x08", crc, compressed, size)
        body += e.gap
        extra = (struct.pack("<2H3Q", 1, 24, size, compressed, offset) if e.wide else b"") + e.extra
        sizes, at = ((0xFFFFFFFF,) * 2, 0xFFFFFFFF) if e.wide else ((compressed, size), offset)
        directory += struct.pack("<4s6H3L", b"PK\1\2", 0, 0, e.flags, e.method, 0, 0, crc, *sizes)
        directory += struct.pack("<5H2L", len(raw(e.name)), len(extra), len(e.comment), 0, 0, 0, at) + raw(e.name) + extra + e.comment
    truth = {"disk": 0, "start": 0, "here": len(entries), "count": len(entries), "size": len(directory), "offset": len(body)}
    ends = bytearray()
    if wide_end:
        at64 = len(body) + len(directory)
        ends += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 0, 45, *(truth | dict(end64 or {})).values())
        places = {"disk": 0, "at": at64, "disks": 1} | dict(locator or {})
        ends += struct.pack("<4sLQL", b"PK\6\7", *places.values())
    ends += struct.pack("<4s4H2LH", b"PK\5\6", *(truth | dict(end or {})).values(), len(comment)) + comment
    return bytes(body + directory + ends) + suffix


# ---- pickle opcodes

PROTO = b"\x80\x02"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"


def name(module: str, attribute: str) -> bytes:
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str | bytes) -> bytes:
    return b"X" + struct.pack("<L", len(raw(value))) + raw(value)


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: Sequence[int]) -> bytes:
    return tuple_of(*map(integer, values))


ORDERED_DICT = name("collections", "OrderedDict") + b")R"
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def storage(
    numel: int | bytes = 4,
    *,
    key: bytes | None = None,
    kind: bytes | None = None,
    location: bytes | None = None,
    word: bytes | None = None,
) -> bytes:
    """The persistent id of a storage of 4 floats under the key 0."""
    parts = [text("storage") if word is None else word, name("torch", "FloatStorage") if kind is None else kind]
    parts += [text("0") if key is None else key, text("cpu") if location is None else location]
    return tuple_of(*parts, numel if isinstance(numel, bytes) else integer(numel)) + b"Q"


def tensor(
    shape: Sequence[int] | bytes = (4,), strides: Sequence[int] | bytes | None = None, offset: int | bytes = 0, of: bytes | None = None
) -> bytes:
    """A call of _rebuild_tensor_v2; in C order unless `strides` are given."""
    if strides is None:
        assert not isinstance(shape, bytes)
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    layout = [value if isinstance(value, bytes) else integers(value) for value in (shape, strides)]
    place = offset if isinstance(offset, bytes) else integer(offset)
    return REBUILD + tuple_of(storage() if of is None else of, place, *layout, FALSE, ORDERED_DICT) + b"R"


def state_dict(tensors: Mapping[str, bytes] | None = None) -> bytes:
    """A stream that ends with a dictionary of these values, by default one tensor `w` of 4 floats."""
    chosen = {"w": tensor()} if tensors is None else tensors
    return PROTO + b"}(" + b"".join(text(key) + value for key, value in chosen.items()) + b"u."


DATA = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)


def entries(stream: bytes | None = None, records: Mapping[str, bytes] | None = None, root: str = "archive") -> list[Entry]:
    """The entries of torch.save for a stream and its storages by key."""
    storages = {"0": DATA} if records is None else records
    described = [Entry(f"{root}/data.pkl", state_dict() if stream is None else stream), Entry(f"{root}/byteorder", b"little")]
    return described + [Entry(f"{root}/data/{key}", data) for key, data in storages.items()] + [Entry(f"{root}/version", b"3\n")]


def checkpoint(stream: bytes | None = None, records: Mapping[str, bytes] | None = None) -> bytes:
    """A whole file."""
    return zipped(entries(stream, records))


def changed(part: str, **changes: object) -> bytes:
    """A whole file in which one entry (data.pkl, data/0, ...) is described otherwise."""
    return zipped([replace(e, **changes) if e.name == f"archive/{part}" else e for e in entries()])  # type: ignore[arg-type]
