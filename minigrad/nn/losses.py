"""Losses as modules, which hold the options of the losses in `functional`.

Weights are constants that are saved and moved with the module, but never trained.
"""

from __future__ import annotations

from minigrad import functional as F
from minigrad.errors import ArgumentError
from minigrad.nn.module import Module
from minigrad.ops.loss_arguments import REDUCTIONS, check_reduction
from minigrad.parameter import Buffer
from minigrad.tensor import Tensor, TensorLike


def _constant(name: str, values: TensorLike | None) -> Buffer | None:
    if isinstance(values, Tensor) and values.requires_grad:
        raise ArgumentError(f"{name}: weights are constants, and no gradient would reach this one: pass weight.detach()")
    return None if values is None else Buffer(values)


class CrossEntropyLoss(Module):
    """Negative log likelihood of integer labels, or cross-entropy with probabilities; see `functional.cross_entropy`.

    Shapes: logits (*b, classes), labels (*b) integers or (*b, classes) probabilities, weight (classes,).
    """

    def __init__(
        self, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        check_reduction("CrossEntropyLoss", reduction)
        self.weight = _constant("CrossEntropyLoss", weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, logits: Tensor, labels: TensorLike) -> Tensor:
        return F.cross_entropy(logits, labels, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(Module):
    """Negative log likelihood of integer labels, given log-probabilities; see `functional.nll_loss`."""

    def __init__(self, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        check_reduction("NLLLoss", reduction)
        self.weight = _constant("NLLLoss", weight)
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, log_probabilities: Tensor, labels: TensorLike) -> Tensor:
        return F.nll_loss(log_probabilities, labels, self.weight, self.ignore_index, self.reduction)


class BCEWithLogitsLoss(Module):
    """Binary cross-entropy of logits; see `functional.bce_with_logits`. Shapes: weight and pos_weight broadcast to the logits."""

    def __init__(self, weight: TensorLike | None = None, pos_weight: TensorLike | None = None, reduction: str = "mean") -> None:
        check_reduction("BCEWithLogitsLoss", reduction)
        self.weight, self.pos_weight = _constant("BCEWithLogitsLoss", weight), _constant("BCEWithLogitsLoss", pos_weight)
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: TensorLike) -> Tensor:
        return F.bce_with_logits(logits, targets, self.weight, self.pos_weight, self.reduction)


class MSELoss(Module):
    """Squared difference; see `functional.mse_loss`."""

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, predictions: Tensor, targets: TensorLike) -> Tensor:
        return F.mse_loss(predictions, targets, self.reduction)


class L1Loss(Module):
    """Absolute difference; see `functional.l1_loss`."""

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction("L1Loss", reduction)
        self.reduction = reduction

    def forward(self, predictions: Tensor, targets: TensorLike) -> Tensor:
        return F.l1_loss(predictions, targets, self.reduction)


class HuberLoss(Module):
    """Squared difference near 0, absolute difference beyond delta; see `functional.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        check_reduction("HuberLoss", reduction)
        self.reduction, self.delta = reduction, delta

    def forward(self, predictions: Tensor, targets: TensorLike) -> Tensor:
        return F.huber_loss(predictions, targets, self.reduction, self.delta)


class SmoothL1Loss(Module):
    """The Huber loss divided by its delta, here called beta; see `functional.smooth_l1_loss`."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        check_reduction("SmoothL1Loss", reduction)
        self.reduction, self.beta = reduction, beta

    def forward(self, predictions: Tensor, targets: TensorLike) -> Tensor:
        return F.smooth_l1_loss(predictions, targets, self.reduction, self.beta)


class KLDivLoss(Module):
    """Divergence of log-probabilities from a target distribution; see `functional.kl_div` (reduction: also "batchmean")."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        check_reduction("KLDivLoss", reduction, (*REDUCTIONS, "batchmean"))
        self.reduction, self.log_target = reduction, log_target

    def forward(self, log_input: Tensor, target: TensorLike) -> Tensor:
        return F.kl_div(log_input, target, self.reduction, self.log_target)


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along an axis (in PyTorch `dim`, by default 1), after broadcasting both inputs.

    See `functional.cosine_similarity`.
    """

    def __init__(self, axis: int = -1, eps: float = 1e-8) -> None:
        self.axis, self.eps = axis, eps

    def forward(self, x1: Tensor, x2: TensorLike) -> Tensor:
        return F.cosine_similarity(x1, x2, self.axis, self.eps)
