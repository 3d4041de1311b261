"""The floor of a step: the time of its matrix products alone, at the rate that NumPy's BLAS reaches on all cores at BERT's shapes.

Only necessary products count: real tokens without padding, and in the last layer under a sequence head keys and values of all tokens but
everything else for the first token alone. A library that computes more is further from the floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.work import CLASSES, TAGS, Size, Work

SECONDS = 0.3
"""Seconds for which products are repeated to measure their rate."""


def forward_flops(size: Size, head: str, lengths: Sequence[int]) -> int:
    """Multiplications and additions in the matrix products of one forward pass over texts of these lengths.

    A product (m, k) @ (k, n) takes 2·m·k·n. A layer has four of (tokens, h) @ (h, h), one of (tokens, h) @ (h, i), one of
    (tokens, i) @ (i, h), and for each text of n tokens scores and context of 2·n·n·h each.
    """
    h, i, tokens, texts = size.hidden, size.intermediate, sum(lengths), len(lengths)
    linear = 4 * h * h + 2 * h * i
    whole_layer = 2 * tokens * linear + 4 * sum(n * n for n in lengths) * h
    if head == "token":
        return size.layers * whole_layer + 2 * tokens * h * TAGS
    last_layer = 2 * tokens * 2 * h * h + 2 * texts * (linear - 2 * h * h) + 4 * tokens * h
    return (size.layers - 1) * whole_layer + last_layer + 2 * texts * (h * h + h * CLASSES)


def flops(work: Work, what: str) -> float:
    """Mean per batch. Training takes three times the forward pass, since each product has two more in the backward pass."""
    forward = sum(forward_flops(work.size, work.head, lengths) for lengths in work.lengths) / len(work.batches)
    return forward * (3 if what == "train" else 1)


class Products:
    """Multiplies matrices of the shapes of a work's layers, and computes how long the work's products would take at that rate."""

    def __init__(self, work: Work) -> None:
        generator = np.random.default_rng(0)
        h, i, rows = work.size.hidden, work.size.intermediate, round(work.tokens)
        self.work = work
        shapes = [(h, h)] * 4 + [(h, i), (i, h)]
        self.layer: list[list[Any]] = [
            [generator.standard_normal(shape, np.float32) for shape in ((rows, inner), (outer, inner), (rows, outer))]
            for inner, outer in shapes
        ]
        self.layer_flops = 2 * rows * sum(inner * outer for inner, outer in shapes)

    def train(self) -> float:
        """Seconds per batch at the rate of the products of training: forward, input gradient and weight gradient."""
        return self._seconds("train")

    def infer(self) -> float:
        """Seconds per batch at the rate of the products of a forward pass."""
        return self._seconds("infer")

    def close(self) -> None:
        """Nothing to close."""

    def _seconds(self, what: str) -> float:
        """Seconds per batch, from the median over many layers, so that a neighbour's burst of work does not count."""
        passes, started = [], time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            before = time.perf_counter()
            for x, weight, y in self.layer:  # y = x @ weight.T
                np.matmul(x, weight.T)
                if what == "train":
                    np.matmul(y, weight)
                    np.matmul(y.T, x)
            passes.append(time.perf_counter() - before)
        layer_flops = self.layer_flops * (3 if what == "train" else 1)
        return flops(self.work, what) / layer_flops * statistics.median(passes)
