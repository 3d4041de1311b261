"""Attention by the kernels, run on the CPU, compared with the operation's body: shared by the tests of all precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator, Namespace, guarded

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend import random
from minigrad.backend.precision import rounded
from minigrad.backend.random import Draw
from minigrad.kernels import register_cuda
from minigrad.kernels.cuda.build import SOURCES
from minigrad.kernels.cuda.table import TABLE
from minigrad.op import REGISTRY
from minigrad.packing import Packing

register_cuda()
OVERRIDE = REGISTRY["attention"].overrides["cupy"]
BODY = REGISTRY["attention"].body

RAGGED = (1, 2, 15, 16, 17, 63, 64, 65, 130)
"""Lengths around the capacities of a warp, a tile and a piece."""

FORMS = {  # heads, causal, dropout rate, which rows are queries, whether first tokens are masked
    "encoder": (1, False, None, "all rows", False),
    "training": (2, False, 0.1, "all rows", True),
    "decoder": (3, True, 0.1, "all rows", False),
    "masked decoder": (1, True, None, "all rows", True),
    "sequence head": (2, False, 0.5, "first rows", True),
    "cross": (2, False, 0.3, "other rows", False),
    "causal cross": (1, True, 0.1, "other rows", True),
    "nothing survives": (1, False, 1.0, "all rows", False),
}

Sample = tuple[list[np.ndarray | None], np.ndarray, dict[str, Any]]
"""q (or None) and kv, the gradient of the output, and the constants."""


def sample(form: str, size: int, lengths: tuple[int, ...] = RAGGED, seed: int = 0, precision: str = "float32") -> Sample:
    """precision: the format that all numbers are rounded to."""

    def normal(shape: tuple[int, int]) -> np.ndarray:
        drawn = rng.standard_normal(shape).astype(np.float32)
        return drawn if precision == "float32" else rounded(drawn, precision)

    heads, causal, rate, asked_by, masked = FORMS[form]
    rng = np.random.default_rng([seed, size, heads])
    numbers = rng.permutation(1000)[: len(lengths)].tolist()
    packing = Packing(lengths, numbers, [masked and n > 1 and i % 3 != 1 for i, n in enumerate(lengths)])
    asking = {"all rows": packing, "first rows": packing.first, "other rows": Packing(lengths[::-1], numbers)}[asked_by]
    widths = [(packing.rows, 3 * heads * size)] if asking is packing else [(asking.rows, heads * size), (packing.rows, 2 * heads * size)]
    arrays: list[np.ndarray | None] = [normal(shape) for shape in widths]
    with random.at(seed, 0):  # independent of draws in other tests
        draw = None if rate is None else Draw("encoder.layer.0", rate, asking, heads, packing)
    constants = {"packing": packing, "queries": asking, "heads": heads, "causal": causal, "draw": draw}
    g = normal((asking.rows, heads * size))
    return [None, *arrays] if asking is packing else arrays, g, constants


def finer(form: str, size: int, lengths: tuple[int, ...], precision: str) -> tuple[Sample, Sample]:
    """A sample whose numbers the precision must round, and the same sample rounded.

    Scores of up to about 400 are accurate to 1e-4 in float32, but they, and with them the weights, change by some per cent if operands are
    truncated to two bytes less, or rounded differently.
    """
    arrays, g, constants = sample(form, size, lengths)
    large = [None if a is None else np.float32(8) * a for a in arrays]

    def short(x: np.ndarray | None) -> np.ndarray | None:
        return None if x is None else rounded(x, precision)

    return (large, g, constants), ([short(a) for a in large], rounded(g, precision), constants)


def only_smallest(changed: Emulator, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the kernels for all heads but those of 32 from changed sources, to save compile time."""
    assert changed.sources != SOURCES  # the files are overwritten
    source = f"attention_{precision}.cu"
    for name, entry in list(TABLE.items()):
        if entry.source == source and not name.endswith("_32"):
            monkeypatch.delitem(TABLE, name)
    lines = (changed.sources / source).read_text(encoding="utf-8").splitlines(keepends=True)
    (changed.sources / source).write_text("".join(line for line in lines if "64)" not in line and "128)" not in line), encoding="utf-8")


def kernels(given: Sample, emulator: Emulator, backwards: bool = False) -> list[np.ndarray]:
    """The output and all gradients. Inputs and outputs are surrounded by poison."""
    emulator.backwards = backwards
    xp = Namespace()
    arrays, g, constants = [None if a is None else guarded(a) for a in given[0]], guarded(given[1]), given[2]
    y, pullback = OVERRIDE(xp, *arrays, **constants)
    found = [y, *[x for x in pullback(g) if x is not None]]
    xp.check()
    inputs = [a for a in (*arrays, g) if a is not None]
    for before, after in zip([a for a in (*given[0], given[1]) if a is not None], inputs, strict=True):
        np.testing.assert_array_equal(before, after)
    return [np.array(x) for x in found]


def body(given: Sample, dtype: Any = np.float64) -> list[np.ndarray]:
    """The result of the operation's body on the same numbers."""
    y, pullback = BODY(numpy_namespace, *[None if a is None else a.astype(dtype) for a in given[0]], **given[2])
    return [y, *[x for x in pullback(given[1].astype(dtype)) if x is not None]]


def assert_close(ours: list[np.ndarray], truth: list[np.ndarray], tolerance: float) -> None:
    """tolerance: relative to the largest entry of each result, at least 1."""
    for i, (mine, exact) in enumerate(zip(ours, truth, strict=True)):
        assert mine.shape == exact.shape and mine.dtype == np.float32
        error, largest = float(np.abs(mine - exact).max()), max(1.0, float(np.abs(exact).max()))
        assert error <= tolerance * largest, f"result {i}: off by {error / largest:.2e}"
