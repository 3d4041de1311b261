"""The classification loss on a GPU: two passes over each row of logits, and one for the gradient, whatever the number of classes.

The divisor of a mean, the sum of the weights of the labels' classes, is computed on the GPU and stays there. `ops.label_ids` has
checked the labels, except in a captured step; the loss of a label outside the classes is NaN.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

from minigrad import ops
from minigrad.backend import Array
from minigrad.kernels.coverage import all_float32
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.shortening import short_outputs
from minigrad.ops.loss_arguments import REDUCTIONS


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
    denominator: float | Array | None = None,
) -> Any:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not all_float32(logits) or labels.dtype != "int64":
        return NotImplemented
    if logits.shape[1] == 0 or (weight is not None and (not all_float32(weight) or weight.shape != logits.shape[1:])):
        return NotImplemented
    if reduction not in REDUCTIONS or (denominator is not None and reduction != "mean"):
        return NotImplemented
    if not isinstance(label_smoothing, Real) or not 0.0 <= label_smoothing <= 1.0:
        return NotImplemented
    given: Any = None if denominator is None or isinstance(denominator, Real) else denominator
    if given is not None and (not all_float32(given) or given.shape != ()):
        return NotImplemented
    logits, labels = xp.ascontiguousarray(logits), xp.ascontiguousarray(labels)
    weights = None if weight is None else xp.ascontiguousarray(weight)
    rows, classes = logits.shape
    each = reduction == "none"
    saved, losses = xp.empty((rows, 2), logits.dtype), xp.empty(rows, logits.dtype)
    counts = None if each else xp.empty(rows, logits.dtype)
    launch("cross_entropy", (rows,), logits, labels, weights, losses, counts, saved, rows, classes, ignore_index, label_smoothing)
    loss, factor = losses, None
    if not each:
        mean, total = reduction == "mean" and denominator is None, xp.empty(2, logits.dtype)
        divisor = 1.0 if denominator is None or given is not None else float(denominator)
        launch("total_loss", (), losses, counts, given, total, rows, divisor, int(mean))
        loss, factor = total[:1].reshape(()), total[1:]

    def pullback(g: Array) -> Any:
        dlogits = xp.empty_like(logits)
        arrays = (xp.ascontiguousarray(g), logits, labels, weights, saved, factor, dlogits, *short_outputs(xp, dlogits))
        launch("cross_entropy_pullback", (rows,), *arrays, rows, classes, int(each), ignore_index, label_smoothing)
        return dlogits, None

    return loss, pullback
