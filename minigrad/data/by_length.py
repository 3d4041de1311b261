"""Batches of texts of similar length, for inference and for shuffled training.

Attention is quadratic in a text's length, so batches are best limited by tokens instead of texts, and sorted. Every batch says which texts
it holds, so that the caller can restore the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.data.checks import check_count
from minigrad.data.progress import progress_bar
from minigrad.data.tokenization import Encoding
from minigrad.packing import MAX_NUMBER, IntArray, PackedTokens

BATCH_TOKENS = 4096
"""Default tokens of a batch: enough to keep the matrix products busy, few enough to stay in the cache."""


def batches_by_length(
    encodings: Sequence[Encoding], batch_tokens: int = BATCH_TOKENS, progress: bool = True
) -> Iterator[tuple[IntArray, PackedTokens]]:
    """Yield (numbers of the texts, their tokens) for every batch, longest texts first; nothing is padded.

    batch_tokens: maximum tokens of a batch; a longer text gets a batch of its own. progress: show a `progress_bar` on standard error.
    Raises: ArgumentError for a batch_tokens that is not an integer above 0.
    """
    most = check_count("batch_tokens", batch_tokens)
    lengths = np.array([len(encoding) for encoding in encodings], np.int64)
    order = longest_first(lengths)
    batches = [order[first:past] for first, past in cut_by_tokens(lengths[order], most)]
    return _packed(encodings, batches, progress)


def longest_first(lengths: IntArray) -> IntArray:
    """The indices that sort `lengths` in descending order, stably."""
    return np.argsort(-lengths, kind="stable")


def cut_by_count(count: int, most: int) -> list[tuple[int, int]]:
    """(first, past the last) of consecutive runs of `most` out of `count` items, the last run shorter."""
    return [(first, min(first + most, count)) for first in range(0, count, most)]


def cut_by_tokens(lengths: IntArray, most: int) -> list[tuple[int, int]]:
    """(first, past the last) of consecutive runs of at most `most` tokens in total; a longer sequence is a run of its own."""
    ends = np.cumsum(lengths)
    runs = []
    first = used = 0
    while first < len(lengths):
        past = int(np.searchsorted(ends, min(used + most, int(ends[-1])), side="right"))
        past = min(max(past, first + 1), first + MAX_NUMBER)
        runs.append((first, past))
        first, used = past, int(ends[past - 1])
    return runs


GROUP_BATCHES = 50
"""Batches' worth of shuffled sequences that are sorted together: the more, the more similar the lengths within a batch."""


def shuffled_by_length(lengths: IntArray, cut: Callable[[IntArray], list[tuple[int, int]]], seed: int, epoch: int) -> list[IntArray]:
    """The sequences of each batch of an epoch, shuffled, with similar lengths within each batch.

    A fair shuffle is cut into groups of up to 50 batches (at least four groups, if there are that many batches). Each group is sorted by
    length, stably, and cut into batches by `cut`, which maps lengths to runs; then the batches are shuffled, including the smaller last
    one. Given the batches, every order of them is equally likely, so whatever its length, a sequence is as likely to come first as last,
    and its expected place is the middle. Only the composition of batches is not random: they hold sequences of similar length.
    Shapes: lengths (n,).
    """
    order = shuffled(len(lengths), seed, epoch)
    plain = cut(lengths[order])
    size = min(GROUP_BATCHES, max(len(plain) // 4, 1))
    borders = [*(first for first, _ in plain[::size]), len(order)]
    groups = [order[first:past] for first, past in pairwise(borders)]
    order = np.concatenate([group[longest_first(lengths[group])] for group in groups])
    batches = [order[first:past] for first, past in cut(lengths[order])]
    # Another seed: with the one that shuffled the sequences, the order of batches would depend on their contents.
    return [batches[i] for i in shuffled(len(batches), seed ^ 2**62, epoch)]


def _packed(encodings: Sequence[Encoding], batches: Sequence[IntArray], progress: bool) -> Iterator[tuple[IntArray, PackedTokens]]:
    with progress_bar(len(encodings), progress) as bar:
        for numbers in batches:
            chosen = [encodings[number] for number in numbers]
            yield numbers, PackedTokens.of([encoding.ids for encoding in chosen], [encoding.type_ids for encoding in chosen])
            bar.update(len(numbers))
