"""Check derivatives against central differences, in float64.

Small inputs (up to 64 elements) are compared element by element: a single random direction can hide an error. Larger ones are compared
along random directions. Order 2 checks the gradient's own derivative, along random directions of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.autograd import higher_order, no_grad
from minigrad.backend import random
from minigrad.derivatives import grad
from minigrad.errors import ArgumentError, DTypeError, GradientCheckError
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

STEP = 1e-5
"""Half the distance of the two points of a central difference: its error is about STEP² plus 1e-16 / STEP."""

RTOL, ATOL = 1e-6, 1e-7
"""One pair of tolerances for everything; the absolute one covers the rounding of the difference quotient (values of order 1)."""

FULL = 64
DIRECTIONS = 8

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class GradientCheck:
    """What a passed check saw."""

    max_error: float
    """Largest |analytic - numeric| / (1 + |numeric|)."""
    comparisons: int

    def __bool__(self) -> bool:
        return True


def gradcheck(function: Callable[..., Any], inputs: Tensor | Sequence[Any], order: int = 1, seed: int = 0) -> GradientCheck:
    """Compare the gradient of `function(*inputs)` with central differences.

    function: takes the inputs, returns a Tensor or a tuple of them; dropout inside draws the same units every time.
    inputs: tensors (those with requires_grad are checked, and must be float64) and anything else the function takes.
    order: 1, or 2 to check first and second derivatives.

    Raises: GradientCheckError naming the input, the element and both values; DTypeError for an input that is not float64.
    """
    if order not in (1, 2):
        raise ArgumentError(f"gradcheck: order is 1 or 2, got {order}")
    args = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
    if not checked:
        raise ArgumentError("gradcheck: no input has requires_grad=True, there is nothing to check")
    for i in checked:
        if args[i].dtype != np.float64:
            raise DTypeError(f"gradcheck: input {i} is {args[i].dtype}; finite differences need float64")
    rng = np.random.default_rng(seed)
    first = _compare("gradient", _weighted(function, args, rng), args, checked, rng)
    if order == 1:
        return first
    second = _compare("second derivative", _directional_gradient(function, args, checked, rng), args, checked, rng)
    return GradientCheck(max(first.max_error, second.max_error), first.comparisons + second.comparisons)


Scalar = Callable[[list[Any]], Tensor]


def _outputs(function: Callable[..., Any], args: list[Any]) -> list[Tensor]:
    with random.replay():
        result = function(*args)
    results = result if isinstance(result, tuple | list) else (result,)
    if not all(isinstance(r, Tensor) for r in results) or not any(r.dtype.kind == "f" for r in results):
        raise DTypeError("gradcheck: the function must return floating Tensors, else there is nothing to compare")
    return [r for r in results if r.dtype.kind == "f"]


def _weighted(function: Callable[..., Any], args: list[Any], rng: np.random.Generator) -> Scalar:
    """The function's outputs as one number: a random combination, fixed once, with weights well away from 0."""
    with no_grad():
        shapes = [out.shape for out in _outputs(function, args)]
    weights = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape) for shape in shapes]

    def scalar(arguments: list[Any]) -> Tensor:
        total = Tensor(np.zeros(()))
        for out, weight in zip(_outputs(function, arguments), weights, strict=True):
            total = total + (out * weight).sum()
        return total

    return scalar


def _directional_gradient(function: Callable[..., Any], args: list[Any], checked: list[int], rng: np.random.Generator) -> Scalar:
    """⟨gradient, a random direction⟩: its gradient is the Hessian times that direction."""
    scalar = _weighted(function, args, rng)
    directions = [rng.standard_normal(args[i].shape) for i in checked]

    def slope(arguments: list[Any]) -> Tensor:
        leaves = [arguments[i] for i in checked]
        total = Tensor(np.zeros(()))
        with higher_order():
            output = scalar(arguments)
            if output.node is None:
                return total
            for gradient, direction in zip(grad(output, leaves, create_graph=True), directions, strict=True):
                if gradient is not None:
                    total = total + (gradient * direction).sum()
        return total

    return slope


def _compare(what: str, scalar: Scalar, args: list[Any], checked: list[int], rng: np.random.Generator) -> GradientCheck:
    leaves = [Tensor(args[i].numpy(), requires_grad=True) if not isinstance(args[i], Parameter) else args[i] for i in checked]
    arguments = list(args)
    for i, leaf in zip(checked, leaves, strict=True):
        arguments[i] = leaf
    value = scalar(arguments)
    analytic = grad(value, leaves) if value.node is not None else (None,) * len(leaves)
    worst, comparisons = 0.0, 0
    for i, gradient in zip(checked, analytic, strict=True):
        point = np.array(args[i].numpy())
        slopes = np.zeros(point.shape) if gradient is None else gradient.numpy()
        if slopes.shape != point.shape:
            raise GradientCheckError(f"{what} of input {i} has shape {slopes.shape}, the input {point.shape}")
        for where, direction in _directions(point.shape, rng):
            numeric = _central_difference(scalar, args, i, point, direction)
            found = float((slopes * direction).sum())
            error = abs(found - numeric)
            if not error <= ATOL * np.abs(direction).sum() + RTOL * abs(numeric):
                raise GradientCheckError(f"{what} of input {i}{where}: analytic {found:.12g}, central difference {numeric:.12g}")
            worst, comparisons = max(worst, error / (1.0 + abs(numeric))), comparisons + 1
    return GradientCheck(worst, comparisons)


def _directions(shape: tuple[int, ...], rng: np.random.Generator) -> list[tuple[str, FloatArray]]:
    size = int(np.prod(shape))
    if size <= FULL:
        units = np.eye(size)
        return [(f" at {tuple(int(k) for k in np.unravel_index(j, shape))}", units[j].reshape(shape)) for j in range(size)]
    return [(f" along random direction {j}", rng.standard_normal(shape) / np.sqrt(size)) for j in range(DIRECTIONS)]


def _central_difference(scalar: Scalar, args: list[Any], i: int, point: FloatArray, direction: FloatArray) -> float:
    values = []
    try:
        for sign in (1.0, -1.0):
            moved = point + sign * STEP * direction
            if isinstance(args[i], Parameter):  # the function may reach it by another way than its argument: change it in place
                args[i].assign(moved)
                values.append(float(scalar(args)))
            else:
                values.append(float(scalar([Tensor(moved, requires_grad=True) if k == i else a for k, a in enumerate(args)])))
    finally:
        if isinstance(args[i], Parameter):
            args[i].assign(point)
    return (values[0] - values[1]) / (2.0 * STEP)
