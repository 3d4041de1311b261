"""Reading TensorFlow checkpoints without TensorFlow: the format in which BERT was first published.

`bert_model.ckpt.index` lists the tensors, data files such as `bert_model.ckpt.data-00000-of-00001` hold the numbers (the `.meta` file,
a graph, is not needed). The whole index is checked before any data is used (`_tf_index`), the data is read with `pread` into memory
that the caller owns, and each tensor's checksum is compared as it is read, whatever its size (`_crc32c`).

The data files' names follow from the index's name and their number; nothing in the files chooses a path.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import WeightFileError
from minigrad.files import as_path, quoted
from minigrad.io._crc32c import Crc32c
from minigrad.io._safetensors_header import STORED_DTYPES
from minigrad.io._tf_index import TensorEntry, check_layout, read_index
from minigrad.io._weight_bytes import OpenFile, check_target, convert, read_dtype
from minigrad.io.source import Described

_INDEX_SUFFIX = ".index"
_BLOCK_BYTES = 1 << 20  # memory that a converting read takes in addition to its result; a checksum finds a block still in the cache


class TensorFlowCheckpoint(Described[TensorEntry]):
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

    def close(self) -> None:
        """Closes the files; arrays already read stay valid."""
        for shard in self._shards:
            shard.close()

    def read_into(self, name: str, out: NDArray[Any]) -> None:
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


def _open_shard(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except WeightFileError as error:
        if error.code != "missing-file":
            raise
        message = "this data file of the checkpoint is missing; put it beside the index"
        raise WeightFileError(path, message, code="missing-shard") from error
