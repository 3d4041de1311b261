"""The corpus of broken and hostile `pytorch_model.bin` files, rows P01 to P37: for each, the file and the code that names what is wrong.

Rows marked [A] are accepted by PyTorch 2.13 as they stand (tests/oracle shows it).
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch_writer import (
    DATA,
    FALSE,
    NONE,
    ORDERED_DICT,
    PROTO,
    REBUILD,
    TRUE,
    UTF8,
    Entry,
    changed,
    checkpoint,
    entries,
    integer,
    integers,
    name,
    state_dict,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)

CANARY_MODULE = "minigrad_canary"
"""A module on the import path of the tests; importing it leaves a file."""


class Hostile(NamedTuple):
    """`make` gets the path of the canary: a file that appears if anything runs."""

    code: str
    make: Callable[[Path], bytes]


def _shell(canary: Path, module: str = "posix", function: str = "system") -> bytes:
    return name(module, function) + tuple_of(text(f"touch {canary}")) + b"R"


def _stream(code: str, stream: bytes | Callable[[], bytes]) -> Hostile:
    return Hostile(code, lambda _: checkpoint(stream if isinstance(stream, bytes) else stream()))


def _of(code: str, value: bytes) -> Hostile:
    """A state dict with this value under the name w."""
    return _stream(code, state_dict({"w": value}))


def _file(code: str, make: Callable[[], bytes]) -> Hostile:
    return Hostile(code, lambda _: make())


def _tar() -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("storages"))
        return buffer.getvalue()


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _compressed_by_zipfile() -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in entries():
                archive.writestr(str(entry.name), entry.data)
        return buffer.getvalue()


def _bomb() -> bytes:
    packed = _deflated(bytes(1 << 20))
    bomb = Entry("archive/data/0", packed, method=8, size=40 << 30, compressed=len(packed), wide=True)
    return zipped([entries()[0], bomb])


def _quoted_overlap() -> bytes:
    """Twenty entries of the directory that share one kernel of data, each header within the data of the one before."""
    kernel = bytearray(DATA)
    parts: list[tuple[str, bytes]] = []
    for number in reversed(range(20)):
        title = f"archive/data/{number}"
        head = struct.pack("<4s5H3L2H", b"PK\3\4", 0, UTF8, 0, 0, 0, zlib.crc32(kernel), len(kernel), len(kernel), len(title), 0)
        parts.append((title, bytes(kernel)))
        kernel[:0] = head + title.encode()
    placed, at = [], 0
    for title, data in reversed(parts):
        placed.append(Entry(title, crc=zlib.crc32(data), size=len(data), flags=UTF8, offset=at))
        at += 30 + len(title)
    first = entries()[0]
    lone = zipped([first])
    body = lone[: lone.index(b"PK\1\2")]
    moved = [Entry(e.name, crc=e.crc, size=e.size, flags=e.flags, offset=len(body) + (e.offset or 0)) for e in placed]
    whole = zipped([first, *moved])
    directory = whole[whole.index(b"PK\1\2") : whole.index(b"PK\6\6")]
    start = body + bytes(kernel)
    ends = zipped([])[-22:]
    count = struct.pack("<HH2L", len(moved) + 1, len(moved) + 1, len(directory), len(start))
    return start + directory + ends[:8] + count + b"\0\0"


def _renamed(**changes: object) -> Hostile:
    return _file("bad-entry-name", lambda: zipped([*entries(), Entry(**changes)]))  # type: ignore[arg-type]


def _nested_tuple(levels: int) -> bytes:
    """Each level holds the level below twice: hashing it takes 2**levels steps."""
    return b")" + b"".join(b"q\x01h\x01\x86" for _ in range(levels))


def _many_pairs(count: int) -> bytes:
    return b"}(" + b"".join(text(str(number)) + NONE for number in range(count)) + b"u"


def _flipped(content: bytes) -> bytes:
    at = content.index(DATA)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _patched(content: bytes, at: int, new: bytes) -> bytes:
    """`content` with other bytes at `at`, which counts from the end if it is negative."""
    at %= len(content)
    return content[:at] + new + content[at + len(new) :]


def _between_directory_and_end(junk: bytes, counted: bool) -> bytes:
    """Bytes before the end record, which belong to the directory or to nothing."""
    whole = zipped(entries(), wide_end=False)
    size = int.from_bytes(whole[-10:-6], "little") + len(junk) * counted
    return _patched(whole[:-22] + junk + whole[-22:], -10, struct.pack("<L", size))


def _parameter(*arguments: bytes) -> bytes:
    return name("torch._utils", "_rebuild_parameter") + tuple_of(*arguments) + b"R"


def _last(tensors: bytes) -> bytes:
    return state_dict({"w": tensor(), "x": tensors})


HUGE = 1 << 40
CANARY_CALL = name(CANARY_MODULE, "run") + b")R"

HOSTILE: dict[str, Hostile] = {
    "P01 os.system": Hostile("forbidden-global", lambda c: checkpoint(state_dict({"w": _shell(c)}))),
    "P01 builtins.eval": Hostile(
        "forbidden-global",
        lambda c: checkpoint(state_dict({"w": name("builtins", "eval") + tuple_of(text(f"open({str(c)!r}, 'w')")) + b"R"})),
    ),
    "P01 subprocess": Hostile("forbidden-global", lambda c: checkpoint(state_dict({"w": _shell(c, "subprocess", "getoutput")}))),
    "P01 a module whose import runs": _of("forbidden-global", CANARY_CALL),
    "P01 pkgutil.resolve_name": _of("forbidden-global", name("pkgutil", "resolve_name") + tuple_of(text("os:system")) + b"R"),
    "P02 protocol 4": Hostile(
        "forbidden-opcode",
        lambda c: checkpoint(b"\x80\x04\x95" + bytes(8) + b"\x8c\x05posix\x8c\x06system\x93" + tuple_of(text(f"touch {c}")) + b"R."),
    ),
    "P02 STACK_GLOBAL": Hostile(
        "forbidden-opcode", lambda c: checkpoint(PROTO + text("posix") + text("system") + b"\x93" + tuple_of(text(f"touch {c}")) + b"R.")
    ),
    "P03 INST": Hostile("forbidden-opcode", lambda c: checkpoint(PROTO + b"(" + text(f"touch {c}") + b"iposix\nsystem\n.")),
    "P03 OBJ": _of("forbidden-opcode", b"(" + name("collections", "OrderedDict") + b"o"),
    "P03 NEWOBJ": _of("forbidden-opcode", name("collections", "OrderedDict") + b")\x81"),
    "P03 NEWOBJ_EX": _of("forbidden-opcode", name("collections", "OrderedDict") + b")}\x92"),
    "P03 BUILD of a tensor": _of("forbidden-opcode", tensor() + b"}" + text("__setstate__") + NONE + b"sb"),
    "P03 BUILD of a dict": _of("forbidden-opcode", b"}}" + text("_metadata") + b"}sb"),
    "P03 BUILD with more than _metadata": _of(
        "forbidden-opcode", ORDERED_DICT + b"}(" + text("_metadata") + b"}" + text("__class__") + NONE + b"ub"
    ),
    "P03 BUILD with _metadata of None": _of("forbidden-opcode", ORDERED_DICT + b"}" + text("_metadata") + NONE + b"sb"),
    "P03 BUILD with an empty state": _of("forbidden-opcode", ORDERED_DICT + b"}b"),
    "P03 EXT1": _of("forbidden-opcode", b"\x82\x01"),
    "P03 PERSID": _of("forbidden-opcode", b"Pstorage\n"),
    "P03 POP": _stream("forbidden-opcode", PROTO + b"N0" + state_dict()[2:]),
    "P03 DUP": _of("forbidden-opcode", b"N2"),
    "P03 NEXT_BUFFER": _of("forbidden-opcode", b"\x97"),
    "P03 BYTEARRAY8": _of("forbidden-opcode", b"\x96" + struct.pack("<Q", 1 << 40)),
    "P04 OrderedDict of a function": _of("bad-reduce", name("collections", "OrderedDict") + tuple_of(tuple_of(text("a"), REBUILD)) + b"R"),
    "P04 OrderedDict of a list": _of("bad-reduce", name("collections", "OrderedDict") + tuple_of(b"]") + b"R"),
    "P04 call of a storage type": _of("bad-reduce", name("torch", "FloatStorage") + integers([HUGE]) + b"R"),
    "P04 call of a text": _of("bad-reduce", text("posix.system") + b")R"),
    "P04 call without a tuple": _of("bad-reduce", REBUILD + b"]R"),
    "P05 a space": _of("forbidden-global", name("torch._utils ", "_rebuild_tensor_v2") + b")R"),
    "P05 dotted": _of("forbidden-global", name("torch", "FloatStorage.__class__") + b")R"),
    "P05 dotted module": _of("forbidden-global", name("collections", "OrderedDict.fromkeys.__globals__") + b")R"),
    "P05 look-alike": _of("forbidden-global", name("tоrch._utils", "_rebuild_tensor_v2") + b")R"),  # a Cyrillic o
    "P05 carriage return": _of("forbidden-global", b"ctorch\r\nFloatStorage\r\n"),
    "P05 the same name elsewhere": _of("forbidden-global", name("torch._utils.os", "system") + b")R"),
    "P05 not UTF-8": _of("forbidden-global", b"c\xff\xfe\n\xff\n"),
    "P06 payload, then garbage": Hostile("forbidden-global", lambda c: checkpoint(PROTO + _shell(c) + b"0\xff\xff\xff")),
    "P06 payload, then the end": Hostile("forbidden-global", lambda c: checkpoint(PROTO + _shell(c))),
    "P07 pickle": Hostile("unsupported-container", lambda c: PROTO + _shell(c) + b"."),
    "P07 old torch.save": _file(
        "unsupported-container", lambda: b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."
    ),
    "P07 protocol 4": _file("unsupported-container", lambda: b"\x80\x04N."),
    "P08 tar": _file("unsupported-container", _tar),
    "P09 7z": _file("unsupported-container", lambda: b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100)),
    "P10 TorchScript": _file("unsupported-container", lambda: zipped([*entries(), Entry("archive/constants.pkl", PROTO + b").")])),
    "P10 TorchScript, compressed code": _file(
        "unsupported-container",
        lambda: zipped([*entries(), Entry("archive/code/__torch__.py", _deflated(b"x"), method=8, size=1, compressed=3)]),
    ),
    "P11 deflated entry [A]": _file("compressed-entry", _compressed_by_zipfile),
    "P11 bomb": _file("compressed-entry", _bomb),
    "P12 quoted overlap": _file("overlapping-entries", _quoted_overlap),
    "P12 one entry twice under two names": _file("overlapping-entries", lambda: zipped([*entries(), Entry("archive/data/1", offset=0)])),
    "P12 an entry beyond the end": _file("overlapping-entries", lambda: changed("version", offset=1 << 31)),
    "P12 an entry in the directory": _file("overlapping-entries", lambda: changed("version", size=60)),
    "P12 padding that covers the next entry": _file(
        "overlapping-entries", lambda: _patched(checkpoint(), checkpoint().index(b"archive/data.pkl") - 2, b"\xff\x00")
    ),
    "P13 two data.pkl [A]": _file("duplicate-entry", lambda: zipped([*entries(), entries()[0]])),
    "P13 two data/0 [A]": _file("duplicate-entry", lambda: zipped([*entries(), Entry("archive/data/0", bytes(16))])),
    "P13 data.pkl in two folders": _file("bad-entry-name", lambda: zipped([*entries(), Entry("other/data.pkl", b"N.")])),
    "P14 other name": _file("header-mismatch", lambda: changed("data/0", local_name="archive/data/1")),
    "P14 longer name": _file("header-mismatch", lambda: changed("data/0", local_name="archive/data/0x")),
    "P14 other size": _file("header-mismatch", lambda: changed("data/0", local_size=12)),
    "P14 other checksum": _file("header-mismatch", lambda: changed("data/0", local_crc=1)),
    "P14 other method": _file("header-mismatch", lambda: changed("data/0", local_method=8)),
    "P14 other flags": _file("header-mismatch", lambda: changed("data/0", local_flags=UTF8)),
    "P14 other descriptor": _file("header-mismatch", lambda: changed("data/0", descriptor=struct.pack("<4s3L", b"PK\7\x08", 1, 16, 16))),
    "P14 two sizes": _file("header-mismatch", lambda: changed("data/0", compressed=12)),
    "P14 no header": _file("header-mismatch", lambda: checkpoint().replace(b"PK\3\4", b"PK\3\5").replace(b"PK\3\5", b"PK\3\4", 1)),
    "P14 other size without descriptor": _file("header-mismatch", lambda: changed("data/0", flags=UTF8, local_size=12)),
    "P15 encrypted": _file("encrypted-entry", lambda: changed("data/0", flags=0x0809)),
    "P15 encrypted in the directory only": _file("encrypted-entry", lambda: changed("data.pkl", flags=0x0809, local_flags=0x0808)),
    "P15 encrypted in the header only": _file("encrypted-entry", lambda: changed("data.pkl", local_flags=0x0809)),
    "P15 strong encryption": _file("encrypted-entry", lambda: changed("data/0", flags=0x0840)),
    "P15 masked headers": _file("encrypted-entry", lambda: changed("data/0", flags=0x2808)),
    "P16 flipped bit [A]": _file("crc-mismatch", lambda: _flipped(checkpoint())),
    "P16 wrong checksum [A]": _file("crc-mismatch", lambda: changed("data/0", crc=1)),
    "P16 wrong checksum of data.pkl": _file("crc-mismatch", lambda: changed("data.pkl", crc=1)),
    "P16 no checksums [A]": _file("crc-mismatch", lambda: changed("data/0", crc=0)),
    "P17 prefix": _file("not-a-plain-zip", lambda: zipped(entries(), prefix=b"#!/bin/sh\n")),
    "P17 prefix, offsets not shifted": _file("not-a-plain-zip", lambda: b"MZ" + checkpoint()),
    "P17 prefix like an entry": _file("not-a-plain-zip", lambda: zipped(entries(), prefix=b"PK\3\4" + bytes(60))),
    "P17 suffix": _file("not-a-plain-zip", lambda: checkpoint() + b"\0"),
    "P17 comment": _file("not-a-plain-zip", lambda: zipped(entries(), comment=b"hello")),
    "P17 comment of an entry": _file("not-a-plain-zip", lambda: changed("version", comment=b"hello")),
    "P17 hole": _file("not-a-plain-zip", lambda: changed("version", gap=bytes(32))),
    "P17 hole without descriptor": _file("not-a-plain-zip", lambda: changed("version", flags=UTF8, gap=bytes(16))),
    "P17 64-bit end record lies of its entries": _file("not-a-plain-zip", lambda: zipped(entries(), end64={"count": 3, "here": 3})),
    "P17 64-bit end record lies of the directory": _file("not-a-plain-zip", lambda: zipped(entries(), end64={"offset": 0})),
    "P17 64-bit directory of 2**63 bytes": _file(
        "not-a-plain-zip", lambda: zipped(entries(), end64={"size": 1 << 63}, end={"size": 0xFFFFFFFF})
    ),
    "P17 locator points elsewhere": _file("not-a-plain-zip", lambda: zipped(entries(), locator={"at": 0})),
    "P17 two disks": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"disk": 1})),
    "P17 directory on another disk": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"start": 1})),
    "P17 an entry on another disk": _file("not-a-plain-zip", lambda: _patched(checkpoint(), checkpoint().index(b"PK\1\2") + 34, b"\1")),
    "P17 some entries elsewhere": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"here": 3})),
    "P17 end records that contradict each other": _file("not-a-plain-zip", lambda: zipped(entries(), end={"size": 0})),
    "P17 no 64-bit end record before its locator": _file("not-a-plain-zip", lambda: _patched(checkpoint(), -98, b"PK\6\5")),
    "P17 64-bit end record with more parts": _file("not-a-plain-zip", lambda: _patched(checkpoint(), -94, b"\x2d")),
    "P17 bytes after the directory": _file("not-a-plain-zip", lambda: _between_directory_and_end(b"hello", counted=False)),
    "P17 bytes within the directory": _file("not-a-plain-zip", lambda: _between_directory_and_end(b"hello", counted=True)),
    "P17 comment promised, not given": _file("not-a-plain-zip", lambda: _patched(checkpoint(), -2, b"\1")),
    "P17 a row of the directory that is none": _file(
        "not-a-plain-zip", lambda: _patched(checkpoint(), checkpoint().index(b"PK\1\2"), b"PX")
    ),
    "P17 a name beyond the directory": _file(
        "not-a-plain-zip", lambda: _patched(checkpoint(), checkpoint().rindex(b"PK\1\2") + 28, b"\xff")
    ),
    "P17 fewer entries than are there": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"here": 3, "count": 3})),
    "P17 more entries than are there": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"here": 9, "count": 9})),
    "P17 65535 entries": _file("not-a-plain-zip", lambda: zipped(entries(), wide_end=False, end={"here": 65535, "count": 65535})),
    "P17 64-bit sizes promised, not given": _file("not-a-plain-zip", lambda: changed("data/0", size=0xFFFFFFFF, compressed=0xFFFFFFFF)),
    "P17 64-bit sizes given twice": _file(
        "not-a-plain-zip", lambda: changed("data/0", wide=True, extra=struct.pack("<2H3Q", 1, 24, 16, 16, 0))
    ),
    "P17 64-bit size not asked for": _file("not-a-plain-zip", lambda: changed("data/0", extra=struct.pack("<2HQ", 1, 8, 0))),
    "P17 broken extra field": _file("not-a-plain-zip", lambda: changed("data/0", extra=b"\1\0\xff\0")),
    "P17 extra field of three bytes": _file("not-a-plain-zip", lambda: changed("data/0", extra=b"\1\0\0")),
    "P17 second name in an extra field": _file("not-a-plain-zip", lambda: changed("data/0", extra=b"up\1\0x")),
    "P17 cut short": _file("not-a-plain-zip", lambda: checkpoint()[:-1]),
    "P17 the first half": _file("not-a-plain-zip", lambda: checkpoint()[:300]),
    "P17 no entries": _file("not-a-plain-zip", lambda: b"PK\3\4" + zipped([])),
    "P17 an empty file": _file("not-a-plain-zip", lambda: b""),
    "P17 four bytes": _file("not-a-plain-zip", lambda: b"PK\3\4"),
    "P17 text": _file("not-a-plain-zip", lambda: b"<html>404 not found</html>\n" * 10),
    "P18 up": _renamed(name="../../etc/x"),
    "P18 up, below": _renamed(name="archive/../../etc/x"),
    "P18 absolute": _renamed(name="/etc/x"),
    "P18 drive": _renamed(name="C:/x"),
    "P18 backslash": _renamed(name="archive\\data\\1"),
    "P18 NUL": _renamed(name="archive/data/1\0.txt"),
    "P18 folder": _renamed(name="archive/data/"),
    "P18 empty name": _renamed(name=""),
    "P18 no folder": _file("bad-entry-name", lambda: zipped([Entry("data.pkl", state_dict()), Entry("version", b"3\n")])),
    "P18 dot": _renamed(name="archive/./data.pkl"),
    "P18 not UTF-8": _renamed(name=b"archive/\xff"),
    "P18 not marked as UTF-8": _renamed(name="archive/é", flags=0),
    "P18 long": _renamed(name="archive/" + "x" * 2000),
    "P19 long storage": _file("storage-size", lambda: checkpoint(None, {"0": DATA + b"\0"})),
    "P19 short storage": _file("storage-size", lambda: checkpoint(None, {"0": DATA[:-4]})),
    "P19 storage of another type": _of("storage-size", tensor(of=storage(kind=name("torch", "DoubleStorage")))),
    "P19 missing storage": _file("missing-storage", lambda: checkpoint(None, {})),
    "P20 negative": _of("bad-numel", tensor(of=storage(-4))),
    "P20 2**63": _of("bad-numel", tensor(of=storage(1 << 63))),
    "P20 boolean": _file("bad-numel", lambda: checkpoint(state_dict({"w": tensor((1,), of=storage(TRUE))}), {"0": bytes(4)})),
    "P20 float": _of("bad-numel", tensor(of=storage(b"G" + struct.pack(">d", 4.0)))),
    "P20 text": _of("bad-numel", tensor(of=storage(text("4")))),
    "P21 stride": _of("stride-out-of-bounds", tensor((2, 2), (3, 1))),
    "P21 huge stride": _of("stride-out-of-bounds", tensor((2,), ((1 << 63) - 1,))),
    "P21 offset": _of("stride-out-of-bounds", tensor((4,), offset=1)),
    "P21 negative offset of an empty tensor": _of("stride-out-of-bounds", tensor((0,), offset=-1)),
    "P21 huge offset": _of("stride-out-of-bounds", tensor((1,), offset=(1 << 63) - 1)),
    "P21 negative offset": _of("stride-out-of-bounds", tensor((1,), offset=-1)),
    "P21 negative stride": _of("stride-out-of-bounds", tensor((2, 2), (-2, 1), offset=2)),
    "P21 negative stride of an empty tensor": _of("stride-out-of-bounds", tensor((0, 2), (-2, 1))),
    "P22 zero stride": _of("size-exceeds-storage", tensor((HUGE,), (0,))),
    "P22 zero strides that overflow": _of("size-exceeds-storage", tensor((HUGE, HUGE), (0, 0))),
    "P22 expanded [A]": _of("size-exceeds-storage", tensor((5,), (0,))),
    "P22 overflow hidden by a zero": _of("size-overflow", tensor((1 << 62, 4, 0))),
    "P23 more strides than sizes": _of("bad-tensor-args", tensor((4,), (1, 1))),
    "P23 sizes in a list": _of("bad-tensor-args", tensor(b"]" + integer(4) + b"a", (1,))),
    "P23 a tensor as size": _of("bad-tensor-args", tensor(tensor(), (1,))),
    "P23 a tensor in the size": _of("bad-tensor-args", tensor(tuple_of(tensor()), (1,))),
    "P23 boolean size": _of("bad-tensor-args", tensor(tuple_of(TRUE), (1,))),
    "P23 boolean offset": _of("bad-tensor-args", tensor((1,), offset=TRUE)),
    "P23 negative size": _of("bad-tensor-args", tensor((-1, -4), (4, 1))),
    "P23 a tensor as storage": _of("bad-tensor-args", tensor(of=tensor())),
    "P23 no arguments": _of("bad-tensor-args", REBUILD + b")R"),
    "P23 hooks": _of(
        "bad-tensor-args", REBUILD + tuple_of(storage(), integer(0), integers([4]), integers([1]), FALSE, _many_pairs(1)) + b"R"
    ),
    "P23 requires_grad is no boolean": _of(
        "bad-tensor-args", REBUILD + tuple_of(storage(), integer(0), integers([4]), integers([1]), NONE, ORDERED_DICT) + b"R"
    ),
    "P23 parameter of a number": _of("bad-tensor-args", _parameter(integer(1), TRUE, ORDERED_DICT)),
    "P23 parameter of nothing": _of("bad-tensor-args", _parameter()),
    "P23 parameter with a fourth argument": _of("bad-tensor-args", _parameter(tensor(), TRUE, ORDERED_DICT, NONE)),
    "P23 parameter that may require a gradient": _of("bad-tensor-args", _parameter(tensor(), NONE, ORDERED_DICT)),
    "P23 parameter with hooks": _of("bad-tensor-args", _parameter(tensor(), TRUE, _many_pairs(1))),
    "P23 nine dimensions": _of("too-many-dims", tensor((1,) * 9)),
    "P24 empty": _stream("truncated-pickle", b""),
    "P24 protocol only": _stream("truncated-pickle", PROTO),
    "P24 no STOP": _stream("truncated-pickle", state_dict()[:-1]),
    "P24 two STOPs": _stream("trailing-pickle", state_dict() + b"."),
    "P24 bytes after STOP": _stream("trailing-pickle", state_dict() + CANARY_CALL),
    "P25 stack underflow": _stream("corrupt-pickle", PROTO + b"s."),
    "P25 nothing to return": _stream("corrupt-pickle", PROTO + b"."),
    "P25 two values": _stream("corrupt-pickle", PROTO + b"}}."),
    "P25 open mark": _stream("corrupt-pickle", PROTO + b"}(."),
    "P25 below the mark": _stream("corrupt-pickle", PROTO + b"}(" + text("a") + b"(Ns."),
    "P25 memo miss": _of("corrupt-pickle", b"h\x07"),
    "P25 long memo miss": _of("corrupt-pickle", b"j\xff\xff\xff\xff"),
    "P25 nothing to remember": _stream("corrupt-pickle", PROTO + b"q\0."),
    "P25 no MARK": _stream("corrupt-pickle", PROTO + b"}u."),
    "P25 a key without a value": _stream("corrupt-pickle", PROTO + b"}(" + text("a") + b"u."),
    "P25 no opcode": _of("corrupt-pickle", b"\xff"),
    "P25 no protocol": _stream("corrupt-pickle", b"}."),
    "P25 text that is not UTF-8": _stream("corrupt-pickle", PROTO + b"}" + text(b"\xff") + b"Ns."),
    "P26 text of 4 GB": _stream("truncated-pickle", PROTO + b"X\xff\xff\xff\xffabc"),
    "P26 cut in a number": _stream("truncated-pickle", PROTO + b"J\0\0"),
    "P26 cut in a name": _stream("truncated-pickle", PROTO + b"ctorch\nFloatStor"),
    "P26 text of 1 MB": _stream("pickle-limit", lambda: state_dict({"x" * 1_000_000: tensor()})),
    "P27 LONG4 of 2 GB": _of("pickle-limit", b"\x8b\xff\xff\xff\x7f"),
    "P27 10 MB of LONG1": _stream("pickle-limit", lambda: PROTO + b"]" + (b"\x8a\xff" + b"\x7f" * 255 + b"a") * 40_000 + b"."),
    "P27 10 MB of short LONG1": _stream("pickle-limit", lambda: PROTO + b"](" + (b"\x8a\x08" + b"\x7f" * 8) * 1_048_576 + b"e."),
    "P28 50 M MARKs": _stream("pickle-limit", lambda: PROTO + b"(" * 50_000_000 + b"."),
    "P28 1 M MARKs": _stream("pickle-limit", lambda: PROTO + b"(" * 1_000_000 + b"."),
    "P28 a deep tuple": _stream("pickle-limit", lambda: PROTO + b")" + b"\x85" * 900_000 + b"."),
    "P28 deep lists": _stream("pickle-limit", lambda: PROTO + b"]" * 400_000 + b"a" * 399_999 + b"."),
    "P28 5 M dictionaries": _stream("pickle-limit", lambda: PROTO + b"]" + b"}" * 5_000_000 + b"."),
    "P28 16 MB of them": _stream("pickle-limit", lambda: PROTO + b"]" + b"}" * (16 << 20) + b"."),
    "P28 a list in itself, many times": _stream("pickle-limit", lambda: PROTO + b"]q\0(" + b"h\0" * 3_000_000 + b"e."),
    "P29 hash bomb": _stream("bad-key", PROTO + b"}" + _nested_tuple(60) + b"Ns."),
    "P29 deeper": _stream("pickle-limit", PROTO + b"}" + _nested_tuple(1000) + b"Ns."),
    "P30 list": _stream("bad-key", PROTO + b"}]Ns."),
    "P30 dictionary": _stream("bad-key", PROTO + b"}}Ns."),
    "P30 None": _stream("bad-key", PROTO + b"}NNs."),
    "P30 boolean": _stream("bad-key", PROTO + b"}" + TRUE + b"Ns."),
    "P30 float": _stream("bad-key", PROTO + b"}G" + bytes(8) + b"Ns."),
    "P30 tensor": _stream("bad-key", PROTO + b"}" + tensor() + b"Ns."),
    "P31 of a tensor": _of("bad-setitem-target", tensor() + integer(0) + integer(1) + b"s"),
    "P31 items of a tensor": _of("bad-setitem-target", tensor() + b"(" + text("a") + integer(1) + b"u"),
    "P31 of a name": _of("bad-setitem-target", name("collections", "OrderedDict") + text("a") + NONE + b"s"),
    "P31 append to a tensor": _of("bad-setitem-target", tensor() + NONE + b"a"),
    "P31 append to a dictionary": _of("bad-setitem-target", b"}(NNe"),
    "P32 integer": _of("bad-persistent-id", integer(3) + b"Q"),
    "P32 text": _of("bad-persistent-id", text("0") + b"Q"),
    "P32 six parts": _of(
        "bad-persistent-id",
        tuple_of(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), integer(4), NONE) + b"Q",
    ),
    "P32 another kind": _of("bad-persistent-id", tensor(of=storage(word=text("module")))),
    "P32 type by text": _of("bad-persistent-id", tensor(of=storage(kind=text("FloatStorage")))),
    "P32 type by function": _of("bad-persistent-id", tensor(of=storage(kind=REBUILD))),
    "P32 nested tuple": _of("bad-persistent-id", _nested_tuple(60) + b"Q"),
    "P33 up": _of("bad-persistent-id", tensor(of=storage(key=text("../0")))),
    "P33 letters": _of("bad-persistent-id", tensor(of=storage(key=text("0x0")))),
    "P33 other digits": _of("bad-persistent-id", tensor(of=storage(key=text("٠")))),
    "P33 newline": _of("bad-persistent-id", tensor(of=storage(key=text("0\n")))),
    "P33 integer": _of("bad-persistent-id", tensor(of=storage(key=integer(0)))),
    "P33 nested key": _of("bad-persistent-id", tensor(of=storage(key=_nested_tuple(60)))),
    "P33 device by number": _of("bad-persistent-id", tensor(of=storage(location=integer(0)))),
    "P33 device": _of("bad-persistent-id", tensor(of=storage(location=text("../cpu")))),
    "P34 sparse": _of("unsupported-tensor-kind", name("torch._utils", "_rebuild_sparse_tensor") + b")R"),
    "P34 quantized": _of("unsupported-tensor-kind", name("torch._utils", "_rebuild_qtensor") + b")R"),
    "P34 meta": _of("unsupported-tensor-kind", name("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R"),
    "P34 subclass": _of("unsupported-tensor-kind", name("torch._tensor", "_rebuild_from_type_v2") + b")R"),
    "P34 conjugated [A]": _of(
        "unsupported-tensor-kind",
        REBUILD + tuple_of(storage(), integer(0), integers([4]), integers([1]), FALSE, ORDERED_DICT, _many_pairs(1)) + b"R",
    ),
    "P34 storage of another kind": _of("unsupported-dtype", tensor(of=storage(kind=name("torch", "ComplexDoubleStorage")))),
    "P35 big [A]": _file("byteorder-unsupported", lambda: changed("byteorder", data=b"big")),
    "P35 middle": _file("byteorder-unsupported", lambda: changed("byteorder", data=b"middle")),
    "P35 empty": _file("byteorder-unsupported", lambda: changed("byteorder", data=b"")),
    "P35 long": _file("byteorder-unsupported", lambda: changed("byteorder", data=b"little" * 100_000)),
    "P36 list [A]": _stream("not-a-state-dict", PROTO + b"]" + tensor() + b"a."),
    "P36 tensor [A]": _stream("not-a-state-dict", PROTO + tensor() + b"."),
    "P36 None [A]": _stream("not-a-state-dict", PROTO + b"N."),
    "P36 number as value [A]": _stream("not-a-state-dict", _last(integer(3))),
    "P36 state_dict within [A]": _stream("not-a-state-dict", state_dict({"state_dict": b"}" + text("w") + tensor() + b"s"})),
    "P36 optimizer [A]": _stream(
        "not-a-state-dict",
        state_dict({"state": b"}" + integer(0) + b"}" + text("exp_avg") + tensor() + b"ss", "param_groups": b"]}a"}),
    ),
    "P36 number as name [A]": _stream("not-a-state-dict", PROTO + b"}" + integer(0) + tensor() + b"s."),
    "P36 storage as value": _stream("not-a-state-dict", _last(storage())),
    "P36 huge _metadata [A]": _stream(
        "not-a-state-dict", lambda: PROTO + ORDERED_DICT + text("w") + tensor() + b"s}" + text("_metadata") + _many_pairs(100_001) + b"sb."
    ),
    "P36 empty name [A]": _stream("bad-name", state_dict({"": tensor()})),
    "P36 long name [A]": _stream("bad-name", state_dict({"x" * 1025: tensor()})),
    "P36 one name twice [A]": _stream("duplicate-key", PROTO + b"}(" + (text("w") + tensor()) * 2 + b"u."),
    "P37 1000 views of one storage [A]": _stream(
        "view-limit", lambda: PROTO + b"}(" + b"".join(text(f"w{number}") + tensor() for number in range(1000)) + b"u."
    ),
    "P37 1000 names of one tensor [A]": _stream(
        "view-limit", lambda: PROTO + b"}(" + text("w") + tensor() + b"q\0" + b"".join(text(f"w{n}") + b"h\0" for n in range(999)) + b"u."
    ),
    "not torch.save's": _file("unsupported-container", lambda: zipped([Entry("archive/config.json", b"{}")])),
    "a Git LFS pointer": _file("unsupported-container", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "20 000 entries": _file("not-a-plain-zip", lambda: zipped([Entry(f"archive/data/{n}") for n in range(20_000)])),
    "16 000 entries and the last one wrong": _file(
        "header-mismatch",
        lambda: zipped(
            [*(Entry(f"archive/data/{n}") for n in range(15_990)), Entry("archive/data.pkl", b"N.", local_name="archive/data.pk1")]
        ),
    ),
}
