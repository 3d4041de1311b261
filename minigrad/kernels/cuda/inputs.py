"""What kernels read of a packing, for batches of one size after another.

A step that is captured in a CUDA graph finds it in arrays that are filled anew. Its grids are those of the most pieces of sequences that a
batch of this size can have.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.errors import DeviceError
from minigrad.kernels.cuda import attention, draws
from minigrad.kernels.cuda.attention import Work, pieces
from minigrad.kernels.cuda.launch import PIECE
from minigrad.packing import IntArray, Packing

IDLE = {"queries": (0, 0, 0, 1, 0, PIECE, 0, 0), "keys": (0, 1, 0, 0, 0, PIECE, 0, 0)}
"""A piece that begins behind its sequence: its block reads nothing but that row, and writes nothing."""


def packing_arrays(packing: Packing) -> dict[str, np.ndarray[Any, Any]]:
    """All that kernels read of a packing and of its first rows. The shapes follow from its numbers of rows and sequences alone."""
    first, most = packing.first, packing.rows // PIECE + len(packing)
    found: dict[str, np.ndarray[Any, Any]] = {"first_rows": packing.first_rows}
    for name, queries in (("all", packing), ("first", first)):
        found[f"{name}_places"] = draws.host_places(queries)
        for owner in ("queries", "keys"):
            found[f"{name}_{owner}"] = _with_idle(pieces(packing, queries, owner), most, owner)
    return found


def _with_idle(table: IntArray, most: int, owner: str) -> IntArray:
    return np.concatenate([table, np.full((most - len(table), 8), IDLE[owner], table.dtype)])


class PlacedPacking(Packing):
    """A packing of which operations find `arrays`, named as those of `packing_arrays`, on the GPU.

    At the next replay its sequences have other lengths: nobody may read them on the host, and whoever does is told so.
    """

    def __init__(self, packing: Packing, arrays: dict[str, Any]) -> None:
        self._size, self._first_rows = (packing.rows, len(packing)), arrays["first_rows"]
        super().__init__(packing.lengths, packing.numbers)
        for name, queries in (("all", self), ("first", self.first)):
            draws.place(queries, arrays[f"{name}_places"])
            attention.place(self, queries, Work(arrays[f"{name}_queries"], arrays[f"{name}_keys"]))
        del self.lengths, self.offsets

    def __getattr__(self, name: str) -> Any:
        if name in ("lengths", "offsets"):
            raise DeviceError(
                "a step that is recorded for a CUDA graph asks on the host how long its sequences are, which is different in every replay",
                code="captured-lengths",
            )
        raise AttributeError(name)

    def __len__(self) -> int:
        return self._size[1]

    @property
    def rows(self) -> int:
        """Rows of all sequences together."""
        return self._size[0]

    @property
    def first_rows(self) -> Any:
        """The row at which each sequence begins, on the GPU. Shapes: (n,)."""
        return self._first_rows
