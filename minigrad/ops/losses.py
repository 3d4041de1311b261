"""Losses, with PyTorch's definitions and argument names.

`reduction` is "mean", "sum" or "none", and predictions and targets are not broadcast. Only `cross_entropy` has a pullback of its own,
because logits may be as wide as a vocabulary; the others are composites.
"""

from __future__ import annotations

from math import inf, nan
from numbers import Real
from typing import Any

from minigrad.backend import Array, namespace_of, to_number
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.activation import softplus
from minigrad.ops.axes import normalise_axis
from minigrad.ops.elementwise import exp, log, where
from minigrad.ops.index import check_rows
from minigrad.ops.loss_arguments import (
    REDUCTIONS,
    apply_reduction,
    as_dtype_of,
    as_floating,
    as_pair,
    broadcast_shape,
    check_positive,
    check_reduction,
    check_smoothing,
    class_weights,
    label_ids,
)
from minigrad.ops.reduce import norm
from minigrad.ops.shape import broadcast_to
from minigrad.ops.softmax import log_softmax
from minigrad.tensor import Tensor, TensorLike


# ---------------------------------------------------------------- classes
@op("n c, n:int<c -> ", promotes="float")
def cross_entropy(
    xp: Any,
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    denominator: float | Array | None = None,
) -> Any:
    """-log softmax(logits)[label] over the rows whose label is not `ignore_index`, times the weight of the label's class.

    The mean divides by the sum of the labels' weights (without weights, by their number), or by `denominator`, a number or an array (),
    if these rows are only part of a step; without any label it is NaN and its gradient 0, as in PyTorch. With label smoothing ε the
    target is (1 - ε) · one-hot + ε / c (Szegedy et al., arXiv 1512.00567), each class with its weight. Reduction "none" gives (n,), with
    0 for ignored rows.
    Raises: ShapeError for other shapes, IndexRangeError for a label outside 0..c-1, ArgumentError for options that do not go together.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(f"cross_entropy takes logits (n, classes) and labels (n,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    check_smoothing("cross_entropy", label_smoothing)
    check_reduction("cross_entropy", reduction)
    if denominator is not None and reduction != "mean":
        raise ArgumentError(f'cross_entropy: only reduction="mean" divides by a denominator, not {reduction!r}')
    label_smoothing = float(label_smoothing)  # a NumPy float64 would turn float32 into float64
    valid = labels != ignore_index
    ids = xp.constant(labels) * valid
    check_rows("cross_entropy labels", ids, logits.shape[1])
    classes = logits.shape[1]
    target = xp.one_hot(xp.constant(labels), classes, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / classes
    target *= valid[:, None]
    mass: Array = valid[:, None]  # the sum of each row of the target
    counted = valid
    if weight is not None:
        weight = weight.astype(logits.dtype)
        target *= weight
        mass, counted = target.sum(axis=-1, keepdims=True), weight[ids] * valid
    if denominator is None and reduction != "sum":
        denominator = counted.sum()
    n = 1.0 if denominator is None else float(denominator if isinstance(denominator, Real) else to_number(denominator))
    kept = xp.where(valid[:, None], logits, 0.0)  # an ignored row must not count, even if it holds NaN
    shifted = kept - xp.constant(kept).max(axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)

    def pullback(g: Array) -> Any:
        share = g.reshape((-1, 1)) if reduction == "none" else g * (1.0 / n if n else 0.0)
        return ((e / total) * mass - target) * share, None

    target_scores = xp.where(target == 0, 0.0, shifted) * target  # a logit of -inf costs nothing where the target is 0
    losses = xp.log(total) * mass - target_scores.sum(axis=-1, keepdims=True)
    return (losses.reshape(-1) if reduction == "none" else losses.sum() * (1.0 / n if n else nan)), pullback


@composite("*b c, *b c -> ")
def soft_cross_entropy(
    logits: TensorLike, targets: TensorLike, weight: TensorLike | None = None, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """-Σ_c target_c · log softmax(logits)_c: the cross-entropy with a distribution over the classes as target.

    The mean divides by the number of rows, even with weights, as in PyTorch. A target of 0 costs nothing, even at a logit of -inf.
    Shapes: logits and targets (*b, classes), weight (classes,) → (), or (*b) with reduction="none".
    Raises: ShapeError; ArgumentError for an unknown reduction or a smoothing outside 0 … 1.
    """
    check_reduction("soft_cross_entropy", reduction)
    check_smoothing("soft_cross_entropy", label_smoothing)
    scores, target = as_pair("soft_cross_entropy", logits, targets)
    if scores.ndim == 0:
        raise ShapeError("soft_cross_entropy: the logits need an axis of classes, got a single number")
    if label_smoothing:
        label_smoothing = float(label_smoothing)
        target = target * (1.0 - label_smoothing) + label_smoothing / scores.shape[-1]
    weights = class_weights("soft_cross_entropy", weight, scores)
    if weights is not None:
        target = target * weights
    log_p = log_softmax(scores)
    no_cost = (target.array == 0) & (log_p.array == -inf)  # 0 · ∞ would be NaN
    return apply_reduction(-(target * where(no_cost, 0.0, log_p)).sum(axis=-1), reduction)


@composite("*b c, *b:int<c -> ")
def nll_loss(
    log_probabilities: TensorLike, labels: TensorLike, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-log_probabilities[label]: the cross-entropy of scores that are log-probabilities already.

    Weights, ignored labels and the mean are as in `cross_entropy`: without any label the mean is NaN, with gradient 0.
    Shapes: log_probabilities (*b, classes), labels (*b) integers, weight (classes,) → (), or (*b) with reduction="none".
    Raises: IndexRangeError naming the position of a label outside 0..classes-1; DTypeError; ShapeError; ArgumentError.
    """
    check_reduction("nll_loss", reduction)
    scores = as_floating(log_probabilities)
    given = label_ids("nll_loss", labels, scores, ignore_index)
    valid = (given != ignore_index).reshape(-1)
    ids = given.reshape(-1) * valid
    check_rows("nll_loss labels", ids, scores.shape[-1])
    weights = class_weights("nll_loss", weight, scores)
    share = valid.astype(scores.dtype) if weights is None else weights[ids] * valid
    places = namespace_of(ids).arange(ids.size)
    picked = scores.reshape((ids.size, scores.shape[-1]))[places, ids]
    losses: Tensor = -where(share == 0, 0.0, picked) * share
    if reduction != "mean":
        return apply_reduction(losses.reshape(scores.shape[:-1]), reduction)
    n = float(to_number(share.sum()))
    return losses.sum() / n if n else losses.sum() + nan  # added, so that the gradient is 0


@composite("*s, *s -> ")
def bce_with_logits(
    logits: TensorLike, targets: TensorLike, weight: TensorLike | None = None, pos_weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """-(p · y · log σ(x) + (1 - y) · log(1 - σ(x))) for logits x, targets y in 0 … 1 and pos_weight p: binary cross-entropy.

    -log σ(x) is computed as softplus(-x), accurate in both tails. The mean divides by the number of elements, even with weights.
    Shapes: logits and targets (*s); weight and pos_weight broadcast to (*s), pos_weight usually as (classes,) → (), or (*s) for "none".
    Raises: ShapeError; ArgumentError for an unknown reduction.
    """
    check_reduction("bce_with_logits", reduction)
    x, y = as_pair("bce_with_logits", logits, targets)
    weighted = y if pos_weight is None else y * _factor("pos_weight", pos_weight, x)
    losses = weighted * softplus(-x) + (1.0 - y) * softplus(x)
    return apply_reduction(losses if weight is None else losses * _factor("weight", weight, x), reduction)


def _factor(what: str, value: TensorLike, like: Tensor) -> Tensor:
    """`value` in the dtype of `like`, to whose shape it must broadcast."""
    factor = as_dtype_of(value, like)
    try:
        namespace_of(factor.array).broadcast_to(factor.array, like.shape)
    except ValueError as error:
        raise ShapeError(f"bce_with_logits: {what} of shape {factor.shape} does not broadcast to {like.shape}") from error
    return factor


# ---------------------------------------------------------------- distributions and directions
@composite("*s, *s -> ")
def kl_div(log_input: TensorLike, target: TensorLike, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log target - log_input): the Kullback–Leibler divergence of a distribution, given as its logarithm, from `target`.

    log_target: the target is a logarithm, too. A target of probability 0 contributes 0, with gradient 0, whatever the input is.
    reduction: also "batchmean", the sum divided by the length of the first axis, which is the mathematical definition; "mean" divides by
    the number of elements. Shapes: (*s), (*s) → (), or (*s) with reduction="none".
    Raises: ShapeError; ArgumentError for an unknown reduction.
    """
    check_reduction("kl_div", reduction, (*REDUCTIONS, "batchmean"))
    x, y = as_pair("kl_div", log_input, target)
    if reduction == "batchmean" and x.ndim == 0:
        raise ShapeError('kl_div: reduction="batchmean" needs an axis of examples, got a single number')
    impossible = y.array == (-inf if log_target else 0.0)
    x = where(impossible, 0.0, x)
    log_y = where(impossible, 0.0, y) if log_target else log(where(impossible, 1.0, y))
    losses = (exp(y) if log_target else y) * (log_y - x)
    if reduction == "batchmean":
        return losses.sum() / x.shape[0] if x.shape[0] else losses.sum() + nan
    return apply_reduction(losses, reduction)


@composite("*s, *s -> *t")
def cosine_similarity(x1: TensorLike, x2: TensorLike, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (max(‖x1‖, eps) · max(‖x2‖, eps)) along an axis: the cosine of the angle; a zero vector has cosine 0.

    A norm below eps is replaced by the constant eps, so gradients stay finite. x1 and x2 broadcast, and `axis` refers to their common
    shape: (n, 1, d) with (1, m, d) compares all pairs of rows. Shapes: (*s), (*s) → (*s) without the axis.
    Raises: ShapeError for shapes that do not broadcast or an axis that they lack; ArgumentError for an eps that is not above 0.
    """
    least = check_positive("cosine_similarity", "eps", eps)
    a = as_floating(x1)
    b = as_dtype_of(x2, a)
    shape = broadcast_shape("cosine_similarity", a.shape, b.shape)
    place = normalise_axis("cosine_similarity", axis, shape) - len(shape)  # counted from the end it is the same axis in both

    def direction(x: Tensor) -> Tensor:
        if x.ndim < -place or x.shape[place] != shape[place]:  # x is broadcast along the axis
            x = broadcast_to(x, shape=shape)
        length = norm(x, axis=place, keepdims=True)
        return x / where(length.array > least, length, least)

    return (direction(a) * direction(b)).sum(axis=place)


# ---------------------------------------------------------------- distances
@composite("*s, *s -> ")
def mse_loss(predictions: TensorLike, targets: TensorLike, reduction: str = "mean") -> Tensor:
    """The mean squared difference.

    Shapes: (*s), (*s) → (), or (*s) with reduction="none". Raises: ShapeError if the shapes differ; ArgumentError for the reduction.
    """
    check_reduction("mse_loss", reduction)
    x, y = as_pair("mse_loss", predictions, targets)
    difference = x - y
    return apply_reduction(difference * difference, reduction)


@composite("*s, *s -> ")
def l1_loss(predictions: TensorLike, targets: TensorLike, reduction: str = "mean") -> Tensor:
    """The mean absolute difference; where prediction and target are equal, its derivative is 0.

    Shapes: (*s), (*s) → (), or (*s) with reduction="none". Raises: ShapeError if the shapes differ; ArgumentError for the reduction.
    """
    check_reduction("l1_loss", reduction)
    x, y = as_pair("l1_loss", predictions, targets)
    return apply_reduction(abs(x - y), reduction)


@composite("*s, *s -> ")
def huber_loss(predictions: TensorLike, targets: TensorLike, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d²/2 where |d| ≤ delta, else delta · (|d| - delta/2), for the difference d. Huber, Annals of Mathematical Statistics 35 (1964).

    Shapes: (*s), (*s) → (), or (*s) with reduction="none".
    Raises: ShapeError if the shapes differ; ArgumentError for an unknown reduction or a delta that is not above 0.
    """
    check_reduction("huber_loss", reduction)
    delta = check_positive("huber_loss", "delta", delta)
    x, y = as_pair("huber_loss", predictions, targets)
    difference = x - y
    values = difference.array
    limit = namespace_of(values).sign(values) * delta
    clipped = where(abs(values) <= delta, difference, limit)  # one product for both branches, so that no unused d² can overflow
    return apply_reduction(clipped * (difference - clipped * 0.5), reduction)


@composite("*s, *s -> ")
def smooth_l1_loss(predictions: TensorLike, targets: TensorLike, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """The Huber loss with delta = beta, divided by beta: its slope for large differences is 1. Girshick, arXiv 1504.08083 (beta = 1).

    Shapes: (*s), (*s) → (), or (*s) with reduction="none".
    Raises: ShapeError if the shapes differ; ArgumentError for an unknown reduction or a beta that is not above 0 (0 is `l1_loss`).
    """
    check_reduction("smooth_l1_loss", reduction)
    beta = check_positive("smooth_l1_loss", "beta", beta)
    return huber_loss(predictions, targets, reduction, beta) * (1.0 / beta)
