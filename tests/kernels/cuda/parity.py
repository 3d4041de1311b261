"""An operation's GPU version, run on the CPU, compared with its body in float64 on the same numbers.

Every output is poisoned and guarded; each operation runs twice, the second time with its threads in the opposite order, and must give
identical bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from kernels.cuda.emulation import Emulator, Namespace, check_guards, guarded
from support import absolute_error

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import dense
from minigrad.kernels import register_cuda
from minigrad.op import REGISTRY

register_cuda()

TOLERANCE = 2e-6
"""Relative to the largest entry (at least 1), times the root of the number of rows for sums over them: float32 has a precision of 6e-8, and
up to about a thousand such errors are added in a tree."""


def normal(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng([seed, *[side for shape in shapes for side in shape]])
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def evaluate(name: str, arrays: list[np.ndarray], constants: dict[str, Any], backwards: bool, emulator: Emulator) -> list[np.ndarray]:
    """The output and all gradients by the kernels; inputs are surrounded by poison and must stay unchanged."""
    emulator.backwards = backwards
    xp, override = Namespace(), REGISTRY[name].overrides["cupy"]
    given = [guarded(a) for a in arrays]
    keep = {"keep": True} if REGISTRY[name]._asks_keep[override] else {}
    y, pullback = override(xp, *given, **constants, **keep)
    found = [np.array(y), *_gradients(pullback, np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))]
    xp.check()
    for before, after in zip(arrays, given, strict=True):
        np.testing.assert_array_equal(before, after)
    check_guards(*given)
    return found


def _gradients(pullback: Any, g: np.ndarray) -> list[np.ndarray]:
    gradients = pullback(g) if callable(pullback) else [part(g) for part in pullback if part is not None]
    return [np.array(dense(gradient)) for gradient in gradients if gradient is not None]


def declines(name: str, *arrays: np.ndarray, **constants: Any) -> bool:
    """Whether the operation's GPU version leaves this call to the body."""
    override = REGISTRY[name].overrides["cupy"]
    keep = {"keep": True} if REGISTRY[name]._asks_keep[override] else {}
    return override(Namespace(), *arrays, **constants, **keep) is NotImplemented


def compare(name: str, arrays: list[np.ndarray], constants: dict[str, Any], emulator: Emulator) -> None:
    ours = evaluate(name, arrays, constants, False, emulator)
    for once, again in zip(ours, evaluate(name, arrays, constants, True, emulator), strict=True):
        np.testing.assert_array_equal(once, again)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    y, pullback = REGISTRY[name].body(numpy_namespace, *exact, **constants)
    truths = [y, *_gradients(pullback, np.cos(np.arange(y.size)).reshape(y.shape))]
    for i, (mine, truth) in enumerate(zip(ours, truths, strict=True)):
        assert mine.dtype == np.float32
        while truth.ndim > mine.ndim:  # the engine sums what was broadcast
            truth = truth.sum(axis=0)
        sums = len(arrays[0]) ** 0.5 if i else 1.0
        assert mine.shape == truth.shape
        assert absolute_error(mine, truth) <= TOLERANCE * sums * max(1.0, float(np.abs(truth).max(initial=0.0))), f"result {i}"
