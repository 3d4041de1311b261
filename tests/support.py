"""Helpers for the tests: streams, leaves and their gradients, kernels switched off or chosen, errors as tolerances measure them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, kernels
from minigrad.backend.probe import Probe
from minigrad.kernels import passes
from minigrad.op import REGISTRY


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def leaf(data: Any, dtype: Any = np.float64) -> mg.Tensor:
    """A tensor that requires a gradient."""
    return mg.Tensor(np.asarray(data, dtype=dtype), requires_grad=True)


def grad_of(out: mg.Tensor, x: mg.Tensor) -> np.ndarray:
    """The gradient of the sum of `out` with respect to x."""
    found = mg.grad(out.sum(), x)
    assert found is not None
    return found.numpy()


def accumulated(x: mg.Tensor) -> np.ndarray:
    """The gradient that backward passes have accumulated in `x.grad`."""
    assert x.grad is not None
    return x.grad.numpy()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Inside: every operation runs its readable body."""
    kept = {operation: dict(operation.overrides) for operation in REGISTRY.values()}
    for operation in REGISTRY.values():
        operation.overrides.clear()
    try:
        yield
    finally:
        for operation, overrides in kept.items():
            operation.overrides.update(overrides)


@contextmanager
def probed(found: Probe) -> Iterator[None]:
    """Inside: the search for a GPU finds this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.probe, "probe", lambda: found)
        backend._best_device.cache_clear()
        yield
    backend._best_device.cache_clear()


NO_GPU = Probe(reason="no GPU is to be found by this test")

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="Numba is not installed (the `fast` extra)")

PASSES = ["numpy", pytest.param("numba", marks=needs_numba)]
"""The implementations of the elementwise passes that the CPU kernels consist of: values for `parametrize` and `passes_by`."""


def cpu_kernels() -> Any:
    """The module that registers the CPU kernels; the test (or test module) is skipped if they are switched off."""
    if kernels.chosen == "off":
        pytest.skip("MINIGRAD_KERNELS=off: no operation has a fast version", allow_module_level=True)
    from minigrad.kernels import cpu

    return cpu


@contextmanager
def passes_by(name: str) -> Iterator[None]:
    """Inside: kernels use the passes of "numpy" or "numba", whatever the environment says; skips the test if kernels are switched off."""
    cpu, chosen = cpu_kernels(), passes
    if name == "numba":
        from minigrad.kernels import compiled as chosen  # type: ignore[no-redef]  # here, because it imports Numba
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "passes_in_use", lambda: chosen)
        yield


def gradients_of(model: mg.nn.Module) -> dict[str, np.ndarray]:
    """Every parameter's accumulated gradient, zeros if there is none; the model's gradients are then discarded."""
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = np.zeros(parameter.shape, parameter.dtype) if parameter.grad is None else np.array(parameter.grad.numpy())
    model.zero_grad()
    return found


def absolute_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """max |ours - expected|; a NaN counts as infinite."""
    assert ours.shape == expected.shape, (ours.shape, expected.shape)
    error = float(np.max(np.abs(np.asarray(ours, np.float64) - expected), initial=0.0))
    return float("inf") if np.isnan(error) else error


def gradient_errors(ours: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """max |difference| / max |gradient| for each parameter.

    Key biases are left out: softmax does not change when a constant is added to every score of a row, so their gradient is zero and its
    computed value rounding noise. A parameter whose gradient is small compared to the others' is measured against 1e-6 of theirs.
    """
    assert ours.keys() == expected.keys()
    largest = max(float(np.abs(g).max(initial=0.0)) for g in expected.values())
    return {
        name: absolute_error(ours[name], g) / max(float(np.abs(g).max(initial=0.0)), 1e-6 * largest, 1e-300)
        for name, g in expected.items()
        if not name.endswith("key.bias")
    }
