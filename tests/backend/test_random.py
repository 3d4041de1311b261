"""Counter-based random numbers: equal to Philox computed by hand, and the same units whatever a batch is made of."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import packings

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.backend import random
from minigrad.backend.random import DROPOUT, SHUFFLE, Draw
from minigrad.errors import ArgumentError
from minigrad.packing import Packing


# ---------------------------------------------------------------- Philox by hand
def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """One block of Philox 4x64 with 10 rounds, in Python integers, from the definition in the paper (Salmon et al. 2011)."""
    mask = 2**64 - 1
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def units(seed: int, sequence: int, site: int, step: int, block: int) -> list[int]:
    """The sixteen 16-bit numbers of a block, little end first. NumPy counts up before it draws, hence block + 1."""
    words = philox((seed, DROPOUT), (block + 1, sequence, site, step))
    return [word >> (16 * k) & 0xFFFF for word in words for k in range(4)]


def site_of(path: str, ordinal: int) -> int:
    return int.from_bytes(blake2b(f"{path}#{ordinal}".encode(), digest_size=8).digest(), "little")


words64 = st.integers(0, 2**63 - 1)


@given(words64, words64, st.integers(0, 2**64 - 1), words64)
def test_words_are_philox(seed: int, sequence: int, site: int, step: int) -> None:
    found = random.words(seed, DROPOUT, sequence, site, step, 3)
    assert found.tolist() == [u for block in range(3) for u in units(seed, sequence, site, step, block)]


@given(st.data())
def test_a_mask_is_computed_from_names_alone(data: st.DataObject) -> None:
    packing = data.draw(packings())
    width, rate = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([0.1, 0.5]))
    seed, step = data.draw(words64), data.draw(st.integers(0, 1000))
    with random.at(seed, step):
        draw = Draw("encoder.dropout", rate, packing, width)
    blocks = -(-width // 16)
    expected = []
    for sequence, length in zip(packing.numbers.tolist(), packing.lengths.tolist(), strict=True):
        for row in range(length):
            drawn = [u for b in range(blocks) for u in units(seed, sequence, site_of("encoder.dropout", 0), step, row * blocks + b)]
            expected.append([u >= round(rate * 65536) for u in drawn[:width]])
    assert draw.mask().tolist() == expected
    assert draw.mask().tolist() == expected  # a recipe, evaluated again


def test_attention_weights_are_drawn_in_the_order_query_head_key() -> None:
    packing, heads, rate = Packing([3, 18], [7, 2]), 2, 0.3
    with random.at(5, 9):
        draw = Draw("attention", rate, packing, heads, packing)
    for i, (sequence, length) in enumerate(((7, 3), (2, 18))):
        blocks = -(-length // 16)
        expected = [
            [
                [
                    u >= round(rate * 65536)
                    for b in range(blocks)
                    for u in units(5, sequence, site_of("attention", 0), 9, (query * heads + head) * blocks + b)
                ][:length]
                for query in range(length)
            ]
            for head in range(heads)
        ]
        assert draw.pairs(i).tolist() == expected


# ---------------------------------------------------------------- the same units however a batch is made up
def drawn(packing: Packing, width: int = 20, keys: Packing | None = None, path: str = "p") -> Draw:
    """A draw at seed 3, step 4, as if it were the first."""
    with random.at(3, 4):
        return Draw(path, 0.4, packing, width, keys)


@given(packings(max_sequences=4, masked_first=False), st.randoms(use_true_random=False))
def test_reordered_sequences_keep_their_units(packing: Packing, shuffler: Any) -> None:
    order = list(range(len(packing)))
    shuffler.shuffle(order)
    moved = Packing(packing.lengths[order], packing.numbers[order])
    whole, other = drawn(packing).mask(), drawn(moved).mask()
    for place, i in enumerate(order):
        np.testing.assert_array_equal(other[slice(*moved.spans[place])], whole[slice(*packing.spans[i])])


@given(packings(max_sequences=4, masked_first=False))
def test_a_batch_computed_in_parts_keeps_its_units(packing: Packing) -> None:
    """Micro-batches of one step share one stream, and every part is the first draw for its own sequences."""
    whole, pairs = drawn(packing), drawn(packing, 2, packing, "attention")
    with random.at(3, 4):
        for i in range(len(packing)):
            part = Packing(packing.lengths[i : i + 1], packing.numbers[i : i + 1])
            np.testing.assert_array_equal(Draw("p", 0.4, part, 20).mask(), whole.mask()[slice(*packing.spans[i])])
            np.testing.assert_array_equal(Draw("attention", 0.4, part, 2, part).pairs(0), pairs.pairs(i))


@given(packings(masked_first=False), st.integers(1, 40))
def test_first_rows_only_are_the_first_rows_of_all(packing: Packing, width: int) -> None:
    np.testing.assert_array_equal(drawn(packing.first, width).mask(), drawn(packing, width).mask()[packing.first_rows])


@given(packings(max_length=20))
def test_attention_of_first_queries_only_is_a_prefix(packing: Packing) -> None:
    whole, first = drawn(packing, 3, packing), drawn(packing.first, 3, packing)
    for i in range(len(packing)):
        np.testing.assert_array_equal(first.pairs(i), whole.pairs(i)[:, :1])


def test_a_longer_sequence_extends_a_shorter_one() -> None:
    np.testing.assert_array_equal(drawn(Packing([9])).mask()[:4], drawn(Packing([4])).mask())


@pytest.mark.parametrize("form", ["rows", "pairs"])
def test_seed_step_path_sequence_and_purpose_all_matter(form: str) -> None:
    def mask(seed: int = 1, step: int = 2, path: str = "p", number: int = 3) -> bytes:
        packing = Packing([6], [number])
        with random.at(seed, step):
            draw = Draw(path, 0.5, packing, 8, packing if form == "pairs" else None)
        return (draw.pairs(0) if form == "pairs" else draw.mask()).tobytes()

    masks = {mask(), mask(seed=2), mask(step=3), mask(path="q"), mask(number=4)}
    assert len(masks) == 5 and mask() in masks


# ---------------------------------------------------------------- ordinals, steps, streams
def test_two_draws_at_one_path_differ_and_the_next_step_begins_anew() -> None:
    packing = Packing([4, 4])
    with random.at(0, 0):
        first, second = Draw("p", 0.5, packing, 16), Draw("p", 0.5, packing, 16)
        assert (first.site, second.site) == (site_of("p", 0), site_of("p", 1))
        assert (first.mask() != second.mask()).any()
        random.current().advance()
        third = Draw("p", 0.5, packing, 16)
        assert third.site == first.site and third.step == 1
        assert (first.mask() != third.mask()).any()


def test_ordinals_are_counted_by_sequence() -> None:
    with random.at(0, 0):
        assert Draw("p", 0.5, Packing([1, 1], [0, 5]), 1).site == site_of("p", 0)
        assert Draw("p", 0.5, Packing([1], [3]), 1).site == site_of("p", 0)  # new sequences: their first draw
        assert Draw("p", 0.5, Packing([1, 1], [9, 5]), 1).site == site_of("p", 1)
        assert Draw("p", 0.5, Packing([1], [9]), 1).site == site_of("p", 2)


def test_outside_of_training_loops_no_two_draws_repeat() -> None:
    with random.at(0, 0):
        x = mg.ones((2, 32))
        assert len({F.dropout(x, 0.5).numpy().tobytes() for _ in range(20)}) == 20


def test_manual_seed_starts_anew() -> None:
    x = mg.ones((2, 32))
    with random.replay():
        runs = []
        for seed in (7, 7, 8):
            mg.manual_seed(seed)
            runs.append([F.dropout(x, 0.5).tolist(), F.dropout(x, 0.5).tolist(), random.current().init.random()])
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]
    assert all(a != b for a, b in zip(runs[0], runs[2], strict=True))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None], ids=repr)
def test_a_seed_that_is_none(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="seed must be an integer"):
        mg.manual_seed(seed)


def test_at_and_replay_restore_what_was_there_even_after_an_exception() -> None:
    with random.at(1, 1):
        before = random.current()
        for mode in (lambda: random.at(5, 6), random.replay):
            with pytest.raises(KeyError), mode():
                assert random.current() is not before
                raise KeyError
            assert random.current() is before


def test_replay_draws_what_comes_next_and_leaves_it_to_come() -> None:
    x = mg.ones((2, 32))
    with random.at(0, 0):
        F.dropout(x, 0.5)
        inside = []
        for _ in range(2):
            with random.replay():
                inside.append((F.dropout(x, 0.5).tolist(), random.current().init.random()))
        assert inside[0] == inside[1] == (F.dropout(x, 0.5).tolist(), random.current().init.random())


def test_every_thread_has_its_own_stream() -> None:
    seen: list[tuple[int, int]] = []
    with random.at(9, 9):
        thread = threading.Thread(target=lambda: seen.append((random.current().seed, random.current().step)))
        thread.start()
        thread.join()
    assert seen == [(0, 0)]


# ---------------------------------------------------------------- rates
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_0_and_1(rate: float) -> None:
    packing = Packing([5, 3])
    rows, pairs = Draw("p", rate, packing, 7), Draw("q", rate, packing, 2, packing)
    assert (rows.mask() == (rate == 0.0)).all() and (pairs.pairs(0) == (rate == 0.0)).all()
    assert rows.scale == (1.0 if rate == 0.0 else 0.0)
    np.testing.assert_array_equal(ops.dropout(np.ones((8, 7)), draw=rows).numpy(), np.full((8, 7), 1.0 - rate))


@pytest.mark.parametrize("rate", [1e-6, 1 - 1e-6])
def test_rates_beyond_the_resolution_round_to_the_nearest_step(rate: float) -> None:
    draw = Draw("p", rate, Packing([100]), 100)
    assert draw.threshold == round(rate * 65536) in (0, 65536)
    assert np.isfinite(draw.scale) and np.isfinite(ops.dropout(np.ones((100, 100)), draw=draw).numpy()).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        Draw("p", rate, Packing([1]), 1)


def test_pairs_of_a_sequence_that_nobody_may_attend_to() -> None:
    keys = Packing([1, 3], masked_first=[True, False])
    assert Draw("p", 0.5, keys, 2, keys).pairs(0).shape == (2, 1, 0)


def test_a_draw_for_rows_has_no_pairs() -> None:
    with pytest.raises(ArgumentError, match="for rows, not for attention"):
        Draw("p", 0.5, Packing([1]), 1).pairs(0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_survivors_are_as_many_as_they_should_be(rate: float) -> None:
    """Within five standard deviations: a right generator fails one run in two million, and the seed is fixed."""
    packing = Packing([50] * 20)
    with random.at(12, 34):
        draws = [Draw("p", rate, packing, 100), Draw("q", rate, packing, 4, packing)]
    masks = [draws[0].mask(), np.concatenate([draws[1].pairs(i).reshape(-1, 50) for i in range(20)])]
    for draw, mask in zip(draws, masks, strict=True):
        keep = 1 - draw.threshold / 65536
        sigma = np.sqrt(keep * (1 - keep))
        assert abs(mask.mean() - keep) < 5 * sigma / np.sqrt(mask.size)
        assert np.abs(mask.mean(axis=0) - keep).max() < 5 * sigma / np.sqrt(len(mask))
        assert draw.scale * keep == pytest.approx(1.0, rel=1e-12)  # dropout keeps the expectation
    a, b = masks[0][:-1].astype(float), masks[0][1:].astype(float)  # rows next to each other are independent
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


# ---------------------------------------------------------------- shuffles
@given(st.integers(0, 200), words64, st.integers(0, 1000))
def test_shuffles_are_permutations_by_seed_and_epoch(n: int, seed: int, epoch: int) -> None:
    order = random.shuffled(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, random.shuffled(n, seed, epoch))
    if n > 50:
        assert (order != random.shuffled(n, seed, epoch + 1)).any() and (order != random.shuffled(n, seed ^ 1, epoch)).any()


def test_the_first_word_of_a_shuffle_is_philox_with_its_own_purpose() -> None:
    source = np.random.Philox(key=[5, SHUFFLE], counter=[0, 0, 0, 2])
    assert source.random_raw() == philox((5, SHUFFLE), (1, 0, 0, 2))[0]
    assert SHUFFLE != DROPOUT
