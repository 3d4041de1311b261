"""Writing safetensors files: the bytes that the reference writer would write, complete or not at all.

A header must pass the reader's own rules before it is written (`_safetensors_header`). Float arrays may be stored in half precision;
they are converted block by block, so that saving a model takes no second copy of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, DTypeError, WeightFileError
from minigrad.files import as_path, quoted, replacing
from minigrad.io._safetensors_header import LENGTH_BYTES, METADATA_KEY, STORED_DTYPES, metadata_problem, name_problem, parse_header

HALVES = {"float16": "F16", "bfloat16": "BF16"}
"""The dtypes that floats may be rounded to on writing, and the format's names for them."""

_BLOCK_ELEMENTS = 1 << 18
_FILE_ORDER = {dtype: rank for rank, dtype in enumerate(STORED_DTYPES)}
_STORED_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items() if name != "BF16"}


class Writable(Protocol):
    """A target of bytes: a file, or a file with a digest."""

    def write(self, data: Any, /) -> Any:
        """Take the bytes of `data`."""


def save_file(
    arrays: Mapping[str, NDArray[Any]], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None, dtype: str | None = None
) -> None:
    """Writes `arrays` as a safetensors file that is complete or absent: an older file at `path` stays until the new one is on disk.

    The bytes depend on the contents only, and equal those of the reference writer (with one metadata entry at most:
    the reference does not fix their order). `dtype`: "float16" or "bfloat16" to round all float arrays to it (nearest,
    ties to even; for bfloat16 float64 is first rounded to float32, as in PyTorch).

    Raises: ArgumentError for names, metadata or a dtype that the format cannot hold, and with the code `value-overflow`
    for a finite number beyond the range of `dtype`; DTypeError for anything but an array of a storable dtype;
    WeightFileError with the code `write-failed`.
    """
    path = as_path(path)
    try:
        with replacing(path) as file:
            write_tensors(file, path, arrays, metadata or {}, dtype)
    except OSError as error:
        raise WeightFileError(path, f"cannot be written: {error.strerror or error}", code="write-failed") from error


def write_tensors(file: Writable, path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], dtype: str | None) -> None:
    """Write to `file`, which will be renamed to `path`. Raises: as `save_file`, but a plain OSError."""
    stored = stored_names(arrays, dtype)
    names = sorted(arrays, key=lambda name: (-_FILE_ORDER[stored[name]], name))
    header, data_bytes = _make_header([(name, stored[name], arrays[name]) for name in names], metadata)
    parse_header(path, header, data_bytes)
    file.write(len(header).to_bytes(LENGTH_BYTES, "little"))
    file.write(header)
    for name in names:
        _write_array(file, name, arrays[name], stored[name])


def stored_names(arrays: Mapping[str, NDArray[Any]], dtype: str | None) -> dict[str, str]:
    """The format's names for the dtypes in which arrays are stored. Raises: ArgumentError or DTypeError for what cannot be stored."""
    if dtype is not None and (not isinstance(dtype, str) or dtype not in HALVES):
        raise ArgumentError(f"dtype is None (keep each array's own) or one of {', '.join(map(repr, HALVES))}, got {quoted(dtype)}")
    if not isinstance(arrays, Mapping):
        raise DTypeError(f"a dict of arrays by name is saved, such as model.state_dict(); got {type(arrays).__name__}")
    return {name: _stored_name(name, array, dtype) for name, array in arrays.items()}


def _write_array(file: Writable, name: str, array: NDArray[Any], stored: str) -> None:
    flat = np.ascontiguousarray(array).reshape(-1)
    target = STORED_DTYPES[stored]
    if flat.dtype == target:
        file.write(flat.view(np.uint8).data)
        return
    for start in range(0, flat.size, _BLOCK_ELEMENTS):
        block = flat[start : start + _BLOCK_ELEMENTS]
        try:
            with np.errstate(over="raise", invalid="ignore"):  # invalid: a signalling NaN becomes a quiet one
                converted = bfloat16_bits(block) if stored == "BF16" else block.astype(target)
        except FloatingPointError:
            raise ArgumentError(
                f"{quoted(name)} holds numbers beyond the range of {stored}; store it in a wider dtype", code="value-overflow"
            ) from None
        file.write(converted.view(np.uint8).data)


def bfloat16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The upper halves of `values` as float32, rounded to nearest, ties to even. Shapes: (n,) → (n,).

    Raises: FloatingPointError (inside `np.errstate(over="raise")`) for a finite value that would become infinite.
    """
    bits = values.astype("<f4").view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    magnitude = bits & 0x7FFFFFFF
    if ((magnitude < 0x7F800000) & (rounded & 0x7FFF == 0x7F80)).any():
        raise FloatingPointError
    return np.where(magnitude > 0x7F800000, bits >> 16 | 0x40, rounded).astype("<u2")  # a NaN stays a NaN, whatever its lower half


def _make_header(tensors: list[tuple[str, str, NDArray[Any]]], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """The header, padded so that the data starts at a multiple of 8, and the size of the data."""
    if problem := metadata_problem(metadata):
        raise ArgumentError(problem, code="bad-metadata")
    header: dict[str, Any] = {METADATA_KEY: dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, array in tensors:
        end = at + array.size * STORED_DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (at, end)}
        at = end
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return encoded.ljust(-(-len(encoded) // 8) * 8), at


def _stored_name(name: str, array: NDArray[Any], dtype: str | None) -> str:
    """The format's name for the dtype in which `array` is stored, after checking its name and dtype."""
    if not isinstance(name, str):
        raise ArgumentError(f"the name {quoted(name)} of an array is not a string", code="bad-name")
    if name == METADATA_KEY or (problem := name_problem(name)):
        raise ArgumentError(f"the name {quoted(name)} of an array {'is reserved' if name == METADATA_KEY else problem}", code="bad-name")
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{quoted(name)} is a {type(array).__name__}; safetensors files hold NumPy arrays")
    stored = _STORED_NAMES.get(array.dtype.newbyteorder("<"))
    if stored is None:
        raise DTypeError(f"{quoted(name)} has dtype {array.dtype}; a safetensors file can hold {', '.join(map(str, _STORED_NAMES))}")
    return HALVES[dtype] if dtype is not None and array.dtype.kind == "f" else stored
