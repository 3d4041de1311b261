"""Initial values of parameters, drawn on the host from the context's seed (`manual_seed`). All raise ArgumentError for a bad shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import sqrt
from typing import Any

from minigrad import creation
from minigrad.backend.random import current
from minigrad.errors import ArgumentError
from minigrad.nn.checks import check_number, check_sizes
from minigrad.parameter import Parameter

_skipping: ContextVar[bool] = ContextVar("init_skipping", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Inside: parameters start as zeros and nothing is drawn. For models whose weights are about to be read from a file."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def zeros(shape: int | Sequence[int]) -> Parameter:
    """A float32 parameter of zeros."""
    return Parameter(creation.zeros(shape))


def ones(shape: int | Sequence[int]) -> Parameter:
    """A float32 parameter of ones."""
    return Parameter(creation.ones(shape))


def normal(shape: Sequence[int], std: float, gathered: bool = False) -> Parameter:
    """A float32 parameter from the normal distribution with mean 0. BERT's matrices use std 0.02."""
    check_number("normal", "std", std)
    return _drawn(lambda: current().init.normal(0.0, std, shape), shape, gathered)


def uniform(shape: Sequence[int], bound: float) -> Parameter:
    """A float32 parameter, uniform in -bound … bound."""
    check_number("uniform", "bound", bound)
    return _drawn(lambda: current().init.uniform(-bound, bound, shape), shape)


def xavier_uniform(shape: Sequence[int]) -> Parameter:
    """Uniform with variance 2 / (fan_in + fan_out). Glorot & Bengio, AISTATS 2010. Shapes: (fan_out, fan_in)."""
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ArgumentError(f"xavier_uniform: the shape of a matrix is (fan_out, fan_in), got {shape!r:.80}")
    check_sizes("xavier_uniform", fan_out=shape[0], fan_in=shape[1])
    return uniform(shape, sqrt(6.0 / (shape[0] + shape[1])))


def _drawn(draw: Callable[[], Any], shape: Sequence[int], gathered: bool = False) -> Parameter:
    if _skipping.get():
        return Parameter(creation.zeros(shape), gathered=gathered)
    try:
        numbers = draw()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"cannot make a parameter of shape {shape!r:.80}: {error}; a shape is a tuple of integers") from error
    return Parameter(numbers, dtype=creation.DEFAULT, gathered=gathered)
