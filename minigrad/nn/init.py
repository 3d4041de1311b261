"""Initial values of parameters, drawn on the host from the context's seed (`manual_seed`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import sqrt

from minigrad import creation
from minigrad.backend.random import current
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
    if _skipping.get():
        return Parameter(creation.zeros(shape), gathered=gathered)
    return Parameter(current().init.normal(0.0, std, shape).astype(creation.DEFAULT), gathered=gathered)


def uniform(shape: Sequence[int], bound: float) -> Parameter:
    """A float32 parameter, uniform in -bound … bound."""
    if _skipping.get():
        return Parameter(creation.zeros(shape))
    return Parameter(current().init.uniform(-bound, bound, shape).astype(creation.DEFAULT))


def xavier_uniform(shape: Sequence[int]) -> Parameter:
    """Uniform with variance 2 / (fan_in + fan_out). Glorot & Bengio, AISTATS 2010. Shapes: (fan_out, fan_in)."""
    return uniform(shape, sqrt(6.0 / (shape[0] + shape[1])))
