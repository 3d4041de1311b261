"""Matrix products as calls of cuBLAS: which calls compute out = a @ b, from shapes and strides alone.

cuBLAS reads memory column by column. A row-major matrix read that way is its transpose, and outᵀ = bᵀ aᵀ: b is passed as A and a as B,
and neither is copied. A transposed view needs no copy either, because cuBLAS has a flag for it. Batch axes are treated as follows:

- an axis along which b does not change and the rows of a and out continue becomes further rows: x (*b, m, k) @ W (k, n) is one product of
  tall matrices;
- neighbouring axes that lie in memory like one axis are merged;
- the longest of the rest is the call's batch, and the others are looped over: with heads split off by `swapaxes`, one call per head or one
  per sequence, whichever are fewer. (Arrays of pointers would need one call only, but have to be copied to the GPU first.)

What a call cannot express is copied first: negative strides, and matrices without an axis of stride 1. An output of that kind, or one that
may share memory with an operand, is computed in a separate array and copied.

Empty products: with m, n or the batch 0 there is nothing to do. With k = 0 the sum is empty: `out` is filled with zeros, or left as it is
by `accumulate`. cuBLAS is called for neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from minigrad.errors import ArgumentError, ShapeError

DTYPES = {"float32": "float32", "float64": "float64", "bf16": "uint16", "fp16": "float16"}
"""The dtypes of the arrays that a call reads and writes; bf16, which NumPy does not have, is held as its bits."""

SHORT = ("bf16", "fp16")

MAX_INT = 2**31 - 1
"""cuBLAS takes dimensions, leading dimensions and batch counts as C's int."""


class Layout(NamedTuple):
    """How an array of at least two axes lies in memory; strides in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """C ← op(A) op(B) + beta · C for each matrix of a batch, in cuBLAS's column-major terms: element (r, c) lies at r + c · ld.

    op(A) is (m, k), op(B) is (k, n), C is (m, n); op transposes if the flag is set. Strides lead from one matrix of the batch to the next,
    in elements. operands: the type of A and B, one of `DTYPES`. result: the type of C. compute: the arithmetic ("float32", "tf32",
    "float64").
    """

    transpose_a: bool
    transpose_b: bool
    m: int
    n: int
    k: int
    lda: int
    stride_a: int
    ldb: int
    stride_b: int
    beta: float
    ldc: int
    stride_c: int
    batch: int
    operands: str
    result: str
    compute: str


@dataclass(frozen=True)
class Plan:
    """One call, repeated for each of `starts`: the elements at which A, B and C begin. a_first: A is the array a; otherwise it is b."""

    gemm: Gemm
    starts: tuple[tuple[int, int, int], ...]
    a_first: bool


Run: TypeAlias = Callable[[Gemm, Any, Any, Any, tuple[int, int, int]], None]
"""run(gemm, A, B, C, starts): make one call on three arrays."""


def matmul(xp: Any, run: Run, a: Any, b: Any, out: Any, accumulate: bool, operands: str, compute: str, result: str | None = None) -> Any:
    """The product by calls of cuBLAS, with NumPy's rules for axes; written or added to `out`, or returned as a new array if that is None.

    xp: the arrays' namespace. operands, compute, result: as in `Gemm`. By default the result is float64 for computation in float64 and
    float32 otherwise; a result in bf16 or fp16 is rounded once, after the whole sum.
    Raises: ShapeError; ArgumentError for dimensions too large for cuBLAS, and for accumulation into bf16 or fp16.
    """
    result = result or ("float64" if compute == "float64" else "float32")
    if accumulate and result in SHORT:  # seen on an H100 with cuBLAS 13
        raise ArgumentError(f"matmul: cuBLAS rounds a product to {result} before it adds it: add it to float32 numbers")
    if a.ndim == 1 or b.ndim == 1:
        axes = (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
        a, b = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
        matrix = None if out is None else xp.expand_dims(out, axes)
        found = matmul(xp, run, a, b, matrix, accumulate, operands, compute, result)
        return found.squeeze(axes) if out is None else out
    shape = product_shape(a.shape, b.shape)
    if out is None:
        out = xp.empty(shape, DTYPES[result])
    elif out.shape != shape:
        raise ShapeError(f"matmul: {a.shape} @ {b.shape} gives {shape}, and out has shape {out.shape}")
    if out.size == 0:
        return out
    if out.dtype != DTYPES[result]:
        return write_result(matmul(xp, run, a, b, None, False, operands, compute, result), out, accumulate)
    if not is_writable(layout_of(out)) or xp.may_share_memory(out, a) or xp.may_share_memory(out, b):
        copy = xp.array(out, order="C") if accumulate else None
        out[...] = matmul(xp, run, a, b, copy, accumulate, operands, compute, result)
        return out
    if a.shape[-1] == 0:
        if not accumulate:
            out.fill(0)
        return out
    a, b = (x if is_readable(layout_of(x)) else xp.ascontiguousarray(x) for x in (a, b))
    plan = plan_of(layout_of(a), layout_of(b), layout_of(out), accumulate, operands, compute, result)
    first, second = (a, b) if plan.a_first else (b, a)
    for starts in plan.starts:
        run(plan.gemm, first, second, out, starts)
    return out


def write_result(found: Any, out: Any, accumulate: bool) -> Any:
    """A result that was computed into a separate array, written or added to `out` if there is one."""
    if out is None:
        return found
    if accumulate:
        out += found
    else:
        out[...] = found
    return out


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a @ b; both have at least two axes. Raises: ShapeError."""
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        raise ShapeError(f"matmul: shapes {a} and {b} do not fit: the last axis of the first is the last but one of the second")
    longest = max(len(a), len(b)) - 2
    batch = list(zip((1,) * (longest + 2 - len(a)) + a[:-2], (1,) * (longest + 2 - len(b)) + b[:-2], strict=True))
    if any(n != other and 1 not in (n, other) for n, other in batch):
        raise ShapeError(f"matmul: shapes {a} and {b} do not fit: leading axes must be equal, or 1")
    return (*(other if n == 1 else n for n, other in batch), a[-2], b[-1])


def layout_of(array: Any) -> Layout:
    size = array.itemsize
    return Layout(array.shape, tuple([stride // size for stride in array.strides]))


@lru_cache(maxsize=4096)
def is_readable(x: Layout) -> bool:
    """Whether cuBLAS can read the matrices of x in place."""
    return storage_order(x) is not None and all(stride >= 0 for n, stride in zip(x.shape[:-2], x.strides, strict=False) if n > 1)


@lru_cache(maxsize=4096)
def is_writable(x: Layout) -> bool:
    """Whether cuBLAS can write the matrices of x in place: as readable, and surely no two elements share memory."""
    past = 1  # elements spanned by the axes so far
    for stride, n in sorted((stride, n) for n, stride in zip(x.shape, x.strides, strict=True) if n > 1):
        if stride < past:
            return False
        past += stride * (n - 1)
    return storage_order(x) is not None


def storage_order(x: Layout) -> tuple[bool, int] | None:
    """Whether a matrix is column-major (else row-major), and its leading dimension in elements; None if it is neither."""
    (rows, columns), (down, right) = x.shape[-2:], x.strides[-2:]
    if (columns == 1 or right == 1) and (rows == 1 or down >= columns):
        return False, down if rows > 1 else columns
    if (rows == 1 or down == 1) and (columns == 1 or right >= rows):
        return True, right if columns > 1 else rows
    return None


# ---------------------------------------------------------------- the plan
class _Axis(NamedTuple):
    """One batch axis: its length, and its strides in a, b and out."""

    n: int
    a: int
    b: int
    out: int


@lru_cache(maxsize=4096)  # every layer of a model repeats the same products
def plan_of(a: Layout, b: Layout, out: Layout, accumulate: bool, operands: str, compute: str, result: str) -> Plan:
    """The calls that compute out = a @ b, or add it to out. No array is empty; a and b are readable, out is writable.

    Raises: ArgumentError for dimensions too large for cuBLAS.
    """
    if _checked_order(out)[0]:  # column-major: outᵀ = bᵀ aᵀ is row-major
        plan = plan_of(_transposed(b), _transposed(a), _transposed(out), accumulate, operands, compute, result)
        return Plan(plan.gemm, plan.starts, a_first=True)
    axes = _merged(_batch_axes(a, b, out))
    a, out, axes = _batch_axis_as_rows(a, out, axes)
    (m, k), n = a.shape[-2:], b.shape[-1]
    (transpose_a, lda), (transpose_b, ldb), (_, ldc) = _checked_order(b), _checked_order(a), _checked_order(out)
    batch = max(axes, default=_Axis(1, 0, 0, 0))
    rest = [axis for axis in axes if axis is not batch]
    gemm = Gemm(
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        m=n,
        n=m,
        k=k,
        lda=lda,
        stride_a=batch.b,
        ldb=ldb,
        stride_b=batch.a,
        beta=1.0 if accumulate else 0.0,
        ldc=ldc,
        stride_c=batch.out,
        batch=batch.n,
        operands=operands,
        result=result,
        compute=compute,
    )
    if (largest := max(m, n, k, lda, ldb, ldc, batch.n)) > MAX_INT:
        raise ArgumentError(
            f"matmul: {largest} is more than cuBLAS can count as a side, a stride or a batch ({MAX_INT}): divide the product"
        )
    return Plan(gemm, tuple(_starts(rest)), a_first=False)


def _checked_order(x: Layout) -> tuple[bool, int]:
    found = storage_order(x)
    if found is None:
        raise ArgumentError(f"matmul: cuBLAS has no way to take a matrix of shape {x.shape} with strides {x.strides}: copy it first")
    return found


def _transposed(x: Layout) -> Layout:
    return Layout((*x.shape[:-2], x.shape[-1], x.shape[-2]), (*x.strides[:-2], x.strides[-1], x.strides[-2]))


def _batch_axes(a: Layout, b: Layout, out: Layout) -> list[_Axis]:
    """The batch axes of `out` that are longer than 1, largest stride first."""

    def along(x: Layout, place: int) -> int:
        at = len(x.shape) - len(out.shape) + place
        return x.strides[at] if at >= 0 and x.shape[at] > 1 else 0

    found = [_Axis(n, along(a, i), along(b, i), along(out, i)) for i, n in enumerate(out.shape[:-2]) if n > 1]
    return sorted(found, key=lambda axis: -axis.out)


def _merged(axes: list[_Axis]) -> list[_Axis]:
    """The axes, with neighbours merged that lie in memory like one axis."""
    found: list[_Axis] = []
    for axis in axes:
        if found and found[-1][1:] == tuple(axis.n * stride for stride in axis[1:]):
            axis = _Axis(found.pop().n * axis.n, *axis[1:])
        found.append(axis)
    return found


def _batch_axis_as_rows(a: Layout, out: Layout, axes: list[_Axis]) -> tuple[Layout, Layout, list[_Axis]]:
    """a and out with one batch axis turned into further rows if possible: one tall product is faster than many small ones."""
    rows = a.shape[-2]
    for axis in axes:
        if axis.b:
            continue
        longer = [_rows_along(x, rows * axis.n, axis_stride) for x, axis_stride in ((a, axis.a), (out, axis.out))]
        goes_on = rows == 1 or (axis.a, axis.out) == (rows * a.strides[-2], rows * out.strides[-2])
        if goes_on and storage_order(longer[0]) is not None and storage_order(longer[1]) == (False, longer[1].strides[-2]):
            return longer[0], longer[1], [other for other in axes if other is not axis]
    return a, out, axes


def _rows_along(x: Layout, rows: int, step: int) -> Layout:
    """The last matrix of x extended to so many rows; `step` is the distance between rows if it had only one."""
    down = step if x.shape[-2] == 1 else x.strides[-2]
    return Layout((rows, x.shape[-1]), (down, x.strides[-1]))


def _starts(axes: list[_Axis]) -> Iterator[tuple[int, int, int]]:
    """Where A (which is b), B (which is a) and C begin in each iteration of the loop over these axes."""
    for places in product(*(range(axis.n) for axis in axes)):
        turns = list(zip(places, axes, strict=True))
        yield sum(i * axis.b for i, axis in turns), sum(i * axis.a for i, axis in turns), sum(i * axis.out for i, axis in turns)
