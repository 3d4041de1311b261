"""Normalisation layers: running statistics of BatchNorm, options, and invalid arguments. The formulas are tested in tests/ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import absolute_error

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import ArgumentError, ShapeError

rng = np.random.default_rng(0)

EXACT = 1e-13
"""Float64 rounding of the same few sums in another order."""

LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "rows": (nn.BatchNorm1d, (5, 3)),
    "sequences": (nn.BatchNorm1d, (2, 3, 4)),
    "images": (nn.BatchNorm2d, (2, 3, 4, 2)),
}


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of each channel."""
    by_channel = np.moveaxis(x, 1, 0).reshape((x.shape[1], -1))
    return by_channel.mean(axis=1), by_channel.var(axis=1, ddof=1)


@pytest.mark.parametrize("kind", LAYERS)
def test_running_statistics_move_towards_those_of_each_training_batch(kind: str) -> None:
    build, shape = LAYERS[kind]
    layer = build(3, momentum=0.25).to("float64")
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.standard_normal(shape) * 2.0 + 1.0
        y = layer(mg.Tensor(x))
        assert absolute_error(y.numpy(), F.batch_norm(x).numpy()) < EXACT
        found = statistics(x)
        mean, var = 0.75 * mean + 0.25 * found[0], 0.75 * var + 0.25 * found[1]
    assert absolute_error(layer.running_mean.numpy(), mean) < EXACT
    assert absolute_error(layer.running_var.numpy(), var) < EXACT
    assert layer.num_batches_tracked.item() == 3
    layer.eval()
    assert absolute_error(layer(mg.Tensor(x)).numpy(), F.batch_norm(x, mean, var).numpy()) < EXACT
    assert layer(np.zeros((1, *shape[1:]))).shape == (1, *shape[1:])  # one number is enough in evaluation
    assert layer(np.zeros((0, *shape[1:]))).shape == (0, *shape[1:])
    assert layer.num_batches_tracked.item() == 3  # evaluation moves nothing


def test_without_momentum_the_running_statistics_are_the_mean_over_all_batches() -> None:
    layer, batches = nn.BatchNorm1d(3, momentum=None).to("float64"), rng.standard_normal((4, 5, 3))
    for x in batches:
        layer(mg.Tensor(x))
    assert absolute_error(layer.running_mean.numpy(), np.mean([statistics(x)[0] for x in batches], axis=0)) < EXACT
    assert absolute_error(layer.running_var.numpy(), np.mean([statistics(x)[1] for x in batches], axis=0)) < EXACT


def test_without_running_statistics_every_batch_has_its_own() -> None:
    layer, x = nn.BatchNorm1d(3, track_running_stats=False).to("float64"), rng.standard_normal((5, 3))
    trained = layer(mg.Tensor(x)).numpy()
    np.testing.assert_array_equal(layer.eval()(mg.Tensor(x)).numpy(), trained)
    assert layer.named_buffers() == []
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_batch_that_is_refused_moves_nothing() -> None:
    layer = nn.BatchNorm1d(3)
    for rows in (0, 1):
        with pytest.raises(ShapeError, match="fewer than two numbers per channel"):
            layer(np.ones((rows, 3), np.float32))
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.tolist() == [0.0, 0.0, 0.0]


def test_layers_without_parameters() -> None:
    x = mg.Tensor(rng.standard_normal((4, 6)))
    layers = {
        nn.BatchNorm1d(6, affine=False).to("float64"): F.batch_norm(x),
        nn.GroupNorm(2, 6, affine=False): F.group_norm(x, 2),
        nn.RMSNorm(6, elementwise_affine=False): F.rms_norm(x),
    }
    for layer, expected in layers.items():
        assert layer.parameters() == []
        np.testing.assert_array_equal(layer(x).numpy(), expected.numpy())


def test_parameters_start_as_ones_and_zeros_and_take_part() -> None:
    x = mg.Tensor(rng.standard_normal((4, 6)))
    for build in (lambda: nn.BatchNorm1d(6), lambda: nn.GroupNorm(3, 6), lambda: nn.RMSNorm(6), lambda: nn.LayerNorm(6)):
        layer: Any = build().to("float64")
        plain = np.array(layer(x).numpy())
        assert layer.weight.tolist() == [1.0] * 6
        layer.weight.assign(np.arange(6.0))
        expected = plain * np.arange(6.0)
        if hasattr(layer, "bias"):
            assert layer.bias.tolist() == [0.0] * 6
            layer.bias.assign(np.ones(6))
            expected = expected + 1.0
        assert absolute_error(layer(x).numpy(), expected) < EXACT


def test_what_layers_say_of_themselves() -> None:
    assert repr(nn.BatchNorm2d(3, affine=False)) == "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=False, track_running_stats=True)"
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05)"
    assert repr(nn.RMSNorm(4, elementwise_affine=False)) == "RMSNorm(4, eps=1e-06, elementwise_affine=False)"


INVALID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "channels": (lambda: nn.BatchNorm1d(0), ArgumentError, "BatchNorm1d: num_features must be an integer of at least 1, got 0"),
    "eps": (lambda: nn.BatchNorm2d(3, eps=-1.0), ArgumentError, "BatchNorm2d: eps is a number >= 0, got -1.0"),
    "momentum": (lambda: nn.BatchNorm2d(3, momentum=1.5), ArgumentError, "BatchNorm2d: momentum lies between 0 and 1, got 1.5"),
    "groups": (lambda: nn.GroupNorm(2, 3), ArgumentError, "GroupNorm: 3 channels do not divide into 2 groups"),
    "an image": (
        lambda: nn.BatchNorm1d(3)(np.zeros((2, 3, 4, 4))),
        ShapeError,
        "expected (batch, channels) or (batch, channels, length) with 3",
    ),
    "no image": (
        lambda: nn.BatchNorm2d(3)(np.zeros((2, 3))),
        ShapeError,
        "BatchNorm2d: x has shape (2, 3), expected (batch, channels, height",
    ),
    "other channels": (lambda: nn.BatchNorm1d(3).eval()(np.zeros((2, 4))), ShapeError, "with 3 channels"),
    "channels of groups": (lambda: nn.GroupNorm(2, 4)(np.zeros((2, 6))), ShapeError, "GroupNorm: x has shape (2, 6), expected (batch, 4)"),
    "width": (lambda: nn.RMSNorm(4)(np.zeros((2, 3))), ShapeError, "RMSNorm: x has shape (2, 3), its last axis must have length 4"),
}


@pytest.mark.parametrize("what", INVALID)
def test_bad_arguments_are_refused_by_name(what: str) -> None:
    call, kind, words = INVALID[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
