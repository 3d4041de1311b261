"""Batches by length hold every text once, nothing but its tokens, and no more tokens than asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import Encoding, batches_by_length
from minigrad.errors import ArgumentError


def encoding(length: int, number: int) -> Encoding:
    row = np.full(length, number)
    return Encoding(row, row % 2, np.zeros((length, 2), np.int64), row, row, truncated=False)


@given(lengths=st.lists(st.integers(1, 30), max_size=40), batch_tokens=st.integers(1, 100))
def test_every_text_comes_once_and_whole(lengths: list[int], batch_tokens: int) -> None:
    encodings = [encoding(length, number) for number, length in enumerate(lengths)]
    seen: list[int] = []
    sizes: list[int] = []
    for numbers, tokens in batches_by_length(encodings, batch_tokens):
        assert len(tokens.input_ids) <= batch_tokens or len(numbers) == 1
        for number, (first, last) in zip(numbers.tolist(), tokens.packing.spans, strict=True):
            assert tokens.input_ids[first:last].tolist() == [number] * lengths[number]
            assert tokens.token_type_ids[first:last].tolist() == [number % 2] * lengths[number]
            seen.append(number)
            sizes.append(lengths[number])
    assert sorted(seen) == list(range(len(lengths))) and sizes == sorted(lengths, reverse=True)


def test_batches_are_as_full_as_they_may_be() -> None:
    batches = list(batches_by_length([encoding(length, i) for i, length in enumerate([5, 1, 4, 2, 3])], 6))
    assert [numbers.tolist() for numbers, _ in batches] == [[0], [2], [4, 3, 1]]


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "many"])
def test_sizes_are_checked_at_once(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="batch_tokens must be an integer of at least 1"):
        batches_by_length([], wrong)  # type: ignore[arg-type]


def test_nothing_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(batches_by_length([encoding(3, i) for i in range(5)], 3))) == 5
    assert capsys.readouterr() == ("", "")
