"""CuPy as a namespace for operation bodies: the same vocabulary as `minigrad.backend.numpy`, on an NVIDIA GPU.

Imported only when somebody asks for device "cuda"; CPU users never load it.
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
from minigrad.backend.precision import product_precision
from minigrad.backend.transfers import declared, to_gpu

NAME = "cupy"
DEVICE = "cuda"

ndarray = cupy.ndarray


def __getattr__(name: str) -> Any:
    value = getattr(cupy, name)
    globals()[name] = value  # found once, then an ordinary attribute
    return value


class CudaRowSparse(RowSparse):
    """`RowSparse` whose rows lie on the GPU."""

    __slots__ = ()

    def _sum_equal_ids(self) -> tuple[Any, Any]:
        with declared():  # how many ids are distinct
            ids, place = cupy.unique(self.ids, return_inverse=True)
        out = cupy.zeros((len(ids), self.shape[1]), self.dtype)
        cupy.add.at(out, place, self.values)
        return ids, out

    def joined(self, other: RowSparse) -> RowSparse:
        return CudaRowSparse(cupy.concatenate([self.ids, other.ids]), cupy.concatenate([self.values, other.values]), self.shape)

    def dense(self) -> Any:
        return self.into(cupy.zeros(self.shape, self.dtype), accumulate=True)


BF16_BITS = """
    const unsigned int bits = __float_as_uint(x);
    const unsigned int tie = (bits >> 16) & 1u;
    y = x != x ? (bits >> 16) | 64u : (bits + 0x7fffu + tie) >> 16;  // a NaN must not be carried to infinity
"""
_bf16_bits = cupy.ElementwiseKernel("float32 x", "uint16 y", BF16_BITS, "minigrad_bf16_bits")


def matmul(a: Any, b: Any, out: Any = None, accumulate: bool = False) -> Any:
    """The matrix product, operands rounded as `precision` says. It is written to `out` if that is given, or added to what is there.

    By cuBLAS; arrays of bf16 exist only from here to there, as their bits.
    """
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if dtype == np.float64:
        operands = compute = "float64"
    elif dtype == np.float32:
        operands, compute = "float32", product_precision.get()
    else:
        return gemm.delivered(cupy.matmul(a, b), out, accumulate)
    a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if compute in ("bf16", "fp16"):
        operands, compute = compute, "float32"
        a, b = _shortened(a, operands), _shortened(b, operands)
    return gemm.matmul(cupy, cublas.run, a, b, out, accumulate, operands, compute)


def _shortened(x: Any, name: str) -> Any:
    """float32 as fp16 or as the bits of bf16, lying in memory as x does: a transposed view stays one."""
    return x.astype(cupy.float16) if name == "fp16" else _bf16_bits(x, cupy.empty_like(x, cupy.uint16))


def constant(x: Any) -> Any:
    return x


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


def transfer(x: Any, device: str) -> Any:
    """The array on another device."""
    from minigrad.backend import to_device

    return to_device(x, device)
