"""Reading TensorFlow checkpoints without TensorFlow: the form in which BERT was first published.

`bert_model.ckpt.index` says what there is, `bert_model.ckpt.data-00000-of-00001` and its like hold the numbers (the `.meta` file, a
graph, is not needed). The index is checked as a whole before a byte of data is used (`_tf_index`), the data is read with `pread` into
memory that the caller owns, and each tensor's checksum is compared as it is read, whatever its size (`_crc32c`).

The data files' names follow from the index's own name and their number; nothing that the files say chooses a path.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minigrad.errors import WeightFileError
from minigrad.files import as_path, quoted
from minigrad.io._crc32c import Crc32c
from minigrad.io._safetensors_header import STORED_DTYPES
from minigrad.io._tf_index import TensorEntry, check_layout, read_index
from minigrad.io._weight_bytes import OpenFile, check_target, convert, read_dtype

_INDEX_SUFFIX = ".index"
_BLOCK_BYTES = 1 << 20  # what a converting read holds besides its result, and the piece that a checksum takes while it is in the cache


class TensorFlowCheckpoint:
    """An open TensorFlow checkpoint whose index has been checked in full; use it in a `with` statement.

    path: the prefix (`.../bert_model.ckpt`) or the index file (`.../bert_model.ckpt.index`).

    Names are TensorFlow's, and so is the layout: a dense kernel is (inputs, outputs).
    Raises: WeightFileError, whose `code` names the rule that a file breaks. A data file that changes while it is open is reported by
    the next read as `file-changed`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        prefix = str(as_path(path)).removesuffix(_INDEX_SUFFIX)
        self.path = Path(prefix + _INDEX_SUFFIX)
        count, self._entries = read_index(self.path)
        self._shards: list[OpenFile] = []
        try:
            for number in range(count):
                self._shards.append(_open_shard(Path(f"{prefix}.data-{number:05d}-of-{count:05d}")))
            check_layout(self.path, self._entries, [shard.size for shard in self._shards])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; arrays already read stay valid."""
        for shard in self._shards:
            shard.close()

    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of their data."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype that `read(name)` gives: the stored one, but float32 for half and bfloat16 (every value of theirs is one of its)."""
        return read_dtype(self._entry(name).dtype)

    def read(self, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Tensor `name` as a fresh array of `dtype`, or of `self.dtype(name)`.

        Raises: as `read_into`.
        """
        out = np.empty(self.shape(name), self.dtype(name) if dtype is None else dtype)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        """Reads tensor `name` into `out`, a writable C-contiguous array of the same shape, without a second copy of it.

        Any float dtype is converted to any other; integers and booleans only where every value fits. A byte of a
        boolean other than 0 counts as True. After an error the content of `out` is undefined.

        Raises: ShapeError, ArgumentError or DTypeError when `out` does not fit the tensor; WeightFileError with the code
        `crc-mismatch`, `file-changed`, `missing-tensor`, `unreadable-file`, or `value-overflow` for a finite value beyond `out`'s dtype.
        """
        entry = self._entry(name)
        check_target(name, entry.shape, read_dtype(entry.dtype), out)
        stored = STORED_DTYPES[entry.dtype]
        as_stored = out.dtype == stored and entry.dtype not in ("BF16", "BOOL")
        flat, step = out.reshape(-1), _BLOCK_BYTES // stored.itemsize
        buffer = np.empty(0 if as_stored else min(step, flat.size), stored)
        shard, crc = self._shards[entry.shard], Crc32c()
        for start in range(0, flat.size, step):
            target = flat[start : start + step]
            block = target if as_stored else buffer[: target.size]
            content = block.view(np.uint8)
            shard.read_into(content.data, entry.begin + start * stored.itemsize)
            crc.update(content)
            if not as_stored:
                convert(shard.path, name, entry.dtype, block, target)
        shard.check_unchanged()
        if crc.masked() != entry.crc32c:
            message = f"the checksum of tensor {quoted(name)} is wrong: its bytes are not those that were saved; fetch the file again"
            raise WeightFileError(shard.path, message, code="crc-mismatch")

    def _entry(self, name: str) -> TensorEntry:
        entry = self._entries.get(name)
        if entry is None:
            message = f"there is no tensor {quoted(name)} among the {len(self._entries)} of this checkpoint; `names()` lists them"
            raise WeightFileError(self.path, message, code="missing-tensor")
        return entry


def _open_shard(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except WeightFileError as error:
        if error.code != "missing-file":
            raise
        message = "this data file of the checkpoint is missing; put it beside the index"
        raise WeightFileError(path, message, code="missing-shard") from error
