"""Rows of `ops/losses.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, broadcastable, generator, shapes

reductions = st.sampled_from(["mean", "sum", "none"])
smoothings = st.sampled_from([0.0, 0.1])


def labelled(draw: Any, rows: tuple[int, ...], reduction: str) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Labels, the number of classes, and constants. At least one label counts: the mean of no label (NaN) has a test of its own."""
    classes, rng = draw(st.integers(1, 4)), generator(draw)
    ignored = draw(st.sampled_from([-100, -1, 0]))
    labels = np.array(rng.integers(0, classes, rows))
    labels[rng.random(rows) < 0.3] = ignored
    if reduction == "mean" and labels.size:
        labels[(0,) * labels.ndim] = classes - 1
        ignored = -100 if classes == 1 and ignored == 0 else ignored
    weight = draw(arrays((classes,), "positive")) if draw(st.booleans()) else None
    return labels, classes, {"ignore_index": ignored, "reduction": reduction, "weight": weight}


@case
def cross_entropy(draw: Any) -> Sample:
    reduction = draw(reductions)
    labels, classes, constants = labelled(draw, (draw(st.integers(1, 5)),), reduction)
    if reduction == "mean":
        constants["denominator"] = draw(st.sampled_from([None, 1, 7.5]))
    return Sample((draw(arrays((len(labels), classes))), labels), constants | {"label_smoothing": draw(smoothings)})


@case
def nll_loss(draw: Any) -> Sample:
    labels, classes, constants = labelled(draw, draw(shapes(max_dims=2, min_side=1, max_size=6)), draw(reductions))
    return Sample((draw(arrays((*labels.shape, classes))), labels), constants)


@case
def soft_cross_entropy(draw: Any) -> Sample:
    classes = draw(st.integers(1, 3))
    shape = (*draw(shapes(max_dims=2, min_side=1, max_size=4)), classes)
    weight = draw(arrays((classes,), "positive")) if draw(st.booleans()) else None
    constants = {"weight": weight, "reduction": draw(reductions), "label_smoothing": draw(smoothings)}
    return Sample((draw(arrays(shape)), draw(arrays(shape, "positive"))), constants)


@case
def bce_with_logits(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1, max_size=8))
    weights = [draw(arrays(shape[draw(st.integers(0, len(shape))) :], "positive")) if draw(st.booleans()) else None for _ in range(2)]
    return Sample((draw(arrays(shape)), np.asarray(draw(arrays(shape, "positive")) / 2.0), *weights), {"reduction": draw(reductions)})


@case
def kl_div(draw: Any) -> Sample:
    shape, log_target = draw(shapes(min_dims=1, min_side=1, max_size=8)), draw(st.booleans())
    constants = {"reduction": draw(st.sampled_from(["mean", "sum", "none", "batchmean"])), "log_target": log_target}
    return Sample((draw(arrays(shape)), draw(arrays(shape, "real" if log_target else "positive"))), constants)


@case
def cosine_similarity(draw: Any) -> Sample:
    a, b = draw(broadcastable(2, min_dims=1, max_dims=3, min_side=1, max_size=8).filter(any))
    ndim = max(len(a), len(b))
    axis = draw(st.integers(-ndim, ndim - 1))
    return Sample((draw(arrays(a, "nonzero")), draw(arrays(b, "nonzero"))), {"axis": axis})


@case
def mse_loss(draw: Any) -> Sample:
    shape = draw(shapes(min_side=1, max_size=8))
    return Sample((draw(arrays(shape)), draw(arrays(shape))), {"reduction": draw(reductions)})


def apart(draw: Any) -> Sample:
    """Predictions and targets whose differences stay away from 0, ±0.5, ±1 and ±2, where slopes change."""
    shape = draw(shapes(min_side=1, max_size=8))
    return Sample((draw(arrays(shape, "tenths")), draw(arrays(shape, "between tenths"))), {"reduction": draw(reductions)})


@case
def l1_loss(draw: Any) -> Sample:
    return apart(draw)


@case
def huber_loss(draw: Any) -> Sample:
    sample = apart(draw)
    return Sample(sample.args, sample.constants | {"delta": draw(st.sampled_from([0.5, 1.0, 2.0]))})


@case
def smooth_l1_loss(draw: Any) -> Sample:
    sample = apart(draw)
    return Sample(sample.args, sample.constants | {"beta": draw(st.sampled_from([0.5, 1.0, 2.0]))})
