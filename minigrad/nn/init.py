"""Initial values of parameters, drawn on the host from the context's seed (`manual_seed`). All raise ArgumentError for a bad shape.

A weight has shape (out, in, *kernel): a matrix, or the filters of a convolution. Its fans are the number of terms in each sum of the
forward pass (fan_in = in · kernel) and of the backward pass (fan_out = out · kernel). The schemes choose the variance by them, so that
signals neither grow nor fade from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from math import erf, isfinite, prod, sqrt
from numbers import Real
from typing import Any

from minigrad import creation
from minigrad import functional as F
from minigrad.backend import Array, namespace_of
from minigrad.backend import numpy as host
from minigrad.backend.random import current
from minigrad.errors import ArgumentError
from minigrad.modes import Mode
from minigrad.nn.checks import check_number, check_sizes
from minigrad.parameter import Parameter

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": sqrt(2.0), "selu": 3.0 / 4.0}
"""PyTorch's gains, which compensate for a nonlinearity; that of leaky_relu depends on its slope."""

_skipping: ContextVar[bool] = ContextVar("init_skipping", default=False)


def skipped() -> Mode[bool]:
    """A mode in which new parameters are zeros and nothing is drawn, for models whose weights are about to be read from a file."""
    return Mode(_skipping, True)


# ---------------------------------------------------------------- the same for every shape
def zeros(shape: int | Sequence[int]) -> Parameter:
    """A float32 parameter of zeros."""
    return Parameter(creation.zeros(shape))


def ones(shape: int | Sequence[int]) -> Parameter:
    """A float32 parameter of ones."""
    return Parameter(creation.ones(shape))


def constant(shape: int | Sequence[int], value: float) -> Parameter:
    """A float32 parameter filled with one number."""
    _check_real("constant", "value", value)
    return Parameter(creation.full(shape, value))


def eye(shape: Sequence[int]) -> Parameter:
    """A float32 matrix with ones on the diagonal: a linear layer that passes on as many inputs as it can. Shapes: (rows, columns).

    Raises: ArgumentError for a shape that is not that of a matrix.
    """
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ArgumentError(f"eye: the shape of a matrix is (rows, columns), got {shape!r:.80}")
    check_sizes("eye", rows=shape[0], columns=shape[1])
    return Parameter(F.equal(creation.arange(shape[0])[:, None], creation.arange(shape[1])), dtype=creation.DEFAULT)


def normal(shape: Sequence[int], std: float, gathered: bool = False) -> Parameter:
    """A float32 parameter from the normal distribution with mean 0. BERT's matrices use std 0.02."""
    check_number("normal", "std", std)
    return _drawn(lambda: current().init.normal(0.0, std, shape), shape, gathered)


def uniform(shape: Sequence[int], bound: float) -> Parameter:
    """A float32 parameter, uniform in -bound … bound."""
    check_number("uniform", "bound", bound)
    return _drawn(lambda: current().init.uniform(-bound, bound, shape), shape)


def trunc_normal(shape: Sequence[int], std: float, a: float = -2.0, b: float = 2.0) -> Parameter:
    """A float32 parameter from the normal distribution with mean 0, truncated to a … b.

    As in PyTorch, a and b are absolute limits, not multiples of std; the variance is below std² if they cut off much.
    Raises: ArgumentError for limits that keep less than a hundredth of the distribution.
    """
    check_number("trunc_normal", "std", std)
    _check_real("trunc_normal", "a", a)
    _check_real("trunc_normal", "b", b)
    kept = (erf(b / (std * sqrt(2.0))) - erf(a / (std * sqrt(2.0)))) / 2.0 if std else float(a <= 0.0 <= b)
    if kept < 0.01:
        raise ArgumentError(f"trunc_normal: {a} … {b} holds less than 1 % of the normal distribution with std {std}; use uniform")

    def draw() -> Array:
        numbers = current().init.normal(0.0, std, shape)
        while (outside := (numbers < a) | (numbers > b)).any():
            numbers[outside] = current().init.normal(0.0, std, int(outside.sum()))
        return numbers

    return _drawn(draw, shape)


# ---------------------------------------------------------------- by fan
def xavier_uniform(shape: Sequence[int], gain: float = 1.0) -> Parameter:
    """Uniform with variance gain² · 2 / (fan_in + fan_out). Glorot & Bengio, AISTATS 2010. Shapes: (out, in, *kernel)."""
    return uniform(shape, sqrt(3.0) * _xavier_std("xavier_uniform", shape, gain))


def xavier_normal(shape: Sequence[int], gain: float = 1.0) -> Parameter:
    """Normal with variance gain² · 2 / (fan_in + fan_out). Glorot & Bengio, AISTATS 2010. Shapes: (out, in, *kernel)."""
    return normal(shape, _xavier_std("xavier_normal", shape, gain))


def kaiming_uniform(shape: Sequence[int], a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Parameter:
    """Uniform with variance gain² / fan, for the gain of `nonlinearity` (a: slope of leaky_relu). He et al., arXiv 1502.01852.

    mode: "fan_in" keeps the variance of activations, "fan_out" that of gradients. Shapes: (out, in, *kernel).
    """
    return uniform(shape, sqrt(3.0) * _kaiming_std("kaiming_uniform", shape, a, mode, nonlinearity))


def kaiming_normal(shape: Sequence[int], a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Parameter:
    """Normal with variance gain² / fan; arguments as in `kaiming_uniform`. He et al., arXiv 1502.01852."""
    return normal(shape, _kaiming_std("kaiming_normal", shape, a, mode, nonlinearity))


def orthogonal(shape: Sequence[int], gain: float = 1.0) -> Parameter:
    """gain · Q with orthonormal rows, or columns where there are more rows than columns. Saxe et al., arXiv 1312.6120.

    Q is the orthogonal factor of a normal matrix, with the signs that make its distribution uniform (Mezzadri, arXiv math-ph/0609050).
    Shapes: (out, in, *kernel), seen as a matrix (out, in · kernel).
    """
    _fans("orthogonal", shape)
    check_number("orthogonal", "gain", gain)
    rows, columns = shape[0], prod(shape[1:])

    def draw() -> Array:
        numbers = current().init.normal(0.0, 1.0, (max(rows, columns), min(rows, columns)))
        xp = namespace_of(numbers)
        q, r = xp.linalg.qr(numbers)
        q = q * xp.sign(xp.diagonal(r))
        return (q if rows >= columns else q.T).reshape(shape) * gain

    return _drawn(draw, shape)


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """The factor on the standard deviation that compensates for a nonlinearity: √2 for relu, which passes on half of the variance.

    param: the slope of leaky_relu below 0, whose gain is √(2 / (1 + param²)). Raises: ArgumentError naming the known nonlinearities.
    """
    if nonlinearity == "leaky_relu":
        _check_real("calculate_gain", "the slope of leaky_relu", param)
        return sqrt(2.0 / (1.0 + param * param))
    if not isinstance(nonlinearity, str) or nonlinearity not in GAINS:
        raise ArgumentError(f"no gain is known for {nonlinearity!r:.80}: known are {', '.join(GAINS)}, leaky_relu")
    return GAINS[nonlinearity]


def _check_real(name: str, what: str, value: Any) -> None:
    if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
        raise ArgumentError(f"{name}: {what} is a finite number, got {value!r:.80}")


def _fans(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out)."""
    if not isinstance(shape, Sequence) or len(shape) < 2:
        raise ArgumentError(f"{name}: the shape of a weight is (out, in, *kernel), of a matrix (fan_out, fan_in), got {shape!r:.80}")
    check_sizes(name, fan_out=shape[0], fan_in=shape[1], **{f"kernel axis {i}": n for i, n in enumerate(shape[2:])})
    return prod(shape[1:]), shape[0] * prod(shape[2:])


def _xavier_std(name: str, shape: Sequence[int], gain: float) -> float:
    check_number(name, "gain", gain)
    return gain * sqrt(2.0 / sum(_fans(name, shape)))


def _kaiming_std(name: str, shape: Sequence[int], a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = _fans(name, shape)
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f'{name}: mode is "fan_in" or "fan_out", not {mode!r:.80}')
    return calculate_gain(nonlinearity, a) / sqrt(fan_in if mode == "fan_in" else fan_out)


def _drawn(draw: Callable[[], Any], shape: Sequence[int], gathered: bool = False) -> Parameter:
    try:
        numbers = host.zeros(shape, creation.DEFAULT) if _skipping.get() else draw()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"cannot make a parameter of shape {shape!r:.80}: {error}; a shape is a tuple of integers") from error
    # Not copied: for zeros that a file will fill, the system has not even allocated memory yet.
    return Parameter.around(numbers.astype(creation.DEFAULT, copy=False), gathered)
