"""Losses as modules: each equals its function with the arguments of the constructor, and its weights are constants of the module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import ArgumentError

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 3)), RNG.random((5, 3))
LABELS, WEIGHT = np.array([0, 2, -7, 1, 1]), np.array([0.5, 1.0, 2.0])

SAME: dict[str, tuple[nn.Module, Any, Callable[[mg.Tensor], mg.Tensor]]] = {
    "CrossEntropyLoss": (
        nn.CrossEntropyLoss(WEIGHT, -7, "sum", 0.1),
        LABELS,
        lambda x: F.cross_entropy(x, LABELS, WEIGHT, ignore_index=-7, reduction="sum", label_smoothing=0.1),
    ),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss(), Y, lambda x: F.soft_cross_entropy(x, Y)),
    "NLLLoss": (nn.NLLLoss(WEIGHT, -7, "sum"), LABELS, lambda x: F.nll_loss(x, LABELS, WEIGHT, ignore_index=-7, reduction="sum")),
    "BCEWithLogitsLoss": (
        nn.BCEWithLogitsLoss(WEIGHT, WEIGHT * 2.0, "none"),
        Y,
        lambda x: F.bce_with_logits(x, Y, weight=WEIGHT, pos_weight=WEIGHT * 2.0, reduction="none"),
    ),
    "MSELoss": (nn.MSELoss("none"), Y, lambda x: F.mse_loss(x, Y, reduction="none")),
    "L1Loss": (nn.L1Loss("sum"), Y, lambda x: F.l1_loss(x, Y, reduction="sum")),
    "HuberLoss": (nn.HuberLoss("sum", 0.5), Y, lambda x: F.huber_loss(x, Y, reduction="sum", delta=0.5)),
    "SmoothL1Loss": (nn.SmoothL1Loss("sum", 0.5), Y, lambda x: F.smooth_l1_loss(x, Y, reduction="sum", beta=0.5)),
    "KLDivLoss": (nn.KLDivLoss("batchmean", True), -Y, lambda x: F.kl_div(x, -Y, reduction="batchmean", log_target=True)),
    "CosineSimilarity": (nn.CosineSimilarity(0, 0.1), Y, lambda x: F.cosine_similarity(x, Y, axis=0, eps=0.1)),
}


@pytest.mark.parametrize("what", SAME)
def test_a_loss_is_its_function(what: str) -> None:
    layer, targets, function = SAME[what]
    x = mg.Tensor(X)
    np.testing.assert_array_equal(layer(x, targets).numpy(), function(x).numpy())


@pytest.mark.parametrize("name", sorted({what.split()[0] for what in SAME} - {"CosineSimilarity"}))
def test_an_unknown_reduction_is_refused_when_the_loss_is_built(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: reduction is one of mean, sum, none"):
        getattr(nn, name)(reduction="median")


@pytest.mark.parametrize("make", [nn.CrossEntropyLoss, nn.NLLLoss, nn.BCEWithLogitsLoss])
def test_weights_belong_to_the_module_and_are_not_trained(make: Any) -> None:
    own = np.array([1.0, 2.0, 3.0], np.float32)
    layer = make(own)
    targets = Y if make is nn.BCEWithLogitsLoss else LABELS.clip(0)
    x = leaf(X, np.float32)
    expected = layer(x, targets).item()
    own[:] = 0.0  # the module holds a copy
    assert layer(x, targets).item() == copy.deepcopy(layer)(x, targets).item() == expected
    assert layer.parameters() == []
    state = layer.state_dict()
    np.testing.assert_array_equal(state["weight"], [1.0, 2.0, 3.0])  # saved under PyTorch's name
    other = make(np.zeros(3, np.float32))
    other.load_state_dict(state)
    assert other(x, targets).item() == expected
    assert other.to("float64")(leaf(X), targets).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ArgumentError, match=r"pass weight\.detach\(\)"):
        make(leaf([1.0, 2.0, 3.0]))
