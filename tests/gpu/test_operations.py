"""Every operation and composite on a GPU: values and gradients are those of the CPU, in float64 and in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC, Sample

import minigrad as mg
from minigrad.backend import random

EXAMPLES = 10
"""Of each operation: kernels are compiled for new shapes and types at run time, so every example takes some tenths of a second."""

TOLERANCE = {np.float64: 1e-11, np.float32: 1e-4}
"""Relative to 1 and to the largest entry, as between two ways of computing on the CPU. float32 covers the fused kernels; samples are small
and of order 1, so a wrong term is off by far more."""


def results(name: str, sample: Sample, device: str, dtype: type[np.floating[Any]]) -> list[np.ndarray]:
    """The outputs and the gradients of the floating inputs, on the host."""
    cast = sample if dtype is np.float64 else sample.in_float32()
    args = [mg.Tensor(a, requires_grad=True, device=device) if i in cast.floating else a for i, a in enumerate(cast.args)]
    with random.replay():
        found = cast.call(PUBLIC[name], args)
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    leaves = [args[i] for i in cast.floating]
    total: Any = 0.0
    for output in outputs:
        if output.requires_grad:
            weights = 1.0 + 0.5 * np.sin(np.arange(output.size)).reshape(output.shape)  # uneven, so that no error cancels
            total = total + (output * mg.Tensor(weights, dtype=output.dtype, device=device)).sum()
    gradients = mg.grad(total, leaves)
    return [t.numpy() for t in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_operation(name: str, dtype: type[np.floating[Any]], device: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])
    expected, found = (results(name, sample, where, dtype) for where in ("cpu", device))
    for on_cpu, on_gpu in zip(expected, found, strict=True):
        assert on_cpu.shape == on_gpu.shape and on_cpu.dtype == on_gpu.dtype
        finite = np.abs(on_cpu[np.isfinite(on_cpu)]) if on_cpu.dtype.kind == "f" else np.abs(on_cpu)
        scale = max(1.0, float(finite.max(initial=0)))
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)
