"""What a captured step reads: all that changes from one step to the next, as arrays that are filled before each replay."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from minigrad.backend.graphs import Layout
from minigrad.data.loader import Batch
from minigrad.packing import PackedTokens


def layout_of(whole: Batch) -> Layout:
    """Shapes and dtypes of what `write` writes for a batch that is filled up."""
    from minigrad.kernels.cuda.inputs import packing_layout

    named = {name: (array.shape, array.dtype) for name, array in _arrays(whole).items()}
    packing = whole.tokens.packing
    return {**named, **packing_layout(packing.rows, len(packing)), "clock": ((), np.uint64), "factor": ((), np.float32)}


def kind_of(batch: Batch) -> Hashable:
    """Equal for batches that have the same layout in the same bucket."""
    return tuple([(name, array.shape[1:], array.dtype.char) for name, array in _arrays(batch).items()])


def write(whole: Batch, step: int, factor: float, out: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """whole: the batch, filled up. step: of the random numbers. factor: what the sum of the losses is multiplied by."""
    from minigrad.kernels.cuda.inputs import write_packing

    for name, array in _arrays(whole).items():
        out[name][...] = array
    write_packing(whole.tokens.packing, out)
    out["clock"][...], out["factor"][...] = step, factor


def placed(whole: Batch, arrays: Mapping[str, Any]) -> Batch:
    """The batch with its numbers on the GPU."""
    from minigrad.kernels.cuda.inputs import PlacedPacking

    packing = PlacedPacking(whole.tokens.packing, dict(arrays))
    tokens = PackedTokens(arrays["input_ids"], packing, arrays["token_type_ids"], arrays["positions"])
    return Batch(tokens, arrays.get("labels"), arrays.get("token_labels"), whole.rows)


def _arrays(batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    tokens = batch.tokens
    found = {"input_ids": tokens.input_ids, "token_type_ids": tokens.token_type_ids, "positions": tokens.positions}
    known = {"labels": batch.labels, "token_labels": batch.token_labels}
    return {**found, **{name: array for name, array in known.items() if array is not None}}
