"""BERT's blocks in every precision, compared with their bodies in float64: cases for the CPU and for a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import dense
from minigrad.backend.random import Draw
from minigrad.op import REGISTRY
from minigrad.packing import Packing

STEP = {"float32": 2.0**-20, "tf32": 2.0**-10, "bf16": 2.0**-8, "fp16": 2.0**-11}
"""The largest relative rounding error of one number; for float32, whose sums contribute too, sixteen times that. For TF32, which cuBLAS may
truncate, a whole unit in the last place: the errors of operands that are all too small add up."""

ROUNDINGS = {"attention_block": 10, "feed_forward": 4}
"""Tolerance in roundings of a result's largest entry. On the way to it some eleven or seven numbers are rounded: x, the weights, and what
passes between the products, forward and backward. The errors are independent and add up as the root of their number; the rest is for the
worst of thousands of entries, and for the gradients of scores, which are differences."""

BLOCKS = {  # hidden, heads, inner width (of the feed-forward block), dropout rate, whether some first tokens are masked
    "small": (64, 2, 96, None, False),
    "training": (64, 2, 256, 0.1, True),
    "wide": (128, 2, 64, 0.3, False),
    "first rows": (64, 2, 64, 0.1, True),
    "odd": (33, 1, 77, 0.1, False),
    "base": (768, 12, 3072, 0.1, True),
}

FORMS = [
    *[("attention_block", form) for form in ("small", "training", "wide", "first rows")],
    *[("feed_forward", form) for form in ("small", "training", "wide", "odd")],
]
"""Cases small enough for any test; attention has no kernels for heads of 33."""

KEYS_BIAS = 6
"""Position of the keys' bias among the results of the attention block."""

LENGTHS = (1, 17, 2, 40, 5)

Case = tuple[str, list[np.ndarray], dict[str, Any], np.ndarray]
"""The operation, its arrays and constants, and the gradient of its output."""


def case(block: str, form: str, lengths: tuple[int, ...] = LENGTHS) -> Case:
    hidden, heads, middle, rate, masked = BLOCKS[form]
    rng = np.random.default_rng([hidden, len(lengths)])
    packing = Packing(lengths, list(range(7, 7 + len(lengths))), [masked and n > 1 and i % 2 == 1 for i, n in enumerate(lengths)])

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    def vectors(count: int, width: int) -> list[np.ndarray]:
        return list(rng.standard_normal((count, width)).astype(np.float32))

    first_only = form == "first rows"
    queries = packing.first if first_only else packing
    x, g = rng.standard_normal((2, packing.rows, hidden)).astype(np.float32)
    draw = None if rate is None else Draw("block", rate, queries, hidden)
    if block == "feed_forward":
        arrays = [x, matrix(middle, hidden), *vectors(1, middle), matrix(hidden, middle), *vectors(3, hidden)]
        return block, arrays, {"draw": draw, "eps": 1e-5}, g
    arrays = [x, *(matrix(hidden, hidden) for _ in range(3)), *vectors(3, hidden), matrix(hidden, hidden), *vectors(3, hidden)]
    mixing = None if rate is None else Draw("mixing", rate, queries, heads, packing)
    asked = {"packing": packing, "first_only": first_only, "heads": heads, "mixing": mixing}
    return block, arrays, {**asked, "draw": draw, "eps": 1e-5}, g[: queries.rows]


def dropping(block: str) -> Case:
    """A block whose last product gives zeros and whose bias is ones: an element is above its row's mean if its unit survives."""
    given = case(block, "wide")
    host = given[1]
    weight = len(host) - 4
    for place, value in ((0, 0), (weight, 0), (weight + 1, 1), (weight + 2, 1), (weight + 3, 0)):  # x, W, bias, gamma, beta
        host[place][...] = value
    return given


def body(given: Case) -> list[np.ndarray]:
    """The output and all gradients."""
    block, arrays, constants, g = given
    y, pullback = REGISTRY[block].body(numpy_namespace, *[a.astype(np.float64) for a in arrays], **constants, keep=True)
    return [y, *results(pullback(g.astype(np.float64)), arrays)]


def results(gradients: Any, arrays: list[np.ndarray]) -> list[Any]:
    """Plain gradients; those of vectors summed over rows, as the engine sums them."""
    plain = [dense(gradient) for gradient in gradients]
    return [x.sum(axis=0) if x.ndim > a.ndim else x for x, a in zip(plain, arrays, strict=True)]


def assert_close(ours: list[np.ndarray], truths: list[np.ndarray], block: str, precision: str) -> None:
    """The gradient of the keys' bias is 0, a sum of nonzero numbers: its error is relative to the gradient of the values' bias."""
    for i, (mine, truth) in enumerate(zip(ours, truths, strict=True)):
        assert mine.shape == truth.shape and mine.dtype == np.float32
        measure = truths[i + 1] if block == "attention_block" and i == KEYS_BIAS else truth
        error = float(np.abs(mine - truth).max() / np.abs(measure).max())
        assert error <= ROUNDINGS[block] * STEP[precision], f"result {i}: off by {error / STEP[precision]:.1f} roundings"
