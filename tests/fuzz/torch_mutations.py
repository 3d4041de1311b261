"""Changes to `pytorch_model.bin` that keep it a zip file of a pickle: opcodes, headers, records, with checksums made true again or not."""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import torch_writer
from fuzz.mutations import EDGES, MAX_BYTES, bytewise


def _pieces(stream: bytes) -> list[bytes]:
    """The stream's opcodes, each with its argument; what does not parse is one last piece."""
    starts: list[int] = []
    with suppress(Exception):  # a broken stream ends here, with whatever error that module has for it
        starts.extend(at for _, _, at in pickletools.genops(stream) if at is not None)
    return [stream[a:b] for a, b in pairwise([*starts, len(stream)])]


def _snippets() -> list[bytes]:
    tw = torch_writer
    plain = [bytes([code]) for code in range(256)]
    numbers = [tw.integer(edge) for edge in EDGES if edge < 2**64] + [tw.integer(-edge) for edge in (1, 4, 2**31, 2**63)]
    values = [
        tw.tensor(),
        tw.tensor((2, 2), (1, 2)),
        tw.tensor((0,)),
        tw.storage(),
        tw.ORDERED_DICT,
        tw.REBUILD,
        tw.tuple_of(),
        tw.integers((4,)),
        b"}",
        b"]",
        b")",
    ]
    names = [
        tw.name("posix", "system"),
        tw.name("torch", "LongStorage"),
        tw.name("torch._utils", "_rebuild_parameter"),
        tw.name("builtins", "eval"),
    ]
    texts = [tw.text(word) for word in ("", "w", "0", "storage", "cpu", "cuda:0", "_metadata", "../0", "x" * 300)] + [
        b"X\xff\xff\xff\xff",
        b"X\x04\0\0\0\xff\xff\xff\xff",
    ]
    memo = [
        b"q\0",
        b"h\0",
        b"h\1",
        b"r\xff\xff\xff\xff",
        b"j\xff\xff\xff\x7f",
        b"(q\1h\1\x86",
        b"2",
        b"0",
        b"G\x7f\xf8" + bytes(6),
        b"\x8a\xff" + bytes(255),
        b"\x8b\xff\xff\xff\x7f",
    ]
    return plain + (numbers + values + names + texts + memo) * 3


SNIPPETS = _snippets()


def opcodes(stream: bytes, rng: Random) -> bytes:
    """A pickle with some of its opcodes left out, doubled, exchanged, replaced or joined by others."""
    pieces = _pieces(stream) or [b"."]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(pieces))
        match rng.randrange(7):
            case 0:
                del pieces[at]
            case 1:
                pieces[at:at] = pieces[at : at + rng.choice((1, 2, 5))] * rng.choice((1, 1, 1, 40))
            case 2:
                other = rng.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces[at] = rng.choice(SNIPPETS)
            case 4:
                pieces.insert(at, rng.choice(SNIPPETS))
            case 5:
                numbers = [i for i, piece in enumerate(pieces) if piece[:1] in (b"K", b"M", b"J", b"\x8a")]
                if numbers:
                    pieces[rng.choice(numbers)] = torch_writer.integer(rng.choice([*EDGES[:20], -1, 5, 6, 9]))
            case _:
                pieces[at] = bytewise(pieces[at], rng)
        pieces = pieces or [b"."]
    return b"".join(pieces)[:MAX_BYTES]


def _entries(data: bytes) -> list[torch_writer.Entry]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [torch_writer.Entry(info.filename, archive.read(info)) for info in archive.infolist()]


def torch_zip(data: bytes, rng: Random) -> bytes:
    """The pickle, one entry's headers, the records or the end records; the checksums are true in half of the files."""
    try:
        entries = _entries(data) if rng.random() < 0.9 else []
    except Exception:  # zipfile has many errors for what is no zip file
        entries = []
    if not entries:
        return bytewise(data, rng)
    lies: dict[str, Any] = {}
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(entries))
        described = [i for i, e in enumerate(entries) if str(e.name).endswith("data.pkl")]
        match rng.randrange(8):
            case 0 | 1 | 2 | 3 if described:
                number = described[0]
                entries[number] = replace(entries[number], data=opcodes(entries[number].data, rng))
            case 4:
                entries[at] = replace(entries[at], data=bytewise(entries[at].data, rng))
            case 5:
                entries[at] = replace(entries[at], **_entry_lie(entries[at], rng))
            case 6:
                entries = rng.choice((entries[:at] + entries[at + 1 :], [*entries, entries[at]], rng.sample(entries, len(entries))))
                if not entries:
                    return torch_writer.zipped([])
            case _:
                record = rng.choice(("end", "end64", "locator"))
                fields = ("disk", "at", "disks") if record == "locator" else ("disk", "start", "here", "count", "size", "offset")
                wide = {"end": 2**16 - 1, "end64": 2**31 - 1, "locator": 2**31 - 1}[record]
                lies[record] = {rng.choice(fields): rng.choice([e for e in EDGES if e <= wide])}
    if rng.random() < 0.1:
        lies[rng.choice(("prefix", "suffix", "comment"))] = rng.choice((b"\0", b"PK\3\4", b"#!/bin/sh\n", bytes(300)))
    try:
        made = torch_writer.zipped(entries, wide_end=rng.random() < 0.7, **lies)
    except (struct.error, OverflowError):  # a number too large for its field
        return bytewise(data, rng)
    return made if rng.random() < 0.9 else bytewise(made, rng)


FIELDS = ["name", "crc", "size", "compressed", "method", "flags", "offset", "extra", "comment", "gap", "descriptor", "wide"]
FIELDS += ["local_name", "local_flags", "local_method", "local_crc", "local_size", "local_extra"]


def _entry_lie(entry: torch_writer.Entry, rng: Random) -> dict[str, Any]:
    numbers = [edge for edge in EDGES if edge < 2**32] + [len(entry.data) - 1, len(entry.data) + 1]
    small = [edge for edge in EDGES if edge < 2**16]
    names = [
        "archive/data/0",
        "archive/data.pkl",
        "archive/data/1",
        "../x",
        "/x",
        "archive/byteorder",
        "archive/.data/serialization_id",
        b"\xff",
        "x",
    ]
    field = rng.choice(FIELDS)
    match field:
        case "name" | "local_name":
            return {field: rng.choice(names)}
        case "flags":
            return {field: rng.choice((0, 8, 0x800, 0x808, 0x809, 0x40, 0x2000, rng.randrange(2**16)))}
        case "method" | "local_flags" | "local_method":
            return {field: rng.choice(small)}
        case "extra" | "comment" | "gap" | "local_extra" | "descriptor":
            return {
                field: rng.choice((b"", b"\1\0", bytes(4), struct.pack("<2HQ", 1, 8, rng.choice(small)), rng.randbytes(rng.randrange(40))))
            }
        case "wide":
            return {field: True}
        case "crc":
            return {field: rng.choice((0, zlib.crc32(entry.data) ^ 1))}
        case _:
            return {field: max(0, rng.choice(numbers))}
