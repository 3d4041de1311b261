"""The arrays that kernels read of a packing, for captured steps whose batches have one size but different sequences.

A step captured in a CUDA graph finds them in arrays that are refilled before each replay. Its grids are sized for the most pieces of
sequences that a batch of this size can have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from minigrad.backend.transfers import note_bound
from minigrad.errors import DeviceError
from minigrad.kernels.cuda import attention, draws
from minigrad.kernels.cuda.attention import Work
from minigrad.kernels.cuda.sequences import count_ids
from minigrad.kernels.cuda.table import PIECE
from minigrad.packing import IntArray, PackedTokens, Packing

IDLE = {"queries": np.array([0, 0, 0, 1, 0, PIECE, 0, 0], np.int32), "keys": np.array([0, 1, 0, 0, 0, PIECE, 0, 0], np.int32)}
"""A piece that begins past the end of its sequence: its block reads only that row, and writes nothing."""


class Sequences(Protocol):
    """The sequences of a packing with no masked first row. Shapes: (n,) each."""

    @property
    def lengths(self) -> IntArray:
        """Rows of each sequence."""

    @property
    def numbers(self) -> IntArray:
        """Each sequence's number within the whole training step."""


def tokens_layout(tokens: PackedTokens) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every array that a model reads of tokens without masked first rows."""
    arrays = {name: (array.shape, array.dtype) for name, array in tokens.arrays().items()}
    return {**arrays, **packing_layout(tokens.packing.rows, len(tokens.packing))}


def placed_tokens(tokens: PackedTokens, arrays: Mapping[str, Any]) -> PackedTokens:
    """The tokens, with everything a model reads replaced by `arrays` on the GPU."""
    packing = PlacedPacking(tokens.packing, dict(arrays))
    return PackedTokens(arrays["input_ids"], packing, arrays["token_type_ids"], arrays["positions"])


def packing_layout(rows: int, sequences: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array that kernels read of a packing of this size, and of the packing of its first rows."""
    most = rows // PIECE + sequences
    found: dict[str, tuple[tuple[int, ...], str]] = {"first_rows": ((sequences,), "int64")}
    for name, places in (("all", rows), ("first", sequences)):
        found[f"{name}_places"] = (places, 2), "int32"
        found |= {f"{name}_{owner}": ((most, 8), "int32") for owner in IDLE}
    return found


def write_packing(sequences: Sequences, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write the arrays that kernels read, with the shapes of `packing_layout`.

    The values are those of `draws.host_places` and `attention.pieces`, followed by idle pieces. This runs before every replay, while the
    GPU waits, so it makes as few NumPy calls as possible.
    """
    lengths, numbers = sequences.lengths, sequences.numbers
    first_rows, places = out["first_rows"], out["all_places"]
    first_rows[0] = 0
    np.add.accumulate(lengths[:-1], out=first_rows[1:])
    pairs = np.empty((len(lengths), 2), np.int32)
    pairs[:, 0], pairs[:, 1] = numbers, first_rows
    places[...] = pairs.repeat(lengths, axis=0)
    np.subtract(np.arange(len(places), dtype=np.int32), places[:, 1], out=places[:, 1])
    out["first_places"][:, 0], out["first_places"][:, 1] = numbers, 0

    counts = (lengths + (PIECE - 1)) // PIECE
    ends = counts.cumsum()
    whole = np.zeros((len(lengths), 8), np.int32)  # one piece per sequence
    whole[:, 0], whole[:, 1], whole[:, 4] = first_rows, lengths, numbers
    first = whole.copy()
    first[:, 2], first[:, 3] = np.arange(len(lengths)), 1
    whole[:, 2:4] = whole[:, :2]
    start = PIECE * (np.arange(ends[-1]) - (ends - counts).repeat(counts))
    cut, first_cut = whole.repeat(counts, axis=0), first.repeat(counts, axis=0)
    cut[:, 5] = first_cut[:, 5] = start
    owned = np.minimum(cut[:, 1] - start, PIECE)
    by_product = owned * cut[:, 1]  # each sequence has as many keys as queries
    _write_pieces(cut, by_product, "queries", out["all_queries"])
    _write_pieces(cut, by_product, "keys", out["all_keys"])
    _write_pieces(first, lengths, "queries", out["first_queries"])
    _write_pieces(first_cut, owned, "keys", out["first_keys"])


def _write_pieces(table: np.ndarray[Any, Any], cost: IntArray, owner: str, out: np.ndarray[Any, Any]) -> None:
    """Most expensive first."""
    order = (-cost).argsort(kind="stable")
    table.take(order, axis=0, out=out[: len(table)], mode="clip")  # clip writes to `out` unbuffered, and no index is out of range
    out[len(table) :] = IDLE[owner]


class PlacedPacking(Packing):
    """A packing whose arrays, named as in `packing_layout`, are on the GPU.

    Its sequences have other lengths at the next replay, so reading the lengths on the host raises DeviceError (captured-lengths).
    """

    positions: Any
    """Each row's position in its sequence, on the GPU. Shapes: (rows,) int32."""

    def __init__(self, packing: Packing, arrays: dict[str, Any]) -> None:
        self._size, self._first_rows = (packing.rows, len(packing)), arrays["first_rows"]
        self.positions = arrays["all_places"][:, 1]
        super().__init__(packing.lengths, packing.numbers)
        for name, queries in (("all", self), ("first", self.first)):
            draws.register_places(queries, arrays[f"{name}_places"])
            attention.register_work(self, queries, Work(arrays[f"{name}_queries"], arrays[f"{name}_keys"]))
        del self.lengths, self.offsets

    def __getattr__(self, name: str) -> Any:
        if name in ("lengths", "offsets"):
            raise DeviceError(
                "a step captured in a CUDA graph reads the lengths of its sequences on the host, which are different in every replay",
                code="captured-lengths",
            )
        raise AttributeError(name)

    def __len__(self) -> int:
        return self._size[1]

    @property
    def rows(self) -> int:
        """The number of rows of all sequences."""
        return self._size[0]

    @property
    def first_rows(self) -> Any:
        """The row at which each sequence begins, on the GPU. Shapes: (n,)."""
        return self._first_rows

    def counted(self, ids: Any, skipped: int, start: int) -> Any:
        """As `Packing.counted`, for ids on the GPU."""
        found = count_ids(ids, self._first_rows, skipped, start)
        note_bound(found, self.positions, start + 1)
        return found
