"""What kernels read of a packing, for batches of one size after another.

A step that is captured in a CUDA graph finds it in arrays that are filled anew. Its grids are those of the most pieces of sequences that a
batch of this size can have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.errors import DeviceError
from minigrad.kernels.cuda import attention, draws
from minigrad.kernels.cuda.attention import Work, pieces
from minigrad.kernels.cuda.launch import PIECE
from minigrad.packing import PackedTokens, Packing

IDLE = {"queries": (0, 0, 0, 1, 0, PIECE, 0, 0), "keys": (0, 1, 0, 0, 0, PIECE, 0, 0)}
"""A piece that begins behind its sequence: its block reads nothing but that row, and writes nothing."""


def tokens_layout(tokens: PackedTokens) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of all that a model reads of tokens, none of whose first rows is masked."""
    arrays = {name: (array.shape, array.dtype) for name, array in tokens.arrays().items()}
    return {**arrays, **packing_layout(tokens.packing.rows, len(tokens.packing))}


def write_tokens(tokens: PackedTokens, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write it into arrays of those shapes."""
    for name, array in tokens.arrays().items():
        out[name][...] = array
    write_packing(tokens.packing, out)


def placed_tokens(tokens: PackedTokens, arrays: Mapping[str, Any]) -> PackedTokens:
    """The tokens with all that a model reads in `arrays` on the GPU."""
    packing = PlacedPacking(tokens.packing, dict(arrays))
    return PackedTokens(arrays["input_ids"], packing, arrays["token_type_ids"], arrays["positions"])


def packing_layout(rows: int, sequences: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of all that kernels read of a packing of this size and of its first rows."""
    most = rows // PIECE + sequences
    found: dict[str, tuple[tuple[int, ...], str]] = {"first_rows": ((sequences,), "int64")}
    for name, places in (("all", rows), ("first", sequences)):
        found[f"{name}_places"] = (places, 2), "int32"
        found |= {f"{name}_{owner}": ((most, 8), "int32") for owner in IDLE}
    return found


def write_packing(packing: Packing, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write what kernels read of a packing, none of whose first rows is masked, into arrays of the shapes of `packing_layout`."""
    first = packing.first
    out["first_rows"][:] = packing.first_rows
    for name, queries in (("all", packing), ("first", first)):
        out[f"{name}_places"][:] = draws.host_places(queries)
    by_query = pieces(packing, packing, "queries")
    tables = {
        "all_queries": by_query,
        "all_keys": by_query,  # each sequence has as many keys as queries
        "first_queries": pieces(packing, first, "queries"),
        "first_keys": pieces(packing, first, "keys"),
    }
    for name, table in tables.items():
        out[name][: len(table)] = table
        out[name][len(table) :] = IDLE[name.partition("_")[2]]


class PlacedPacking(Packing):
    """A packing of which operations find `arrays`, named as those of `packing_layout`, on the GPU.

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
