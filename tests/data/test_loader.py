"""The loader deals every sequence out once per epoch, with its own label, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data import Batch, PackedLoader
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.packing import pack


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
    assert order(PackedLoader(sequences(8), shuffle=True, by_length=True, batch_size=2, seed=3).epoch(2)) == [3, 1, 7, 2, 5, 4, 6, 0]


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


# ---------------------------------------------------------------- batches by tokens and by length

SETTINGS = [
    {"batch_size": 3},
    {"batch_tokens": 9},
    {"batch_size": 3, "shuffle": True},
    {"batch_tokens": 9, "shuffle": True},
    {"batch_size": 3, "shuffle": True, "by_length": True},
    {"batch_tokens": 9, "shuffle": True, "by_length": True},
]
"""Every way to deal out."""

lengths_of = st.lists(st.integers(1, 12), min_size=1, max_size=60)


def of_lengths(lengths: Any) -> list[Any]:
    """Sequence i holds i alone."""
    return [np.full(length, i) for i, length in enumerate(lengths)]


def same(first: Batch, second: Batch) -> bool:
    fields = (
        (first.rows, second.rows),
        (first.labels, second.labels),
        (first.token_labels, second.token_labels),
        (first.tokens.input_ids, second.tokens.input_ids),
        (first.tokens.token_type_ids, second.tokens.token_type_ids),
        (first.tokens.packing.lengths, second.tokens.packing.lengths),
        (first.tokens.packing.numbers, second.tokens.packing.numbers),
    )
    return all(np.array_equal(a, b) for a, b in fields)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@given(lengths=lengths_of, seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**40), data=st.data())
def test_an_epoch_goes_on_at_any_batch(settings: dict[str, Any], lengths: list[int], seed: int, epoch: int, data: st.DataObject) -> None:
    labels, tags = np.arange(len(lengths)) * 10, [np.arange(length) + 100 * i for i, length in enumerate(lengths)]
    types = [ids % 2 for ids in of_lengths(lengths)]
    loader = PackedLoader(of_lengths(lengths), labels, token_labels=tags, token_types=types, seed=seed, **settings)
    batches = list(loader.epoch(epoch))
    assert len(batches) == loader.batches_in(epoch) and loader.batches_in(0) == len(loader)
    assert sorted(order(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert batch.token_labels is not None and batch.token_labels.dtype == np.int64
        assert batch.token_labels.tolist() == [tag for i in batch.rows for tag in tags[i]]
        assert batch.tokens.input_ids.tolist() == [i for i in batch.rows for _ in range(lengths[i])]
        assert len(batch.rows) <= 3 if "batch_size" in settings else batch.tokens.packing.rows <= 9 or len(batch.rows) == 1
    start = data.draw(st.integers(0, len(batches)))
    rest = list(loader.epoch(epoch, start=start))
    assert len(rest) == len(batches) - start
    assert all(same(left, right) for left, right in zip(batches[start:], rest, strict=True))


def test_what_was_dealt_out_before_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = PackedLoader(sequences(20), batch_size=2, shuffle=True)
    built: list[Any] = []
    monkeypatch.setattr(PackedLoader, "batch", lambda self, rows: built.append(rows))
    assert len(list(loader.epoch(0, start=7))) == 3 and len(built) == 3


def test_a_start_behind_the_end_is_refused() -> None:
    loader = PackedLoader(sequences(5), batch_size=2)
    assert list(loader.epoch(0, start=3)) == []
    with pytest.raises(ArgumentError, match="epoch 0 has 3 batches and cannot start at number 4"):
        loader.epoch(0, start=4)
    with pytest.raises(ArgumentError, match="start must be an integer of at least 0, got -1"):
        loader.epoch(0, start=-1)


def test_as_many_sequences_as_fit() -> None:
    batches = PackedLoader(of_lengths([3, 3, 3, 9, 1, 20, 1, 9]), batch_tokens=9).epoch()
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3], [4], [5], [6], [7]]
    assert [len(batch.rows) for batch in PackedLoader(of_lengths([1, 2, 3]), batch_tokens=2**62).epoch()] == [3]


def test_batches_by_length_hold_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 2000)
    for settings in ({"batch_size": 10}, {"batch_tokens": 1000}):
        loaders = [PackedLoader(of_lengths(lengths), shuffle=True, by_length=flag, **settings) for flag in (True, False)]
        sorted_, plain = ([float(np.std(lengths[batch.rows])) for batch in loader.epoch(1)] for loader in loaders)
        assert np.mean(sorted_) < np.mean(plain) / 10  # about 4 against 57 tokens
        assert abs(len(sorted_) - len(plain)) < 0.05 * len(plain)


@pytest.mark.parametrize("settings", SETTINGS[3:], ids=str)
def test_every_length_may_come_at_any_time(settings: dict[str, Any]) -> None:
    """A place drawn evenly from 0..1 has the variance 1/12, a little more for few batches: means of so many epochs stay in 5 deviations.

    The epochs are fixed, so the test cannot fail by chance. It can fail: batches in the order of their lengths put some at 0.1.
    """
    lengths, epochs = [1, 1, 2, 3, 3, 4, 5, 6, 8, 9] * 6, 1000
    loader = PackedLoader(of_lengths(lengths), seed=5, **settings)
    places, first = np.zeros(len(lengths)), np.zeros(len(lengths))
    for epoch in range(epochs):
        plan = [batch.rows for batch in loader.epoch(epoch)]
        for number, rows in enumerate(plan):
            places[rows] += number / (len(plan) - 1)
        first[plan[0]] += 1
    few = loader.batches_in(0)
    deviation = np.sqrt((few + 1) / (few - 1) / 12 / epochs)
    assert np.abs(places / epochs - 0.5).max() < 5 * deviation
    if settings.get("by_length"):  # of a plain shuffle the first batch is more often one of several short sequences
        assert np.abs(first / epochs - 1 / few).max() < 5 * np.sqrt(1 / few / epochs)


def test_a_sequences_company_changes() -> None:
    """Even where all sequences are of one length, or there are few batches."""
    for lengths in ([3] * 40, list(range(1, 41))):
        loader = PackedLoader(of_lengths(lengths), shuffle=True, by_length=True, batch_size=4)
        company = {frozenset(batch.rows.tolist()) for epoch in range(5) for batch in loader.epoch(epoch) if 0 in batch.rows}
        assert len(company) == 5


# ---------------------------------------------------------------- parts


@given(lengths=lengths_of, parts=st.integers(1, 8))
def test_parts_hold_everything_once(lengths: list[int], parts: int) -> None:
    tags = [np.arange(length) + 100 * i for i, length in enumerate(lengths)]
    loader = PackedLoader(of_lengths(lengths), np.arange(len(lengths)), token_labels=tags, batch_size=100, shuffle=True)
    (whole,) = loader.epoch(1)
    found = whole.split(parts)
    assert len(found) == min(parts, len(lengths))
    numbers = dict(zip(whole.rows.tolist(), whole.tokens.packing.numbers.tolist(), strict=True))
    for part in found:
        assert part.labels is not None and part.token_labels is not None
        assert part.labels.tolist() == part.rows.tolist()
        assert part.token_labels.tolist() == [tag for i in part.rows for tag in tags[i]]
        assert part.tokens.input_ids.tolist() == [i for i in part.rows for _ in range(lengths[i])]
        assert part.tokens.positions.tolist() == [place for i in part.rows for place in range(lengths[i])]
        assert part.tokens.packing.numbers.tolist() == [numbers[i] for i in part.rows]
        assert list(part.tokens.packing.numbers) == sorted(part.tokens.packing.numbers)
    assert sorted(order(found)) == list(range(len(lengths)))
    assert all(same(left, right) for left, right in zip(found, whole.split(parts), strict=True))
    costs = [sum(lengths[i] + lengths[i] ** 2 / 2048 for i in part.rows) for part in found]
    assert max(costs) - min(costs) <= max(length + length**2 / 2048 for length in lengths)  # no sequence moved would help by more


def test_long_sequences_cost_more_than_their_tokens() -> None:
    (batch,) = PackedLoader(of_lengths([512, *[64] * 9]), batch_size=10).epoch()
    assert [part.rows.tolist() for part in batch.split(2)] == [[0], list(range(1, 10))]
    assert batch.split(1) == [batch]
    with pytest.raises(ArgumentError, match="parts must be an integer of at least 1, got 0"):
        batch.split(0)


def test_parts_of_padded_tokens() -> None:
    """Whoever packed padded arrays gets parts that know their places in padded arrays, and which first token is masked."""
    ids = np.arange(12).reshape(3, 4)
    tokens = pack(ids, [[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]], numbers=[7, 3, 5])
    short, masked = Batch(tokens, None, None, np.arange(3)).split(2)[::-1]
    assert masked.rows.tolist() == [1] and masked.tokens.packing.masked_first == (True,)
    assert short.rows.tolist() == [0, 2] and short.tokens.packing.masked_first is None
    assert short.tokens.packing.numbers.tolist() == [7, 5] and short.tokens.padded_shape == (2, 4)
    assert short.tokens.input_ids.tolist() == ids[[0, 2]].reshape(-1)[short.tokens.places()].tolist() == [0, 1, 8, 11]
    assert short.labels is None and short.token_labels is None


# ---------------------------------------------------------------- digest


def test_the_digest_tells_data_and_settings_apart() -> None:
    def digest(data: Any = ((1, 2), (3,)), labels: Any = (0, 1), **settings: Any) -> str:
        return PackedLoader(data, labels, **settings).digest()

    different = [
        digest(),
        digest([[1], [2, 3]]),
        digest([[1, 2], [4]]),
        digest(labels=None),
        digest(labels=[1, 0]),
        digest(labels=[0.0, 1.0]),
        digest(labels=[[0], [1]]),
        digest(labels=None, token_labels=[[0, 1], [0]]),
        digest(labels=None, token_types=[[0, 1], [0]]),
        digest(token_types=[[0, 0], [0]]),
        digest(batch_size=2),
        digest(batch_tokens=32),
        digest(shuffle=True),
        digest(shuffle=True, by_length=True),
        digest(seed=1),
    ]
    assert len(set(different)) == len(different)
    assert digest([np.array([1, 2], np.int32), [3]], np.array([0, 1])) == digest()
    assert digest(batch_tokens=32, batch_size=2) == digest(batch_tokens=32)  # the one takes the other's place


def test_the_digest_is_the_same_on_every_machine() -> None:
    """Fixed once: another one after an update would refuse to go on with old runs."""
    loader = PackedLoader([[1, 2], [3]], [0.5, 1.5], token_labels=[[-100, 1], [0]], shuffle=True, seed=7)
    assert loader.digest() == "28b05da7e5d888f8689497bfa3567d11be249d48d81d44741a29eccdc763390b"


# ---------------------------------------------------------------- refusals

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
    ({"sequences": [[1], [2, 3]], "token_types": [[0], [0]]}, ShapeError, "sequence 1 has 2 token ids but 1 token type ids"),
    ({"sequences": [[1]], "token_types": [["a"]]}, DTypeError, "token types of sequence 0 must be integers"),
    ({"sequences": [[1], [2]], "labels": [[1], [1, 2]]}, ShapeError, "labels: rows of different lengths"),
    ({"sequences": [[1]], "token_labels": 3}, DTypeError, "token_labels must be a list or another sequence, got int"),
    ({"sequences": [[1]], "token_labels": []}, ShapeError, "1 sequences but token labels of 0"),
    ({"sequences": [[1], [2, 3]], "token_labels": [[0], [0]]}, ShapeError, "sequence 1 has 2 token ids but 1 token labels"),
    ({"sequences": [[1]], "token_labels": [[0.5]]}, DTypeError, "token labels of sequence 0 must be integers"),
    ({"sequences": [[1]], "by_length": True}, ArgumentError, "by_length says how to shuffle: it needs shuffle=True"),
    ({"sequences": [[1]], "batch_tokens": 0}, ArgumentError, "batch_tokens must be an integer of at least 1, got 0"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), INVALID, ids=[words for *_, words in INVALID])
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        PackedLoader(**arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("rows", [[0, 2], [-1]])
def test_places_outside_of_the_data_are_refused(rows: list[int]) -> None:
    with pytest.raises(IndexRangeError, match=rf"rows must lie between 0 and 1, got {min(rows)} to {max(rows)}"):
        PackedLoader([[1], [2]]).batch(np.array(rows))


def test_a_negative_epoch_is_refused_before_the_first_batch() -> None:
    with pytest.raises(ArgumentError, match=r"epoch must be an integer of at least 0, got -1"):
        PackedLoader([[1]], shuffle=True).epoch(-1)
