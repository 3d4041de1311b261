"""The reader of torch.save files: what is legal comes back exactly, and what is broken or hostile is refused by its code.

The rows P01 to P37 (`hostile_zip`) are the corpus: each must be refused with its own code, within a second, within bounded memory,
without anything imported, run or written.
"""

from __future__ import annotations

import gc
import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_zip import CANARY_MODULE, HOSTILE
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_writer import (
    DATA,
    FALSE,
    NONE,
    ORDERED_DICT,
    PROTO,
    TRUE,
    UTF8,
    Entry,
    changed,
    checkpoint,
    entries,
    integer,
    name,
    state_dict,
    storage,
    tensor,
    text,
    tuple_of,
    zipped,
)

import minigrad.io.torch_zip as module
from minigrad.errors import ArgumentError, DTypeError, ShapeError, WeightFileError
from minigrad.io.torch_zip import TorchZipFile

ROWS = [pytest.param(row, id=key) for key, row in HOSTILE.items()]


def load(path: Path) -> dict[str, NDArray[Any]]:
    with TorchZipFile(path) as file:
        return {name: file.read(name) for name in file.names()}


def loaded(tmp_path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    return load(path)


# --- hostile files ----------------------------------------------------------------------------------------------------


def test_every_row_is_there() -> None:
    assert {key[:3] for key in HOSTILE if key[0] == "P"} == {f"P{number:02d}" for number in range(1, 38)}


@pytest.mark.parametrize("row", ROWS)
def test_hostile_files_are_refused(row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').close()\n\ndef run():\n    pass\n"
    (tmp_path / f"{CANARY_MODULE}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(row.make(canary))
    files, modules = set(os.listdir(tmp_path)), set(sys.modules)
    gc.freeze()  # the garbage collector would walk over all that the suite has left behind again and again
    start = time.process_time()  # not of the clock, which would measure the neighbours
    with pytest.raises(WeightFileError) as caught:
        load(path)
    seconds = time.process_time() - start
    gc.unfreeze()
    assert caught.value.code == row.code
    assert seconds < 1.0
    assert set(os.listdir(tmp_path)) == files and set(sys.modules) == modules, "nothing may be imported, run or written"
    message = str(caught.value).removeprefix(f"{path}: ")
    assert len(message) < 400 and message.isprintable(), "a message repeats little of a file, and nothing that a terminal obeys"
    path.unlink()  # some are 50 MB, and pytest keeps folders


_MEASURE = """
import sys
from pathlib import Path
from minigrad.errors import WeightFileError
from minigrad.io.torch_zip import TorchZipFile

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

start = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        TorchZipFile(path)
    except WeightFileError:
        continue
    raise SystemExit(f"{path} was accepted")
print(peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process's memory is read from Linux's /proc")
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """The peak over the rows that could make it large, in a process of its own: 256 MB is the corpus's own bound."""
    for key, row in HOSTILE.items():
        if key[:3] in ("P26", "P27", "P28", "P29", "P36", "P37") or key[0] != "P":
            (tmp_path / key.replace("/", " ")).write_bytes(row.make(tmp_path / "canary"))
    done = subprocess.run([sys.executable, "-c", _MEASURE, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    for path in tmp_path.iterdir():  # some are 50 MB, and pytest keeps folders
        path.unlink()
    assert done.returncode == 0, done.stderr
    print(f"peak {int(done.stdout) / 1024:.0f} MB over the baseline")
    assert int(done.stdout) < 256 << 10


def test_a_damaged_tensor_is_named_and_the_others_load(tmp_path: Path) -> None:
    content = bytearray(checkpoint(state_dict({"good": tensor(), "bad": tensor(of=storage(key=text("1")))}), {"0": DATA, "1": DATA[::-1]}))
    content[content.index(DATA[::-1])] ^= 1
    (tmp_path / "f").write_bytes(content)
    with TorchZipFile(tmp_path / "f") as file:
        for _ in range(2):
            assert file.read("good").tolist() == [1, 2, 3, 4]
            with pytest.raises(WeightFileError, match="checksum of 'bad'") as caught:
                file.read("bad")
            assert caught.value.code == "crc-mismatch"


@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/zero"])
def test_what_is_no_regular_file(kind: str, tmp_path: Path) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "f"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(WeightFileError) as caught:
        TorchZipFile(path)
    assert caught.value.code == "not-a-regular-file"


@pytest.mark.parametrize("shorten", [True, False])
def test_a_file_changed_while_open_is_noticed(shorten: bool, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(checkpoint())
    with TorchZipFile(path) as file:
        file.read("w")
        if shorten:
            os.truncate(path, 100)
        else:
            os.utime(path, ns=(0, 0))
        with pytest.raises(WeightFileError) as caught:
            file.read("w")
    assert caught.value.code == "file-changed"


# --- any damage -------------------------------------------------------------------------------------------------------

_VALID = checkpoint(
    PROTO
    + ORDERED_DICT
    + b"("
    + b"".join(
        [
            text("w") + tensor((2, 2), (1, 2)),
            text("tied") + tensor(),
            text("half") + tensor((3,), of=storage(3, key=text("1"), kind=name("torch", "HalfStorage"))),
        ]
    )
    + b"u}"
    + text("_metadata")
    + ORDERED_DICT
    + b"sb.",
    {"0": DATA, "1": np.arange(3, dtype="<f2").tobytes()},
)


def _survives(content: bytes, path: Path) -> dict[str, NDArray[Any]] | None:
    """The tensors, or None if it is refused; any other exception is a failure."""
    path.write_bytes(content)
    try:
        return load(path)
    except WeightFileError:
        return None


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "pytorch_model.bin"


def _same(ours: dict[str, NDArray[Any]] | None, theirs: dict[str, NDArray[Any]]) -> bool:
    return ours is None or (list(ours) == list(theirs) and all(np.array_equal(ours[key], theirs[key]) for key in theirs))


def test_a_bit_of_every_byte_flipped_and_every_truncation(damaged: Path) -> None:
    """Either the very same tensors or an error: the checksums and the second copy of every header see to it."""
    whole = _survives(_VALID, damaged)
    assert whole is not None and whole["w"].tolist() == [[1, 3], [2, 4]] and whole["half"].tolist() == [0, 1, 2]
    accepted = 0
    for at in range(len(_VALID)):
        result = _survives(_VALID[:at] + bytes([_VALID[at] ^ (1 << at % 8)]) + _VALID[at + 1 :], damaged)
        assert _same(result, whole), at
        accepted += result is not None
        assert _survives(_VALID[:at], damaged) is None
    assert 0 < accepted < len(_VALID), "dates and the like are free, most bytes are not"


@given(st.lists(st.tuples(st.integers(0, len(_VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, len(_VALID)))
def test_damaged_files_load_the_same_or_not_at_all(damaged: Path, changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(_VALID)
    for at, value in changes:
        content[at] = value
    whole = _survives(_VALID, damaged)
    assert whole is not None
    assert _same(_survives(bytes(content), damaged), whole)
    assert _same(_survives(bytes(content[:length]), damaged), whole)


_STREAM = _VALID[_VALID.index(PROTO) : _VALID.index(b"sb.") + 3]
_PIECES = st.sampled_from(
    [
        *(bytes([opcode]) for opcode in b"()}]t\x85\x86\x87aesubRQ.0\x93"), NONE, TRUE, FALSE, b"q\0", b"h\0", b"r\1\0\0\0", b"j\1\0\0\0",
        text("a"), text("storage"), text("0"), text("cpu"), integer(0), integer(4), integer(-1), integer(1 << 40), b"G" + bytes(8),
        name("torch", "FloatStorage"), name("torch._utils", "_rebuild_tensor_v2"), name("posix", "system"), tensor(), storage(),
        ORDERED_DICT, tuple_of(NONE),
    ]
)  # fmt: skip


@given(st.integers(2, len(_STREAM)), st.integers(0, 12), st.lists(_PIECES | st.binary(max_size=4), max_size=30))
@example(len(_STREAM), 0, [])
def test_any_pickle_with_a_right_checksum_is_read_or_refused(damaged: Path, at: int, removed: int, pieces: list[bytes]) -> None:
    """Pieces of real pickles put into a real one: no checksum stands before the opcodes here."""
    _survives(checkpoint(_STREAM[:at] + b"".join(pieces) + _STREAM[at + removed :]), damaged)
    _survives(checkpoint(PROTO + b"".join(pieces) + b"."), damaged)


# --- legal files ------------------------------------------------------------------------------------------------------


def test_a_published_checkpoint(shared_data: Path) -> None:
    path = shared_data / "tiny_random_bert_ner" / "pytorch_model.bin"
    with TorchZipFile(path) as file, zipfile.ZipFile(path) as archive:
        names = file.names()
        assert len(names) == 24 and names[0] == "bert.embeddings.position_ids" and names[-1] == "classifier.bias"
        assert file.dtype("bert.embeddings.position_ids") == np.int64
        assert file.read("bert.embeddings.position_ids").tolist() == [list(range(16))]
        for number, key in enumerate(names):  # torch.save numbers the storages in the order of the tensors
            data = np.frombuffer(archive.read(f"archive/data/{number}"), file.dtype(key))
            np.testing.assert_array_equal(file.read(key), data.reshape(file.shape(key)), strict=True)


@pytest.mark.parametrize("folder", ["vocab121", "vocab32006_ja"])
def test_the_old_format_is_refused_with_the_way_out(shared_data: Path, folder: str) -> None:
    with pytest.raises(WeightFileError, match=r"before version 1\.6.*save the weights as safetensors") as caught:
        TorchZipFile(shared_data / "tiny_bert_legacy" / folder / "pytorch_model.bin")
    assert caught.value.code == "unsupported-container"


_HALVES = np.array([0x0000, 0x3F80, 0xFF80, 0x7FC0, 0x0001, 0xC049], "<u2")

DTYPES: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
    "Double": (np.array([1.5, -np.inf, 5e-324]),) * 2,
    "Float": (np.array([1.5, np.inf, 1e-45], np.float32),) * 2,
    "Half": (np.array([1.5, -np.inf, 6e-8], np.float16), np.array([1.5, -np.inf, 2.0**-24], np.float32)),
    "BFloat16": (_HALVES, np.array([0, 1, -np.inf, np.nan, 2.0**-133, -3.140625], np.float32)),
    "Long": (np.array([-(2**63), 2**63 - 1]),) * 2,
    "Int": (np.array([-(2**31), 2**31 - 1], np.int32),) * 2,
    "Short": (np.array([-(2**15), 2**15 - 1], np.int16),) * 2,
    "Char": (np.array([-128, 127], np.int8),) * 2,
    "Byte": (np.array([0, 255], np.uint8),) * 2,
    "Bool": (np.array([0, 1, 2], np.uint8), np.array([False, True, True])),
    "ComplexFloat": (np.array([1 - 2j, 1j], np.complex64),) * 2,
}


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("strided", [False, True])
def test_dtypes(kind: str, strided: bool, tmp_path: Path) -> None:
    stored, meant = DTYPES[kind]
    where = storage(len(stored), kind=name("torch", f"{kind}Storage"))
    shape, strides = ((1, len(stored)), (1, 1)) if not strided else ((len(stored) // 2,), (2,))
    got = loaded(tmp_path, checkpoint(state_dict({"w": tensor(shape, strides, of=where)}), {"0": stored.tobytes()}))["w"]
    np.testing.assert_array_equal(got, meant[: 2 * (len(meant) // 2) : 2] if strided else meant[None], strict=True)


def test_conversion_on_request(tmp_path: Path) -> None:
    path = tmp_path / "f"
    big = np.array([1.0, 1e38], "<f4").tobytes()
    stream = state_dict({"w": tensor((2, 2), (1, 2)), "big": tensor((2,), of=storage(2, key=text("1")))})
    path.write_bytes(checkpoint(stream, {"0": DATA, "1": big}))
    with TorchZipFile(path) as file:
        for dtype in (np.float16, np.float32, np.float64):
            got = file.read("w", dtype)
            assert got.dtype == dtype and got.tolist() == [[1, 3], [2, 4]]
        with pytest.raises(WeightFileError) as caught:
            file.read("big", np.float16)
        assert caught.value.code == "value-overflow"
        with pytest.raises(DTypeError):
            file.read("w", np.int64)
        with pytest.raises(ShapeError):
            file.read_into("w", np.empty(4, np.float32))
        with pytest.raises(ArgumentError):
            file.read_into("w", np.empty((2, 2), np.float32).T)
        with pytest.raises(WeightFileError, match="no tensor 'v'") as caught:
            file.read("v")
        assert caught.value.code == "missing-tensor"
    with pytest.raises(ArgumentError, match="has been closed"):
        file.read("w")


def test_values_between_those_of_a_strided_tensor_do_not_overflow(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(checkpoint(state_dict({"w": tensor((2,), (2,))}), {"0": np.array([1, 1e38, 2, 1e38], "<f4").tobytes()}))
    with TorchZipFile(path) as file:
        assert file.read("w", np.float16).tolist() == [1, 2]


LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "C order": ((2, 3, 4), (12, 4, 1), 0),
    "a row": ((4,), (1,), 20),
    "transposed": ((4, 6), (1, 4), 0),
    "permuted": ((4, 2, 3), (1, 12, 4), 0),
    "a column": ((6,), (4,), 3),
    "a block": ((2, 2), (4, 1), 9),
    "a stride that does not matter": ((1, 4), (2**62, 1), 4),
    "overlapping": ((4, 3), (1, 1), 0),
    "expanded within the storage": ((3, 4), (0, 1), 8),
    "a number": ((), (), 23),
    "empty": ((0, 3), (3, 1), 0),
    "empty at the end": ((0,), (1,), 24),
    "empty beyond the end": ((3, 0), (1, 1), 30),
    "empty, huge stride": ((2, 0), (2**62, 1), 0),
    "eight dimensions": ((1, 2, 1, 3, 1, 4, 1, 1), (24, 12, 12, 4, 4, 1, 1, 1), 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block_bytes", [1 << 20, 24])
def test_layouts(layout: str, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    shape, strides, offset = LAYOUTS[layout]
    values = np.arange(24, dtype="<f8")
    expected = np.array([values[offset + int(np.dot(place, strides))] for place in np.ndindex(shape)]).reshape(shape)
    where = storage(24, kind=name("torch", "DoubleStorage"))
    path = tmp_path / "f"
    path.write_bytes(checkpoint(state_dict({"w": tensor(shape, strides, offset, where)}), {"0": values.tobytes()}))
    with TorchZipFile(path) as file:
        for _ in range(2):  # the second time without the checksum
            got = file.read("w")
            assert got.shape == file.shape("w") and got.flags.c_contiguous and got.flags.owndata
            np.testing.assert_array_equal(got, expected, strict=True)


def test_shared_storages_do_not_double(tmp_path: Path) -> None:
    """P37: two tensors of one storage are two arrays (a write reaches one only), read without a copy of the storage beside them."""
    path, count = tmp_path / "f", 1 << 20
    where = storage(count)
    whole, row = tensor((1024, 1024), of=where), tensor((8,), offset=64, of=where)
    stream = state_dict({"w": whole, "tied": whole, "row": row})
    path.write_bytes(checkpoint(stream, {"0": np.arange(count, dtype="<f4").tobytes()}))
    out = np.empty((1024, 1024), np.float32)
    with TorchZipFile(path) as file:
        for key in ("w", "tied"):
            tracemalloc.start()
            try:
                file.read_into(key, out)
                assert tracemalloc.get_traced_memory()[1] < 2 * module._BLOCK_BYTES
            finally:
                tracemalloc.stop()
            assert np.array_equal(out.reshape(-1), np.arange(count))
        first, second = file.read("w"), file.read("tied")
        assert not np.shares_memory(first, second) and file.read("row").tolist() == list(range(64, 72))


def test_a_thousand_disjoint_views_of_one_storage_load(tmp_path: Path) -> None:
    where = storage(4000)
    stream = state_dict({f"w{number}": tensor((4,), offset=4 * number, of=where) for number in range(1000)})
    got = loaded(tmp_path, checkpoint(stream, {"0": np.arange(4000, dtype="<f4").tobytes()}))
    assert len(got) == 1000 and got["w999"].tolist() == [3996, 3997, 3998, 3999]


def _by_zipfile() -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as archive:
            for entry in entries():
                archive.writestr(str(entry.name), entry.data)
        return buffer.getvalue()


_METADATA = b"}" + text("_metadata") + ORDERED_DICT + text("") + b"}" + text("version") + integer(1) + b"sssb"
_PARAMETER = name("torch._utils", "_rebuild_parameter") + tuple_of(tensor(), TRUE, ORDERED_DICT) + b"R"
_NO_NUMBERS = {"here": 0xFFFF, "count": 0xFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}

LEGAL: dict[str, bytes] = {
    "an ordered dictionary with _metadata": checkpoint(PROTO + ORDERED_DICT + text("w") + tensor() + b"s" + _METADATA + b"."),
    "a parameter": checkpoint(state_dict({"w": _PARAMETER})),
    "on a GPU": checkpoint(state_dict({"w": tensor(of=storage(location=text("cuda:1")))})),
    "remembered": checkpoint(PROTO + b"}r\0\1\0\0" + text("w") + tensor() + b"q\1s" + text("v") + b"h\1s."),
    "no byteorder (before PyTorch 2.0)": zipped([entries()[0], *entries()[2:]]),
    "no version": zipped(entries()[:-1]),
    "another folder": zipped(entries(root="pytorch_model")),
    "a folder with accents": zipped(entries(root="modèle")),
    "entries of later versions": zipped(
        [*entries(), Entry("archive/.format_version", b"1"), Entry("archive/.data/serialization_id", b"0")]
    ),
    "no padding": zipped([replace(e, local_extra=b"") for e in entries()]),
    "no descriptors": zipped([replace(e, flags=UTF8) for e in entries()]),
    "sizes before and after the data": changed("data/0", local_size=16),
    "no 64-bit end record": zipped(entries(), wide_end=False),
    "numbers only in the 64-bit end record": zipped(entries(), end=_NO_NUMBERS),
    "64-bit entries": zipped([replace(e, wide=True) for e in entries()]),
    "64-bit entries without descriptors": zipped([replace(e, wide=True, flags=UTF8) for e in entries()]),
    "other extra fields": changed("data/0", extra=struct.pack("<2HL", 0x5455, 4, 0)),
    "packed again by zipfile": _by_zipfile(),
}


@pytest.mark.parametrize("content", [pytest.param(content, id=key) for key, content in LEGAL.items()])
def test_legal_but_odd_files_load(content: bytes, tmp_path: Path) -> None:
    for array in loaded(tmp_path, content).values():
        np.testing.assert_array_equal(array, np.array([1, 2, 3, 4], np.float32), strict=True)


def test_a_state_dict_without_tensors(tmp_path: Path) -> None:
    assert loaded(tmp_path, checkpoint(state_dict({}), {})) == {}
