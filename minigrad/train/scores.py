"""A model's scores for the sequences of a data set, in the data's order and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data.by_length import BATCH_TOKENS
from minigrad.data.loader import PackedLoader
from minigrad.data.progress import progress_bar
from minigrad.errors import NonFiniteError
from minigrad.packing import PackedTokens

Numbers = NDArray[np.floating[Any]]


def scores_of(
    function: Callable[[PackedTokens], Numbers], loader: PackedLoader, of_sequences: bool = True, progress: bool = False
) -> Iterator[Numbers]:
    """The function's result for each sequence. Shapes: per sequence (labels,), of a head on tokens (tokens, labels).

    of_sequences: the head scores sequences, not tokens. progress: show progress on standard error, as `progress_bar` does.
    Raises: NonFiniteError for scores that are not finite: no metric or prediction should be made of them.
    """
    lengths = np.cumsum([len(sequence) for sequence in loader.sequences])
    start = 0
    with progress_bar(len(lengths), progress) as bar:
        while start < len(lengths):  # as many sequences as fill a batch, at least one
            before = 0 if start == 0 else lengths[start - 1]
            stop = max(start + 1, int(np.searchsorted(lengths, before + BATCH_TOKENS, side="right")))
            tokens = loader.batch(np.arange(start, stop)).tokens
            rows = function(tokens).astype(np.float64)
            if not np.isfinite(rows).all():
                raise NonFiniteError("the model's scores are not finite: its weights are broken, or have grown too far in training")
            yield from rows if of_sequences else (rows[first:past] for first, past in tokens.packing.spans)
            bar.update(stop - start)
            start = stop


def log_softmax(scores: Numbers) -> Numbers:
    """The logarithm of the softmax. Shapes: (*b, labels) → (*b, labels)."""
    if not scores.size:
        return scores
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
