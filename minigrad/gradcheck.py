"""Check derivatives against central differences, in float64.

Up to 64 elements the whole Jacobian is compared, because a random direction can hide an error. Larger inputs are moved along random
directions, larger outputs combined with random weights. Order 2 does the same with the gradient as the function.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from minigrad.autograd import propagate
from minigrad.backend import random
from minigrad.backend.gradients import dense
from minigrad.derivatives import grad
from minigrad.errors import ArgumentError, DTypeError, GradientCheckError
from minigrad.parameter import Parameter
from minigrad.tape import higher_order, no_grad
from minigrad.tensor import Tensor, seed_like

STEP = 1e-5
"""Half the distance between the two points of a central difference, whose error is about STEP² plus 1e-16 / STEP."""

RTOL, ATOL = 1e-6, 1e-7
"""Tolerances for all comparisons; the absolute one covers rounding in the difference quotient of values of order 1."""

FULL = 64
"""Up to this many elements, every one is checked by itself."""
DIRECTIONS = 8
"""How many random directions or combinations stand for more elements than that."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class GradientCheck:
    """The result of a passed check."""

    max_error: float
    """Largest |analytic - numeric| / (1 + |numeric|)."""
    comparisons: int
    """Entries of Jacobians (or products of them with random directions) that were compared."""


def gradcheck(function: Callable[..., Any], inputs: Tensor | Sequence[Any], order: int = 1, seed: int = 0) -> GradientCheck:
    """Compare the gradient of `function(*inputs)` with central differences.

    function: takes the inputs, returns a Tensor or a tuple of them; dropout inside draws the same units every time.
    inputs: tensors (those with requires_grad are checked, and must be float64) and any other arguments of the function.
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
    outputs: Function = partial(_outputs, function)
    first = _compare("gradient", outputs, outputs, args, checked, rng)
    if order == 1:
        return first
    # The differences are taken of ordinary gradients, which were just checked; only the analytic side is recorded for a second derivative.
    again, plain = _gradients_of(function, args, checked, rng)
    second = _compare("second derivative", again, plain, args, checked, rng)
    return GradientCheck(max(first.max_error, second.max_error), first.comparisons + second.comparisons)


Function = Callable[[list[Any]], list[Tensor]]
"""A function from the arguments to floating tensors, whose elements together form one vector."""


def _outputs(function: Callable[..., Any], args: list[Any]) -> list[Tensor]:
    with random.replay():
        result = function(*args)
    results = result if isinstance(result, tuple | list) else (result,)
    if not all(isinstance(r, Tensor) for r in results) or not any(r.dtype.kind == "f" for r in results):
        raise DTypeError("gradcheck: the function must return floating Tensors, else there is nothing to compare")
    return [r for r in results if r.dtype.kind == "f"]


def _gradients_of(function: Callable[..., Any], args: list[Any], checked: list[int], rng: np.random.Generator) -> tuple[Function, Function]:
    """The gradient of a random combination of the outputs (weights well away from 0) with respect to the checked inputs, as a function
    that can be differentiated again and as an ordinary one.
    """
    with no_grad():
        shapes = [out.shape for out in _outputs(function, args)]
    weights = [rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape) for shape in shapes]

    def gradients(create_graph: bool, arguments: list[Any]) -> list[Tensor]:
        leaves = [arguments[i] for i in checked]
        total = Tensor(np.zeros(()))
        with higher_order() if create_graph else nullcontext():
            for out, weight in zip(_outputs(function, arguments), weights, strict=True):
                total = total + (out * weight).sum()
            found = grad(total, leaves, create_graph=create_graph) if total.requires_grad else (None,) * len(leaves)
        return [Tensor(np.zeros(leaf.shape)) if g is None else g for leaf, g in zip(leaves, found, strict=True)]

    return partial(gradients, True), partial(gradients, False)


def _compare(
    what: str, recorded: Function, plain: Function, args: list[Any], checked: list[int], rng: np.random.Generator
) -> GradientCheck:
    """Compare the derivative of `recorded` with differences of `plain`, which has the same values."""
    arguments = list(args)
    for i in checked:
        arguments[i] = args[i] if isinstance(args[i], Parameter) else Tensor(args[i].numpy(), requires_grad=True)
    results = recorded(arguments)
    combinations = _combinations(sum(r.size for r in results), rng)
    analytic = [_analytic_gradients(what, results, [arguments[i] for i in checked], combination) for combination in combinations]
    worst, comparisons = 0.0, 0
    for number, i in enumerate(checked):
        point = np.array(args[i].numpy())
        for j, direction in enumerate(_directions(point.size, rng)):
            moved = _central_difference(plain, args, i, point, direction.reshape(point.shape))
            found = np.array([gradients[number] @ direction for gradients in analytic])
            numeric = combinations @ moved
            error = np.abs(found - numeric)
            allowed = ATOL * np.linalg.norm(direction) * np.linalg.norm(combinations, axis=1) + RTOL * np.abs(numeric)
            if not (error <= allowed).all():
                k = int(np.argmax(~(error <= allowed)))
                alone = combinations[k][combinations[k] != 0]  # a single element: the message gives its entry of the Jacobian, unweighted
                weight = alone[0] if len(alone) == 1 else 1.0
                raise GradientCheckError(
                    f"{what} of input {i}{_location(j, point.shape)}: analytic {found[k] / weight + 0.0:.12g}, "
                    f"central difference {numeric[k] / weight + 0.0:.12g}"
                    f"{_output_location(k, results)}"
                )
            worst = max(worst, float((error / (1.0 + np.abs(numeric))).max(initial=0.0)))
            comparisons += len(error)
    return GradientCheck(worst, comparisons)


def _directions(size: int, rng: np.random.Generator) -> FloatArray:
    """The directions in which `size` numbers are moved: all unit vectors, or for more than FULL a few random ones of length about 1."""
    return np.eye(size) if size <= FULL else rng.standard_normal((DIRECTIONS, size)) / np.sqrt(size)


def _combinations(size: int, rng: np.random.Generator) -> FloatArray:
    """The weights by which results are combined: each element alone, times a number that is not 1 (to detect a pullback that squares its
    gradient), and all together (to detect one that is not additive)."""
    if size > FULL:
        return _directions(size, rng)
    weights = rng.uniform(0.5, 1.5, size) * rng.choice([-1.0, 1.0], size)
    return np.vstack([np.diag(weights), weights])


def _analytic_gradients(what: str, results: list[Tensor], leaves: list[Any], combination: FloatArray) -> list[FloatArray]:
    """The flat gradients of a combination of all results' elements with respect to each leaf, from one backward pass."""
    seeds = []
    start = 0
    for result in results:
        weights = combination[start : start + result.size].reshape(result.shape)
        start += result.size
        if result.node is not None and weights.any():
            seeds.append((result.node, seed_like(result, weights)))
    found = propagate(seeds, [leaf.node for leaf in leaves], retain_graph=True)
    totals = []
    for number, leaf in enumerate(leaves):
        gradient = dense(found.get(leaf.node, np.zeros(leaf.shape)))
        if gradient.shape != leaf.shape:
            raise GradientCheckError(f"{what} of input {number} has shape {gradient.shape}, the input {leaf.shape}")
        totals.append(np.asarray(gradient, np.float64).reshape(-1))
    return totals


def _central_difference(function: Function, args: list[Any], i: int, point: FloatArray, direction: FloatArray) -> FloatArray:
    """The derivative of the results, as one vector, along a direction of input i."""
    values = []
    try:
        for sign in (1.0, -1.0):
            moved = point + sign * STEP * direction
            if isinstance(args[i], Parameter):  # the function may use it other than as an argument, so change it in place
                args[i].assign(moved)
                results = function(args)
            else:
                results = function([Tensor(moved, requires_grad=True) if k == i else a for k, a in enumerate(args)])
            values.append(np.concatenate([r.numpy().reshape(-1) for r in results]))
    finally:
        if isinstance(args[i], Parameter):
            args[i].assign(point)
    difference: FloatArray = (values[0] - values[1]) / (2.0 * STEP)
    return difference


def _location(number: int, shape: tuple[int, ...]) -> str:
    if prod(shape) > FULL:
        return f" along random direction {number}"
    return f" at {tuple(int(k) for k in np.unravel_index(number, shape))}"


def _output_location(number: int, results: list[Tensor]) -> str:
    """The element and result, for the error message."""
    size = sum(r.size for r in results)
    if number >= size or size > FULL:
        return f" (of combination {number} of the results: their sum with random weights)"
    ends = list(accumulate(r.size for r in results))
    which = bisect_right(ends, number)
    return f" (of result {which}{_location(number - ends[which] + results[which].size, results[which].shape)})"
