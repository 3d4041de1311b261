"""The inputs of a captured step: everything that changes from one step to the next, as arrays that are written before each replay.

A batch is padded to its bucket's size with sequences whose labels are ignored. Items without a label add nothing to the loss, so the loss,
the gradient and the dropout of the real sequences do not change.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np

from minigrad.backend.graphs import Layout
from minigrad.data.loader import Batch
from minigrad.models.losses import IGNORED
from minigrad.workers.graphs.buckets import Bucket, padded_array, padded_tokens, write_padded, write_padded_array


def padded(batch: Batch, bucket: Bucket, ignored: float = IGNORED) -> Batch:
    """The batch, padded at its end to the bucket's size. ignored: the label of padding sequences; for NaN all labels become floats."""
    if batch.labels is not None and isnan(ignored) and batch.labels.dtype.kind != "f":
        batch = replace(batch, labels=batch.labels.astype(np.float32))
    missing, count = bucket.tokens - batch.tokens.packing.rows, bucket.sequences - len(batch.tokens.packing)
    if count == 0:
        return batch
    return replace(
        batch,
        tokens=padded_tokens(batch.tokens, bucket),
        labels=None if batch.labels is None else padded_array(batch.labels, count, ignored),
        token_labels=None if batch.token_labels is None else padded_array(batch.token_labels, missing, IGNORED),
        rows=padded_array(batch.rows, count, -1),
    )


def layout_of(whole: Batch | None, terms: int) -> Layout:
    """Shapes and dtypes of the arrays that `write` fills for a padded batch, or for None. terms: how many the objective has."""
    from minigrad.kernels.cuda.graph_inputs import tokens_layout

    factor: Layout = {"factor": ((), np.float32)}
    if whole is None:
        return factor
    labels = {name: (array.shape, array.dtype) for name, array in _labels(whole).items()}
    return {**tokens_layout(whole.tokens), **labels, **factor, "clock": ((), np.uint64), "counts": ((terms,), np.float32)}


def kind_of(batch: Batch) -> Hashable:
    """A key that is equal for batches with the same layout in the same bucket."""
    arrays = {**batch.tokens.arrays(), **_labels(batch)}
    return tuple([(name, array.shape[1:], array.dtype.char) for name, array in arrays.items()])


def write(
    batch: Batch | None,
    counts: Sequence[float],
    step: int,
    factor: float,
    out: Mapping[str, np.ndarray[Any, Any]],
    ignored: float = IGNORED,
) -> None:
    """Write the batch, padded to the size of the arrays (as `padded`); None at the end of a step in parts.

    counts: the divisors of the loss sums. step: the step number of the random stream. factor: the loss scale for the backward pass.
    """
    out["factor"][...] = factor
    if batch is not None:
        write_padded(batch.tokens, out)
        for name, array in _labels(batch).items():
            write_padded_array(array, ignored if name == "labels" else IGNORED, out[name])
        out["clock"][...], out["counts"][...] = step, counts


def placed(whole: Batch, arrays: Mapping[str, Any]) -> Batch:
    """The batch with its arrays on the GPU."""
    from minigrad.kernels.cuda.graph_inputs import placed_tokens

    return Batch(placed_tokens(whole.tokens, arrays), arrays.get("labels"), arrays.get("token_labels"), whole.rows)


def _labels(batch: Batch) -> dict[str, np.ndarray[Any, Any]]:
    known = {"labels": batch.labels, "token_labels": batch.token_labels}
    return {name: array for name, array in known.items() if array is not None}
