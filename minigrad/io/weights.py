"""One way to read weights, whatever format they were published in.

Every reader of `minigrad.io` is a `WeightSource`. A directory says by fixed file names which of them it needs: nothing is
guessed from a file's content, and where a file of the first name is broken the second is not tried.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minigrad.errors import WeightFileError
from minigrad.files import as_path
from minigrad.io.safetensors import SafetensorsFile
from minigrad.io.sharded import ShardedWeights
from minigrad.io.sharded_write import INDEX_NAME, WEIGHTS_NAME
from minigrad.io.tf_checkpoint import TensorFlowCheckpoint
from minigrad.io.torch_zip import TorchZipFile

logger = logging.getLogger("minigrad")


class WeightSource(Protocol):
    """Named tensors in one or more files, checked before any of them is read; use it in a `with` statement.

    Raises: WeightFileError with a stable `code` from every method, for a file that is broken, hostile or changed meanwhile.
    """

    @property
    def path(self) -> Path:
        """The file to name in messages."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def names(self) -> tuple[str, ...]:
        """The tensors' names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype that `read(name)` gives."""

    def read(self, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Tensor `name` as a fresh array of `dtype`, or of `self.dtype(name)`."""

    def read_into(self, name: str, out: NDArray[Any]) -> None:
        """Read tensor `name` into `out`, a writable C-contiguous array of the same shape, without a second copy of it."""

    def close(self) -> None:
        """Close the files; arrays already read stay valid."""


READERS: dict[str, Callable[[Path], WeightSource]] = {
    WEIGHTS_NAME: SafetensorsFile,
    INDEX_NAME: lambda path: ShardedWeights(path, SafetensorsFile),
    "pytorch_model.bin": TorchZipFile,
    "pytorch_model.bin.index.json": lambda path: ShardedWeights(path, TorchZipFile),
    "bert_model.ckpt.index": TensorFlowCheckpoint,
    "model.ckpt.index": TensorFlowCheckpoint,
}
"""The file names that are looked for, in this order, and what reads them."""


def open_weights(directory: str | os.PathLike[str]) -> WeightSource:
    """The weights of a checkpoint's directory: those of the first of `READERS` that is there. What else is there is logged.

    Raises: WeightFileError, with the code `missing-file` and the names that were looked for where none is there.
    """
    directory = as_path(directory)
    present = [name for name in READERS if os.path.lexists(directory / name)]  # a broken link is there, and to be reported
    if not present:
        raise WeightFileError(directory, f"holds no weights; looked for {', '.join(READERS)}", code="missing-file")
    if present[1:]:
        logger.info("%s: reading %s; %s left aside", directory, present[0], ", ".join(present[1:]))
    return READERS[present[0]](directory / present[0])
