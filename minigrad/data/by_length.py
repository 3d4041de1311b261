"""Many texts through a model: in packed batches of about equal work, each of texts of about equal length.

Attention costs the square of a text's length, so batches are bounded by tokens and not by texts, and sorted. The order is the
caller's affair again afterwards: every batch says which texts it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from minigrad.data.tokenization import Encoding
from minigrad.errors import ArgumentError, MissingExtraError
from minigrad.files import quoted
from minigrad.packing import MAX_NUMBER, IntArray, PackedTokens

BATCH_TOKENS = 4096
"""Tokens of a batch unless the caller says otherwise: enough to keep the matrix products busy, little enough to stay in the cache."""


def batches_by_length(
    encodings: Sequence[Encoding], batch_tokens: int = BATCH_TOKENS, progress: bool = True
) -> Iterator[tuple[IntArray, PackedTokens]]:
    """(numbers of the texts, their tokens) of every batch, the longest texts first; nothing is padded.

    batch_tokens: the most tokens of a batch; a text that is longer makes a batch of its own. progress: show how far it is, if standard
    error is a terminal and there is more than one batch.
    Raises: ArgumentError for a batch_tokens that is no integer above 0.
    """
    if not isinstance(batch_tokens, Integral) or isinstance(batch_tokens, bool) or batch_tokens < 1:
        raise ArgumentError(f"batch_tokens must be an integer of at least 1, got {quoted(batch_tokens)}")
    batches = _dealt([len(encoding) for encoding in encodings], int(batch_tokens))
    return _packed(encodings, batches, progress and len(batches) > 1)


def _dealt(lengths: Sequence[int], batch_tokens: int) -> list[IntArray]:
    order = np.argsort([-length for length in lengths], kind="stable")
    batches: list[IntArray] = []
    start = used = 0
    for place, text in enumerate(order):
        used += lengths[text]
        if place > start and (used > batch_tokens or place - start == MAX_NUMBER):
            batches.append(order[start:place])
            start, used = place, lengths[text]
    return [*batches, order[start:]] if len(order) else []


def _packed(encodings: Sequence[Encoding], batches: Sequence[IntArray], progress: bool) -> Iterator[tuple[IntArray, PackedTokens]]:
    with progress_bar(len(encodings), progress) as bar:
        for numbers in batches:
            chosen = [encodings[number] for number in numbers]
            yield numbers, PackedTokens.of([encoding.ids for encoding in chosen], [encoding.type_ids for encoding in chosen])
            bar.update(len(numbers))


def progress_bar(total: int | None, shown: bool) -> Any:
    """A bar for `total` texts (None: nobody knows how many) on standard error; silent without a terminal, or unless `shown`.

    Raises: MissingExtraError.
    """
    try:
        from tqdm import tqdm  # beside the tokenizers library, which needs it too
    except ImportError as error:
        raise MissingExtraError("bars of progress are drawn by tqdm, which cannot be imported: pip install tqdm") from error
    return tqdm(total=total, unit="text", disable=None if shown else True)
