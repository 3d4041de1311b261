"""Buckets: few sizes with little waste, and filled batches whose loss, gradient and dropped units are those of the batch itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models.cases import head
from support import gradients_of

import minigrad as mg
from minigrad.backend.random import Draw
from minigrad.data.loader import Batch
from minigrad.kernels.cuda.attention import pieces
from minigrad.kernels.cuda.draws import host_places
from minigrad.kernels.cuda.graph_inputs import IDLE
from minigrad.models.losses import IGNORED
from minigrad.packing import PackedTokens, Packing
from minigrad.train.captured.inputs import layout_of, padded, write
from minigrad.train.objectives import Mixed, SequenceChoices, SequenceClasses, SequenceNumbers, TokenClasses, padding_label
from minigrad.workers.graphs.buckets import Bucket, bucket_for, size_above

LENGTHS = (5, 9, 1, 3, 7, 2, 9)


def batch_of(lengths: tuple[int, ...] | list[int], seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    tokens = PackedTokens.of([generator.integers(1, 30, n) for n in lengths], [generator.integers(0, 2, n) for n in lengths])
    labels, token_labels = generator.integers(0, 3, len(lengths)), generator.integers(0, 3, tokens.packing.rows)
    labels[1:2], token_labels[::3] = IGNORED, IGNORED
    return Batch(tokens, labels, token_labels, np.arange(len(lengths)))


@given(st.integers(1, 1 << 20))
def test_sizes_are_few_and_near(n: int) -> None:
    size = size_above(n)
    assert n <= size < n * 9 / 8 or size == n
    assert size_above(size) == size


def test_ten_thousand_tokens_have_few_sizes() -> None:
    assert len({size_above(n) for n in range(1, 10_000)}) < 100


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_a_batch_fits_its_bucket(lengths: list[int]) -> None:
    bucket = bucket_for(np.array(lengths))
    if bucket is None:
        assert max(lengths) < 4
        return
    batch = padded(batch_of(lengths), bucket)
    packing = batch.tokens.packing
    assert (packing.rows, len(packing)) == bucket
    assert packing.lengths.max() == max(lengths)
    assert len(batch.tokens.input_ids) == len(batch.tokens.token_type_ids) == len(batch.tokens.positions) == packing.rows


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_a_batch_is_written_as_it_is_filled(lengths: list[int], random: Any) -> None:
    bucket = bucket_for(np.array(lengths))
    batch = batch_of(lengths)
    numbers = random.sample(range(100), len(lengths))
    tokens = replace(batch.tokens, packing=Packing(lengths, numbers), positions=batch.tokens.positions + 2)
    batch = replace(batch, tokens=tokens)
    whole = padded(batch, bucket)
    out = {name: np.full(shape, 77, dtype) for name, (shape, dtype) in layout_of(whole, 2).items()}
    write(batch, [3.0, 0.5], 5, 0.25, out)
    expected = {**whole.tokens.arrays(), "labels": whole.labels, "token_labels": whole.token_labels, "clock": 5, "factor": 0.25}
    expected["counts"] = [3.0, 0.5]
    expected |= {"first_rows": whole.tokens.packing.first_rows, "all_places": host_places(whole.tokens.packing)}
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array, err_msg=name)
    for name, queries in (("all", whole.tokens.packing), ("first", whole.tokens.packing.first)):
        for owner, idle in IDLE.items():
            table, found = pieces(whole.tokens.packing, queries, owner), out[f"{name}_{owner}"]
            np.testing.assert_array_equal(found[: len(table)], table)
            assert (found[len(table) :] == idle).all()


def test_typical_batches_waste_little_and_share_their_buckets() -> None:
    generator, wasted, seen = np.random.default_rng(0), [], set()
    for _ in range(500):
        lengths = generator.integers(8, 128, 32)
        bucket = bucket_for(lengths)
        seen.add(bucket)
        wasted.append(bucket.tokens / lengths.sum() - 1)
    assert max(wasted) < 0.13 and np.mean(wasted) < 0.07 and len(seen) <= 20


def test_a_batch_of_its_buckets_size_is_left_alone() -> None:
    batch = batch_of([4, 4])
    assert bucket_for(batch.tokens.packing.lengths) == (8, 2)
    assert padded(batch, Bucket(8, 2)) is batch


@pytest.mark.parametrize("name", ["BertForTokenClassification", "BertForSequenceClassification", "RobertaForSequenceClassification"])
def test_loss_and_gradient_are_those_of_the_batch_itself(name: str) -> None:
    """float64: matrix products add up their rows in another order, and nothing else differs."""
    model: Any = head(name, "float64", dropout=0.2)
    objective: Any = TokenClasses() if "Token" in name else SequenceClasses(label_smoothing=0.1)
    batch = batch_of(LENGTHS)
    found = []
    for one in (batch, padded(batch, Bucket(48, 12))):
        assert objective.count(one) == objective.count(batch)
        mg.manual_seed(3)
        model.zero_grad()
        loss = objective.loss(model, one, one)
        loss.backward()
        found.append((loss.item(), gradients_of(model)))
    (loss, expected), (again, gradients) = found
    assert again == pytest.approx(loss, rel=1e-13)
    assert gradients.keys() == expected.keys()
    for path, g in expected.items():
        np.testing.assert_allclose(gradients[path], g, atol=1e-14, rtol=1e-11, err_msg=path)


def test_the_same_units_drop() -> None:
    batch = batch_of(LENGTHS)
    masks = []
    for packing in (batch.tokens.packing, padded(batch, Bucket(48, 12)).tokens.packing):
        mg.manual_seed(1)
        masks.append(Draw("somewhere", 0.4, packing, 20).mask())
    np.testing.assert_array_equal(masks[1][: len(masks[0])], masks[0])


@pytest.mark.parametrize("labels", [np.array([0.5, np.nan, -100.0]), np.array([3, -100, 7])], ids=["floats", "whole numbers"])
def test_labels_that_are_numbers_are_filled_up_with_nan(labels: np.ndarray) -> None:
    batch = replace(batch_of([4, 4, 9]), labels=labels)
    whole = padded(batch, Bucket(20, 4), np.nan)
    assert whole.labels is not None and whole.labels.dtype.kind == "f"
    np.testing.assert_array_equal(whole.labels, [*labels, np.nan])
    out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout_of(whole, 1).items()}
    write(batch, [1.0], 0, 1.0, out, np.nan)
    np.testing.assert_array_equal(out["labels"], whole.labels)
    assert padded(replace(batch, labels=np.array([1, 2, 3])), Bucket(17, 3), np.nan).labels.dtype == np.float32  # of its size already


def test_the_labels_that_fill_batches_up() -> None:
    classes, numbers = SequenceClasses(), SequenceNumbers()
    mixtures = Mixed([(1.0, classes)]), Mixed([(1.0, Mixed([(1.0, classes)]))])
    assert {padding_label(objective.terms()) for objective in (classes, TokenClasses(), *mixtures)} == {IGNORED}
    for objective in (numbers, SequenceChoices(), Mixed([(1.0, TokenClasses()), (1.0, numbers)])):
        assert np.isnan(padding_label(objective.terms()) or 0)
