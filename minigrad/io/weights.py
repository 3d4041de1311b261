"""Opening weights whatever their format.

Every reader of `minigrad.io` is a `WeightSource`. Fixed file names in the directory choose the reader: nothing is guessed from a
file's content, and if the first file is broken, the next one is not tried.
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
"""The file names that are looked for, in this order, and their readers."""


def open_weights(directory: str | os.PathLike[str]) -> WeightSource:
    """Open the weights in a checkpoint's directory: the first file of `READERS` that exists. Others that exist are logged.

    Raises: WeightFileError, with the code `missing-file` and the names that were looked for if none exists.
    """
    directory = as_path(directory)
    present = [name for name in READERS if os.path.lexists(directory / name)]  # a broken link exists, and is to be reported
    if not present:
        raise WeightFileError(directory, f"holds no weights; looked for {', '.join(READERS)}", code="missing-file")
    if present[1:]:
        logger.info("%s: reading %s; %s left aside", directory, present[0], ", ".join(present[1:]))
    return READERS[present[0]](directory / present[0])
