"""The safetensors reader and writer: what is written comes back, and what is broken or hostile is refused by its code.

The rows S01 to S39 are the corpus of hostile files: each must be refused with its own code, within a second, and
without memory beyond the file's size.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_writer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad.io._weight_bytes as weight_bytes
import minigrad.io.safetensors as module
import minigrad.io.safetensors_write as write_module
from minigrad import nn
from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError, WeightFileError
from minigrad.io import SafetensorsFile, load_file, save_file
from minigrad.io._safetensors_header import MAX_TENSORS, UNSUPPORTED_DTYPES

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (JSON text, bytes, or an object to encode) and data, whatever they are."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: object = (1,), begin: object = 0, end: object = 4, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def member(name: str, entry: object) -> str:
    return f"{json.dumps(name)}:{json.dumps(entry)}"


def refusal(path: Path, content: bytes) -> str:
    """The code with which a file of this content is refused."""
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(WeightFileError) as caught:
        load_file(path)
    assert time.process_time() - start < 1.0, "a refusal takes less than a second"
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400, "a message repeats little of what the file says"
    return caught.value.code


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3), (2, 1, 3, 2)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2 * 3).astype(dtype).reshape(shape)
    save_file({"x": array}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.names() == ("x",)
        assert file.shape("x") == shape
        assert file.dtype("x") == (np.float32 if dtype == "f2" else np.dtype(dtype))
        found = file.read("x", dtype)
    assert found.dtype == dtype and found.shape == shape and found.flags.writeable
    np.testing.assert_array_equal(found, array)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9), hnp.arrays(st.sampled_from([np.float64, np.int16, np.bool_]), hnp.array_shapes(min_dims=0))
    )
)
def test_any_mapping_comes_back(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    try:
        save_file(arrays, path, {"k": "v"})
    except ArgumentError as error:  # lone surrogates
        assert error.code == "bad-name"
        return
    found = load_file(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(4, 6).T,
        np.arange(24.0)[::-3],
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        np.broadcast_to(np.float32(3), (2, 5)),
        np.arange(4, dtype=np.longlong),
    ],
    ids=["transposed", "reversed", "big-endian", "big-endian Fortran", "broadcast", "longlong"],
)
def test_layout_and_byte_order_do_not_matter(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    save_file({"x": array}, tmp_path / "f")
    found = load_file(tmp_path / "f")["x"]
    assert found.dtype.isnative and found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


def test_file_layout(tmp_path: Path) -> None:
    arrays = {"b": np.ones(3, np.float16), "z": np.ones(1, np.float64), "a": np.ones(3, np.float16), "c": np.ones(2, np.uint8)}
    save_file(arrays, tmp_path / "f", {"format": "np"})
    content = (tmp_path / "f").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and content[8:9] == b"{"
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.names() == ("z", "a", "b", "c"), "wide dtypes first, so that every tensor is aligned"
        assert file.metadata == {"format": "np"}
    save_file(dict(reversed(arrays.items())), tmp_path / "g", {"format": "np"})
    assert (tmp_path / "g").read_bytes() == content, "the order of the mapping does not matter"


def test_empty_file_and_no_metadata(tmp_path: Path) -> None:
    save_file({}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.names() == () and file.metadata == {}


@pytest.mark.parametrize(
    "header", ['{"a":%s}  ', '{ "a" : %s }', '\n{"a":\t%s\r\n}\n'.lstrip()], ids=["padded", "spaced", "all white space"]
)
def test_json_white_space_is_accepted(tmp_path: Path, header: str) -> None:
    (tmp_path / "f").write_bytes(raw(header % json.dumps(tensor()), np.float32(7).tobytes()))
    assert load_file(tmp_path / "f")["a"] == [7]


def test_order_in_the_header_does_not_matter_and_zero_size_tensors_share_a_place(tmp_path: Path) -> None:
    header = {"b": tensor((1,), 4, 8), "empty": tensor((0,), 4, 4), "also": tensor((0, 2**40), 4, 4), "a": tensor((1,), 0, 4)}
    (tmp_path / "f").write_bytes(raw(header, np.array([1, 2], "<f4").tobytes()))
    arrays = load_file(tmp_path / "f")
    assert arrays["a"] == [1] and arrays["b"] == [2] and arrays["empty"].shape == (0,) and arrays["also"].shape == (0, 2**40)


# --- conversions ------------------------------------------------------------------------------------------------------


def test_bf16_becomes_float32_exactly(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)  # every bfloat16 there is, NaN, infinities and subnormals among them
    (tmp_path / "f").write_bytes(raw({"x": tensor((2**16,), 0, 2**17, "BF16")}, bits.astype("<u2").tobytes()))
    with SafetensorsFile(tmp_path / "f") as file:
        found = file.read("x")
        assert found.dtype == np.float32 == file.dtype("x")
        np.testing.assert_array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)
        with pytest.raises(DTypeError, match="uint16"):
            file.read("x", np.uint16)


def test_f16_becomes_float32_exactly(tmp_path: Path) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    save_file({"x": halves}, tmp_path / "f")
    found = load_file(tmp_path / "f")["x"]
    np.testing.assert_array_equal(found, halves.astype(np.float32), strict=True)
    with SafetensorsFile(tmp_path / "f") as file:
        np.testing.assert_array_equal(file.read("x", np.float16).view(np.uint16), halves.view(np.uint16))


def test_converting_reads_span_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 64)
    array = np.linspace(-1, 1, 203)
    save_file({"x": array, "i": np.arange(-100, 103)}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        np.testing.assert_array_equal(file.read("x", np.float32), array.astype(np.float32), strict=True)
        np.testing.assert_array_equal(file.read("i", np.float64), np.arange(-100.0, 103.0), strict=True)


def test_reads_longer_than_one_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_bytes, "_READ_BYTES", 10)
    save_file({"x": np.arange(100.0)}, tmp_path / "f")
    np.testing.assert_array_equal(load_file(tmp_path / "f")["x"], np.arange(100.0))


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(raw({"x": tensor((4,), 0, 4, "BOOL")}, bytes([0, 1, 2, 255])))
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.read("x").view(np.uint8).tolist() == [0, 1, 1, 1]
        assert file.read("x", np.int32).tolist() == [0, 1, 1, 1]


def test_narrowing_refuses_values_out_of_range(tmp_path: Path) -> None:
    save_file({"big": np.array([1e300]), "inf": np.array([np.inf, -np.inf, np.nan]), "i": np.array([1])}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        with pytest.raises(WeightFileError, match="beyond the range of float32") as caught:
            file.read("big", np.float32)
        assert caught.value.code == "value-overflow"
        np.testing.assert_array_equal(file.read("inf", np.float32), np.array([np.inf, -np.inf, np.nan], np.float32))
        for dtype in (np.int32, np.uint64, np.bool_, object, np.complex128):
            with pytest.raises(DTypeError, match="without loss"):
                file.read("i", dtype)
        with pytest.raises(DTypeError, match="without loss"):
            file.read("inf", np.int64)


def test_complex_numbers_stay_complex(tmp_path: Path) -> None:
    save_file({"z": np.array([1 + 2j, -3j], np.complex64)}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.dtype("z") == np.complex64
        np.testing.assert_array_equal(file.read("z", np.complex128), [1 + 2j, -3j])
        with pytest.raises(DTypeError, match="without loss"):
            file.read("z", np.float32)


# --- halves on writing ------------------------------------------------------------------------------------------------


def test_bfloat16_is_rounded_to_nearest_and_in_a_tie_to_even(tmp_path: Path) -> None:
    """Every pair of neighbours: just below, at and just above the middle; judged by the distances, which float64 holds exactly."""
    below = np.arange(0x7F7F, dtype=np.uint32)  # all finite magnitudes but the largest
    sign = np.array([0, 0x8000], np.uint32)[:, None]
    for step in (0x7FFF, 0x8000, 0x8001, 1, 0):
        values = ((sign | below) << 16 | step).view(np.float32).ravel()
        save_file({"x": values}, tmp_path / "f", dtype="bfloat16")
        found = load_file(tmp_path / "f")["x"].view(np.uint32)
        assert (found & 0xFFFF == 0).all()
        chosen = (found >> 16) - (values.view(np.uint32) >> 16)
        expected = {0x7FFF: 0, 0x8001: 1, 1: 0, 0: 0}.get(step, values.view(np.uint32) >> 16 & 1)
        np.testing.assert_array_equal(chosen, np.broadcast_to(expected, chosen.shape))


def test_bfloat16_keeps_nan_infinities_and_signs(tmp_path: Path) -> None:
    patterns = np.array([0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x80000000, 0], np.uint32)
    save_file({"x": patterns.view(np.float32)}, tmp_path / "f", dtype="bfloat16")
    found = load_file(tmp_path / "f")["x"]
    assert np.isnan(found[:4]).all()
    assert found[4:].tolist() == [np.inf, -np.inf, 0.0, 0.0] and np.signbit(found).tolist() == [0, 1, 0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_written_for_floats_alone_whatever_their_layout(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_BLOCK_ELEMENTS", 5)
    floats = np.arange(12.0).reshape(3, 4)
    arrays = {"t": floats.T, "h": floats.astype(np.float16), "big": floats.astype(">f4"), "i": np.arange(3), "s": np.array(2.5)}
    save_file(arrays, tmp_path / "f", dtype=dtype)
    with SafetensorsFile(tmp_path / "f") as file:
        assert {name: file.dtype(name).name for name in file.names()} == {n: "int64" if n == "i" else "float32" for n in arrays}
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.read(name), array)
    assert (tmp_path / "f").stat().st_size < 8 + 400 + 2 * 37 + 24


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504.0), ("bfloat16", 3.3895313892515355e38)])
def test_halves_refuse_numbers_beyond_their_range(tmp_path: Path, dtype: str, largest: float) -> None:
    save_file({"x": np.array([largest, -largest, np.inf])}, tmp_path / "f", dtype=dtype)
    assert load_file(tmp_path / "f")["x"].tolist() == [np.float32(largest), -np.float32(largest), np.inf]
    for array in (np.array([largest * 1.003], np.float32 if dtype == "float16" else np.float64), np.array([-1e300])):
        with pytest.raises(ArgumentError, match="'x' holds numbers beyond the range") as caught:
            save_file({"x": array}, tmp_path / "g", dtype=dtype)
        assert caught.value.code == "value-overflow"
        assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_other_dtypes_to_write_are_refused(tmp_path: Path) -> None:
    for dtype in ("float32", "half", np.float16, ["float16"]):
        with pytest.raises(ArgumentError, match="dtype is None"):
            save_file({"x": np.zeros(1)}, tmp_path / "f", dtype=dtype)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_writing_halves_takes_no_second_copy(tmp_path: Path) -> None:
    array = np.ones((4096, 1024), np.float32)
    tracemalloc.start()
    try:
        save_file({"x": array}, tmp_path / "f", dtype="bfloat16")
        assert tracemalloc.get_traced_memory()[1] < 10e6, "a few blocks of 1 MiB, of an array of 16 MiB"
    finally:
        tracemalloc.stop()


# --- read_into --------------------------------------------------------------------------------------------------------


def test_read_into_fills_a_slice_of_a_flat_buffer(tmp_path: Path) -> None:
    save_file({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "s": np.array(5.0)}, tmp_path / "f")
    flat = np.zeros(10, np.float32)
    with SafetensorsFile(tmp_path / "f") as file:
        file.read_into("w", flat[2:8].reshape(2, 3))
        scalar = np.zeros((), ">f4")
        file.read_into("s", scalar)
    assert flat.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 0, 0] and scalar == 5


def test_read_into_refuses_a_wrong_target(tmp_path: Path) -> None:
    save_file({"w": np.zeros((2, 3), np.float32)}, tmp_path / "f")
    read_only = np.zeros((2, 3), np.float32)
    read_only.flags.writeable = False
    with SafetensorsFile(tmp_path / "f") as file:
        with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
            file.read_into("w", np.zeros((3, 2), np.float32))
        for target in (read_only, np.zeros((3, 2), np.float32).T):
            with pytest.raises(ArgumentError, match="writable and C-contiguous"):
                file.read_into("w", target)


@pytest.mark.parametrize("stored, wanted", [("f4", "f4"), ("f4", "f8"), ("f8", "f4"), ("f2", "f4")])
def test_reading_takes_no_second_copy(tmp_path: Path, stored: str, wanted: str) -> None:
    save_file({"x": np.ones((4096, 1024), stored)}, tmp_path / "f")
    out = np.empty((4096, 1024), wanted)
    with SafetensorsFile(tmp_path / "f") as file:
        tracemalloc.start()
        try:
            file.read_into("x", out)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (out == 1).all()
    assert peak < 3 * module._BLOCK_BYTES, "the block and its converted copy, whatever the tensor's size (8 to 32 MiB here)"


# --- wrong use --------------------------------------------------------------------------------------------------------


def test_unknown_tensor_and_closed_file(tmp_path: Path) -> None:
    save_file({"x": np.zeros(2)}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        for call in (file.read, file.shape, file.dtype):
            with pytest.raises(WeightFileError, match="no tensor 'y'") as caught:
                call("y")
            assert caught.value.code == "missing-tensor"
    with pytest.raises(ArgumentError, match="has been closed"):
        file.read("x")


@pytest.mark.parametrize("name", ["", "__metadata__", "x" * 1025, "\ud800"], ids=["empty", "reserved", "long", "surrogate"])
def test_save_refuses_names_that_could_not_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        save_file({name: np.zeros(1)}, tmp_path / "f")
    assert caught.value.code == "bad-name" and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [np.zeros(1, complex), np.array(["a"]), np.array([None]), np.zeros(1, "M8[s]"), np.zeros(1, "i4,i4"), 3.0, [1.0]]
)
def test_save_refuses_other_dtypes_by_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DTypeError, match="'odd'"):
        save_file({"fine": np.zeros(1), "odd": value}, tmp_path / "f")


@pytest.mark.parametrize("arrays", [nn.Linear(1, 1), [np.zeros(1)], None], ids=lambda arrays: type(arrays).__name__)
def test_save_takes_arrays_by_name(tmp_path: Path, arrays: Any) -> None:
    with pytest.raises(DTypeError, match=rf"a dict of arrays by name is saved.*got {type(arrays).__name__}"):
        save_file(arrays, tmp_path / "f")
    assert not any(tmp_path.iterdir())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": "\udfff"}])
def test_save_refuses_other_metadata(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        save_file({"x": np.zeros(1)}, tmp_path / "f", metadata)
    assert caught.value.code == "bad-metadata" and not any(tmp_path.iterdir())


def test_save_refuses_what_the_reader_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError) as caught:
        save_file({}, tmp_path / "f", {"a": "x" * 5_000_000})
    assert caught.value.code == "entry-too-large" and not any(tmp_path.iterdir())


# --- atomic writing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    path = tmp_path / "f"
    save_file({"x": np.zeros(2)}, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else WeightFileError) as caught:
        save_file({"x": np.ones(2)}, path)
    if isinstance(caught.value, WeightFileError):
        assert caught.value.code == "write-failed" and "No space left" in str(caught.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_content_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        done.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    save_file({"x": np.zeros(2)}, tmp_path / "f")
    assert done == ["fsync file", "replace", "fsync folder"]


@pytest.mark.parametrize("path", ["missing/f", "file/f", "folder"])
def test_an_impossible_path_is_one_clear_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightFileError, match="cannot be written") as caught:
        save_file({"x": np.zeros(2)}, tmp_path / path)
    assert caught.value.code == "write-failed" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


# --- the hostile corpus -----------------------------------------------------------------------------------------------

ONE = member("a", tensor())
DATA = bytes(4)
INNER = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'

CORPUS: dict[str, tuple[str, bytes]] = {
    "S01 empty": ("header-too-small", b""),
    "S01 seven bytes": ("header-too-small", bytes(7)),
    "S02 N=0": ("empty-header", bytes(8)),
    "S03 N=2^63": ("header-too-large", raw("{}", length=2**63)),
    "S03 N=100000001": ("header-too-large", raw("{}", length=100_000_001)),
    "S04 N beyond the file": ("header-past-end", raw("{}", length=3)),
    "S05 not UTF-8": ("header-not-utf8", raw(b'{"\xff":1}')),
    "S06 not JSON": ("header-not-object", raw("hello")),
    "S06 array root": ("header-not-object", raw("[]")),
    "S06 BOM": ("header-not-object", raw("\ufeff{}")),
    "S06 only spaces": ("header-not-object", raw("    ")),
    "S06 unclosed": ("header-not-object", raw('{"a":{"dtype":"F32"')),
    "S06 unclosed, long": ("header-not-object", raw('{"a":{"dtype":"F32" "shape"' + " " * 50_000 + "}")),
    "S06 no colon": ("header-not-object", raw('{"a" 5}')),
    "S06 no comma": ("header-not-object", raw(f"{{{ONE} {ONE}}}", DATA)),
    "S06 trailing comma": ("header-not-object", raw(f"{{{ONE},}}", DATA)),
    "S06 name not a string": ("header-not-object", raw(f"{{5:{json.dumps(tensor())}}}", DATA)),
    "S06 two objects": ("header-not-object", raw(f"{{{ONE}}}{{}}", DATA)),
    "S06 padded with NUL": ("header-not-object", raw(f"{{{ONE}}}\0\0", DATA)),
    "S07 leading space": ("header-not-object", raw(f" {{{ONE}}}", DATA)),
    "S08 duplicate tensor": ("duplicate-key", raw(f"{{{ONE},{ONE}}}", DATA)),
    "S09 duplicate field": ("duplicate-key", raw(f'{{"a":{{{INNER},"dtype":"F32"}}}}', DATA)),
    "S09 duplicate metadata": ("duplicate-key", raw('{"__metadata__":{},"__metadata__":{}}')),
    "S09 duplicate metadata key": ("duplicate-key", raw('{"__metadata__":{"a":"b","a":"b"}}')),
    "S10 unknown field": ("unknown-field", raw(f'{{"a":{{{INNER},"strides":[1]}}}}', DATA)),
    "S11 metadata value": ("bad-metadata", raw({"__metadata__": {"a": 1}})),
    "S11 metadata not an object": ("bad-metadata", raw({"__metadata__": ["a"]})),
    "S12 F99": ("unknown-dtype", raw({"a": tensor(dtype="F99")}, DATA)),
    "S12 dtype not a string": ("unknown-dtype", raw({"a": tensor(dtype=["F32"])}, DATA)),
    **{f"S13 {dtype}": ("unsupported-dtype", raw({"a": tensor(dtype=dtype)}, DATA)) for dtype in UNSUPPORTED_DTYPES},
    **{
        f"S14 no {field}": ("missing-field", raw({"a": {k: v for k, v in tensor().items() if k != field}}, DATA))
        for field in ("dtype", "shape", "data_offsets")
    },
    "S14 not an object": ("missing-field", raw({"a": [0, 4]}, DATA)),
    "S15 full overlap": ("offset-overlap", raw({"a": tensor(), "b": tensor()}, DATA)),
    "S15 full overlap, longer file": ("offset-overlap", raw({"a": tensor(), "b": tensor()}, bytes(8))),
    "S16 partial overlap": ("offset-overlap", raw({"a": tensor((2,), 0, 8), "b": tensor((2,), 4, 12)}, bytes(16))),
    "S16 empty inside another": ("offset-overlap", raw({"a": tensor((2,), 0, 8), "b": tensor((0,), 4, 4)}, bytes(8))),
    "S17 hole": ("offset-hole", raw({"a": tensor(), "b": tensor((1,), 8, 12)}, bytes(12))),
    "S18 first begin > 0": ("offset-hole", raw({"a": tensor((1,), 4, 8)}, bytes(8))),
    "S19 polyglot": ("trailing-data", raw({"a": tensor()}, DATA + b"PK\x03\x04")),
    "S19 data without tensors": ("trailing-data", raw({}, b"PK")),
    "S20 truncated": ("truncated-data", raw({"a": tensor()}, bytes(3))),
    "S21 begin > end": ("bad-offset", raw({"a": tensor((1,), 4, 0)}, DATA)),
    "S22 negative offset": ("bad-offset", raw({"a": tensor((1,), -4, 0)}, DATA)),
    "S23 negative dim": ("bad-shape", raw({"a": tensor((-1,))}, DATA)),
    "S23 two negative dims": ("bad-shape", raw({"a": tensor((-1, -1))}, DATA)),
    "S24 float dim": ("bad-shape", raw({"a": tensor((1.0,))}, DATA)),
    "S25 bool dim": ("bad-shape", raw({"a": tensor((True,))}, DATA)),
    "S25 shape not a list": ("bad-shape", raw({"a": tensor("1")}, DATA)),
    "S25 shape an object": ("bad-shape", raw({"a": tensor({})}, DATA)),
    "S26 product 2^66": ("size-overflow", raw({"a": tensor((2**33, 2**33))}, DATA)),
    "S26 bytes 2^64": ("size-overflow", raw({"a": tensor((2**62,), 0, 0)})),
    "S27 hidden by zero": ("size-overflow", raw({"a": tensor((2**33, 2**33, 0), 0, 0)})),
    "S28 size mismatch": ("size-mismatch", raw({"a": tensor((2,))}, DATA)),
    "S29 three offsets": ("bad-offset", raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, DATA)),
    "S29 bool offset": ("bad-offset", raw({"a": tensor((0,), False, False)})),
    "S29 float offset": ("bad-offset", raw({"a": tensor((1,), 0, 4.0)}, DATA)),
    "S30 deep": ("too-deep", raw('{"a":' + "[" * 100_000)),
    "S30 deep metadata": ("too-deep", raw('{"__metadata__":' + '{"a":' * 100_000)),
    "S31 NaN": ("bad-number", raw('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', DATA)),
    "S31 Infinity": ("bad-number", raw('{"a":{"dtype":"F32","shape":[-Infinity],"data_offsets":[0,4]}}', DATA)),
    "S32 10^400": ("bad-shape", raw({"a": tensor((10**400,))}, DATA)),
    "S32 10^9000": ("bad-shape", raw('{"a":{"dtype":"F32","shape":[1' + "0" * 9000 + '],"data_offsets":[0,4]}}', DATA)),
    "S32 offset 10^400": ("bad-offset", raw({"a": tensor((1,), 0, 10**400)}, DATA)),
    "S32 1e999": ("bad-shape", raw('{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', DATA)),
    "S33 1000 dims": ("too-many-dims", raw({"a": tensor([1] * 1000)}, DATA)),
    "S33 65 dims": ("too-many-dims", raw({"a": tensor([1] * 65)}, DATA)),
    "S33 a million dims": ("entry-too-large", raw({"a": tensor([1] * 1_000_000)}, DATA)),
    "S34 100000 tensors on one range": (
        "offset-overlap",
        raw("{" + ",".join(member(f"t{i}", tensor()) for i in range(100_000)) + "}", bytes(400)),
    ),
    "S35 lone surrogate": ("bad-name", raw(f'{{"\\ud800":{json.dumps(tensor())}}}', DATA)),
    "S35 lone surrogate in metadata": ("bad-metadata", raw('{"__metadata__":{"a":"\\udc00"}}')),
    "S36 empty name": ("bad-name", raw({"": tensor()}, DATA)),
    "S36 1 MB name": ("bad-name", raw({"x" * 1_000_000: tensor()}, DATA)),
    "S36 1025 characters": ("bad-name", raw({"x" * 1025: tensor()}, DATA)),
    "S37 5 MB of spaces": ("header-not-object", raw(b" " * 5_000_000)),
}


@pytest.mark.parametrize("row", CORPUS)
def test_hostile_file_is_refused_by_its_code(tmp_path: Path, row: str) -> None:
    code, content = CORPUS[row]
    assert refusal(tmp_path / "f", content) == code


def test_the_corpus_is_complete() -> None:
    assert {row[:3] for row in CORPUS} | {"S38", "S39"} == {f"S{i:02}" for i in range(1, 40)}, "S38 and S39 are tests of their own below"


def test_the_corpus_has_a_valid_twin(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(raw(f"{{{ONE}}}", DATA))
    assert load_file(tmp_path / "f")["a"].tolist() == [0], "the rows differ from a readable file by their fault only"


def test_64_dimensions_are_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(raw({"a": tensor([1] * 64)}, DATA))
    assert load_file(tmp_path / "f")["a"].shape == (1,) * 64


def test_too_many_tensors(tmp_path: Path) -> None:
    entry = json.dumps(tensor((0,), 0, 0), separators=(",", ":"))
    path = tmp_path / "f"
    path.write_bytes(raw("{" + ",".join(f'"{i}":{entry}' for i in range(MAX_TENSORS + 1)) + "}"))
    start = time.process_time()
    with pytest.raises(WeightFileError) as caught:
        load_file(path)
    assert caught.value.code == "too-many-tensors"
    assert time.process_time() - start < 5.0, "the one file whose refusal needs 100 000 checks: 1 s alone, more on a busy machine"


@pytest.mark.parametrize("length", [2**63, 100_000_001, 99_000_000])
def test_an_announced_header_is_not_allocated(tmp_path: Path, length: int) -> None:
    (tmp_path / "f").write_bytes(raw("{}", length=length))
    tracemalloc.start()
    try:
        with pytest.raises(WeightFileError):
            SafetensorsFile(tmp_path / "f")
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content, code", [("{}" + " " * 99_999_998, None), (" " * 100_000_000, "header-not-object"), ("{" + " " * 99_999_998 + "}", None)]
)
def test_the_longest_header(tmp_path: Path, content: str, code: str | None) -> None:
    """S37 in full: 100 MB of header are read or refused in less than 2 s, within 3 times their size."""
    path = tmp_path / "f"
    path.write_bytes(raw(content))
    tracemalloc.start()
    start = time.process_time()
    try:
        if code is None:
            assert load_file(path) == {}
        else:
            with pytest.raises(WeightFileError) as caught:
                load_file(path)
            assert caught.value.code == code
        assert time.process_time() - start < 2.0
        assert tracemalloc.get_traced_memory()[1] < 3e8
    finally:
        tracemalloc.stop()
        path.unlink()


def test_a_file_cut_off_while_open_is_noticed(tmp_path: Path) -> None:
    """S38: with a mapped file this is a SIGBUS."""
    path = tmp_path / "f"
    save_file({"a": np.ones(1000), "b": np.ones(1000)}, path)
    with SafetensorsFile(path) as file:
        os.truncate(path, path.stat().st_size - 4000)
        for name in ("a", "b"):  # a's bytes are all there, but what else is true of the file is no longer known
            with pytest.raises(WeightFileError) as caught:
                file.read(name)
            assert caught.value.code == "file-changed"


def test_a_file_rewritten_in_place_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    save_file({"a": np.ones(10)}, path)
    with SafetensorsFile(path) as file:
        os.utime(path, ns=(0, 0))
        with pytest.raises(WeightFileError) as caught:
            file.read("a")
    assert caught.value.code == "file-changed"


def test_a_file_replaced_while_open_is_read_as_it_was(tmp_path: Path) -> None:
    save_file({"a": np.ones(10)}, tmp_path / "f")
    with SafetensorsFile(tmp_path / "f") as file:
        save_file({"a": np.zeros(3)}, tmp_path / "f")
        np.testing.assert_array_equal(file.read("a"), np.ones(10))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, Path.mkdir, make_socket, lambda path: path.symlink_to("/dev/zero")],
    ids=["FIFO", "directory", "socket", "/dev/zero"],
)
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """S39. In a thread, so that a reader that waits fails the test instead of stopping it."""
    path = tmp_path / "f"
    make(path)
    codes: list[str] = []

    def attempt() -> None:
        try:
            SafetensorsFile(path)
        except WeightFileError as error:
            codes.append(error.code)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert codes == ["not-a-regular-file"]


@pytest.mark.parametrize("name, code", [("absent", "missing-file"), ("x" * 300, "unreadable-file")])
def test_a_path_that_cannot_be_opened(tmp_path: Path, name: str, code: str) -> None:
    with pytest.raises(WeightFileError) as caught:
        SafetensorsFile(tmp_path / name)
    assert caught.value.code == code


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(raw("[]"))
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with pytest.raises(WeightFileError):
            SafetensorsFile(tmp_path / "f")
    assert len(os.listdir("/dev/fd")) == before


@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = bytearray(raw({"__metadata__": {"k": "v"}, "a": tensor(), "b": tensor((2, 1), 4, 8, "F16")}, bytes(8)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"[", b'"', b"-", b"9", b","])
        )
    path.write_bytes(content)
    try:
        load_file(path)
    except MinigradError as error:
        assert isinstance(error, WeightFileError) and error.code != WeightFileError.code


def test_a_file_of_torch_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(torch_writer.checkpoint())
    with pytest.raises(WeightFileError, match=r"it looks like a file of torch\.save: open it by minigrad\.io\.TorchZipFile"):
        load_file(tmp_path / "f")


def test_a_git_lfs_pointer_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(WeightFileError, match="it looks like a Git LFS pointer: run `git lfs pull`") as caught:
        SafetensorsFile(tmp_path / "f")
    assert caught.value.code == "header-too-large"
