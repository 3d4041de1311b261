"""CuPy as a namespace for operation bodies: the same vocabulary as `minigrad.backend.numpy`, on an NVIDIA GPU.

Imported only when device "cuda" is requested; CPU users never load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np
from cupyx.scipy.special import erf as erf
from cupyx.scipy.special import erfc as erfc

from minigrad.backend import cublas, gemm
from minigrad.backend.gradients import Product, RowSparse
from minigrad.backend.numpy import constant as constant
from minigrad.backend.numpy import transfer as transfer
from minigrad.backend.precision import gpu_precision
from minigrad.backend.transfers import declared, to_gpu

NAME = "cupy"
DEVICE = "cuda"

ndarray = cupy.ndarray


def __getattr__(name: str) -> Any:
    value = getattr(cupy, name)
    globals()[name] = value  # looked up once, then an ordinary attribute
    return value


class CudaRowSparse(RowSparse):
    """`RowSparse` with its rows on the GPU."""

    __slots__ = ()

    def _sum_equal_ids(self) -> tuple[Any, Any]:
        with declared():  # fetches the number of distinct ids
            ids, place = cupy.unique(self.ids, return_inverse=True)
        out = cupy.zeros((len(ids), self.shape[1]), self.dtype)
        cupy.add.at(out, place, self.values)
        return ids, out

    def joined(self, other: RowSparse) -> RowSparse:
        return CudaRowSparse(cupy.concatenate([self.ids, other.ids]), cupy.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Any:
        return self.into(cupy.zeros(self.shape, self.dtype), accumulate=True)


def matmul(a: Any, b: Any, out: Any = None, accumulate: bool = False) -> Any:
    """The matrix product, with operands rounded as `precision` says; written or added to `out` if that is given.

    cuBLAS rounds to tf32 itself; bf16 and fp16 operands are made here, for this call only.
    """
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if dtype == np.float64:
        operands = compute = "float64"
    elif dtype == np.float32:
        operands, compute = "float32", gpu_precision()
    else:
        return gemm.write_result(cupy.matmul(a, b), out, accumulate)
    a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if compute in gemm.SHORT:
        operands, compute = compute, "float32"
        a, b = _shortened_view(a, operands), _shortened_view(b, operands)
    return gemm.matmul(cupy, cublas.run, a, b, out, accumulate, operands, compute)


# ---------------------------------------------------------------- bf16 and fp16 arrays
PAIR = """
// Two numbers in one register, the first in its lower half; of two equally near numbers the even one, and NaN for NaN.
__device__ unsigned int pair(float x, float y) {
    unsigned int bits;
    asm("%s" : "=r"(bits) : "f"(x), "f"(y));
    return bits;
}
"""
ROUNDING = {
    "bf16": "cvt.rn.bf16x2.f32 %0, %2, %1;",
    "fp16": "{.reg .f16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high};}",  # works before Ampere, too
}
"""The rounding instructions, which tests replace to run the kernels on a CPU."""

SHORTEN = """
// A thread rounds eight numbers, and writes them at once; y is a new array and begins at a multiple of 16 bytes.
extern "C" __global__ void shorten(const float* x, unsigned short* y, long long n) {
    const long long start = 8 * ((long long)blockIdx.x * blockDim.x + threadIdx.x);
    if (start + 8 > n) {
        for (long long i = start; i < n; ++i) y[i] = (unsigned short)pair(x[i], 0.0f);
        return;
    }
    __align__(16) float v[8];
    if ((size_t)x % 16 == 0) {
        *(float4*)v = *(const float4*)(x + start);
        *(float4*)(v + 4) = *(const float4*)(x + start + 4);
    } else {
        for (int i = 0; i < 8; ++i) v[i] = x[start + i];
    }
    *(uint4*)(y + start) = make_uint4(pair(v[0], v[1]), pair(v[2], v[3]), pair(v[4], v[5]), pair(v[6], v[7]));
}
"""
THREADS = 256

_shorten = {name: cupy.RawKernel(PAIR % ROUNDING[name] + SHORTEN, "shorten") for name in gemm.SHORT}


def shortened(x: Any, name: str) -> Any:
    """float32 numbers rounded to two bytes each: "bf16", as bits in uint16, or "fp16", in float16. x is C-contiguous."""
    y = cupy.empty(x.shape, gemm.DTYPES[name])
    if x.size:
        _shorten[name]((-(-x.size // (8 * THREADS)),), (THREADS,), (x, y, np.int64(x.size)))
    return y


def _shortened_view(x: Any, name: str) -> Any:
    """`shortened` for any float32 array, keeping its memory layout: a transposed view gives a transposed view."""
    outermost = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    short = shortened(cupy.ascontiguousarray(x.transpose(outermost)), name)
    return short.transpose([outermost.index(axis) for axis in range(x.ndim)])


def widened(x: Any) -> Any:
    """A bf16 or fp16 array in float32."""
    if x.dtype == np.float16:
        return x.astype(np.float32)
    return cupy.left_shift(x, 16, dtype=np.uint32).view(np.float32)


def matmul_stored(a: Any, b: Any, out: Any = None, accumulate: bool = False, alike: bool = False) -> Any:
    """The product of two arrays as blocks store them: float32, multiplied by `matmul`, or short (bf16 or fp16), accumulated in float32.

    Written to `out`, which has the operands' storage or is float32, or added to a float32 `out`. alike: whether a new array has the
    operands' storage; otherwise it is float32.
    """
    if a.dtype == np.float32:
        return matmul(a, b, out, accumulate)
    operands = "fp16" if a.dtype == np.float16 else "bf16"
    result = operands if (alike if out is None else out.dtype == a.dtype) else "float32"
    return gemm.matmul(cupy, cublas.run, a, b, out, accumulate, operands, "float32", result)


def product_stored(a: Any, b: Any) -> Product:
    """`matmul_stored` of two matrices as a float32 gradient, computed only when (and where) it is needed."""
    return Product(a, b, matmul_stored, np.dtype(np.float32))


# ---------------------------------------------------------------- the vocabulary of every namespace
def like(host: Any, x: Any) -> Any:
    return to_gpu(host) if isinstance(host, np.ndarray) else host


def zeros_at(g: Any, key: Any, shape: Sequence[int]) -> Any:
    out = cupy.zeros(shape, g.dtype)
    cupy.add.at(out, key, g)
    return out


def sum_at(parts: Sequence[Any], keys: Sequence[Any], shape: Sequence[int]) -> Any:
    out = cupy.zeros(shape, parts[0].dtype)
    for part, key in zip(parts, keys, strict=True):
        out[key] += part
    return out


def put_rows(g: Any, ids: Any, shape: Sequence[int]) -> Any:
    """Zeros of `shape` with g written to the distinct rows `ids`."""
    out = cupy.zeros(shape, g.dtype)
    out[ids] = g
    return out


def rows(ids: Any, g: Any, shape: Sequence[int]) -> RowSparse:
    return CudaRowSparse(ids.reshape(-1), g.reshape(ids.size, shape[1]), (shape[0], shape[1]))


def product(a: Any, b: Any) -> Product:
    return Product(a, b, matmul)


def one_hot(ids: Any, classes: int, dtype: Any) -> Any:
    return (ids[..., None] == cupy.arange(classes)).astype(dtype)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """CuPy reduces along a tree on every axis, which is accurate as it is."""
    return x.sum(axis=axis, keepdims=keepdims)
