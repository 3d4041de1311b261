"""Adapters for reductions and products: sums, extremes, variances, norms, cumulative sums, matrix products, einsum."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf
from typing import Any

from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import Adapter, F, NotCompared, axes

from minigrad.tensor import Tensor


def reduction(method: str) -> Adapter:
    def adapter(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        return getattr(x, method)(axis=axes(x, dim), keepdims=keepdim)  # type: ignore[no-any-return]

    return adapter


def spread(method: str) -> Adapter:
    """var and std: PyTorch divides by n - 1 unless told otherwise, NumPy by n."""

    def adapter(x: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Tensor:
        if isinstance(dim, bool):  # the overload var(x, unbiased)
            dim, unbiased = None, dim
        ddof = int(unbiased) if unbiased is not None else 1 if correction is None else correction
        return getattr(x, method)(axis=axes(x, dim), ddof=ddof, keepdims=keepdim)  # type: ignore[no-any-return]

    return adapter


def extreme(method: str, place: str) -> Adapter:
    """max(dim) and min(dim) return values and places."""

    def adapter(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        axis = axes(x, dim)
        return getattr(F, method)(x, axis=axis, keepdims=keepdim), getattr(F, place)(x, axis=axis, keepdims=keepdim)

    return adapter


def place(method: str) -> Adapter:
    def adapter(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        return getattr(F, method)(x, axis=axes(x, dim), keepdims=keepdim)  # type: ignore[no-any-return]

    return adapter


def logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    if isinstance(dim, tuple | list) and len(dim) != 1:
        raise NotCompared("logsumexp over several axes: minigrad's is over one")
    axis = dim[0] if isinstance(dim, tuple | list) else dim
    return F.logsumexp(x, axis=axes(x, axis), keepdims=keepdim)  # type: ignore[no-any-return]


def prod(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return F.prod(x, axis=axes(x, dim), keepdims=keepdim)  # type: ignore[no-any-return]


def cumsum(x: Tensor, dim: int) -> Tensor:
    return F.cumsum(x, axis=axes(x, dim))  # type: ignore[no-any-return]


def norm_of(order: Any, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    if order not in (1, 2, inf):
        raise NotCompared("norms of other orders than 1, 2 and inf")
    return F.norm(x, axis=axes(x, dim), ord=order, keepdims=keepdim)  # type: ignore[no-any-return]


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    return norm_of(ord, x, dim, keepdim)


def norm(x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False) -> Tensor:
    if p == "nuc":
        raise NotCompared("the nuclear norm is a matter of singular values")
    return norm_of(2 if p == "fro" else p, x, dim, keepdim)


def linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    over = x.ndim if dim is None else len(dim) if isinstance(dim, tuple | list) else 1
    if over == 2 and ord in (1, -1, 2, -2, inf, -inf, "nuc"):
        raise NotCompared("induced norms of matrices: minigrad's norm is that of the elements")
    return norm_of(2 if ord in (None, "fro") else ord, x, dim, keepdim)


def inner(x: Tensor, y: Tensor) -> Tensor:
    if min(x.ndim, y.ndim) == 0:
        raise NotCompared("inner product with a 0-dimensional tensor, which matmul refuses as in NumPy")
    return x @ y


def einsum(operands: list[Tensor], spec: str) -> Tensor:
    inputs, _, output = spec.partition("->")
    if "..." in inputs and "..." not in output:
        raise NotCompared("einsum that sums the ellipsis away: NumPy's einsum refuses it, and so does minigrad's")
    return F.einsum(spec, *operands)  # type: ignore[no-any-return]


def reflected_matmul(x: Any, y: Any) -> Tensor:
    return y @ x  # type: ignore[no-any-return]


matmul: Callable[[Any, Any], Any] = operator.matmul

BOOK = Book(
    {
        "sum": reduction("sum"),
        "mean": reduction("mean"),
        "amax": reduction("max"),
        "amin": reduction("min"),
        "max:reduction_no_dim": reduction("max"),
        "min:reduction_no_dim": reduction("min"),
        "max:reduction_with_dim": extreme("max", "argmax"),
        "min:reduction_with_dim": extreme("min", "argmin"),
        "argmax": place("argmax"),
        "argmin": place("argmin"),
        "var": spread("var"),
        "var:unbiased": spread("var"),
        "std": spread("std"),
        "std:unbiased": spread("std"),
        "var_mean": lambda x, dim=None, **how: (spread("var")(x, dim, **how), reduction("mean")(x, dim, how.get("keepdim", False))),
        "logsumexp": logsumexp,
        "prod": prod,
        "cumsum": cumsum,
        "linalg.vector_norm": vector_norm,
        "linalg.norm": linalg_norm,
        "linalg.norm:subgradients_at_zero": linalg_norm,
        "norm": norm,
        "norm:fro": norm,
        "norm:inf": norm,
        "matmul": matmul,
        "__rmatmul__": reflected_matmul,
        "mm": matmul,
        "mv": matmul,
        "bmm": matmul,
        "dot": matmul,
        "inner": inner,
        "outer": lambda x, y: F.outer(x, y),
        "einsum": einsum,
    },
    accepted={"mean": {"could not infer output dtype": "the mean of integers is floating"}},
)
