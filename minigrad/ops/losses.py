"""Losses as operations."""

from __future__ import annotations

from typing import Any

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import composite, op
from minigrad.ops.index import check_rows
from minigrad.tensor import Tensor, TensorLike, as_tensor


@op("n c, n:int<c -> ", promotes="float")
def cross_entropy(
    xp: Any, logits: Array, labels: Array, *, ignore_index: int = -100, label_smoothing: float = 0.0, denominator: int | None = None
) -> Any:
    """The mean of -log softmax(logits)[label] over the rows whose label is not `ignore_index`.

    Label smoothing mixes the one-hot target with the uniform one (Szegedy et al., arXiv 1512.00567). `denominator` is the number of
    labels to divide by when these rows are only part of a step. Without any label the loss is NaN and the gradient 0, as in PyTorch.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(f"cross_entropy takes logits (n, classes) and labels (n,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: label_smoothing lies between 0 and 1, got {label_smoothing}")
    valid = labels != ignore_index
    check_rows("cross_entropy labels", xp.constant(labels) * valid, logits.shape[1])
    classes = logits.shape[1]
    n = int(valid.sum()) if denominator is None else denominator
    target = xp.one_hot(xp.constant(labels), classes, logits.dtype) * (1.0 - label_smoothing) + label_smoothing / classes
    target *= valid[:, None]
    counted = xp.where(valid[:, None], logits, 0.0)  # whatever an ignored row holds, it must not count
    shifted = counted - xp.constant(counted).max(axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)

    def pullback(g: Array) -> Any:
        return ((e / total) * valid[:, None] - target) * (g * (1.0 / max(n, 1))), None

    wanted = xp.where(target == 0, 0.0, shifted) * target  # a class at -inf costs nothing where nobody asks for it
    losses = xp.log(total) * valid[:, None] - wanted.sum(axis=-1, keepdims=True)
    return losses.sum() * (1.0 / n if n else float("nan")), pullback


@composite("*s, *s -> ")
def mse_loss(predictions: TensorLike, targets: TensorLike) -> Tensor:
    """The mean squared difference.

    Raises: ShapeError if the shapes differ (nothing is broadcast silently).
    """
    predictions = as_tensor(predictions)
    wanted = targets if isinstance(targets, Tensor) else Tensor(targets, dtype=predictions.dtype, device=predictions.device)
    if wanted.shape != predictions.shape:
        raise ShapeError(f"mse_loss: predictions have shape {predictions.shape}, targets {wanted.shape}: they must be equal")
    difference = predictions - wanted.astype(predictions.dtype)
    return (difference * difference).mean()
