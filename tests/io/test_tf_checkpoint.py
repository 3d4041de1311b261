"""TensorFlow checkpoints: what was saved is read to the bit, and what is broken or hostile is refused by its code."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_tf import DATA, HOSTILE, index_of, one
from hypothesis import given
from hypothesis import strategies as st
from tf_writer import BFLOAT16, NUMBERS, crc32c, entry, header, masked, save, table_of, write

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError, WeightFileError
from minigrad.io import TensorFlowCheckpoint
from minigrad.io._crc32c import _SHORT, _SPARSE, Crc32c
from minigrad.io._tf_index import DTYPES, MAX_INDEX_BYTES, MAX_TENSORS

Arrays = dict[str, np.ndarray[Any, Any]]


def load(path: Path) -> Arrays:
    with TensorFlowCheckpoint(path) as file:
        return {name: file.read(name) for name in file.names()}


def refusal(path: Path) -> str:
    """The code with which a checkpoint is refused, quickly, in little memory and in few words."""
    start = time.process_time()
    with pytest.raises(WeightFileError) as caught:
        load(path)
    assert time.process_time() - start < 1.0, "a refusal takes less than a second"
    tracemalloc.start()  # in a second run, because it slows everything several times over
    try:
        with pytest.raises(WeightFileError):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20, "a refusal takes little memory"
    finally:
        tracemalloc.stop()
    assert str(path.parent) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400, "a message repeats little of what the file says"
    return caught.value.code


# ---- the checksum


@pytest.mark.parametrize(
    ("message", "crc"),
    [  # the check value of the CRC catalogue, and RFC 3720, B.4
        (b"123456789", 0xE3069283),
        (b"", 0),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_checksums(message: bytes, crc: int) -> None:
    found = Crc32c()
    found.update(np.frombuffer(message, np.uint8))
    assert found.value() == crc == crc32c(message)


@pytest.mark.parametrize("rule", [_SPARSE, _SHORT])
def test_the_rules_of_folding(rule: tuple[int, ...]) -> None:
    """x to the first power leaves the remainder of the sum of the others: together they leave none."""
    remainder, remainders = 1, []
    for _ in range(rule[0] + 1):
        remainders.append(remainder)
        remainder = (remainder << 1) ^ (0x11EDC6F41 if remainder >> 31 else 0)
    assert np.bitwise_xor.reduce([remainders[power] for power in rule]) == 0


# Around 563 and 5685 bytes and 5685 words (less the four bytes that stand for the start) the folds begin; 2^18 is the length of a piece.
@pytest.mark.parametrize(
    "size", [1, 3, 4, 7, 8, 558, 559, 560, 1015, 5680, 5681, 5682, 10004, 45475, 45476, 45477, 45484, 80064, 262143, 262144, 262153, 700001]
)
def test_checksum_in_pieces(size: int) -> None:
    rng = np.random.default_rng(size)
    message = rng.integers(0, 256, size, dtype=np.uint8)
    cuts = np.sort(rng.integers(0, size + 1, 5))
    found = Crc32c()
    for piece in np.split(message, cuts):
        found.update(piece)
    assert found.value() == crc32c(message.tobytes())
    assert found.value() == found.value(), "asking changes nothing"


# ---- valid checkpoints


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3), (2, 1, 3, 2)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2 * 3).astype(dtype).reshape(shape)
    with TensorFlowCheckpoint(save(tmp_path / "c", {"x/y": array})) as file:
        assert file.names() == ("x/y",)
        assert file.shape("x/y") == shape
        assert file.dtype("x/y") == (np.float32 if dtype == "f2" else np.dtype(dtype))
        found = file.read("x/y", dtype)
        natural = file.read("x/y")
    assert found.dtype == dtype and found.shape == shape and found.flags.writeable
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(natural, array)
    assert natural.dtype == (np.float32 if dtype == "f2" else np.dtype(dtype))


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    with TensorFlowCheckpoint(save(tmp_path / "c", {"bf16": bits})) as file:
        assert file.dtype("bf16") == np.float32
        np.testing.assert_array_equal(file.read("bf16").view(np.uint32), bits.astype(np.uint32) << 16)
        finite = np.isfinite(file.read("bf16"))
        np.testing.assert_array_equal(file.read("bf16", np.float64)[finite], file.read("bf16")[finite])


def test_large_tensors_are_read_in_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"bf16": rng.integers(0, 2**14, 600_000, dtype=np.uint16), "f": rng.standard_normal(300_007, np.float32)}
    with TensorFlowCheckpoint(save(tmp_path / "c", arrays)) as file:
        np.testing.assert_array_equal(file.read("bf16").view(np.uint32), arrays["bf16"].astype(np.uint32) << 16)
        np.testing.assert_array_equal(file.read("f"), arrays["f"])
        np.testing.assert_array_equal(file.read("f", np.float64), arrays["f"])


@pytest.mark.parametrize("interval", [1, 3, 16])
@pytest.mark.parametrize("per_block", [1, 4, 1000])
@pytest.mark.parametrize(("shards", "alignment"), [(1, 1), (3, 1), (2, 64)])
def test_blocks_restarts_shards_and_alignment(tmp_path: Path, interval: int, per_block: int, shards: int, alignment: int) -> None:
    arrays = {f"bert/layer_{at}/{kind}": np.full((at, 2), at, np.float32) for at in range(9) for kind in ("kernel", "kernel/adam_m")}
    prefix = save(tmp_path / "c", arrays, shards=shards, alignment=alignment, per_block=per_block, interval=interval)
    found = load(prefix)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name.isprintable() and not name.startswith("bf16")), st.integers(0, 5)
    )
)
def test_any_names_come_back(tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int]) -> None:
    arrays = {name: np.arange(size, dtype=np.int16) for name, size in sizes.items()}
    found = load(save(tmp_path_factory.getbasetemp() / "any", arrays, per_block=2))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_prefix_and_index_are_two_names_of_one_checkpoint(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt-100", {"a": np.ones(2, np.float32)})
    for path in (prefix, str(prefix), Path(f"{prefix}.index")):
        with TensorFlowCheckpoint(path) as file:
            assert file.path == Path(f"{prefix}.index") and file.names() == ("a",)


def test_names_come_in_the_order_of_their_data(tmp_path: Path) -> None:
    rows = [(b"a", entry(offset=8, crc=masked(DATA))), (b"b", entry(shard=1, crc=masked(DATA))), (b"c", entry(crc=masked(DATA)))]
    with TensorFlowCheckpoint(write(tmp_path / "c", table_of([(b"", header(2)), *rows]), DATA * 2, DATA)) as file:
        assert file.names() == ("c", "a", "b")


def test_a_name_is_never_a_path(tmp_path: Path) -> None:
    """Names that would climb out of a directory are names like any other: files are found by the index's own name and by number."""
    arrays = {"../../etc/passwd": np.ones(2, np.float32), "/etc/passwd": np.zeros(2, np.float32)}
    assert load(save(tmp_path / "c", arrays)).keys() == arrays.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.data-00000-of-00001", "c.index"]


def test_the_published_tiny_checkpoint(shared_data: Path) -> None:
    """BERT's own pretraining wrote it, with its optimizer's moments: 46 variables three times, and the step."""
    folder = shared_data / "ckpt_tf_tiny"
    with TensorFlowCheckpoint(folder / "bert_model.ckpt") as file:
        arrays = {name: file.read(name) for name in file.names()}
    model = {name: array for name, array in arrays.items() if not name.endswith(("adam_m", "adam_v", "global_step"))}
    assert len(arrays) == 139 and len(model) == 46
    assert all(arrays[f"{name}/{moment}"].shape == array.shape for name, array in model.items() for moment in ("adam_m", "adam_v"))
    assert sum(array.nbytes for array in arrays.values()) == (folder / "bert_model.ckpt.data-00000-of-00001").stat().st_size
    assert arrays["global_step"] == 20 and arrays["global_step"].dtype == np.int64
    assert model["bert/embeddings/word_embeddings"].shape == (15, 4)
    assert model["bert/encoder/layer_1/intermediate/dense/kernel"].shape == (4, 16)
    for name, array in model.items():
        assert array.dtype == np.float32
        if name.endswith("gamma"):  # 20 steps after their start at 1, 0, and a normal of deviation 0.02 cut at 0.04
            np.testing.assert_allclose(array, 1, atol=1e-3)
        elif name.endswith(("beta", "bias")):
            np.testing.assert_allclose(array, 0, atol=1e-3)
        else:
            assert np.abs(array).max() < 0.041 and 0.01 < array.std() < 0.03, name
        assert (arrays[f"{name}/adam_v"] >= 0).all() and arrays[f"{name}/adam_v"].any()


# ---- reading into arrays


def test_any_float_dtype_is_read_as_any_other(tmp_path: Path) -> None:
    values = np.array([0.5, -2.0, 1e6, np.nan, np.inf], np.float32)
    with TensorFlowCheckpoint(save(tmp_path / "c", {"x": values, "n": np.arange(3, dtype=np.int16), "t": np.array([True, False])})) as file:
        np.testing.assert_array_equal(file.read("x", np.float64), values)
        np.testing.assert_array_equal(file.read("n", np.int64), [0, 1, 2])
        np.testing.assert_array_equal(file.read("t", np.int8), [1, 0])
        for name, dtype in (("n", np.int8), ("n", np.uint16), ("x", np.int64), ("x", np.complex64), ("n", object)):
            with pytest.raises(DTypeError):
                file.read(name, dtype)
        with pytest.raises(WeightFileError) as caught:
            file.read("x", np.float16)
    assert caught.value.code == "value-overflow"


def test_bytes_of_a_boolean(tmp_path: Path) -> None:
    data = bytes([0, 1, 2, 255])
    with TensorFlowCheckpoint(write(tmp_path / "c", one(entry((4,), dtype=10, size=4, crc=masked(data))), data)) as file:
        found = file.read("a")
        assert found.dtype == bool and found.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_targets_that_do_not_fit(tmp_path: Path) -> None:
    with TensorFlowCheckpoint(save(tmp_path / "c", {"x": np.ones((2, 3), np.float32)})) as file:
        out = np.empty((2, 3), np.float32)
        file.read_into("x", out)
        assert (out == 1).all()
        with pytest.raises(ShapeError):
            file.read_into("x", np.empty((3, 2), np.float32))
        with pytest.raises(ArgumentError):
            file.read_into("x", np.empty((3, 2), np.float32).T)
        out.flags.writeable = False
        with pytest.raises(ArgumentError):
            file.read_into("x", out)
        with pytest.raises(WeightFileError) as caught:
            file.read("y")
        assert caught.value.code == "missing-tensor"
    with pytest.raises(ArgumentError) as closed:
        file.read("x")
    assert closed.value.code == "file-closed"


@pytest.mark.parametrize("size", [0, 4, 16])
def test_a_data_file_that_changes_while_it_is_open(tmp_path: Path, size: int) -> None:
    prefix = save(tmp_path / "c", {"x": np.ones(2, np.float32)})
    with TensorFlowCheckpoint(prefix) as file:
        os.truncate(f"{prefix}.data-00000-of-00001", size)
        with pytest.raises(WeightFileError) as caught:
            file.read("x")
    assert caught.value.code == "file-changed"


# ---- the hostile corpus


@pytest.mark.parametrize("row", HOSTILE)
def test_hostile_checkpoint_is_refused_by_its_code(tmp_path: Path, row: str) -> None:
    code, index, shards = HOSTILE[row]
    prefix = write(tmp_path / "c", index(), *shards)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert refusal(prefix) == code
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "nothing is written"


def test_the_parts_of_the_corpus_are_valid_themselves(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load(write(tmp_path / "c", one(), DATA))["a"], [0, 1])


@pytest.mark.parametrize("which", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "missing", "loop"])
def test_what_is_no_regular_file(tmp_path: Path, which: str, kind: str) -> None:
    prefix = save(tmp_path / "c", {"x": np.ones(2, np.float32)})
    path = Path(f"{prefix}.{which}")
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    missing = "missing-file" if which == "index" else "missing-shard"
    assert refusal(prefix) == {"missing": missing, "loop": "unreadable-file"}.get(kind, "not-a-regular-file")


def test_one_of_several_data_files_is_missing(tmp_path: Path) -> None:
    prefix = save(tmp_path / "c", {"x": np.ones(2, np.float32), "y": np.ones(2, np.float32)}, shards=2)
    Path(f"{prefix}.data-00001-of-00002").unlink()
    assert refusal(prefix) == "missing-shard"


def test_data_files_of_two_checkpoints_are_told_apart(tmp_path: Path) -> None:
    prefix = save(tmp_path / "c", {"x": np.zeros(2, np.float32)})
    other = save(tmp_path / "d", {"x": np.ones(2, np.float32)})
    os.replace(f"{other}.data-00000-of-00001", f"{prefix}.data-00000-of-00001")
    assert refusal(prefix) == "crc-mismatch"


def test_an_index_larger_than_any(tmp_path: Path) -> None:
    prefix = write(tmp_path / "c", b"", DATA)
    os.truncate(f"{prefix}.index", MAX_INDEX_BYTES + 1)
    assert refusal(prefix) == "index-limit"
    os.truncate(f"{prefix}.index", 2**40)
    assert refusal(prefix) == "index-limit"


@pytest.mark.parametrize(
    ("name", "value", "per_block"),
    [
        ("{:05}", b"", 1000),  # many tensors, all empty
        ("x" * 300 + "{:05}", b"", 4000),  # keys that cost nothing to repeat
        ("{:05}", b"\x08\x01\x12\x20" + b"\x12\x00" * 16, 2000),  # as many dimensions as are allowed
        ("{:05}", b"", 1),  # many blocks
    ],
    ids=["many", "long names", "many dimensions", "many blocks"],
)
def test_more_tensors_than_any_model_has(tmp_path: Path, name: str, value: bytes, per_block: int) -> None:
    count = MAX_TENSORS + 1 if per_block > 1 else MAX_TENSORS - 1
    empty = entry((0,), size=0, crc=masked(b""))
    rows = [(b"", header()), *((name.format(at).encode(), value or empty) for at in range(count))]
    if per_block == 1:
        rows.append((b"\xff", empty))
    assert refusal(write(tmp_path / "c", table_of(rows, per_block), b"")) == ("index-limit" if per_block > 1 else "bad-name")


VALID = {"bert/a": np.arange(3, dtype=np.float32), "bert/b": np.arange(4, dtype=np.int64).reshape(2, 2), "c": np.array([True, False])}


def test_every_truncation_and_every_flipped_byte_of_an_index(tmp_path: Path) -> None:
    prefix = save(tmp_path / "c", {"a": np.ones(2, np.float32)})
    path = Path(f"{prefix}.index")
    content = path.read_bytes()
    damaged = [content[:at] for at in range(len(content))]
    damaged += [content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] for at in range(len(content))]
    for other in damaged:
        path.write_bytes(other)
        with pytest.raises(WeightFileError):
            load(prefix)


@given(st.data())
def test_a_damaged_checkpoint_reads_the_same_or_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    prefix = save(tmp_path_factory.getbasetemp() / "damaged_tf", VALID, shards=2, alignment=16, per_block=2)
    files = sorted(prefix.parent.glob("damaged_tf.*"))
    assert len(files) == 3
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load(prefix)
    except WeightFileError:
        return
    assert found.keys() == VALID.keys()
    for name, array in VALID.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@given(st.binary(max_size=200))
def test_noise_that_passes_the_checksums_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    """The rules behind the checksums hold by themselves: noise as an entry, and as a whole block with its trailer."""
    prefix = tmp_path_factory.getbasetemp() / "noise"
    for index in (one(noise), one(head=noise), index_of(noise)):
        with pytest.raises(MinigradError) as caught:
            load(write(prefix, index, DATA))
        assert isinstance(caught.value, WeightFileError)


def test_dtype_numbers_are_all_tried() -> None:
    assert set(DTYPES) == {*NUMBERS.values(), BFLOAT16}
