"""Matrix products by cuBLAS on a GPU, for arrays in every layout, written and accumulated, compared with NumPy's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backend.test_gemm import Memory, products
from hypothesis import given, settings
from kernels.cuda import short_arrays

from minigrad.backend import cuda_namespace, to_numpy
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.layout import address
from minigrad.backend.precision import PRECISIONS, precision, rounded

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
"""Relative to the sum of the products' magnitudes: up to 12 numbers, in another order."""

LARGE = {"float32": 1e-6, "tf32": 3e-3, "bf16": 1e-5, "fp16": 1e-5}
"""Relative to the sum of the products' magnitudes, with operands rounded as on the CPU: float32 sums in another order, which tensor cores
truncate rather than round. cuBLAS does not document how it rounds to TF32: each operand may be one step of 2^-10 smaller."""


def on_device(array: np.ndarray, memory: Memory, device: str) -> tuple[Any, Any]:
    """The same view of the same buffer, on the device, and the buffer."""
    buffer = memory.buffer_at(address(array)) if array.size else array
    if device == "cpu":
        return array, buffer
    import cupy

    copy = cupy.asarray(buffer)
    offset = copy.data.ptr - copy.data.mem.ptr + (address(array) - address(buffer) if array.size else 0)
    return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(copy.data.mem, offset), array.strides), copy


@settings(max_examples=300)
@given(products())
def test_every_layout(device: str, case: tuple[Memory, np.ndarray, np.ndarray, np.ndarray | None, bool, str]) -> None:
    """Nothing is written outside the output."""
    memory, a, b, out, accumulate, kind = case
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)) + (out if accumulate else 0.0)
    (x, _), (y, _) = on_device(a, memory, device), on_device(b, memory, device)
    given_out, buffer = (None, None) if out is None else on_device(out, memory, device)
    untouched = None if out is None else beside(out, memory).copy()
    xp = numpy_namespace if device == "cpu" else cuda_namespace()
    found = xp.matmul(x, y, out=given_out, accumulate=accumulate)
    assert out is None or found is given_out
    assert found.shape == expected.shape and found.dtype == kind
    np.testing.assert_allclose(to_numpy(found), expected, rtol=TOLERANCE[kind], atol=20 * TOLERANCE[kind])
    if out is not None and out.size:
        memory.buffer_at(address(out))[...] = to_numpy(buffer)
        np.testing.assert_array_equal(beside(out, memory), untouched)


def beside(out: np.ndarray, memory: Memory) -> np.ndarray:
    """The part of `out`'s buffer that does not belong to it."""
    if not out.size:
        return out
    buffer = memory.buffer_at(address(out))
    places = (address(out) - address(buffer)) // out.itemsize
    places = places + sum(stride // out.itemsize * along for stride, along in zip(out.strides, np.indices(out.shape), strict=True))
    return np.delete(buffer, places)


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (257, 770, 129), (1000, 3000, 64), (64, 64, 5000)])
def test_every_precision_forwards_and_for_gradients(device: str, name: str, m: int, k: int, n: int) -> None:
    """x Wᵀ, g W and gᵀ x, as in a linear layer; the last one is accumulated."""
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k), (m, n)))
    xp = numpy_namespace if device == "cpu" else cuda_namespace()
    ours = [a if device == "cpu" else xp.asarray(a) for a in (x, w, g)]
    there = xp.ones((n, k), np.float32)
    with precision(name):
        found = [xp.matmul(ours[0], ours[1].T), xp.matmul(ours[2], ours[1]), xp.matmul(ours[2].T, ours[0], out=there, accumulate=True)]
    short = [(a if name == "float32" else rounded(a, name)).astype(np.float64) for a in (x, w, g)]
    pairs = ((short[0], short[1].T), (short[2], short[1]), (short[2].T, short[0]))
    for mine, (a, b), start in zip(found, pairs, (0, 0, 1), strict=True):
        error = np.abs(to_numpy(mine) - (a @ b + start))
        assert (error <= LARGE[name] * (np.abs(a) @ np.abs(b) + start)).all(), float((error / (np.abs(a) @ np.abs(b) + start)).max())


def test_sixty_four_bits_stay_exact(device: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 500)), rng.standard_normal((500, 33))
    xp = numpy_namespace if device == "cpu" else cuda_namespace()
    with precision("bf16"):
        found = to_numpy(xp.matmul(*(xp.asarray(x) for x in (a, b))))
    np.testing.assert_allclose(found, a @ b, atol=1e-12)


# ---------------------------------------------------------------- bf16 and fp16 arrays
@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("start", [0, 1])  # at 1 the numbers are not aligned to 16 bytes
@pytest.mark.parametrize("n", [0, 1, 7, 8, 2049, 1 << 20])
def test_numbers_are_rounded_as_on_the_cpu(device: str, name: str, n: int, start: int) -> None:
    raw = np.random.default_rng(0).integers(0, 2**32, n + start).astype(np.uint32)
    raw[: n // 2] &= 0xBFFFFFFF  # half of them below 2, within fp16's range
    x = raw.view(np.float32)
    xp = short_arrays if device == "cpu" else cuda_namespace()
    there = x if device == "cpu" else xp.asarray(x)
    short = xp.shortened(there[start:], name)
    expected = short_arrays.shortened(x[start:], name)
    assert short.dtype == expected.dtype
    np.testing.assert_array_equal(to_numpy(xp.widened(short)), short_arrays.widened(expected))  # NaN where NaN is


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (8, 16, 24), (257, 770, 130), (1000, 3072, 768)])
def test_products_of_short_arrays(device: str, name: str, m: int, k: int, n: int) -> None:
    """Written to new and given arrays, short and float32, and added to float32; operands contiguous and transposed."""
    rng = np.random.default_rng(0)
    xp = short_arrays if device == "cpu" else cuda_namespace()
    hosts = [short_arrays.shortened(rng.standard_normal(shape).astype(np.float32), name) for shape in ((m, k), (n, k), (m, n))]
    x, w, there = hosts if device == "cpu" else [xp.asarray(host) for host in hosts]
    a, b, start = (short_arrays.widened(host).astype(np.float64) for host in hosts)
    exact, sizes = a @ b.T, np.abs(a) @ np.abs(b.T) + np.abs(start)
    step = {"bf16": 2.0**-8, "fp16": 2.0**-11}[name]  # half the relative distance between two numbers

    def check(found: Any, truth: np.ndarray, short: bool) -> None:
        assert found.dtype == (x.dtype if short else np.float32)
        error = np.abs(to_numpy(xp.widened(found) if short else found) - truth)
        assert (error <= LARGE[name] * sizes + (step * np.abs(truth) if short else 0.0)).all()

    check(xp.matmul_stored(x, w.T), exact, False)
    check(xp.matmul_stored(x, w.T, alike=True), exact, True)
    check(xp.product_stored(x, w.T).dense(), exact, False)
    check(xp.product_stored(x, w.T).into(xp.widened(there), accumulate=True), exact + start, False)
    check(xp.matmul_stored(x, w.T, out=there), exact, True)
    flipped = xp.matmul_stored(w, x.T, alike=True)  # transposed operands
    check(flipped.T, exact, True)
