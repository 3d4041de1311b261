"""Adapters for layers as functions: linear, normalisation, attention, convolution, pooling; and for the losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import Adapter, F, NotCompared, NotOffered, axes, refuse

from minigrad.tensor import Tensor

MIXED = "integers take over the dtype of the floating operands"


def layer_norm(x: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    if len(normalized_shape) != 1:
        raise NotCompared("normalisation over several axes: minigrad's is over the last")
    return F.layer_norm(x, weight, bias, eps)  # type: ignore[no-any-return]


def rms_norm(x: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
    """eps=None means the machine epsilon of x's dtype."""
    if len(normalized_shape) != 1:
        raise NotCompared("normalisation over several axes: minigrad's is over the last")
    return F.rms_norm(x, weight, float(np.finfo(x.dtype).eps) if eps is None else eps)  # type: ignore[no-any-return]


def group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)  # type: ignore[no-any-return]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Tensor:
    refuse(dropout_p=None if dropout_p == 0.0 else dropout_p, scale=scale, enable_gqa=enable_gqa)
    if is_causal and q.shape[-2] != k.shape[-2]:
        raise NotCompared("differs by convention: causal with unequal numbers of queries and keys; here the last query sees the last key")
    if attn_mask is not None and attn_mask.dtype != bool:
        raise NotCompared("a mask of numbers that are added to the scores: minigrad's masks are booleans")
    return F.scaled_dot_product_attention(q, k, v, attn_mask, causal=is_causal)  # type: ignore[no-any-return]


def batch_norm(
    x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5
) -> Tensor:
    """The running statistics are the layer's business here: the function takes them or computes the batch's own."""
    if x.ndim < 2:
        raise NotCompared("batch_norm without an axis of channels")
    return F.batch_norm(x, None if training else mean, None if training else var, weight, bias, eps)  # type: ignore[no-any-return]


def batched(x: Any, spatial: int) -> None:
    if x.ndim == spatial + 1:
        raise NotCompared("images without a batch axis")


def conv(spatial: int) -> Adapter:
    def adapter(
        x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Tensor:
        batched(x, spatial)
        return getattr(F, f"conv{spatial}d")(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]

    return adapter


def max_pool(spatial: int) -> Adapter:
    def adapter(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        refuse(ceil_mode=ceil_mode)
        batched(x, spatial)
        values = getattr(F, f"max_pool{spatial}d")(x, kernel_size, stride, padding, dilation)
        return (values, NotOffered("places: minigrad's max_pool returns the values")) if return_indices else values

    return adapter


def avg_pool(spatial: int) -> Adapter:
    def adapter(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Tensor:
        refuse(ceil_mode=ceil_mode, divisor_override=divisor_override)
        batched(x, spatial)
        return getattr(F, f"avg_pool{spatial}d")(x, kernel_size, stride, padding, count_include_pad)  # type: ignore[no-any-return]

    return adapter


def unfold(x: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    batched(x, 2)
    return F.unfold(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)  # type: ignore[no-any-return]


def classes_last(x: Tensor) -> Tensor:
    """PyTorch has the classes on axis 1, minigrad on the last."""
    return F.moveaxis(x, 1, -1) if x.ndim > 2 else x  # type: ignore[no-any-return]


def cross_entropy(
    x: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0
) -> Tensor:
    if target.dtype.kind == "f":
        target = classes_last(target)
    return F.cross_entropy(classes_last(x), target, weight, ignore_index, reduction, label_smoothing)  # type: ignore[no-any-return]


def nll_loss(x: Tensor, target: Tensor, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    return F.nll_loss(classes_last(x), target, weight, ignore_index, reduction)  # type: ignore[no-any-return]


def bce_with_logits(x: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> Tensor:
    return F.bce_with_logits(x, target, weight, pos_weight, reduction)  # type: ignore[no-any-return]


def loss(name: str) -> Adapter:
    def adapter(x: Tensor, target: Tensor, reduction: str = "mean", **options: Any) -> Tensor:
        refuse(weight=options.pop("weight", None))
        if options.get("beta") == 0:
            raise NotCompared("smooth_l1_loss with beta=0, which is l1_loss")
        return getattr(F, name)(x, target, reduction, **options)  # type: ignore[no-any-return]

    return adapter


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    longer = max(x1, x2, key=lambda x: x.ndim)
    return F.cosine_similarity(x1, x2, axes(longer, dim), eps)  # type: ignore[no-any-return]


BOOK = Book(
    {
        "nn.functional.linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
        "nn.functional.layer_norm": layer_norm,
        "nn.functional.rms_norm": rms_norm,
        "nn.functional.group_norm": group_norm,
        "nn.functional.batch_norm": batch_norm,
        "nn.functional.scaled_dot_product_attention": attention,
        "nn.functional.conv1d": conv(1),
        "nn.functional.conv2d": conv(2),
        "nn.functional.max_pool1d": max_pool(1),
        "nn.functional.max_pool2d": max_pool(2),
        "nn.functional.avg_pool1d": avg_pool(1),
        "nn.functional.avg_pool2d": avg_pool(2),
        "nn.functional.unfold": unfold,
        "nn.functional.cross_entropy": cross_entropy,
        "nn.functional.nll_loss": nll_loss,
        "nn.functional.binary_cross_entropy_with_logits": bce_with_logits,
        "nn.functional.mse_loss": loss("mse_loss"),
        "nn.functional.l1_loss": loss("l1_loss"),
        "nn.functional.huber_loss": loss("huber_loss"),
        "nn.functional.smooth_l1_loss": loss("smooth_l1_loss"),
        "nn.functional.kl_div": loss("kl_div"),
        "nn.functional.cosine_similarity": cosine_similarity,
    },
    accepted={"nn.functional.conv1d": {"should be the same": MIXED}, "nn.functional.conv2d": {"should be the same": MIXED}},
    float32={
        "nn.functional.layer_norm": (1.3e-6, 1e-4),  # a row of one number: PyTorch's x·rstd - mean·rstd leaves 3e-5, here it is exactly 0
    },
)
