"""NumPy as a namespace for operation bodies: every name of numpy, plus the ones it lacks.

The additions (each exists under the same name on CuPy and on Tensors): `erf erfc matmul constant like zeros_at sum_at
put_rows rows product one_hot sum transfer`. `minigrad.backend.cupy` offers the same list on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigrad.backend.erf import erf as erf
from minigrad.backend.erf import erfc as erfc
from minigrad.backend.gradients import Product, RowSparse
from minigrad.backend.precision import precision, product_precision, rounded

NAME = "numpy"
DEVICE = "cpu"

ROW_CHUNK = 512
"""Rows summed at a time. NumPy adds along axis 0 row after row: 200,000 float32 rows lose three digits, chunks of 512 keep six."""


def __getattr__(name: str) -> Any:
    value = getattr(np, name)
    globals()[name] = value  # looked up once, then an ordinary attribute
    return value


def matmul(a: Any, b: Any, out: Any = None, accumulate: bool = False) -> Any:
    """The matrix product, with operands rounded as `precision` says; written or added to `out` if that is given."""
    if (name := product_precision.get()) != "float32" and a.dtype == b.dtype == np.float32:
        with precision("float32"), np.errstate(invalid="ignore"):  # infinity, which is common in fp16, times 0
            return matmul(rounded(a, name), rounded(b, name), out, accumulate)
    if accumulate:
        out += np.matmul(a, b)
        return out
    return np.matmul(a, b, out=out)


def constant(x: Any) -> Any:
    """The values of x with no derivative: x itself for an array."""
    return x


def like(host: Any, x: Any) -> Any:
    """A host array moved to the device of x."""
    return host


def zeros_at(g: Any, key: Any, shape: Sequence[int]) -> Any:
    """Zeros of `shape` with g added at `key` (repeated indices accumulate): the transpose of `x[key]`."""
    out = np.zeros(shape, g.dtype)
    if any(isinstance(part, np.ndarray | list) for part in (key if isinstance(key, tuple) else (key,))):
        np.add.at(out, key, g)
    else:
        out[key] = g
    return out


def sum_at(parts: Sequence[Any], keys: Sequence[Any], shape: Sequence[int]) -> Any:
    """Zeros of `shape` with each part added at its key of slices: the transpose of `[x[key] for key in keys]`."""
    out = np.zeros(shape, parts[0].dtype)
    for part, key in zip(parts, keys, strict=True):
        out[key] += part
    return out


def put_rows(g: Any, ids: Any, shape: Sequence[int]) -> Any:
    """Zeros of `shape` with g written to the distinct rows `ids`."""
    out = np.zeros(shape, g.dtype)
    out[ids] = g
    return out


def rows(ids: Any, g: Any, shape: Sequence[int]) -> RowSparse:
    """The gradient of `table[ids]`, as a row-sparse gradient."""
    return RowSparse(ids.reshape(-1), g.reshape(ids.size, shape[1]), (shape[0], shape[1]))


def product(a: Any, b: Any) -> Product:
    """a @ b as a gradient, computed only when (and where) it is needed."""
    return Product(a, b, matmul)


def one_hot(ids: Any, classes: int, dtype: Any) -> Any:
    """Shapes: ids (*b) → (*b, classes); an id outside 0..classes-1 gives a row of zeros."""
    return (ids[..., None] == np.arange(classes)).astype(dtype)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Like numpy.sum, but float32 and float16 keep their accuracy along every axis, not only along the last."""
    if (
        x.dtype.kind != "f"
        or x.dtype.itemsize >= 8
        or x.ndim == 0
        or (axis in (-1, x.ndim - 1) and (x.ndim == 1 or x.strides[-1] == x.itemsize))  # NumPy adds a transposed array row after row
        or (axis is None and x.flags.c_contiguous)
    ):
        return x.sum(axis=axis, keepdims=keepdims)
    if axis == 0 and not keepdims:
        return _sum_rows(x)
    total = x.sum(axis=axis, keepdims=keepdims, dtype=np.float64)
    return total.astype(x.dtype)


def _sum_rows(x: Any) -> Any:
    if len(x) <= ROW_CHUNK:
        return x.sum(axis=0)
    return _sum_rows(np.stack([x[i : i + ROW_CHUNK].sum(axis=0) for i in range(0, len(x), ROW_CHUNK)]))


def transfer(x: Any, device: str) -> Any:
    """The array on another device."""
    from minigrad.backend import to_device

    return to_device(x, device)
