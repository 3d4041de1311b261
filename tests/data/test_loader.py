"""The loader deals every sequence out once per epoch, with its own label, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import Batch, PackedLoader
from minigrad.errors import ArgumentError, DTypeError, ShapeError


def sequences(count: int) -> list[list[int]]:
    """Sequence i holds i + 1 several times: every batch shows which sequences it was made of."""
    return [[i + 1] * (1 + i % 4) for i in range(count)]


@given(
    count=st.integers(1, 20),
    batch_size=st.integers(1, 25),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 2**40),
)
def test_an_epoch_deals_everything_out_once(count: int, batch_size: int, shuffle: bool, seed: int, epoch: int) -> None:
    data = sequences(count)
    loader = PackedLoader(data, np.arange(count) * 10, batch_size=batch_size, shuffle=shuffle, seed=seed)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader) == -(-count // batch_size)
    assert [len(b.rows) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(count))
    for batch in batches:
        assert batch.tokens.packing.lengths.tolist() == [len(data[i]) for i in batch.rows]
        assert batch.tokens.input_ids.tolist() == [token for i in batch.rows for token in data[i]]
        assert batch.labels is not None
        assert batch.labels.tolist() == [10 * i for i in batch.rows]
        assert batch.tokens.packing.numbers.tolist() == list(range(len(batch.rows)))
        assert batch.tokens.padded_shape is None
        assert not batch.tokens.token_type_ids.any()


def order(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch.rows]


def test_without_shuffling_the_order_is_the_data_sets() -> None:
    loader = PackedLoader(sequences(7), batch_size=3)
    assert order(loader.epoch()) == order(loader.epoch(5)) == list(range(7))


def test_shuffles_follow_seed_and_epoch_alone() -> None:
    def shuffled(seed: int, epoch: int, batch_size: int = 4) -> list[int]:
        return order(PackedLoader(sequences(50), batch_size=batch_size, shuffle=True, seed=seed).epoch(epoch))

    assert shuffled(1, 0) == shuffled(1, 0) == shuffled(1, 0, batch_size=7)
    assert len({tuple(shuffled(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)} | {tuple(range(50))}) == 7
    loader = PackedLoader(sequences(50), shuffle=True)
    iterators = loader.epoch(0), loader.epoch(1)  # two epochs read at the same time do not disturb each other
    assert order(batch for pair in zip(*iterators, strict=True) for batch in pair[:1]) == order(loader.epoch(0))


def test_shuffles_are_the_same_on_every_machine() -> None:
    """Fixed once: another order after an update would mean that old runs cannot be repeated."""
    assert order(PackedLoader(sequences(8), shuffle=True, seed=3).epoch(2)) == [3, 1, 2, 7, 0, 6, 5, 4]


def test_without_labels() -> None:
    batch = next(PackedLoader(sequences(3)).epoch())
    assert isinstance(batch, Batch)
    assert batch.labels is None


def test_token_types_go_with_their_sequences() -> None:
    data = sequences(7)
    types = [np.full(len(ids), i % 2) for i, ids in enumerate(data)]
    for batch in PackedLoader(data, token_types=types, batch_size=3, shuffle=True).epoch():
        assert batch.tokens.token_type_ids.tolist() == [kind for i in batch.rows for kind in types[i]]


def test_any_sequence_will_do() -> None:
    for data in ([[1, 2], [3, 4]], ((1, 2), (3, 4)), np.array([[1, 2], [3, 4]])):
        assert next(PackedLoader(data, token_types=data).epoch()).tokens.input_ids.tolist() == [1, 2, 3, 4]


def test_labels_of_any_kind_keep_their_dtype() -> None:
    for labels in (np.array([0.5, 1.5, 2.5]), np.array([[1, 0], [0, 1], [1, 1]]), [True, False, True]):
        batch = next(PackedLoader(sequences(3), labels).epoch())
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.labels, labels, strict=isinstance(labels, np.ndarray))


def test_the_data_set_is_copied_from_lists_once() -> None:
    data = sequences(3)
    loader = PackedLoader(data)
    data[0][0] = 99
    assert next(loader.epoch()).tokens.input_ids[0] == 1


INVALID: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sequences": []}, ArgumentError, "at least one sequence"),
    ({"sequences": [[1], []]}, ShapeError, "sequence 1 is empty"),
    ({"sequences": [[1], [[2]]]}, ShapeError, "sequence 1 must be a row of integers, got shape (1, 1)"),
    ({"sequences": [[1], [1, [2]]]}, ShapeError, "sequence 1: rows of different lengths"),
    ({"sequences": [[1], [1.5]]}, DTypeError, "sequence 1 must be integers, got float64"),
    ({"sequences": ["text"]}, DTypeError, "sequence 0 must be integers, got <U4"),
    ({"sequences": [[1]], "batch_size": 0}, ArgumentError, "batch_size must be an integer of at least 1, got 0"),
    ({"sequences": [[1]], "batch_size": 1.5}, ArgumentError, "batch_size must be an integer of at least 1, got 1.5"),
    ({"sequences": [[1]], "seed": -1}, ArgumentError, "seed must be an integer of at least 0, got -1"),
    ({"sequences": [[1]], "labels": [1, 2]}, ArgumentError, "one entry per sequence: 1 sequences, labels (2,)"),
    ({"sequences": [[1]], "labels": 3}, ArgumentError, "one entry per sequence: 1 sequences, labels ()"),
    ({"sequences": [[1]], "labels": ["a"]}, DTypeError, "labels must be numbers or booleans, got <U1"),
    ({"sequences": [[1]], "seed": 2**63}, ArgumentError, "seed must be an integer below 2**63"),
    ({"sequences": ([i] for i in range(3))}, DTypeError, "sequences must be a list or another sequence, got generator; make a list of"),
    ({"sequences": None}, DTypeError, "sequences must be a list or another sequence, got NoneType"),
    ({"sequences": np.array(5)}, DTypeError, "sequences must be a list or another sequence, got ndarray"),
    ({"sequences": [[1]], "token_types": iter([[0]])}, DTypeError, "token_types must be a list or another sequence, got list_iterator"),
    ({"sequences": [[1]], "token_types": [[0], [0]]}, ShapeError, "1 sequences but token types of 2"),
    ({"sequences": [[1], [2, 3]], "token_types": [[0], [0]]}, ShapeError, "sequence 1 has 2 token ids but 1 token types"),
    ({"sequences": [[1]], "token_types": [["a"]]}, DTypeError, "token types of sequence 0 must be integers"),
    ({"sequences": [[1], [2]], "labels": [[1], [1, 2]]}, ShapeError, "labels: rows of different lengths"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), INVALID, ids=[words for *_, words in INVALID])
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        PackedLoader(**arguments)
    assert words in str(caught.value)


def test_a_negative_epoch_is_refused_before_the_first_batch() -> None:
    with pytest.raises(ArgumentError, match=r"epoch must be an integer of at least 0, got -1"):
        PackedLoader([[1]], shuffle=True).epoch(-1)
