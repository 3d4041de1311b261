"""Batches of texts of about equal length: many texts through a model, and the shuffled batches of training.

Attention costs the square of a text's length, so batches are best bounded by tokens and not by texts, and sorted. The order is the
caller's affair again afterwards: every batch says which texts it holds.
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
"""Tokens of a batch unless the caller says otherwise: enough to keep the matrix products busy, little enough to stay in the cache."""


def batches_by_length(
    encodings: Sequence[Encoding], batch_tokens: int = BATCH_TOKENS, progress: bool = True
) -> Iterator[tuple[IntArray, PackedTokens]]:
    """(numbers of the texts, their tokens) of every batch, the longest texts first; nothing is padded.

    batch_tokens: the most tokens of a batch; a text that is longer makes a batch of its own. progress: show how far it is on standard
    error, as `progress_bar` does.
    Raises: ArgumentError for a batch_tokens that is no integer above 0.
    """
    most = check_count("batch_tokens", batch_tokens)
    lengths = np.array([len(encoding) for encoding in encodings], np.int64)
    order = longest_first(lengths)
    batches = [order[first:past] for first, past in cut_by_tokens(lengths[order], most)]
    return _packed(encodings, batches, progress)


def longest_first(lengths: IntArray) -> IntArray:
    """The places of `lengths` in falling order of them; of equals the first first."""
    return np.argsort(-lengths, kind="stable")


def cut_by_count(count: int, most: int) -> list[tuple[int, int]]:
    """(first, past the last) of runs of `most` out of `count` neighbours, the last run shorter."""
    return [(first, min(first + most, count)) for first in range(0, count, most)]


def cut_by_tokens(lengths: IntArray, most: int) -> list[tuple[int, int]]:
    """(first, past the last) of runs of neighbours that have at most `most` tokens together; a longer one stands alone."""
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
"""Batches' worth of shuffled sequences that are sorted together: the more, the more alike lengths within a batch."""


def shuffled_by_length(lengths: IntArray, cut: Callable[[IntArray], list[tuple[int, int]]], seed: int, epoch: int) -> list[IntArray]:
    """The sequences of each batch of an epoch, shuffled, with about equal lengths in each batch.

    A fair shuffle is cut into groups of up to 50 batches, at least four of them where there are as many batches; each group is
    sorted by length, equals in the shuffle's order, and cut into batches (`cut` says where, from the lengths in their order); the
    batches are then shuffled, the smaller last one too. Given the batches, every order of them is equally likely, so whatever its
    length a sequence is as likely to come first as last, and its expected place is the middle. What is not left to chance
    is the company: batches hold sequences of like lengths.
    Shapes: lengths (n,).
    """
    order = shuffled(len(lengths), seed, epoch)
    plain = cut(lengths[order])
    size = min(GROUP_BATCHES, max(len(plain) // 4, 1))
    borders = [*(first for first, _ in plain[::size]), len(order)]
    groups = [order[first:past] for first, past in pairwise(borders)]
    order = np.concatenate([group[longest_first(lengths[group])] for group in groups])
    batches = [order[first:past] for first, past in cut(lengths[order])]
    # Another seed: the random numbers that shuffled the sequences would tie the batches' order to what is in them.
    return [batches[i] for i in shuffled(len(batches), seed ^ 2**62, epoch)]


def _packed(encodings: Sequence[Encoding], batches: Sequence[IntArray], progress: bool) -> Iterator[tuple[IntArray, PackedTokens]]:
    with progress_bar(len(encodings), progress) as bar:
        for numbers in batches:
            chosen = [encodings[number] for number in numbers]
            yield numbers, PackedTokens.of([encoding.ids for encoding in chosen], [encoding.type_ids for encoding in chosen])
            bar.update(len(numbers))
