"""One way to read weights, whatever format they were published in.

Every reader of `minigrad.io` is a `WeightSource`. A directory says by fixed file names which of them it needs: nothing is
guessed from a file's content, and where a file of the first name is broken the second is not tried.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from minigrad.errors import WeightFileError
from minigrad.files import as_path
from minigrad.io.safetensors import SafetensorsFile
from minigrad.io.sharded import ShardedWeights
from minigrad.io.sharded_write import INDEX_NAME, WEIGHTS_NAME
from minigrad.io.source import WeightSource
from minigrad.io.tf_checkpoint import TensorFlowCheckpoint
from minigrad.io.torch_zip import TorchZipFile

logger = logging.getLogger("minigrad")


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
