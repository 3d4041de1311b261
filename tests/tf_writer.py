"""A writer of TensorFlow checkpoints for the tests.

It shares no code with the reader: its checksum goes bit by bit, its tables and messages are put together by hand, and every part can
be replaced by something else, which is how `hostile_tf` makes files that no writer would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = bytes.fromhex("57fb808b247547db")
NUMBERS = {"f4": 1, "f8": 2, "i4": 3, "u1": 4, "i2": 5, "i1": 6, "c8": 8, "i8": 9, "?": 10, "u2": 17, "f2": 19, "u4": 22, "u8": 23}
BFLOAT16 = 14

Row = tuple[bytes, bytes]


@cache
def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _remainder((crc ^ byte) & 0xFF) ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


# ---- protocol buffers


def varint(number: int) -> bytes:
    number &= 2**64 - 1  # negative numbers take ten bytes
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def shape(dims: Iterable[int]) -> bytes:
    return b"".join(message(2, number(1, dim) if dim else b"") for dim in dims)


def entry(
    dims: Iterable[int] = (2,),
    *,
    dtype: int = 1,
    shard: int = 0,
    offset: int = 0,
    size: int | None = 8,
    crc: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """A BundleEntryProto; zeros are left out, as writers do."""
    parts = number(1, dtype) + message(2, shape(dims))
    for field, value in ((3, shard), (4, offset), (5, size)):
        parts += number(field, value) if value else b""
    return parts + b"\x35" + (crc or bytes(4)) + more


def header(shards: int = 1, more: bytes = b"") -> bytes:
    return number(1, shards) + message(3, number(1, 1)) + more


# ---- tables


def block(rows: Iterable[Row], interval: int = 16, restarts: list[int] | None = None) -> bytes:
    out, found, last = bytearray(), [], b""
    for count, (key, value) in enumerate(rows):
        shared = 0
        if count % interval == 0:
            found.append(len(out))
        else:
            differing = (at for at, (old, new) in enumerate(zip(last, key, strict=False)) if old != new)
            shared = next(differing, min(len(last), len(key)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    chosen = (found or [0]) if restarts is None else restarts
    return bytes(out) + b"".join(at.to_bytes(4, "little") for at in chosen) + len(chosen).to_bytes(4, "little")


def with_trailer(content: bytes, kind: int = 0) -> bytes:
    return content + bytes([kind]) + masked(content + bytes([kind]))


def table(
    blocks: list[bytes],
    bounds: list[bytes],
    *,
    kind: int = 0,
    handles: Callable[[list[tuple[int, int]]], list[tuple[int, int]]] = list,
    meta: bytes | None = None,
    prefix: bytes = b"",
    footer: Callable[[tuple[int, int], tuple[int, int]], bytes] | None = None,
) -> bytes:
    """A table of data blocks, each with the key that bounds it; `handles` may change, or leave out, what the index says of their places."""
    out, places = bytearray(prefix), []
    for content in blocks:
        places.append((len(out), len(content)))
        out += with_trailer(content, kind)
    meta = block([]) if meta is None else meta
    meta_place = (len(out), len(meta))
    out += with_trailer(meta)
    index = block([(bound, varint(at) + varint(size)) for bound, (at, size) in zip(bounds, handles(places), strict=False)], interval=1)
    index_place = (len(out), len(index))
    out += with_trailer(index)
    return bytes(out) + (footer or plain_footer)(meta_place, index_place)


def plain_footer(meta: tuple[int, int], index: tuple[int, int]) -> bytes:
    return b"".join(map(varint, (*meta, *index))).ljust(40, b"\0") + MAGIC


def table_of(rows: list[Row], per_block: int = 1000, interval: int = 16, **changes: Any) -> bytes:
    groups = [rows[at : at + per_block] for at in range(0, len(rows), per_block)]
    return table([block(group, interval) for group in groups], [group[-1][0] for group in groups], **changes)


# ---- checkpoints


def write(prefix: Path, index: bytes, *shards: bytes) -> Path:
    Path(f"{prefix}.index").write_bytes(index)
    for at, data in enumerate(shards):
        Path(f"{prefix}.data-{at:05d}-of-{len(shards):05d}").write_bytes(data)
    return prefix


def save(prefix: Path, arrays: dict[str, Any], *, shards: int = 1, alignment: int = 1, per_block: int = 1000, interval: int = 16) -> Path:
    """A valid checkpoint. An array is dealt to a shard by its number; uint16 with the name `bf16...` is stored as bfloat16."""
    rows: list[Row] = [(b"", header(shards))]
    data = [bytearray() for _ in range(shards)]
    for at, name in enumerate(sorted(arrays, key=str.encode)):
        array = np.asarray(arrays[name])
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        target = data[at % shards]
        dtype = BFLOAT16 if name.startswith("bf16") else NUMBERS[array.dtype.str[1:].replace("b1", "?")]
        fields = {"dtype": dtype, "shard": at % shards, "offset": len(target), "size": len(content)}
        rows.append((name.encode(), entry(array.shape, **fields, crc=masked(content))))
        target += content
        target += bytes(-len(target) % alignment)
    return write(prefix, table_of(rows, per_block, interval), *map(bytes, data))
