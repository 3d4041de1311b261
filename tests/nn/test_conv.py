"""Convolution and pooling layers: results equal to the functions', initial values, names, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import ArgumentError, ShapeError

rng = np.random.default_rng(0)


def test_layers_are_their_functions_with_the_same_options() -> None:
    x1, x2 = mg.Tensor(rng.standard_normal((2, 4, 9))), mg.Tensor(rng.standard_normal((2, 4, 7, 8)))
    conv1, conv2 = nn.Conv1d(4, 6, 3, 2, 1, 2, 2).to("float64"), nn.Conv2d(4, 6, (3, 2), padding="same", bias=False).to("float64")
    pairs = [
        (conv1(x1), F.conv1d(x1, conv1.weight, conv1.bias, 2, 1, 2, 2)),
        (conv2(x2), F.conv2d(x2, conv2.weight, None, 1, "same")),
        (nn.MaxPool1d(3, 2, 1, 2)(x1), F.max_pool1d(x1, 3, 2, 1, 2)),
        (nn.MaxPool2d((3, 2), padding=1)(x2), F.max_pool2d(x2, (3, 2), padding=1)),
        (nn.AvgPool1d(3, 2, 1, count_include_pad=False)(x1), F.avg_pool1d(x1, 3, 2, 1, False)),
        (nn.AvgPool2d(2, (1, 2), (0, 1))(x2), F.avg_pool2d(x2, 2, (1, 2), (0, 1))),
    ]
    for found, expected in pairs:
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_initial_values_and_names() -> None:
    mg.manual_seed(0)
    layer = nn.Conv2d(16, 64, 5, groups=2)
    bound = 1.0 / sqrt(8 * 25)
    assert {name: p.shape for name, p in layer.named_parameters()} == {"weight": (64, 8, 5, 5), "bias": (64,)}
    for parameter in layer.parameters():
        assert parameter.dtype == np.float32
        assert 0.9 * bound < np.abs(parameter.numpy()).max() <= bound
    assert abs(layer.weight.numpy().std() - bound / sqrt(3)) < 1e-3
    assert [name for name, _ in nn.Conv1d(3, 2, 4, bias=False).named_parameters()] == ["weight"]


def test_flatten_and_identity() -> None:
    x = mg.Tensor(np.arange(24.0).reshape(2, 3, 4))
    assert nn.Flatten()(x).tolist() == np.arange(24.0).reshape(2, 12).tolist()
    assert nn.Flatten(0, 1)(x).shape == (6, 4)
    assert nn.Flatten(-2)(x).shape == (2, 12)
    assert nn.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
    assert nn.Identity()(x) is x


def test_an_embedding_keeps_its_padding_row_at_zero() -> None:
    layer = nn.Embedding(5, 3, padding_idx=2)
    assert layer.weight.numpy().any(axis=1).tolist() == [True, True, False, True, True]
    optimizer = mg.optim.SGD(layer.named_parameters(), lr=1.0)
    layer([2, 2, 0]).sum().backward()
    optimizer.step()
    assert not layer.weight.numpy()[2].any()
    assert not layer([2]).numpy().any()
    assert repr(layer) == "Embedding(5, 3, padding_idx=2)"


def test_a_small_network_learns_to_tell_horizontal_from_vertical_lines() -> None:
    mg.manual_seed(0)
    images, labels = np.zeros((16, 1, 8, 8), np.float32), np.arange(16) % 2
    for i, label in enumerate(labels):
        images[(i, 0, i // 2) if label else (i, 0, slice(None), i // 2)] = 1.0
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2))
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=0.02)
    for _ in range(30):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    assert (model.eval()(images).numpy().argmax(axis=1) == labels).all()


def test_what_layers_say_of_themselves() -> None:
    assert repr(nn.Conv1d(4, 6, 3, groups=2, bias=False)) == (
        "Conv1d(4, 6, kernel_size=(3,), stride=1, padding=0, dilation=1, groups=2, bias=False)"
    )
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=None, padding=0)"
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"


INVALID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "channels": (lambda: nn.Conv2d(0, 3, 3), ArgumentError, "Conv2d: in_channels must be an integer of at least 1, got 0"),
    "groups": (lambda: nn.Conv1d(4, 6, 3, groups=4), ArgumentError, "Conv1d: 4 input and 6 output channels do not divide into 4 groups"),
    "kernel": (lambda: nn.Conv2d(1, 1, (3, 3, 3)), ArgumentError, "Conv2d: kernel_size is an integer of at least 1, or 2 of them"),
    "same": (lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same"), ArgumentError, 'Conv2d: padding is a number per axis, "valid"'),
    "pool": (lambda: nn.MaxPool1d(2, stride=0), ArgumentError, "MaxPool1d: stride is an integer of at least 1"),
    "padding of a pool": (lambda: nn.AvgPool1d(2, padding=-1), ArgumentError, "AvgPool1d: padding is an integer of at least 0"),
    "shape": (lambda: nn.Conv2d(1, 1, 3)(np.zeros((1, 8, 8), np.float32)), ShapeError, "conv2d: x has shape (1, 8, 8)"),
    "flatten": (lambda: nn.Flatten(2)(np.zeros((2, 3))), ShapeError, "Flatten: x has shape (2, 3), it has no axes from 2 to -1"),
    "padding row": (lambda: nn.Embedding(3, 2, 3), ArgumentError, "padding_idx must be an integer from 0 to 2, got 3"),
    "padding row from the end": (lambda: nn.Embedding(3, 2, -1), ArgumentError, "padding_idx must be an integer from 0 to 2, got -1"),
}


@pytest.mark.parametrize("what", INVALID)
def test_bad_arguments_are_refused_by_name(what: str) -> None:
    call, kind, words = INVALID[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
