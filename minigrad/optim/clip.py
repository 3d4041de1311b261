"""Gradient clipping by the global norm."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, sqrt
from typing import Any

import numpy as np

from minigrad.backend import Array, device_of, namespace_of, to_number
from minigrad.backend.gradients import RowSparse
from minigrad.errors import ArgumentError, NonFiniteError
from minigrad.kernels import chosen
from minigrad.op import Kernel
from minigrad.optim.arena import block_length
from minigrad.optim.checks import is_number
from minigrad.optim.groups import named
from minigrad.optim.optimizer import Optimizer
from minigrad.parameter import Parameter
from minigrad.tape import Leaf
from minigrad.tensor import Tensor

HOW = "pass model.parameters(), or model.named_parameters()"


def clip_grad_norm(parameters: Iterable[Parameter | tuple[str, Parameter]], max_norm: float, error_if_nonfinite: bool = False) -> float:
    """Scale all gradients together, in place, so that their global 2-norm is at most `max_norm`; returns the norm before.

    Every gradient is multiplied by min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does. The squares are summed in
    float64, so float32 gradients of any size do not overflow. A parameter given twice counts once. Without any gradient the norm is 0.
    A norm that is not finite is returned as it is, for the caller to decide (skip the step, stop); the gradients are then scaled by the
    same formula: with an infinite norm finite gradients become 0 and infinite ones NaN, with a NaN norm all become NaN.
    error_if_nonfinite: raise instead, before any gradient is scaled. An infinite `max_norm` only measures.

    Raises: ArgumentError for anything but a list of parameters or (name, parameter) pairs, and for a `max_norm` that is not a number >= 0;
    NonFiniteError, which names the first gradient that is not finite.
    """
    check_max_norm(max_norm)
    members = {p: name for name, p in reversed(named(parameters, HOW)) if p.leaf.grad is not None}
    leaves = [p.leaf for p in reversed(members)]
    norm = sqrt(_as_float(sum(squared_norm(leaf) for leaf in leaves)))
    if error_if_nonfinite and not isfinite(norm):
        raise NonFiniteError(_first_nonfinite([(members[p], p) for p in reversed(members)], norm))
    coefficient = clip_coefficient(norm, max_norm)
    if coefficient != 1:  # also for NaN
        with np.errstate(invalid="ignore"):  # inf · 0, announced above
            for leaf in leaves:
                gradient: Any = leaf.grad
                if isinstance(gradient, RowSparse):
                    gradient = gradient.scaled(coefficient)
                else:
                    gradient *= coefficient
                leaf.grad = gradient
    return norm


def check_max_norm(max_norm: Any) -> None:
    """Raises: ArgumentError unless `max_norm` is a number >= 0."""
    if not is_number(max_norm) or not max_norm >= 0:
        raise ArgumentError(f"max_norm must be a number >= 0, got {max_norm!r}")


def clip_coefficient(norm: float, max_norm: float) -> float:
    """The factor by which gradients of this norm are clipped: 1 or less."""
    coefficient = max_norm / (norm + 1e-6)
    return 1.0 if coefficient >= 1 else coefficient  # NaN stays NaN


def gradient_norm(optimizer: Optimizer) -> float:
    """The 2-norm of all gradients of an optimizer's parameters."""
    return sqrt(_as_float(gradient_squares(optimizer)))


def gradient_squares(optimizer: Optimizer) -> Any:
    """The square of `gradient_norm`. On a GPU it stays there, and neighbouring gradients are read as one array."""
    runs = optimizer.arena.gradient_runs()
    if runs is not None and device_of(optimizer.arena.gradients) != "cpu":  # there are no launches to save on a CPU
        return sum(map(sum_of_squares, runs))
    return sum(squared_norm(p.leaf) for p in optimizer.steps if p.leaf.grad is not None)


def squared_norm(leaf: Leaf) -> Any:
    """The squared norm of a leaf's gradient, which must exist; on a GPU it stays there."""
    if isinstance(leaf.grad, RowSparse):
        leaf.grad = leaf.grad.coalesce()  # a row may occur twice; the sum is kept for later readers
        return sum_of_squares(leaf.grad.values)
    return sum_of_squares(Tensor.wrap(leaf.grad).array)


def sum_of_squares(array: Array) -> Any:
    """The sum of an array's squares, in float64; on a GPU it stays there."""
    return squares.run(namespace_of(array), [array], {}, keep=False)


@Kernel
def squares(xp: Any, array: Array) -> Any:
    """See `sum_of_squares`. Block by block, so that no second array of this size is made."""
    flat, step = array.reshape(-1), block_length(array)
    total: Any = 0.0
    for start in range(0, flat.size, step):
        block = flat[start : start + step].astype("float64")
        total = total + xp.dot(block, block)
    return total


@squares.on("cupy")
def _in_two_launches(xp: Any, array: Array) -> Any:
    """The sum from CUDA kernels. Registered here for the reason given at `adam._in_one_launch`."""
    if chosen == "off":
        return NotImplemented
    from minigrad.kernels.cuda.optimizer import sum_of_squares as launched

    return launched(xp, array)


def _as_float(total: Any) -> float:
    return float(total if isinstance(total, int | float) else to_number(total))  # 0 without gradients, or summed by NumPy


def _first_nonfinite(members: Iterable[tuple[str, Parameter]], norm: float) -> str:
    for name, p in members:
        gradient: Any = p.leaf.grad
        array = gradient.values if isinstance(gradient, RowSparse) else Tensor.wrap(gradient).array
        if not np.isfinite(_as_float(sum_of_squares(array))):
            return f"the gradient of {name} is not finite (norm of all: {norm})"
    return f"the norm of all gradients is {norm}, though each of them is finite"
