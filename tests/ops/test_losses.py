"""Losses: values against direct formulas in float64, conventions at the edges, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan, log, log1p
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from strategies import arrays, broadcastable, generator, shapes
from support import grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, MinigradError, ShapeError

reductions = st.sampled_from(["mean", "sum", "none"])
REDUCE: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "sum": np.sum, "none": lambda losses: losses}


def same(found: mg.Tensor, expected: Any) -> None:
    """Equal shape, and equal values up to the rounding of float64 sums."""
    assert found.shape == np.shape(expected) and found.dtype == np.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- classes
def by_hand(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, ignored: int, smoothing: float) -> tuple[np.ndarray, float]:
    """The losses of all rows, and the sum of the weights of the rows that count."""
    rows, classes = labels.reshape(-1), logits.shape[-1]
    log_p = scipy.special.log_softmax(logits.reshape(-1, classes), axis=-1)
    weight = np.ones(classes) if weight is None else weight
    losses, total = np.zeros(rows.shape), 0.0
    for i, label in enumerate(rows):
        if label != ignored:
            losses[i] = -(1.0 - smoothing) * weight[label] * log_p[i, label] - smoothing / classes * (weight * log_p[i]).sum()
            total += weight[label]
    return losses.reshape(labels.shape), total


@st.composite
def classified(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Logits with leading axes, labels some of which are ignored, class weights or None, and the ignored label."""
    shape, classes = draw(shapes(max_dims=2, min_side=1, max_size=8)), draw(st.integers(2, 4))
    rng, ignored = generator(draw), draw(st.sampled_from([-100, -1, 0]))
    labels = np.array(rng.integers(0, classes, shape))
    labels[rng.random(shape) < 0.3] = ignored
    labels[(0,) * labels.ndim] = 1  # the mean of no label is a test of its own
    weight = draw(arrays((classes,), "positive")) if draw(st.booleans()) else None
    return draw(arrays((*shape, classes))) * 5.0, labels, weight, ignored


@given(sample=classified(), smoothing=st.sampled_from([0.0, 0.1, 1.0]), reduction=reductions)
def test_cross_entropy_by_hand(sample: Any, smoothing: float, reduction: str) -> None:
    logits, labels, weight, ignored = sample
    losses, total = by_hand(logits, labels, weight, ignored, smoothing)
    expected = losses.sum() / total if reduction == "mean" else REDUCE[reduction](losses)
    same(F.cross_entropy(mg.Tensor(logits), labels, weight, ignored, reduction, smoothing), expected)


@given(sample=classified(), reduction=reductions)
def test_nll_loss_of_log_probabilities_is_cross_entropy(sample: Any, reduction: str) -> None:
    logits, labels, weight, ignored = sample
    expected = F.cross_entropy(mg.Tensor(logits), labels, weight, ignored, reduction)
    same(F.nll_loss(F.log_softmax(mg.Tensor(logits)), labels, weight, ignored, reduction), expected.numpy())


@given(data=st.data(), smoothing=st.sampled_from([0.0, 0.1]), reduction=reductions)
def test_soft_cross_entropy_by_hand(data: st.DataObject, smoothing: float, reduction: str) -> None:
    logits, labels, weight, _ = data.draw(classified())
    targets = generator(data.draw).dirichlet(np.ones(logits.shape[-1]), labels.shape)
    smoothed = targets * (1.0 - smoothing) + smoothing / logits.shape[-1]
    losses = -(smoothed * (1.0 if weight is None else weight) * scipy.special.log_softmax(logits, axis=-1)).sum(-1)
    found = F.cross_entropy(mg.Tensor(logits), targets, weight, reduction=reduction, label_smoothing=smoothing)
    same(found, REDUCE[reduction](losses))


@given(sample=classified(), smoothing=st.sampled_from([0.0, 0.1]))
def test_one_hot_probabilities_cost_what_labels_cost(sample: Any, smoothing: float) -> None:
    logits, labels, weight, _ = sample
    labels = np.maximum(labels, 0)
    one_hot = np.eye(logits.shape[-1])[labels]
    expected = F.cross_entropy(mg.Tensor(logits), labels, weight, -7, "sum", smoothing).numpy()
    same(F.soft_cross_entropy(mg.Tensor(logits), one_hot, weight, "sum", smoothing), expected)


def test_a_target_of_0_costs_nothing_at_a_logit_of_minus_infinity() -> None:
    logits, targets = leaf([[0.0, -np.inf, 1.0]]), leaf([[0.5, 0.0, 0.5]])
    loss = F.soft_cross_entropy(logits, targets)
    assert loss.item() == pytest.approx(log(1.0 + np.e) - 0.5, rel=1e-12)
    assert np.isfinite(grad_of(loss, logits)).all()


def test_no_label_means_nan_with_gradient_0_with_weights_and_in_nll_loss() -> None:
    """As in E53 for cross_entropy; sums and single losses are 0."""
    for loss in (F.cross_entropy, F.nll_loss):
        for labels, weight in (([-100, -100], None), ([-100, -100], [1.0, 2.0, 3.0]), ([0, 0], [0.0, 2.0, 3.0])):
            scores = leaf(np.ones((2, 3)))
            found = loss(scores, labels, weight)
            assert isnan(found.item())
            np.testing.assert_array_equal(grad_of(found, scores), np.zeros((2, 3)))
            assert loss(scores, labels, weight, reduction="sum").item() == 0.0
            assert loss(scores, labels, weight, reduction="none").tolist() == [0.0, 0.0]


def test_an_empty_batch_has_mean_nan_and_sum_0() -> None:
    for loss in (F.cross_entropy, F.nll_loss):
        assert isnan(loss(mg.zeros((0, 3)), []).item())
        assert loss(mg.zeros((0, 3)), [], reduction="sum").item() == 0.0
        assert loss(mg.zeros((2, 0, 3)), np.zeros((2, 0), np.int64), reduction="none").shape == (2, 0)
    assert F.cross_entropy(mg.zeros((2, 0, 3)), mg.zeros((2, 0, 3)), reduction="none").shape == (2, 0)  # labels that are probabilities
    assert isnan(F.kl_div(mg.zeros((0, 3)), mg.zeros((0, 3)), "batchmean").item())


def test_weighted_losses_of_parts_with_a_common_denominator_add_up() -> None:
    """As in E55, with class weights: the denominator is then the sum of the labels' weights, which need not be an integer."""
    rng = np.random.default_rng(0)
    logits, labels, weight = rng.standard_normal((6, 3)), np.array([0, -100, 2, 1, -100, 2]), np.array([0.5, 1.25, 3.0])
    whole, parts = leaf(logits), leaf(logits)
    expected = F.cross_entropy(whole, labels, weight)
    denominator = weight[labels[labels >= 0]].sum()
    total = mg.Tensor(0.0)
    for a, b in ((0, 2), (2, 3), (3, 6)):
        total = total + F.cross_entropy(parts[a:b], labels[a:b], weight, denominator=denominator)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad_of(total, parts), grad_of(expected, whole), rtol=1e-12, atol=1e-15)


def test_a_denominator_may_be_a_tensor() -> None:
    found = [F.cross_entropy(Z, [0, 1], denominator=denominator).item() for denominator in (5.0, mg.tensor(5.0), mg.tensor(5))]
    assert found[0] == found[1] == found[2]


def test_nll_loss_ignores_whatever_an_ignored_row_holds() -> None:
    scores = leaf([[-np.inf, np.nan], [-1.0, -2.0]])
    loss = F.nll_loss(scores, [-100, 1])
    assert loss.item() == 2.0
    np.testing.assert_array_equal(grad_of(loss, scores), [[0.0, 0.0], [0.0, -1.0]])


# ---------------------------------------------------------------- binary
@given(data=st.data(), reduction=reductions)
def test_bce_with_logits_by_hand(data: st.DataObject, reduction: str) -> None:
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x, y = data.draw(arrays(shape)) * 3.0, generator(data.draw).random(shape)
    weight, pos_weight = (data.draw(arrays(shape[-1:], "positive")) for _ in range(2))
    p = scipy.special.expit(x)
    same(F.bce_with_logits(mg.Tensor(x), y, reduction=reduction), REDUCE[reduction](-y * np.log(p) - (1 - y) * np.log1p(-p)))
    losses = weight * (-pos_weight * y * np.log(p) - (1 - y) * np.log1p(-p))
    same(F.bce_with_logits(mg.Tensor(x), y, weight, pos_weight, reduction), REDUCE[reduction](losses))


# ---------------------------------------------------------------- distributions and directions
@given(data=st.data(), reduction=st.sampled_from(["mean", "sum", "none", "batchmean"]))
def test_kl_div_by_hand(data: st.DataObject, reduction: str) -> None:
    shape = data.draw(shapes(min_dims=1, min_side=1))
    x, target = data.draw(arrays(shape)), generator(data.draw).random(shape)
    target[generator(data.draw).random(shape) < 0.3] = 0.0
    losses = scipy.special.xlogy(target, target) - target * x
    expected = losses.sum() / shape[0] if reduction == "batchmean" else REDUCE[reduction](losses)
    same(F.kl_div(mg.Tensor(x), target, reduction), expected)
    with np.errstate(divide="ignore"):
        log_target = np.log(target)
    same(F.kl_div(mg.Tensor(x), log_target, reduction, log_target=True), expected)


@pytest.mark.parametrize("log_target", [False, True])
def test_an_impossible_target_of_kl_div_contributes_0(log_target: bool) -> None:
    x, target = leaf([[-np.inf, log(0.5)]]), leaf([[-np.inf, 0.0]] if log_target else [[0.0, 1.0]])
    loss = F.kl_div(x, target, "batchmean", log_target)
    assert loss.item() == pytest.approx(log(2.0), rel=1e-15)
    np.testing.assert_array_equal(grad_of(loss, x), [[0.0, -1.0]])
    again = F.kl_div(x, target, "batchmean", log_target)
    assert np.isfinite(grad_of(again, target)).all() and grad_of(F.kl_div(x, target, "sum", log_target), target)[0, 0] == 0.0


@given(data=st.data())
def test_cosine_similarity_by_hand(data: st.DataObject) -> None:
    first, second = data.draw(broadcastable(2, min_dims=1, min_side=1).filter(any))
    ndim = max(len(first), len(second))
    axis = data.draw(st.integers(-ndim, ndim - 1))
    a, b = data.draw(arrays(first, "nonzero")), data.draw(arrays(second, "nonzero"))
    whole_a, whole_b = np.broadcast_arrays(a, b)
    expected = (whole_a * whole_b).sum(axis) / np.linalg.norm(whole_a, axis=axis) / np.linalg.norm(whole_b, axis=axis)
    same(F.cosine_similarity(mg.Tensor(a), b, axis), expected)


def test_cosine_similarity_of_every_row_with_every_other() -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 2.0], [-1.0, 0.0]])
    expected = [[0.96, 0.8, -0.6], [0.8, 0.0, -1.0]]
    np.testing.assert_allclose(F.cosine_similarity(a[:, None], b[None]).numpy(), expected, rtol=1e-15)
    np.testing.assert_allclose(F.cosine_similarity(a, b[:1]).numpy(), [0.96, 0.8], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosine_similarity_of_a_zero_vector_is_0_with_finite_gradients(dtype: Any) -> None:
    a, b = leaf([[0.0, 0.0], [3.0, 4.0]], dtype), leaf([[0.0, 0.0], [0.0, 0.0]], dtype)
    found = F.cosine_similarity(a, b)
    assert found.tolist() == [0.0, 0.0] and found.dtype == dtype
    np.testing.assert_array_equal(grad_of(found, a), np.zeros((2, 2)))
    np.testing.assert_allclose(grad_of(F.cosine_similarity(a, b), b), [[0.0, 0.0], [0.6e8, 0.8e8]], rtol=1e-6)  # 1/eps times the direction


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_cosine_similarity_squares_nothing_that_overflows_or_vanishes(size: float) -> None:
    a, b = leaf([3.0 * size, 4.0 * size], np.float32), leaf([4.0 * size, 3.0 * size], np.float32)
    found = F.cosine_similarity(a, b, eps=1e-30)
    assert found.item() == pytest.approx(0.96, rel=1e-6)
    np.testing.assert_allclose(grad_of(found, a) * size, [0.04480, -0.03360], rtol=1e-4)  # (b̂ - 0.96 â) / ‖a‖


# ---------------------------------------------------------------- distances
@given(data=st.data(), reduction=reductions, width=st.sampled_from([0.5, 1.0, 2.0]))
def test_distances_by_hand(data: st.DataObject, reduction: str, width: float) -> None:
    shape = data.draw(shapes(min_side=1))
    x, y = data.draw(arrays(shape)), data.draw(arrays(shape))
    d = np.abs(x - y)
    huber = np.where(d <= width, d * d / 2, width * (d - width / 2))
    reduce = REDUCE[reduction]
    same(F.mse_loss(mg.Tensor(x), y, reduction), reduce(d * d))
    same(F.l1_loss(mg.Tensor(x), y, reduction), reduce(d))
    same(F.huber_loss(mg.Tensor(x), y, reduction, width), reduce(huber))
    same(F.smooth_l1_loss(mg.Tensor(x), y, reduction, width), reduce(huber / width))


def test_slopes_of_distances_at_their_kinks() -> None:
    x = leaf([0.0, 1.0, -1.0])
    np.testing.assert_array_equal(grad_of(F.l1_loss(x, [0.0, 0.0, 0.0], "sum"), x), [0.0, 1.0, -1.0])
    np.testing.assert_array_equal(grad_of(F.huber_loss(x, [0.0, 0.0, 0.0], "sum"), x), [0.0, 1.0, -1.0])


def test_huber_loss_far_away_does_not_overflow() -> None:
    x = leaf([1e30, -1e30], np.float32)  # the square of either is infinite in float32
    loss = F.huber_loss(x, [0.0, 0.0], "none")
    np.testing.assert_array_equal(loss.numpy(), np.float32([1e30, 1e30]))
    np.testing.assert_array_equal(grad_of(loss, x), [1.0, -1.0])


# ---------------------------------------------------------------- dtypes
LOSSES = [F.bce_with_logits, F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.kl_div, F.soft_cross_entropy]
PAIRS = [*LOSSES, F.cosine_similarity]
by_name = pytest.mark.parametrize("loss", PAIRS, ids=lambda loss: loss.__name__)


@by_name
def test_float32_predictions_and_any_targets_give_float32(loss: Any) -> None:
    x = mg.Tensor(np.full((2, 2), 0.25, np.float32), requires_grad=True)
    for targets in (
        np.ones((2, 2)),
        [[1.0, 0.5], [1.0, 1.0]],
        np.ones((2, 2), np.int64),
        np.ones((2, 2), bool),
        mg.ones((2, 2), "float64"),
    ):
        found = loss(x, targets)
        assert found.dtype == np.float32 and grad_of(found, x).dtype == np.float32
    assert loss(np.ones((2, 2), np.int64), [[0.5, 0.5], [0.5, 0.5]]).dtype == np.float32


def test_numpys_float64_numbers_as_options_keep_float32() -> None:
    x, half = leaf(np.zeros((2, 2)), np.float32), np.float64(0.5)
    losses = [
        F.huber_loss(x, x, delta=half), F.smooth_l1_loss(x, x, beta=half), F.cosine_similarity(x, x, eps=half),
        F.cross_entropy(x, [0, 1], label_smoothing=half), F.cross_entropy(x, [0, 1], denominator=half),
        F.soft_cross_entropy(x, x, label_smoothing=half), F.rms_norm(x, eps=half), F.batch_norm(x, [0.0, 0.0], [1.0, 1.0], eps=half),
        mg.nn.LeakyReLU(half)(x),
    ]  # fmt: skip
    assert {loss.dtype.name for loss in losses} == {"float32"}


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("weight", [np.ones(3), [1, 2, 3], mg.ones(3, "float64")], ids=["array", "list", "tensor"])
def test_weights_take_the_dtype_of_the_scores(loss: Any, weight: Any) -> None:
    x = mg.Tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    for reduction in ("mean", "sum", "none"):
        found = loss(x, [0, 2], weight, reduction=reduction)
        assert found.dtype == np.float32 and grad_of(found, x).dtype == np.float32


def test_targets_of_any_dtype_keep_float64() -> None:
    x = mg.Tensor(np.array([0.1, 0.2]))
    assert F.l1_loss(x, [0.1, 0.2]).item() == 0.0
    assert F.bce_with_logits(x * 0.0, [0.1, 0.2]).item() == pytest.approx(log1p(1.0), rel=1e-15)


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_shapes_that_differ_are_refused(loss: Any) -> None:
    for wrong in (np.zeros(2), np.zeros((2, 1)), np.zeros((1, 2, 2)), 0.0):
        with pytest.raises(ShapeError, match="must be equal"):
            loss(mg.zeros((2, 2)), wrong)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("word", ["median", None, 3, ["mean"]])
def test_unknown_reductions_are_refused(loss: Any, word: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{loss.__name__}: reduction is one of mean, sum, none"):
        loss(mg.zeros((2, 2)), mg.zeros((2, 2)), reduction=word)


Z = mg.Tensor(np.zeros((2, 3)))
REFUSED: dict[str, tuple[Callable[[], Any], type[MinigradError], str]] = {
    "reduction": (
        lambda: F.cross_entropy(Z, [0, 1], reduction="median"),
        ArgumentError,
        "cross_entropy: reduction is one of mean, sum, none",
    ),
    "nll reduction": (lambda: F.nll_loss(Z, [0, 1], reduction="median"), ArgumentError, "nll_loss: reduction is one of mean, sum, none"),
    "batchmean": (lambda: F.mse_loss(Z, Z, "batchmean"), ArgumentError, "not 'batchmean'"),
    "batchmean of a number": (lambda: F.kl_div(0.0, 0.0, "batchmean"), ShapeError, "needs an axis of examples"),
    "a trained denominator": (lambda: F.cross_entropy(Z, [0, 1], denominator=leaf(2.0)), ArgumentError, "requires a gradient"),
    "denominator in words": (lambda: F.cross_entropy(Z, [0, 1], denominator="2"), ArgumentError, "or a constant tensor (), not '2'"),
    "several denominators": (lambda: F.cross_entropy(Z, [0, 1], denominator=mg.ones(2)), ArgumentError, "a constant tensor () on cpu"),
    "denominator of a sum": (lambda: F.cross_entropy(Z, [0, 1], reduction="sum", denominator=2), ArgumentError, "divides by a denominator"),
    "weights of a class too many": (lambda: F.cross_entropy(Z, [0, 1], np.ones(4)), ShapeError, "weight has shape (4,)"),
    "a number as weights": (lambda: F.nll_loss(Z, [0, 1], 2.0), ShapeError, "it needs one number per class"),
    "trained weights": (lambda: F.cross_entropy(Z, [0, 1], leaf(np.ones(3))), ArgumentError, "pass weight.detach()"),
    "label outside": (lambda: F.nll_loss(Z, [0, 3]), IndexRangeError, "nll_loss labels: value 3 at place 1 is outside 0..2"),
    "negative label": (lambda: F.nll_loss(Z, [-1, 0]), IndexRangeError, "value -1 at place 0"),
    "floating labels": (lambda: F.cross_entropy(Z, [0.0, 1.0]), DTypeError, "labels must be integers, got float32"),
    "boolean labels": (lambda: F.nll_loss(Z, [True, False]), DTypeError, "labels must be integers, got bool"),
    "labels of another shape": (lambda: F.nll_loss(Z, [[0, 1]]), ShapeError, "labels have shape (1, 2)"),
    "no axis of classes": (lambda: F.nll_loss(1.0, 0), ShapeError, "need an axis of classes"),
    "no axis of probabilities": (lambda: F.soft_cross_entropy(1.0, 1.0), ShapeError, "need an axis of classes"),
    "ignored probabilities": (lambda: F.cross_entropy(Z, np.zeros((2, 3)), ignore_index=0), ArgumentError, "belong to integer labels"),
    "smoothing": (lambda: F.soft_cross_entropy(Z, Z, label_smoothing=1.5), ArgumentError, "label_smoothing lies between 0 and 1"),
    "smoothing by a word": (lambda: F.cross_entropy(Z, [0, 1], label_smoothing="a lot"), ArgumentError, "label_smoothing lies between"),  # type: ignore[arg-type]
    "weight of another shape": (
        lambda: F.bce_with_logits(Z, Z, np.ones(2)),
        ShapeError,
        "weight of shape (2,) does not broadcast to (2, 3)",
    ),
    "weight that enlarges": (lambda: F.bce_with_logits(Z, Z, None, np.ones((4, 2, 3))), ShapeError, "pos_weight of shape (4, 2, 3)"),
    "delta": (lambda: F.huber_loss(Z, Z, delta=0.0), ArgumentError, "huber_loss: delta is a number above 0, got 0.0"),
    "beta": (lambda: F.smooth_l1_loss(Z, Z, beta=float("nan")), ArgumentError, "smooth_l1_loss: beta is a number above 0"),
    "eps": (lambda: F.cosine_similarity(Z, Z, eps="small"), ArgumentError, "cosine_similarity: eps is a number above 0"),  # type: ignore[arg-type]
    "axis": (lambda: F.cosine_similarity(Z, Z, axis=2), ShapeError, "cosine_similarity: axis 2 is out of bounds for shape (2, 3)"),
    "unlike vectors": (
        lambda: F.cosine_similarity(Z, np.ones((3, 2))),
        ShapeError,
        "cosine_similarity: the shapes (2, 3) and (3, 2) do not broadcast",
    ),
    "logits of the operation": (lambda: ops.cross_entropy(np.zeros(3), np.zeros(3, int)), ShapeError, "takes logits (n, classes)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_mistakes_are_named(what: str) -> None:
    call, kind, words = REFUSED[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
