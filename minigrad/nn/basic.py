"""Basic layers: Linear, Embedding, Dropout, Sequential, Identity and Flatten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod, sqrt
from numbers import Integral
from typing import Any, SupportsIndex

from minigrad import functional as F
from minigrad import ops
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, DTypeError, IndexRangeError, ShapeError
from minigrad.nn import init
from minigrad.nn.checks import check_number, check_packing, check_sizes
from minigrad.nn.module import Module
from minigrad.packing import Packing
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike


class Linear(Module):
    """y = x Wᵀ + b. Shapes: x (*b, in_features) → (*b, out_features); weight (out, in), bias (out,).

    Starts uniform in ±1/√in, or normal with standard deviation `std` and a zero bias if that is given (BERT: 0.02).
    Raises: ArgumentError for sizes that are not integers of at least 1, or an `std` that is not a number >= 0.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, std: float | None = None) -> None:
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        if std is not None:
            check_number("Linear", "std", std)
        bound = 1.0 / sqrt(in_features)
        shape = (out_features, in_features)
        self.weight = init.uniform(shape, bound) if std is None else init.normal(shape, std)
        self.bias = None if not bias else init.uniform((out_features,), bound) if std is None else init.zeros(out_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}{'' if self.bias is not None else ', bias=False'}"


class Embedding(Module):
    """Looks up rows of a table. Shapes: ids (*b) integers → (*b, dim); weight (rows, dim). Starts normal with deviation `std`.

    padding_idx: a row that stands for padding; it starts as zeros and receives no gradient.
    Raises: ArgumentError for sizes that are not integers of at least 1, an `std` that is not a number >= 0, or a `padding_idx` that is
    not a row.
    """

    weight: Parameter

    def __init__(self, rows: int, dim: int, padding_idx: int | None = None, *, std: float = 1.0) -> None:
        check_sizes("Embedding", rows=rows, dim=dim)
        check_number("Embedding", "std", std)
        self.weight = init.normal((rows, dim), std, gathered=True)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            if not isinstance(padding_idx, Integral) or isinstance(padding_idx, bool) or not 0 <= padding_idx < rows:
                raise ArgumentError(f"Embedding: padding_idx must be an integer from 0 to {rows - 1}, got {padding_idx!r:.80}")
            table = self.weight.numpy().copy()
            table[padding_idx] = 0.0
            self.weight.assign(table)

    def forward(self, ids: TensorLike) -> Tensor:
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}{padding}"


class Dropout(Module):
    """Drops each unit with probability p while training. The mask depends on the seed, the step, the module's path and the row.

    Raises: ArgumentError unless p is a number between 0 and 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        check_number("Dropout", "p", p, most=1.0)
        self.p = p

    def draw(self, packing: Packing, width: int, keys: Packing | None = None) -> Draw | None:
        """How to draw the mask for packed rows (or attention weights, with `keys`), for fused operations; None if nothing is dropped."""
        return Draw(self.path or "Dropout", self.p, packing, width, keys) if self.training and self.p > 0.0 else None

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """Shapes: x (*b, d), or (rows, d) with the packing of its rows."""
        packing = check_packing("Dropout", x, packing)
        if packing is None:
            return F.dropout(x, self.p, self.training, self.path or "Dropout")
        draw = self.draw(packing, x.shape[1])
        return x if draw is None else ops.dropout(x, draw=draw)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Sequential(Module):
    """Applies layers (or any functions) one after another. `model[i]` is one of them.

    Raises: from `[]`, IndexRangeError for an index beyond the layers and DTypeError for one that is not an integer.
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        self.layers = list(layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __getitem__(self, index: SupportsIndex) -> Any:
        if not isinstance(index, SupportsIndex):
            raise DTypeError(f"Sequential: an index is an integer, got {index!r:.80}; a part is nn.Sequential(*list(model)[a:b])")
        try:
            return self.layers[index]
        except IndexError as error:
            raise IndexRangeError(f"Sequential: there is no layer {index}, it has {len(self)}") from error

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Identity(Module):
    """Returns its input unchanged: a placeholder for a layer that a model does without."""

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """Merges the axes from `start_dim` to `end_dim` into one. Shapes: x (batch, *s) → (batch, ∏ s) by default.

    Raises: ShapeError for an x without these axes.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: TensorLike) -> Tensor:
        x = F.as_tensor(x)
        first, last = (dim + x.ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < x.ndim:
            raise ShapeError(f"Flatten: x has shape {x.shape}, it has no axes from {self.start_dim} to {self.end_dim}")
        return x.reshape((*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
