"""How many operations a step takes at least, counted by hand."""

from __future__ import annotations

import pytest
from harness.floor import Products, flops, forward_flops
from harness.work import Size, Work

SIZE = Size(layers=2, hidden=4, heads=2, intermediate=8, batch=2)

LAYER = (
    4 * 2 * 8 * 4 * 4  # query, key, value and output of 3 + 5 tokens
    + 2 * 2 * 8 * 4 * 8  # to the intermediate size and back
    + 2 * 2 * (3 * 3 + 5 * 5) * 4  # scores and context, each token with all of its text
)
LAST_LAYER = (
    2 * 2 * 8 * 4 * 4  # key and value of all tokens
    + 2 * 2 * 2 * 4 * 4  # query and output of the first token of two texts
    + 2 * 2 * 2 * 4 * 8  # their way to the intermediate size and back
    + 2 * 2 * (3 + 5) * 4  # scores and context of the first token with all of its text
)


def test_a_head_on_tokens_needs_every_token_in_every_layer() -> None:
    assert forward_flops(SIZE, "token", [3, 5]) == 2 * LAYER + 2 * 8 * 4 * 9 == 5760


def test_a_head_on_texts_needs_the_first_tokens_of_the_last_layer() -> None:
    pooler, classifier = 2 * 2 * 4 * 4, 2 * 2 * 4 * 2
    assert forward_flops(SIZE, "sequence", [3, 5]) == LAYER + LAST_LAYER + pooler + classifier == 3712


def test_training_is_three_forward_passes_and_batches_are_averaged() -> None:
    work = Work(SIZE, "token", [[[1] * 3, [1] * 5], [[1] * 4, [1] * 4]])
    mean = (forward_flops(SIZE, "token", [3, 5]) + forward_flops(SIZE, "token", [4, 4])) / 2
    assert flops(work, "infer") == mean and flops(work, "train") == 3 * mean


def test_products_have_the_shapes_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.floor.SECONDS", 0.001)
    products = Products(Work(SIZE, "token", [[[1] * 3, [1] * 5]]))
    assert [(x.shape, weight.shape, y.shape) for x, weight, y in products.layer[3:]] == [
        ((8, 4), (4, 4), (8, 4)),
        ((8, 4), (8, 4), (8, 8)),
        ((8, 8), (4, 8), (8, 4)),
    ]
    assert products.layer_flops == 4 * 2 * 8 * 4 * 4 + 2 * 2 * 8 * 4 * 8
    assert products.train() > 0 and products.infer() > 0
