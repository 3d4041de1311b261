"""Losses as modules."""

from __future__ import annotations

from minigrad import functional as F
from minigrad.nn.module import Module
from minigrad.tensor import Tensor, TensorLike


class CrossEntropyLoss(Module):
    """Mean negative log likelihood of integer labels; see `functional.cross_entropy`."""

    def __init__(self, ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, logits: Tensor, labels: TensorLike) -> Tensor:
        return F.cross_entropy(logits, labels, self.ignore_index, self.label_smoothing)


class MSELoss(Module):
    """Mean squared difference; see `functional.mse_loss`."""

    def forward(self, predictions: Tensor, targets: TensorLike) -> Tensor:
        return F.mse_loss(predictions, targets)
