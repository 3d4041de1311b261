"""Reading and writing weight files, and finding a checkpoint's directory."""

from __future__ import annotations

from minigrad.io.hub import find_checkpoint
from minigrad.io.safetensors import SafetensorsFile, load_file
from minigrad.io.safetensors_write import save_file
from minigrad.io.sharded import ShardedWeights
from minigrad.io.sharded_write import save_weights
from minigrad.io.source import WeightSource
from minigrad.io.tf_checkpoint import TensorFlowCheckpoint
from minigrad.io.torch_zip import TorchZipFile
from minigrad.io.weights import open_weights

__all__ = [
    "SafetensorsFile",
    "ShardedWeights",
    "TensorFlowCheckpoint",
    "TorchZipFile",
    "WeightSource",
    "find_checkpoint",
    "load_file",
    "open_weights",
    "save_file",
    "save_weights",
]
