"""Adapters for what picks, scatters and sorts elements."""

from __future__ import annotations

from typing import Any

from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import F, NotCompared, NotOffered, along, axes, refuse

from minigrad.tensor import Tensor


def gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    axis = axes(x, dim)
    if index.size == 0 and index.ndim != x.ndim:
        raise NotCompared("an empty index with another number of axes than x")
    fits = x.ndim == index.ndim and all(n == m or i == axis % x.ndim for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)))
    if index.ndim == x.ndim and not fits:
        raise NotCompared("gather with fewer indices than rows: take_along_axis takes an index for every row, as in NumPy")
    return F.take_along_axis(x, index, axis=axis)  # type: ignore[no-any-return]


def take_along_dim(x: Tensor, indices: Tensor, dim: Any = None) -> Tensor:
    if dim is None and indices.ndim != 1:
        raise NotCompared("indices of a flattened x that are not flat themselves: NumPy refuses them")
    return F.take_along_axis(x, indices, axis=axes(x, dim))  # type: ignore[no-any-return]


def scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return F.scatter_add(x, index, source, axis=axes(x, dim))  # type: ignore[no-any-return]


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    return along(x, axes(x, dim), index)


def select(x: Tensor, dim: int, index: int) -> Tensor:
    return along(x, dim, index)


def narrow(x: Tensor, dim: int, start: Any, length: int) -> Tensor:
    if isinstance(start, Tensor):
        start = int(start)
    return along(x, dim, slice(start, start + length if start + length or start >= 0 else None))


def unbind(x: Tensor, dim: int = 0) -> Any:
    first = x if dim == 0 or x.ndim == 0 else F.moveaxis(x, dim, 0)
    return list(first)


def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    return F.sort(x, axis=axes(x, dim), descending=descending), NotOffered("places: minigrad's sort returns the values")


def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    refuse(descending=descending)
    return F.argsort(x, axis=axes(x, dim))


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    return F.topk(x, k, axis=axes(x, dim), largest=largest)


def embedding(
    weight: Tensor,
    ids: Tensor,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: Any = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    refuse(max_norm=max_norm, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    return F.embedding(ids, weight, padding_idx)  # type: ignore[no-any-return]


def one_hot(ids: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes == -1:
        raise NotCompared("the number of classes taken from the largest id: minigrad's one_hot is told it")
    return F.one_hot(ids, num_classes, dtype="int64")  # type: ignore[no-any-return]


BEYOND = "a slice beyond the end is cut off there, as in Python"

BOOK = Book(
    {
        "__getitem__": lambda x, key: x[tuple(key) if isinstance(key, list) and any(isinstance(k, slice | list) for k in key) else key],
        "gather": gather,
        "take_along_dim": take_along_dim,
        "scatter_add": scatter_add,
        "index_select": index_select,
        "select": select,
        "narrow": narrow,
        "unbind": unbind,
        "sort": sort,
        "argsort": argsort,
        "msort": lambda x: F.sort(x, axis=0),
        "topk": topk,
        "nn.functional.embedding": embedding,
        "nn.functional.one_hot": one_hot,
    },
    accepted={
        "scatter_add": {"self.dtype to be equal to src.dtype": "values are converted to x's dtype"},
        "narrow": {"out of range": BEYOND, "exceeds dimension size": BEYOND, "must be non-negative": BEYOND, "integral Tensor": BEYOND},
    },
)
