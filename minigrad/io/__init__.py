"""Everything that crosses the disk: weight files in and out, and where a checkpoint's directory is."""

from __future__ import annotations

from minigrad.io.hub import find_checkpoint
from minigrad.io.safetensors import SafetensorsFile, load_file, save_file

__all__ = ["SafetensorsFile", "find_checkpoint", "load_file", "save_file"]
