"""Every operation and composite on a GPU: values and gradients equal those of the CPU, in float64 and in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC, Sample

import minigrad as mg
from minigrad import functional as F
from minigrad.backend import random, to_device

EXAMPLES = 10
"""Examples per operation. Kernels are compiled for new shapes and types at run time, so each example takes some tenths of a second."""

TOLERANCE = {np.float64: 1e-11, np.float32: 1e-4}
"""Relative to 1 and to the largest entry, as between two implementations on the CPU. float32 covers the fused kernels; samples are small
and of order 1, so a wrong term is off by far more."""


def results(name: str, sample: Sample, device: str, dtype: type[np.floating[Any]]) -> list[np.ndarray]:
    """The outputs, and the gradients of floating inputs, on the host. All arrays of a call are on one device, including ids and masks."""
    cast = sample if dtype is np.float64 else sample.in_float32()
    cast = replace(cast, constants={key: to_device(v, device) if isinstance(v, np.ndarray) else v for key, v in cast.constants.items()})
    args = [
        mg.Tensor(a, requires_grad=i in cast.floating, device=device) if isinstance(a, np.ndarray) else a for i, a in enumerate(cast.args)
    ]
    with random.replay():
        found = cast.call(PUBLIC[name], args)
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    leaves = [args[i] for i in cast.floating]
    total: Any = 0.0
    for output in outputs:
        if output.requires_grad:
            weights = 1.0 + 0.5 * np.sin(np.arange(output.size)).reshape(output.shape)  # uneven, so that no error cancels
            total = total + (output * mg.Tensor(weights, dtype=output.dtype, device=output.device)).sum()
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


def test_numbers_and_lists_go_where_the_tensors_are(device: str) -> None:
    """NumPy scalars and nested lists have no device and combine with tensors on any; arrays have to be moved explicitly."""
    x = mg.Tensor([[1.0, -2.0], [3.0, 4.0]], device=device)
    for found, expected in (
        (x * np.float32(2), [[2, -4], [6, 8]]),
        (np.float32(1) - x, [[0, 3], [-2, -3]]),
        (x * [[2.0, 1.0], [1.0, 2.0]], [[2, -2], [3, 8]]),
        (F.maximum([0.0, 0.0], x), [[1, 0], [3, 4]]),
        (F.masked_fill(x, [[True, False], [False, False]], 7), [[7, -2], [3, 4]]),
        (F.where([[True], [False]], x, np.float32(0)), [[1, -2], [0, 0]]),
        (x[[1, 0]], [[3, 4], [1, -2]]),
        (x[np.array([1]), mg.Tensor([0], device=device)], [3]),
        (F.equal(x, [[1.0, 0.0], [3.0, 0.0]]), [[True, False], [True, False]]),
    ):
        assert found.device == device
        np.testing.assert_array_equal(found.numpy(), expected)
