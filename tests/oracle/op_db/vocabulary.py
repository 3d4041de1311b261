"""What the adapters are written in.

An adapter has the signature of PyTorch's function, receives minigrad tensors in place of PyTorch's, and makes one call of minigrad's
public functions. It translates arguments and computes nothing. What it cannot express it refuses with a written reason (`NotCompared`); an
argument that its signature does not name is an error, so nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from minigrad import functional
from minigrad.tensor import Tensor

Adapter: TypeAlias = Callable[..., Any]
Accepted: TypeAlias = dict[str, dict[str, str]]
"""For an entry: where minigrad gives a result for what PyTorch refuses, by a part of PyTorch's message, and why."""


class NotCompared(Exception):
    """This sample is left out; the reason is counted and printed."""


@dataclass(frozen=True)
class NotOffered:
    """Stands in an adapter's results for an output that minigrad's function does not have; the reason is counted."""

    reason: str


class NotThere(Exception):
    """minigrad has no function of this name."""


class _Vocabulary:
    """`minigrad.functional`, whose missing names are told apart from errors inside it."""

    def __getattr__(self, name: str) -> Any:
        if name not in functional.__all__:
            raise NotThere(f"minigrad.functional.{name}")
        return getattr(functional, name)


F: Any = _Vocabulary()


def refuse(**arguments: Any) -> None:
    """Raises: NotCompared naming the first argument that is set (not None, not False), for options that minigrad does not have."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise NotCompared(f"option {name}= that minigrad does not have")


def axes(x: Tensor, dim: Any) -> Any:
    """PyTorch's dim as NumPy's axis: a list is a tuple, and an empty one means all axes.

    Raises: NotCompared for the axis of a single number, which PyTorch counts as one axis.
    """
    if x.ndim == 0 and dim not in (None, (), []):
        raise NotCompared("an axis of a 0-dimensional tensor: it has none, as in NumPy")
    return (tuple(dim) or None) if isinstance(dim, list | tuple) else dim


def along(x: Tensor, dim: int, index: Any) -> Tensor:
    """x indexed along one axis.

    Raises: NotCompared for an axis that x lacks: the index would be the adapter's mistake.
    """
    if not -x.ndim <= dim < x.ndim:
        raise NotCompared("an axis that x lacks: the adapter builds the index, so minigrad never sees it")
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def flat(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) are the same shape."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def operators_need_tensors(*operands: Any) -> None:
    """Raises: NotCompared if no operand is a tensor, so that Python's own operator would run."""
    if not any(isinstance(x, Tensor) for x in operands):
        raise NotCompared("two Python numbers: Python's own operator runs")
