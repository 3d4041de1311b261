"""The corpus of broken and hostile TensorFlow checkpoints: for each thing that can be wrong, the files and the code that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tf_writer import MAGIC, block, entry, header, masked, message, number, plain_footer, shape, table, table_of, varint

DATA = np.arange(2, dtype="<f4").tobytes()
GOOD = entry(crc=masked(DATA))


def one(value: bytes = GOOD, key: bytes = b"a", *, head: bytes | None = None, **changes: Any) -> bytes:
    """The index of one tensor of two floats, with something else in some place."""
    return table_of([(b"", header() if head is None else head), (key, value)], **changes)


class Hostile(NamedTuple):
    code: str
    index: Callable[[], bytes]
    shards: tuple[bytes, ...] = (DATA,)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def index_of(content: bytes) -> bytes:
    """An index whose only data block is `content`."""
    return table([content], [b"\xff"])


def _raw(*rows: bytes, restarts: tuple[int, ...] = (0,)) -> bytes:
    """A block of rows that are encoded already."""
    return b"".join(rows) + b"".join(at.to_bytes(4, "little") for at in restarts) + len(restarts).to_bytes(4, "little")


HEADER_ROW = varint(0) + varint(0) + varint(len(header())) + header()
A_ROW = varint(0) + varint(1) + varint(len(GOOD)) + b"a" + GOOD
TWO = [(b"", header()), (b"a", GOOD), (b"b", GOOD)]

HOSTILE: dict[str, Hostile] = {
    # the footer
    "an empty file": Hostile("bad-footer", lambda: b""),
    "47 bytes": Hostile("bad-footer", lambda: plain_footer((0, 8), (13, 8))[1:]),
    "another magic number": Hostile("bad-footer", lambda: one()[:-1] + b"\0"),
    "a safetensors file": Hostile("bad-footer", lambda: (64).to_bytes(8, "little") + b"{}".ljust(64)),
    "a number without an end in the footer": Hostile("bad-footer", lambda: one(footer=lambda *_: b"\xff" * 40 + MAGIC)),
    "a place beyond any file": Hostile("bad-footer", lambda: one(footer=lambda meta, _: plain_footer(meta, (2**63, 2**63)))),
    "bytes behind the footer's numbers": Hostile("bad-footer", lambda: one(footer=lambda *at: plain_footer(*at)[:39] + b"\1" + MAGIC)),
    "an overlong number in the footer": Hostile("bad-footer", lambda: one(footer=lambda *_: (b"\x80\x00" * 4).ljust(40, b"\0") + MAGIC)),
    "cut in the middle": Hostile("bad-footer", lambda: one()[:60]),
    "bytes behind the footer": Hostile("bad-footer", lambda: one() + b"PK"),
    # where blocks lie
    "the index block is the metaindex block": Hostile("bad-handle", lambda: one(footer=lambda meta, _: plain_footer(meta, meta))),
    "the metaindex block is the index block": Hostile("bad-handle", lambda: one(footer=lambda _, index: plain_footer(index, index))),
    "a metaindex block of no size at the start": Hostile("bad-handle", lambda: one(footer=lambda _, i: plain_footer((0, 0), i))),
    "a data block that is the index block": Hostile("bad-handle", lambda: one(handles=lambda at: [(at[0][1] + 18, 8)])),
    "a data block that takes in the index block": Hostile("bad-handle", lambda: one(handles=lambda at: [(0, at[0][1] + 18)])),
    "a data block of almost the whole file": Hostile("bad-handle", lambda: one(handles=lambda at: [(0, at[0][1] + 60)])),
    "a data block beyond any file": Hostile("bad-handle", lambda: one(handles=lambda at: [(0, 2**62)])),
    "one data block twice": Hostile("bad-handle", lambda: table_of(TWO, per_block=1, handles=lambda at: [at[0], at[0], at[2]])),
    "a data block left out": Hostile("bad-handle", lambda: table_of(TWO, per_block=1, handles=lambda at: [at[0], at[2]])),
    "bytes before the first block": Hostile("bad-handle", lambda: one(prefix=b"#!/bin/sh\n")),
    # blocks
    "a flipped bit in a data block": Hostile("crc-mismatch", lambda: _flipped(one(), 5)),
    "a flipped bit in a checksum": Hostile("crc-mismatch", lambda: _flipped(one(), one().index(block([])) - 1)),
    "a flipped bit in the index block": Hostile("crc-mismatch", lambda: _flipped(one(), len(one()) - 48 - 8)),
    "a flipped bit in the metaindex block": Hostile("crc-mismatch", lambda: _flipped(one(), len(block(TWO[:2])) + 5)),
    "a block compressed by snappy": Hostile("unsupported-compression", lambda: one(kind=1)),
    "a block compressed in an unknown way": Hostile("unsupported-compression", lambda: one(kind=77)),
    "four thousand million restarts": Hostile("bad-block", lambda: index_of(HEADER_ROW + b"\xff\xff\xff\xff")),
    "no restarts": Hostile("bad-block", lambda: index_of(HEADER_ROW + bytes(4))),
    "a block of two bytes": Hostile("bad-block", lambda: index_of(b"\0\0")),
    "a restart between entries": Hostile("bad-block", lambda: index_of(block(TWO, restarts=[0, 3]))),
    "restarts that go back": Hostile("bad-block", lambda: index_of(block(TWO, interval=1, restarts=[0, 30, 20]))),
    "a first restart that is not the start": Hostile("bad-block", lambda: index_of(block(TWO, restarts=[9]))),
    "more shared than the last key has": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x07\x01\x00a"))),
    "a restart that shares": Hostile(
        "bad-block", lambda: index_of(_raw(HEADER_ROW, A_ROW, b"\x01\x01\x00b", restarts=(0, len(HEADER_ROW + A_ROW))))
    ),
    "a value of a terabyte": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x00\x01" + varint(2**40) + b"a"))),
    "a key of 2^63 bytes": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x00" + varint(2**63) + b"\x00a"))),
    "a value longer than its block": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x00\x01\x09a"))),
    "an overlong number": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x80\x00\x01\x00a"))),
    "an entry cut off": Hostile("bad-block", lambda: index_of(_raw(HEADER_ROW, b"\x00"))),
    "an empty data block": Hostile("bad-block", lambda: index_of(block([]))),
    "a metaindex block with an entry": Hostile("bad-block", lambda: one(meta=block([(b"filter.x", b"\0\0")]))),
    "a key of a megabyte": Hostile("index-limit", lambda: one(key=b"k" * 10**6)),
    "an entry of 100 kB": Hostile("index-limit", lambda: one(entry([1] * 25_000))),
    "a key twice": Hostile("duplicate-key", lambda: table_of([*TWO[:2], (b"a", GOOD)])),
    "a key twice, in two blocks": Hostile("duplicate-key", lambda: table_of([*TWO[:2], (b"a", GOOD)], per_block=2)),
    "the header twice": Hostile("duplicate-key", lambda: table_of([TWO[0], TWO[0], TWO[1]])),
    "keys out of order": Hostile("key-order", lambda: table_of([TWO[0], TWO[2], TWO[1]])),
    "keys out of order, in two blocks": Hostile("key-order", lambda: table([block(TWO[:1] + TWO[2:]), block(TWO[1:2])], [b"b", b"x"])),
    "a bound below the keys of its block": Hostile("key-order", lambda: table([block(TWO)], [b"a"])),
    # the header
    "no entry at all": Hostile("bad-header", lambda: table([], [])),
    "no header": Hostile("bad-header", lambda: table_of(TWO[1:])),
    "a header of noise": Hostile("bad-header", lambda: one(head=b"\xff" * 12)),
    "no data files": Hostile("bad-header", lambda: one(head=header(0))),
    "-1 data files": Hostile("bad-header", lambda: one(head=header(-1))),
    "an unknown field in the header": Hostile("bad-header", lambda: one(head=header(more=number(9, 1)))),
    "two thousand million data files": Hostile("index-limit", lambda: one(head=header(2**31 - 1))),
    "big-endian": Hostile("byteorder-unsupported", lambda: one(head=number(1, 1) + number(2, 1))),
    "a later version": Hostile("unsupported-version", lambda: one(head=number(1, 1) + message(3, number(1, 2) + number(2, 2)))),
    # entries
    "an entry of noise": Hostile("bad-entry", lambda: one(b"\xff" * 20)),
    "a cut entry": Hostile("bad-entry", lambda: one(GOOD[:-1])),
    "a shape longer than its entry": Hostile("bad-entry", lambda: one(b"\x12\x7f\x12\x02\x08\x02")),
    "an unknown field": Hostile("bad-entry", lambda: one(GOOD + number(15, 1))),
    "a field of another wire type": Hostile("bad-entry", lambda: one(b"\x0d" + bytes(4))),
    "the offset twice": Hostile("bad-entry", lambda: one(GOOD + number(4, 0) + number(4, 4))),
    "two shapes": Hostile("bad-entry", lambda: one(GOOD + message(2, shape((2,))))),
    "a group": Hostile("bad-entry", lambda: one(b"\x0b" + GOOD + b"\x0c")),
    "no dtype": Hostile("unknown-dtype", lambda: one(message(2, shape((2,))))),
    "dtype 99": Hostile("unknown-dtype", lambda: one(entry(dtype=99))),
    "a reference dtype": Hostile("unknown-dtype", lambda: one(entry(dtype=101))),
    "strings": Hostile("unsupported-dtype", lambda: one(entry(dtype=7))),
    "a resource": Hostile("unsupported-dtype", lambda: one(entry(dtype=20))),
    "a negative dimension": Hostile("bad-shape", lambda: one(entry((-2,)))),
    "two negative dimensions": Hostile("bad-shape", lambda: one(entry((-1, -2)))),
    "an unknown rank": Hostile("bad-shape", lambda: one(number(1, 1) + message(2, number(3, 1)))),
    "40 dimensions": Hostile("too-many-dims", lambda: one(entry([1] * 40))),
    "a shape of 2^66": Hostile("size-overflow", lambda: one(entry((2**33, 2**33)))),
    "an overflow that a zero hides": Hostile("size-overflow", lambda: one(entry((2**62, 2**62, 0), size=0))),
    "a byte too few": Hostile("size-mismatch", lambda: one(entry(size=7))),
    "a byte too many": Hostile("size-mismatch", lambda: one(entry(size=9))),
    "a negative size": Hostile("size-mismatch", lambda: one(entry(size=-8))),
    "a terabyte that is not there": Hostile("truncated-data", lambda: one(entry((2**38,), size=2**40))),
    "a negative offset": Hostile("bad-offset", lambda: one(entry(offset=-8))),
    "an offset beyond the data": Hostile("truncated-data", lambda: one(entry(offset=2**62))),
    "an offset one byte beyond": Hostile("truncated-data", lambda: one(entry(offset=1))),
    "data cut by a byte": Hostile("truncated-data", one, (DATA[:-1],)),
    "no data": Hostile("truncated-data", one, (b"",)),
    "a data file that there is not": Hostile("bad-shard", lambda: one(entry(shard=1))),
    "data file -1": Hostile("bad-shard", lambda: one(entry(shard=-1))),
    "two tensors on the same bytes": Hostile("offset-overlap", lambda: table_of(TWO)),
    "two tensors that overlap": Hostile("offset-overlap", lambda: table_of([*TWO[:2], (b"b", entry(offset=4))]), (DATA * 2,)),
    "a variable in pieces": Hostile("partitioned-variable", lambda: one(entry(more=message(7, message(1, b""))))),
    "a piece of a variable": Hostile("partitioned-variable", lambda: one(key=b"\0\1a\0\1")),
    "a name that is not UTF-8": Hostile("bad-name", lambda: one(key=b"caf\xe9")),
    "a flipped bit in the data": Hostile("crc-mismatch", one, (_flipped(DATA, 6),)),
    "a checksum of 0": Hostile("crc-mismatch", lambda: one(entry())),
    "two data files, and one that says it is the only one": Hostile("missing-shard", lambda: one(head=header(2))),
    "every data file is missing": Hostile("missing-shard", one, ()),
}
"""What a file breaks → the code that names it. All are refused when the checkpoint is opened or when its tensor is read."""
