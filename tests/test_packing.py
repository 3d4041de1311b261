"""Packed batches: lengths, spans and positions, and `pack` for every pattern of the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import packings

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.packing import MAX_NUMBER, PackedTokens, Packing, pack


# ---------------------------------------------------------------- Packing
def test_a_small_packing() -> None:
    packing = Packing([2, 1, 3])
    assert len(packing) == 3 and packing.rows == 6
    assert packing.offsets.tolist() == [0, 2, 3, 6] and packing.spans == packing.key_spans == [(0, 2), (2, 3), (3, 6)]
    assert packing.positions.tolist() == [0, 1, 0, 0, 1, 2] and packing.numbers.tolist() == [0, 1, 2]
    assert packing.first_rows.tolist() == [0, 2, 3]
    assert repr(packing) == "Packing(3 sequences, 6 rows, longest 3)"


def test_ids_are_counted_sequence_by_sequence() -> None:
    packing, ids = Packing([4, 1, 3]), np.array([5, 1, 1, 7, 1, 1, 8, 5])
    assert packing.counted(ids, 1, 1).tolist() == [2, 1, 1, 3, 1, 1, 2, 3]
    assert packing.counted(ids, 9, 0).tolist() == [1, 2, 3, 4, 1, 1, 2, 3]


@given(packings(max_sequences=5))
def test_spans_cover_every_row_once(packing: Packing) -> None:
    rows = [row for a, b in packing.spans for row in range(a, b)]
    assert rows == list(range(packing.rows))
    assert packing.positions.tolist() == [row for n in packing.lengths for row in range(n)]
    first = packing.first
    assert first.rows == len(first) == len(packing) and first.numbers.tolist() == packing.numbers.tolist()
    assert first.masked_first is None
    for i, ((a, b), (c, d)) in enumerate(zip(packing.spans, packing.key_spans, strict=True)):
        assert d == b and c - a == int(packing.masked_first is not None and packing.masked_first[i])


def test_no_masked_first_token_is_the_same_as_none() -> None:
    assert Packing([2], masked_first=[False]).masked_first is None
    assert Packing([2], masked_first=[True]).masked_first == (True,)


@pytest.mark.parametrize("lengths", [[], [0], [2, -1], [[1, 2]], 3], ids=repr)
def test_lengths_that_are_none(lengths: Any) -> None:
    with pytest.raises(ShapeError, match=r"at least one sequence"):
        Packing(lengths)


def test_numbers_must_be_as_many_as_lengths() -> None:
    with pytest.raises(ShapeError, match=r"2 lengths but 1 sequence numbers"):
        Packing([1, 2], [0])


# ---------------------------------------------------------------- PackedTokens
def test_tokens_of_lists() -> None:
    tokens = PackedTokens.of([[5, 6], np.array([7])], [[0, 1], [1]], numbers=[4, 2])
    assert tokens.input_ids.tolist() == [5, 6, 7] and tokens.token_type_ids.tolist() == [0, 1, 1]
    assert tokens.positions.tolist() == [0, 1, 0] and tokens.packing.numbers.tolist() == [4, 2]
    assert tokens.input_ids.dtype == tokens.token_type_ids.dtype == np.int64
    assert PackedTokens.of([[5, 6]]).token_type_ids.tolist() == [0, 0]
    with pytest.raises(ArgumentError, match=r"never|no padded shape"):
        tokens.padded_rows()


@pytest.mark.parametrize(
    ("sequences", "types"),
    [([], None), ([[]], None), ([[1], []], None), ([[[1, 2]]], None), ([[1, 2]], [[0]]), ([[1], [2]], [[0]])],
    ids=repr,
)
def test_sequences_that_do_not_fit(sequences: Any, types: Any) -> None:
    with pytest.raises(ShapeError):
        PackedTokens.of(sequences, types)


def test_ids_must_be_integers() -> None:
    for make in (lambda: PackedTokens.of([[1.5, 2.0]]), lambda: pack(np.ones((1, 2))), lambda: pack([["a", "b"]])):
        with pytest.raises(MinigradError) as error:
            make()
        assert isinstance(error.value, DTypeError) or error.value.code == "dtype"


# ---------------------------------------------------------------- pack
@st.composite
def masks(draw: Any) -> np.ndarray:
    """Any pattern with at least one real token in each row."""
    batch, longest = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    mask = draw(hnp.arrays(np.bool_, (batch, longest)))
    for row in mask:
        row[draw(st.integers(0, longest - 1))] = True
    return mask


@given(masks(), st.sampled_from([np.int64, np.int32, np.bool_, np.float32]))
def test_pack_with_any_mask(mask: np.ndarray, dtype: Any) -> None:
    ids = np.arange(mask.size).reshape(mask.shape) + 100
    types = ids % 2
    tokens = pack(ids, mask.astype(dtype), types)
    expected = [[c for c in range(mask.shape[1]) if mask[r, c] or c == 0] for r in range(len(mask))]
    assert tokens.packing.lengths.tolist() == [len(row) for row in expected]
    assert tokens.input_ids.tolist() == [int(ids[r, c]) for r, row in enumerate(expected) for c in row]
    assert tokens.token_type_ids.tolist() == [int(types[r, c]) for r, row in enumerate(expected) for c in row]
    assert tokens.positions.tolist() == [c for row in expected for c in row]  # real tokens keep their places
    assert tokens.padded_shape == mask.shape
    assert (tokens.packing.masked_first or (False,) * len(mask)) == tuple(not row[0] for row in mask)
    assert all(b > a for a, b in tokens.packing.key_spans)


@given(masks())
def test_real_rows_find_their_places_in_the_padded_array(mask: np.ndarray) -> None:
    ids = np.arange(mask.size).reshape(mask.shape)
    tokens = pack(ids, mask)
    rows, places = tokens.padded_rows()
    padded = np.full(mask.size, -1)
    padded[places] = tokens.input_ids[rows]
    np.testing.assert_array_equal(padded.reshape(mask.shape), np.where(mask, ids, -1))


def test_pack_without_a_mask_keeps_everything() -> None:
    tokens = pack([[1, 2], [3, 4]])
    assert tokens.input_ids.tolist() == [1, 2, 3, 4] and tokens.token_type_ids.tolist() == [0] * 4 and tokens.packing.masked_first is None


def test_a_masked_first_token_is_kept_and_attended_to_by_nobody() -> None:
    tokens = pack([[9, 5, 6], [7, 8, 0]], [[0, 1, 1], [1, 1, 0]])
    assert tokens.input_ids.tolist() == [9, 5, 6, 7, 8]
    assert tokens.packing.masked_first == (True, False) and tokens.packing.key_spans == [(1, 3), (3, 5)]
    rows, places = tokens.padded_rows()
    assert rows.tolist() == [1, 2, 3, 4] and places.tolist() == [1, 2, 3, 4]


def test_a_row_without_a_real_token_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"row 1 of attention_mask has no real token") as error:
        pack([[1, 2], [3, 4], [5, 6]], [[1, 0], [0, 0], [0, 0]])
    assert error.value.code == "empty-row"


@pytest.mark.parametrize("other", [-np.inf, -1e4, -10000, 0.5, 2, np.nan], ids=str)
def test_a_mask_that_is_added_to_scores_is_refused(other: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"by 1 and 0 or booleans; it holds {other}\."):
        pack([[1, 2, 0], [3, 4, 0]], np.array([[0, 0, other], [0, 0, other]]))


@pytest.mark.parametrize("ids", [[1, 2], [[[1]]], [[]], np.zeros((0, 3), int), 5], ids=repr)
def test_padded_ids_of_another_shape(ids: Any) -> None:
    with pytest.raises(ShapeError, match=r"\(batch, longest\)"):
        pack(ids)


@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids"])
def test_mask_and_types_have_the_shape_of_the_ids(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name} has shape \(1, 3\), input_ids \(1, 2\)"):
        pack([[1, 2]], **{name: [[1, 1, 1]]})


def test_more_sequences_than_there_are_numbers() -> None:
    with pytest.raises(ArgumentError, match="numbers must be distinct and lie in 0"):
        Packing(np.ones(MAX_NUMBER + 1, np.int64))
    assert len(Packing(np.ones(MAX_NUMBER, np.int64))) == MAX_NUMBER
