"""E53-E55: batches without labels, invalid labels, and batches computed in parts. Each docstring is the convention."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from support import grad_of, gradients_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import IndexRangeError


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_e53_cross_entropy_without_a_label(dtype: Any) -> None:
    """If every label is ignored, the mean of `cross_entropy` is NaN (0 divided by 0 labels, as in PyTorch) with gradient 0, so that
    parameters stay finite; with a `denominator` or reduction="sum" it is 0, with "none" zeros. The same holds for no rows at all."""
    for rows in (2, 0):
        logits, labels = leaf(np.ones((rows, 3)), dtype), np.full(rows, -100)
        with np.errstate(all="raise"):
            loss = F.cross_entropy(logits, labels)
            assert isnan(loss.item())
            np.testing.assert_array_equal(grad_of(loss, logits), np.zeros((rows, 3)))
            for options in ({"denominator": 5}, {"reduction": "sum"}, {"reduction": "none"}):
                loss = F.cross_entropy(logits, labels, **options)
                np.testing.assert_array_equal(loss.numpy(), np.zeros(loss.shape))
                np.testing.assert_array_equal(grad_of(loss, logits), np.zeros((rows, 3)))


@pytest.mark.parametrize("label", [3, -1, -4])
def test_e54_a_label_outside_the_classes_is_named(label: int) -> None:
    """A label below 0 (other than `ignore_index`) or not below the number of classes raises IndexRangeError (an IndexError) naming the
    value and its row (ignored rows are counted), before anything is computed."""
    for labels, place in (([0, label, -100, 2], 1), ([-100, 0, label, 2], 2)):
        for function in (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss()):
            with pytest.raises(IndexError, match=f"value {label} at place {place} is outside 0..2") as error:
                function(mg.Tensor(np.full((4, 3), np.nan)), labels)
            assert isinstance(error.value, IndexRangeError)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_e55_parts_of_a_batch_add_up_to_the_whole(dtype: str, tolerance: float) -> None:
    """The gradients of parts of a batch with different numbers of labels add up to that of the whole batch if each part's loss divides by
    the number of labels of the whole: pass it as `denominator`. A mean of the parts' means would weight labels unequally."""
    mg.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).to(dtype)
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(0, 11, (12, 5)), rng.integers(0, 3, (12, 5))
    labels[rng.random((12, 5)) < np.linspace(0.0, 0.9, 12)[:, None]] = -100
    labels[7:9] = -100  # a part without a single label
    parts = [(0, 1), (1, 6), (6, 7), (7, 9), (9, 12)]
    counts = [int((labels[a:b] != -100).sum()) for a, b in parts]
    assert len(set(counts)) == len(parts) and 0 in counts

    whole = F.cross_entropy(model(ids), labels)
    whole.backward()
    expected = gradients_of(model)
    total = 0.0
    for a, b in parts:
        loss = F.cross_entropy(model(ids[a:b]), labels[a:b], denominator=sum(counts))
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=tolerance)
    for name, found in gradients_of(model).items():
        np.testing.assert_allclose(found, expected[name], rtol=0.0, atol=tolerance * np.abs(expected[name]).max(), err_msg=name)
        assert np.abs(expected[name]).max() > 1e-3  # relative to that, the tolerance is one in a million
