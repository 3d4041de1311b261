"""The classification loss on a GPU: two passes over each row of logits, and one for the gradient, whatever the number of classes.

How many labels count is summed on the GPU and stays there. Whoever puts labels on a GPU has checked them (`ops.losses.label_ids`); the loss
of one that names no class is NaN.
"""

from __future__ import annotations

from math import nan
from numbers import Real
from typing import Any

from minigrad import ops
from minigrad.backend import Array
from minigrad.kernels.cuda.blocks import all_float32
from minigrad.kernels.cuda.launch import launch
from minigrad.ops.losses import REDUCTIONS


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and 0.0 <= float(value) <= 1.0


@ops.cross_entropy.on("cupy")
def _cross_entropy(
    xp: Any,
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    denominator: float | None = None,
) -> Any:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not all_float32(logits) or labels.dtype != "int64" or weight is not None:
        return NotImplemented
    if logits.shape[1] == 0:
        return NotImplemented
    if reduction not in REDUCTIONS or not _is_share(label_smoothing) or (denominator is not None and reduction != "mean"):
        return NotImplemented
    logits, labels = xp.ascontiguousarray(logits), xp.ascontiguousarray(labels)
    rows, classes = logits.shape
    each = reduction == "none"
    saved, losses = xp.empty((rows, 2), logits.dtype), xp.empty(rows, logits.dtype)
    counts = None if each else xp.empty(rows, logits.dtype)
    launch("cross_entropy", (rows,), logits, labels, losses, counts, saved, rows, classes, ignore_index, label_smoothing)
    loss, count = losses, None
    factor = 1.0 if denominator is None else 1.0 / float(denominator) if denominator else 0.0  # of the gradient
    if not each:
        mean, total = reduction == "mean" and denominator is None, xp.empty(2, logits.dtype)
        launch("total_loss", (), losses, counts, total, rows, nan if denominator == 0 else factor, int(mean))
        loss, count = total[:1].reshape(()), total[1:] if mean else None  # how many labels count, the GPU alone knows

    def pullback(g: Array) -> Any:
        dlogits = xp.empty_like(logits)
        given = (xp.ascontiguousarray(g), logits, labels, saved, count, dlogits)
        launch("cross_entropy_pullback", (rows,), *given, rows, classes, int(each), ignore_index, label_smoothing, factor)
        return dlogits, None

    return loss, pullback
